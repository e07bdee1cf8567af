"""The pages in docs: their code runs, and they name what exists and all of it."""

import ast
import re
import sys

import pytest
from written import PAGES, ROOT, blocks, links, run, shown

import jaxinit
import jaxinit.audit
import jaxinit.check
import jaxinit.compare
import jaxinit.data_dependent
import jaxinit.linen
import jaxinit.nnx
import jaxinit.plots
import jaxinit.report
import jaxinit.schemes
import jaxinit.schemes.mup
import jaxinit.testing

pytestmark = pytest.mark.unoptimized

EXHAUSTIVE = {
    "tutorial.md",
    "guides/auditing.md",
    "guides/checking.md",
    "guides/debugging.md",
    "guides/devices.md",
    "guides/ensembles.md",
    "guides/finetuning.md",
    "guides/keras.md",
    "guides/nnx.md",
    "guides/testing.md",
}
MARKS = {
    **dict.fromkeys(EXHAUSTIVE, pytest.mark.exhaustive),
    "guides/initializers.md": pytest.mark.optimized,
}
CATALOGUE = PAGES["reference/catalogue.md"]
SCHEMES = PAGES["schemes.md"]
GUIDES = "\n".join(text for name, text in PAGES.items() if "guides/" in name)
REFERENCE = "\n".join(text for name, text in PAGES.items() if "reference/" in name)


def exported(module: str) -> set[str]:
    """Names that a module takes from others to be its own."""
    path = ROOT / "jaxinit" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return {
        alias.asname
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name != "__getattr__"
    }


PUBLIC = exported("")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(name, marks=MARKS.get(name, ()))
        for name, text in PAGES.items()
        if blocks("python", text)
    ],
)
def test_code_runs_and_prints_what_is_shown(page):
    """The blocks of a page go on from those above them."""
    namespace = {}
    for code, output in shown(PAGES[page]):
        run(code, output, namespace)


def test_links_lead_somewhere():
    targets = {(name, target) for name, text in PAGES.items() for target in links(text)}
    broken = {
        (name, target)
        for name, target in targets
        if not (ROOT / "docs/pages" / name).parent.joinpath(target).exists()
    }
    assert len(targets) > 50
    assert broken == set()


def missing_names(text: str) -> set[str]:
    """Public names that no piece of code in `text` has."""
    code = " ".join(re.findall(r"`([^`]+)`", re.sub("```", "`", text)))
    return PUBLIC - set(re.findall(r"\w+", code))


def test_all_public_names_are_explained():
    text = GUIDES + CATALOGUE
    assert not missing_names(text)
    assert missing_names(text.replace("einsum_axes", "")) == {"einsum_axes"}


def test_all_public_names_are_in_the_reference():
    """What a module defines is shown with it; what it takes from others, by name."""
    named = set(re.findall(r"^::: jaxinit\.(\S+)$", REFERENCE, re.M))
    assert PUBLIC - named == {"__version__"}
    modules = {name for name in named if f"jaxinit.{name}" in sys.modules}
    doors = {path.stem for path in (ROOT / "jaxinit").glob("[a-z]*.py")}
    in_parts = {"linen", "nnx", "config"}  # shown name by name; cli is a command
    assert doors - in_parts - {"cli"} | {"laws", "schemes.mup"} <= modules
    taken = {f"{name}.{each}" for name in modules for each in exported(name)}
    assert taken - named == set()


def scheme_names(text: str) -> set[str]:
    return set(re.findall(r"`schemes\.(\w+)\(", text))


def test_all_schemes_are_explained():
    known = {name for name, x in vars(jaxinit.schemes).items() if callable(x)}
    assert scheme_names(SCHEMES) == known
    assert scheme_names(SCHEMES.replace("schemes.vit(", "schemes.vip(")) != known
    referred = re.findall(r"^::: jaxinit\.schemes\.(\w+)$", REFERENCE, re.M)
    assert known - set(referred) == set()


def unknown_names(text: str) -> set[str]:
    """Names below `jaxinit` that `text` uses and that do not exist."""
    imports = re.findall(r"^from jaxinit import (.+)$", text, re.M)
    used = {name.strip() for names in imports for name in names.split(",")}
    used |= set(re.findall(r"\bjaxinit\.([A-Za-z]\w*)", text))
    return {name for name in used if not hasattr(jaxinit, name)}


def unknown_rows(text: str) -> set[str]:
    """Names in the first column of a table that are not those of initializers."""
    cells = re.findall(r"^\| (`.+?`) \|", text, re.M)
    names = re.findall(r"`([a-zA-Z]\w*)[(`]", " ".join(cells))
    return {name for name in names if not hasattr(jaxinit, name)}


def test_all_names_exist():
    text = "\n".join(PAGES.values())
    assert not unknown_names(text)
    planted = text + "\nfrom jaxinit import he_normal, no_such\n`jaxinit.nor`\n"
    assert unknown_names(planted) == {"no_such", "nor"}


def test_all_rows_of_the_catalogue_exist():
    assert not unknown_rows(CATALOGUE)
    planted = CATALOGUE.replace("| `constant(value", "| `constants(value")
    assert unknown_rows(planted) == {"constants"}
