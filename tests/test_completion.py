"""What the shell completes, and what `--help` says."""

import argparse
import io
import os
import re
import shlex
import subprocess
import sys

import pytest
from argcomplete.finders import CompletionFinder
from written import ROOT

from jaxinit import cli
from jaxinit._cli.completion import targets

COMMANDS = ("init", "roles", "signal", "audit", "compare", "check")


class Finder(CompletionFinder):
    """Leaves file descriptor 9 alone, which pytest may have."""

    def _init_debug_stream(self):
        pass


def completed(line: str, monkeypatch) -> list[str]:
    values = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line}
    for name, value in {**values, "COMP_POINT": str(len(line))}.items():
        monkeypatch.setenv(name, value)
    shown = io.StringIO()
    Finder()(cli._parser(), exit_method=int, output_stream=shown)
    return shown.getvalue().split("\n")


LINES = {
    "jaxinit a": ["audit "],
    "jaxinit init --dt": ["--dtype "],
    "jaxinit init --dtype bf": ["bfloat16 "],
    "jaxinit audit --fail-on w": ["warning "],
    "jaxinit init examples.gpt2_": ["examples.gpt2_nnx:"],
    "jaxinit roles examples.gpt2:G": ["examples.gpt2:GPT2 "],
    "jaxinit init examples.gpt2:small --rules examples.vi": ["examples.vit:"],
    "jaxinit audit README": ["README.md "],
    "jaxinit compare --data di": ["digits "],
    "jaxinit compare --loss sq": ["squared_error "],
}


@pytest.mark.parametrize("line", LINES)
def test_lines(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    # Without the shell's word breaks, a colon is a letter like others.
    monkeypatch.setenv("_ARGCOMPLETE_COMP_WORDBREAKS", "")
    assert completed(line, monkeypatch) == LINES[line]


def test_names_are_those_of_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import jax\nmodel, more = 1, 2\nother: int = 2\n_own = 3\nclass Net: ...\n"
        "def make(rngs): ...\nraise SystemExit\n"
    )
    (tmp_path / "broken.py").write_text("def")
    for folder, file in (("models", "_own.py"), ("models", "vit.py"), ("a b", "c.py")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_text("vit = 1\n")
    assert targets("") == ["broken:", "models.vit:", "net:"]
    assert targets("mod") == targets("models.v") == ["models.vit:"]
    assert targets("models.vit:") == ["models.vit:vit"]
    assert targets("net:") == [
        f"net:{name}" for name in ("model", "more", "other", "Net", "make")
    ]
    assert targets("broken:") == targets("none:") == targets("none.") == []


@pytest.mark.exhaustive
@pytest.mark.skipif(os.name != "posix", reason="a shell's file descriptors")
def test_the_shell_is_answered(tmp_path):
    """As the lines do that `register-python-argcomplete jaxinit` gives to bash."""
    line, answer = "jaxinit com", tmp_path / "answer"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-c", "from jaxinit.cli import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert answer.read_text() == "compare "


def helped(command: str, capsys, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"] if command else ["--help"])
    return capsys.readouterr().out


def examples(text: str) -> list[str]:
    _, _, shown = text.partition("\nexamples:\n")
    return [line.strip() for line in shown.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_and_its_examples_are_right(command, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = helped(command, capsys, monkeypatch)
    assert max(map(len, text.splitlines())) <= 80
    assert bool(command) == bool(examples(text))
    for line in examples(text):
        options = cli._parser().parse_args(shlex.split(line)[1:])
        assert options.command == command
        for name in re.findall(r"examples\.\w+:\w+", line):
            assert name in targets(name)


def test_every_command_is_looked_at():
    (commands,) = (
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert set(COMMANDS) <= set(commands.choices)
