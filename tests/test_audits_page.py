"""The page of audits of models that others wrote: it has every model of its script."""

import re
from pathlib import Path

import pytest

from examples import audits

pytestmark = pytest.mark.unoptimized

TEXT = (Path(__file__).parents[1] / "examples/AUDITS.md").read_text()


def test_the_page_has_every_model():
    assert re.findall(r"^## (.+)$", TEXT, re.M) == list(audits.MODELS)
    rows = re.findall(r"^\| ([^|]+) \| \d+ \| [\d,]+ \|", TEXT, re.M)
    assert rows == list(audits.MODELS)


def test_the_script_audits_a_model(capsys):
    """What it prints of a small one is on the page, whose numbers are of one key."""
    name = "Haiku: nets.MLP"
    audits.main([name])
    printed = capsys.readouterr().out
    assert f"## {name}\n" in printed
    laws = re.findall(r"^\| (.+?) \| (\d+) \|", printed, re.M)
    page = TEXT.partition(f"## {name}\n")[2].partition("\n## ")[0]
    assert laws == re.findall(r"^\| (.+?) \| (\d+) \|", page, re.M)
    assert len(laws) >= 3


def test_an_unknown_model_is_refused():
    with pytest.raises(SystemExit, match="unknown: no such; known: Flax Linen"):
        audits.main(["no such"])
