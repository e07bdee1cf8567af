"""What is written about the package: its pages, and the code in them."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT / "docs/pages")): path.read_text()
    for path in sorted((ROOT / "docs/pages").rglob("*.md"))
}
SHOWN = r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?"


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def shown(text: str) -> list[tuple[str, str]]:
    """Each piece of Python with the output that is shown below it, or nothing."""
    return re.findall(SHOWN, text, re.S | re.M)


def run(code: str, output: str, namespace: dict) -> None:
    """Executes code, and compares what it prints with what is shown, if anything is."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "a block of code", "exec"), namespace)
    if output:
        assert lines(printed.getvalue()) == lines(output)


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def links(text: str) -> list[str]:
    """Targets of the links and pictures that lead to files of the repository."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.S | re.M)
    return [
        target.partition("#")[0]
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", prose)
    ]
