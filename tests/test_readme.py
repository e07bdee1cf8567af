"""The README: its code runs alone, and shows what is printed and measured."""

import re

import pytest
from written import ROOT, blocks, links, run, shown

import jaxinit
from benchmarks import summary

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_it_is_short_enough_to_be_read():
    assert len(README.splitlines()) <= 200


def cases() -> list:
    """Blocks that claim bits are compiled as users compile them."""
    return [
        pytest.param(
            code,
            output,
            marks=() if "bits" in code else pytest.mark.unoptimized,
            id=str(number),
        )
        for number, (code, output) in enumerate(shown(README))
    ]


@pytest.mark.parametrize(("code", "output"), cases())
def test_each_block_runs_alone_and_prints_what_is_shown(code, output):
    assert output
    run(code, output, {})


def test_what_is_not_printed_is_found():
    with pytest.raises(AssertionError):
        run("print(1)", "2\n", {})


@pytest.mark.parametrize("target", sorted({*links(README), *links(CONTRIBUTING)}))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_tests_line_is_what_ci_runs():
    job, tests = (block.strip() for block in blocks("sh", README))
    assert job.endswith("python -m jaxinit init examples.gpt2:small")
    (pattern,) = re.findall(r"grep '(.+)' README.md", (ROOT / ".ci/run").read_text())
    assert [line for line in README.splitlines() if re.search(pattern, line)] == [tests]


def test_figures_are_the_last_results():
    _, _, rest = README.partition(summary.BEGIN)
    assert rest.partition(summary.END)[0] == summary.text()


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
