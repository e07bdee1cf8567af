"""What the site takes from elsewhere in the repository, so that nothing is kept twice.

Links are written as they are right in the repository. On the site, links to files that
are pages or pictures there lead to those, and links to other files become plain text.
Notebooks become pages, with the text and the pictures that are stored in them.
"""

import posixpath
import re
from pathlib import Path

import notebooks
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "examples/AUDITS.md": "audits.md",
    "benchmarks/README.md": "how/benchmarks.md",
}
PICTURES = ("examples/pictures/*.png", "benchmarks/results/*.png")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files, config):
    """Adds the pages and pictures that lie outside of the folder of pages."""
    found = [path for pattern in PICTURES for path in sorted(ROOT.glob(pattern))]
    pictures = {str(path.relative_to(ROOT)): f"pictures/{path.name}" for path in found}
    for source, target in {**PAGES, **pictures}.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    config.extra["places"] = PAGES | pictures | _add_notebooks(files, config)
    return files


def _add_notebooks(files, config):
    """Adds a page for each notebook, with its pictures; the pages by their sources."""
    places = {}
    for path in sorted(notebooks.FOLDER.glob("*.ipynb")):
        text, pictures = notebooks.page(path)
        target = f"notebooks/{path.stem}.md"
        for name, content in {f"{path.stem}.md": text, **pictures}.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
        places[str(path.relative_to(ROOT))] = target
    return places


def on_page_markdown(markdown, page, config, files):
    """Writes links as they are right on the site."""
    places = config.extra["places"]
    sources = {target: source for source, target in places.items()}
    here = page.file.src_uri
    there = sources.get(here, f"docs/pages/{here}")

    def changed(link):
        picture, text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(there), target))
        place = places.get(path, path.removeprefix("docs/pages/"))
        if place == here:  # a notebook's page has a link to the notebook itself
            place = path.removeprefix("docs/pages/")
        if not files.get_file_from_path(place):
            if not (ROOT / path).exists():
                raise FileNotFoundError(f"{there} has a link to {path}")
            return text
        to = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{picture}[{text}]({to}{anchor or ''})"

    return LINK.sub(changed, markdown)
