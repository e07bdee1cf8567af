"""`testing.assert_sound`, and how an audit is printed."""

import inspect
import re
import typing

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxinit import testing
from jaxinit._audit.allowing import meant
from jaxinit._audit.leaves import leaves_of
from jaxinit.audit import Audit, AuditRow, Finding, audit

KERNELS = tuple(f"blocks_{{0..2}}/{name}/kernel" for name in "abcdef")
LONG = "normal(stddev=0.02)"
FOUND = Audit(
    (
        AuditRow("blocks_{0..2}/kernel", 3, (64, 32), "float32", LONG, True),
        AuditRow("bias", 1, (3,), "bfloat16", "zeros", False, note="or ones"),
        AuditRow("step", 1, (), "int32", note="no floating-point numbers"),
    ),
    (
        Finding(
            "not-finite", KERNELS, "error", "Of 100 entries 3 are not finite. " * 4
        ),
        Finding("biased", ("bias", "blocks_{0..2}/bias"), "warning", "Far from zero."),
        Finding("depth", ("head/kernel",), "note", "Not scaled."),
    ),
)
CLEAN = Audit(FOUND.rows[:1], ())


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(testing, "audit", lambda params, roles: FOUND)


def test_sound_parameters_pass():
    testing.assert_sound({"bias": np.zeros(3, np.float32)})


def test_roles_are_passed_on(monkeypatch):
    seen = []

    def audit(params, roles):
        seen.append((params, roles))
        return CLEAN

    monkeypatch.setattr(testing, "audit", audit)
    testing.assert_sound("params", roles="roles")  # pyright: ignore[reportArgumentType]
    assert seen == [("params", "roles")]


def test_all_findings_but_notes_are_named(found):
    with pytest.raises(AssertionError) as error:
        testing.assert_sound({})
    text = str(error.value)
    assert text.startswith("[Chex] Assertion assert_sound failed: ")
    assert "b/kernel, blocks_{0..2}/c/kernel" in text
    assert "d/kernel and 2 more: error, not-finite: Of 100 entries" in text
    assert "bias, blocks_{0..2}/bias: warning, biased: Far from zero." in text
    assert "depth" not in text


ALLOWED = {
    "all kinds": (["not-finite", "biased"], []),
    "set": ({"biased", "not-finite", "alone"}, []),
    "one kind": ("biased", ["not-finite"]),
    "globs": ({"not-finite": "**/kernel", "biased": "**/bias"}, []),
    "several globs": (
        {"not-finite": "**/kernel", "biased": ["bias", "blocks_[0-2]/bias"]},
        [],
    ),
    "one of the leaves": ({"biased": "bias"}, ["not-finite", "biased"]),
    "one of the folded": (
        {"biased": ["bias", "blocks_[01]/bias"]},
        ["not-finite", "biased"],
    ),
    "expression": ({"not-finite": re.compile(".*kernel")}, ["biased"]),
    "other kind": ({"equal": "**"}, ["not-finite", "biased"]),
    "no glob": ({"biased": ()}, ["not-finite", "biased"]),
    "nothing": ((), ["not-finite", "biased"]),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    allow, left = ALLOWED[name]
    is_meant = meant(allow)
    assert [x.kind for x in FOUND.findings[:2] if not is_meant(x)] == left


def test_the_assertion_allows_what_is_said(found):
    testing.assert_sound({}, {"not-finite": "**", "biased": "**"})
    with pytest.raises(AssertionError, match="biased"):
        testing.assert_sound({}, allow="not-finite")


def test_a_pattern_without_a_leaf_is_refused(found):
    allow = {"biased": ["blocks_0/kernel", "["], "equal": "kernel"}
    with pytest.raises(ValueError, match="no leaf is matched by") as error:
        testing.assert_sound({}, allow)
    text = str(error.value)
    assert "no leaf is matched by '[' for 'biased'" in text
    assert "matched by 'kernel' for 'equal'; '**/kernel' matches 3" in text
    assert "blocks_0/kernel' for" not in text


def test_assertions_return_nothing():
    for assertion in (testing.assert_sound, testing.assert_finite):
        assert inspect.signature(assertion).return_annotation is None
        assert typing.get_type_hints(assertion)["return"] is type(None)


REFUSED = {
    "bytes": (b"equal", TypeError, "such as '**/bias', got b'equal'"),
    "bytes in a mapping": ({"equal": re.compile(b"a")}, TypeError, "got re.compile"),
    "unknown": ("bias", ValueError, "unknown kind of finding 'bias'; the nearest are"),
    "unknown in a mapping": ({"equals": "**"}, ValueError, "nearest are 'equal'"),
    "no collection": (3, TypeError, "allow must be a kind of finding, several of them"),
    "no kind": ([3], TypeError, "got the kind 3"),
    "no pattern": ({"equal": [3]}, TypeError, "regular expressions, got 3 for 'equal'"),
    "number": ({"equal": 3}, TypeError, "got 3"),
    "glob": ({"equal": "a//b"}, ValueError, "has the segment ''"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    """Before anything is audited."""
    allow, error, text = REFUSED[name]
    with pytest.raises(error, match=re.escape(text)):
        testing.assert_sound({"w": jax.ShapeDtypeStruct((), "float32")}, allow)


TEXT = """\
leaf                      shape  dtype  law                  note
blocks_{0..2}/kernel  x3  64x32  f32    normal(stddev=0.02)
bias                      3      bf16   perhaps zeros        or ones
step                      ()     i32    -                    no floating-point numbers

error, not-finite: blocks_{0..2}/a/kernel, blocks_{0..2}/b/kernel,
  blocks_{0..2}/c/kernel, blocks_{0..2}/d/kernel and 2 more
  Of 100 entries 3 are not finite. Of 100 entries 3 are not finite. Of 100 entries 3 are
  not finite. Of 100 entries 3 are not finite.
warning, biased: bias, blocks_{0..2}/bias
  Far from zero.
note, depth: head/kernel
  Not scaled.

3 classes of leaves, 6,147 parameters; 1 error, 1 warning, 1 note"""


def test_text():
    assert str(FOUND) == repr(FOUND) == FOUND.text(90) == TEXT
    assert str(CLEAN).endswith(
        "\n\n1 class of leaves, 6,144 parameters; nothing to report"
    )


def test_no_width_is_refused():
    with pytest.raises(ValueError, match=r"width must be a positive number .*, got 0"):
        FOUND.text(0)


@pytest.mark.parametrize("width", [85, 60, 45, 28])
def test_no_line_is_longer_than_the_width(width):
    text = FOUND.text(width)
    assert max(map(len, text.splitlines())) <= width
    assert re.sub(r"\s+", " ", text).endswith(TEXT.splitlines()[-1])


def test_a_law_that_does_not_fit_stands_below_its_leaf():
    lines = FOUND.text(54).splitlines()
    assert lines[:4] == [
        "leaf                      shape  dtype  law",
        "blocks_{0..2}/kernel  x3  64x32  f32",
        "    normal(stddev=0.02)",
        "bias                      3      bf16",
    ]
    assert FOUND.text(24).startswith(
        "blocks_{0..2}/kernel x3\n  64x32 f32\n    normal("
    )


def test_html_has_both_and_is_escaped():
    row = AuditRow("<b>", 1, (2,), "float32", "zeros", True)
    html = Audit((row,), (Finding("scale", ("<i>",), "note", "1 < 2"),))._repr_html_()
    assert "<td" in html
    assert "&lt;b&gt;" in html
    assert "<li><b>note, scale:</b> &lt;i&gt;<br>1 &lt; 2</li>" in html
    assert "1 class of leaves, 2 parameters; 1 note" in html
    assert "<ul>" not in CLEAN._repr_html_()


def test_control_characters_are_escaped():
    row = AuditRow("a\x1b[31m", 1, (2,), "float32", "zeros", True)
    found = Audit((row,), (Finding("scale", ("a\x1b[31m",), "note", "b\x1b[0m"),))
    for text in (str(found), found.text(20), found._repr_html_()):
        assert "\x1b" not in text
        assert "\\x1b[31m" in text


# ---- leaves of all kinds


def deleted():
    x = jax.numpy.ones((4, 3))
    x.delete()
    return x


class Variable:
    """As of Keras."""

    __module__ = "keras.src.backend"
    dtype = "float32"
    __array__ = None


class Unreadable:
    dtype = "float32"

    def __array__(self, *args, **kwargs):
        raise TypeError("on a GPU")


LEAVES = {
    "deleted": (deleted, ValueError, "a/w was deleted, as by donating it"),
    "text": (lambda: "abc", TypeError, "a/w is 'abc', of type str, and no array"),
    "function": (lambda: jax.nn.relu, TypeError, "and no array: give the parameters"),
    "objects": (lambda: np.array([{}, {}]), TypeError, "a/w has the dtype object"),
    "times": (lambda: np.zeros(3, "m8[s]"), TypeError, "has the dtype timedelta64"),
    "records": (lambda: np.zeros(3, "f4,f4"), TypeError, "which jax has not: convert"),
    "long": (lambda: np.zeros(3, np.longdouble), TypeError, "a/w has the dtype"),
    "masked": (lambda: np.ma.zeros(3), TypeError, "as x.filled(0)"),
    "keras": (Variable, TypeError, "give {w.path: w.value for w in model.weights}"),
    "model": (type("Net", (Variable,), {"dtype": 1}), TypeError, "in model.weights"),
    "module": (lambda: np, TypeError, "of type module, and no array"),
    "unreadable": (Unreadable, TypeError, "a/w cannot be read as an array: on a GPU"),
    "huge": (lambda: 10**30, TypeError, "a/w has the dtype object"),
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_that_are_no_arrays_are_named(name):
    make, error, text = LEAVES[name]
    with pytest.raises(error, match=re.escape(text)) as raised:
        audit({"a": {"w": make()}, "b": np.ones(3)})
    assert len(str(raised.value)) < 250


def test_numbers_of_any_kind_are_rows():
    x = np.random.default_rng(0).standard_normal((8, 4))
    tree = {"big": x.astype(">f4"), "c": 1 + 2j, "i": np.complex64(1j), "n": 2, "x": x}
    leaves = leaves_of(tree, None)
    kinds = ["float32", "complex64", "complex64", "int32", "float32"]
    assert [leaf.dtype for leaf in leaves] == kinds
    assert leaves[0].array.dtype.isnative


def test_what_spans_processes_is_read_if_each_has_all_of_it(monkeypatch):
    monkeypatch.setattr("jaxinit._audit.leaves.spans", lambda x: True)
    mesh, x = jax.make_mesh((8,), "x"), np.ones((8, 2), np.float32)
    whole, shards = (
        jax.device_put(x, NamedSharding(mesh, PartitionSpec(axis)))
        for axis in (None, "x")
    )
    (leaf,) = leaves_of({"w": whole}, None)
    assert len(leaf.array.devices()) == 1
    with pytest.raises(ValueError, match="w spans processes"):
        leaves_of({"w": shards}, None)


def test_settings_that_watch_programs_do_not_matter():
    tree = {"w": np.full((3, 4), np.nan, np.float32), "n": 1.5}
    with jax.debug_nans(True), jax.transfer_guard("disallow"):
        (finding,) = audit(tree).findings
    assert finding.kind == "not-finite"
