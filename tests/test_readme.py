"""The README: its code runs, its names exist, its figures are those measured."""

import ast
import re
from pathlib import Path

import pytest

import jaxinit
import jaxinit.compare
import jaxinit.data_dependent
import jaxinit.linen
import jaxinit.nnx
import jaxinit.plots
import jaxinit.report
import jaxinit.schemes
import jaxinit.testing
from benchmarks import summary

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SCHEMES = (ROOT / "examples/SCHEMES.md").read_text()
PUBLIC = {
    alias.asname
    for node in ast.parse((ROOT / "jaxinit/__init__.py").read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def missing_names(text: str) -> set[str]:
    """Public names that no piece of code in `text` has."""
    code = " ".join(re.findall(r"`([^`]+)`", re.sub("```", "`", text)))
    return PUBLIC - set(re.findall(r"\w+", code))


def unknown_names(text: str) -> set[str]:
    """Names below `jaxinit` that `text` uses and that do not exist."""
    imports = re.findall(r"^from jaxinit import (.+)$", text, re.M)
    used = {name.strip() for names in imports for name in names.split(",")}
    used |= set(re.findall(r"\bjaxinit\.([A-Za-z]\w*)", text))
    table = re.findall(r"^\| (`.+?`) \|", text.partition("## Init")[2], re.M)
    cells = re.findall(r"`([a-zA-Z]\w*)[(`]", " ".join(table))
    return {name for name in {*used, *cells} if not hasattr(jaxinit, name)}


@pytest.mark.parametrize(("text", "least"), [(README, 8), (SCHEMES, 1)])
def test_python_code_runs(text, least):
    code = blocks("python", text)
    namespace = {}
    for number, block in enumerate(code):
        exec(compile(block, f"block {number}", "exec"), namespace)
    assert len(code) >= least


def test_all_public_names_are_explained():
    assert not missing_names(README)
    assert missing_names(README.replace("einsum_axes", "")) == {"einsum_axes"}


def scheme_names(text: str) -> set[str]:
    return set(re.findall(r"`schemes\.(\w+)\(", text))


def test_all_schemes_are_explained():
    known = {name for name, x in vars(jaxinit.schemes).items() if callable(x)}
    assert scheme_names(SCHEMES) == known
    assert scheme_names(SCHEMES.replace("schemes.vit(", "schemes.vip(")) != known


def test_all_names_exist():
    assert not unknown_names(README)
    planted = README + "\nfrom jaxinit import he_normal, no_such\n`jaxinit.nor`\n"
    assert unknown_names(planted) == {"no_such", "nor"}
    planted = README.replace("| `constant(value", "| `constants(value")
    assert unknown_names(planted) == {"constants"}


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_tests_line_is_what_ci_runs():
    job, tests, trial = (block.strip() for block in blocks("sh"))
    assert trial.startswith("jaxinit compare examples.batch_norm:plain ")
    assert job.endswith("python -m jaxinit init examples.gpt2:small")
    (pattern,) = re.findall(r"grep '(.+)' README.md", (ROOT / ".ci/run").read_text())
    assert [line for line in README.splitlines() if re.search(pattern, line)] == [tests]


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {jaxinit.__version__}\n" in citation


@pytest.mark.parametrize("path", re.findall(r"`(tests/\S+\.py)`", CONTRIBUTING))
def test_files_of_the_map_exist(path):
    assert (ROOT / path).exists()


def test_the_map_has_every_room():
    rooms = {path.stem for path in (ROOT / "jaxinit").glob("*") if path.suffix != ""}
    rooms |= {path.parent.name for path in (ROOT / "jaxinit").glob("*/__init__.py")}
    named = set(re.findall(r"\w+", CONTRIBUTING.split("```")[3]))
    assert rooms - named - {"__init__", "__main__", "_version", "py"} == set()


def test_figures_are_the_last_results():
    _, _, rest = README.partition(summary.BEGIN)
    assert rest.partition(summary.END)[0] == summary.text()
