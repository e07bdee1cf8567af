"""jaxinit.check: it finds nothing where nothing is, and what is planted."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.nn import initializers as of_jax

import jaxinit
from jaxinit import cli
from jaxinit._check import draws, functions, models
from jaxinit._check.comparing import compared, first_difference
from jaxinit._check.draws import Draws, Pair
from jaxinit.check import Check, CheckRow, Timing, check

DEVICE = jax.devices()[0]
KEY = jax.random.key(0)


@pytest.fixture
def drawn(monkeypatch):
    """Makes the pairs that are checked the given ones."""

    def patch(**pairs):
        monkeypatch.setattr("jaxinit.check.PAIRS", pairs)
        monkeypatch.setattr(draws, "_QUICK_PAIRS", tuple(pairs))

    return patch


RIGHT = Pair(jaxinit.normal(), of_jax.normal(), [(3, 7)])


def test_what_is_right_is_equal(drawn, capsys):
    drawn(normal=RIGHT)
    assert cli.main(["check", "--quick", "--parts", "initializers"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(f"jaxinit {jaxinit.__version__}, seed 0")
    assert printed[3].split()[:4] == ["initializers", "normal", "2", "equal"]
    assert printed[-1] == "2 cases, all equal"


# ---- what must be found


class _OfJax(jaxinit.Initializer):
    """Draws as jax does in narrow dtypes: in the dtype itself."""

    def __call__(self, key, shape, dtype=None, out_sharding=None):
        return jax.jit(of_jax.normal(), static_argnums=(1, 2))(key, shape, dtype)


LAST_BIT = float(np.nextafter(np.float32(0.01), 1))
WRONG = {
    "by a last bit": (jaxinit.normal(LAST_BIT), "float32"),
    "in bfloat16 alone": (_OfJax(), "bfloat16"),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_initializer_is_reported(drawn, capsys, how):
    init, dtype = WRONG[how]
    drawn(wrong=dataclasses.replace(RIGHT, ours=init))
    assert cli.main(["check", "--quick", "--parts", "initializers", "--seed", "4"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "jaxinit: 1 of 2 cases differs from jax\n"
    key = jax.random.key(4)
    wide = np.asarray(jax.jit(lambda key: of_jax.normal()(key, (3, 7)))(key))
    ours = np.asarray(init(key, (3, 7), dtype))
    wanted = wide.astype(ours.dtype)
    at = tuple(np.argwhere(ours != wanted)[0].tolist())
    count = int((ours != wanted).sum())
    line = (
        f"wrong, {dtype} (3, 7): {count} of 21 entries differ, the first at {at}: "
        f"got {ours[at]!s}, jax has {wanted[at]!s}"
    )
    assert line in captured.out.splitlines()


class _Failing(jaxinit.Initializer):
    def __call__(self, key, shape, dtype=None, out_sharding=None):
        raise RuntimeError("no such kernel\non this device")


@pytest.mark.unoptimized
def test_an_initializer_that_fails_is_reported(drawn, capsys):
    drawn(wrong=dataclasses.replace(RIGHT, ours=_Failing()))
    assert cli.main(["check", "--quick", "--parts", "initializers"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "jaxinit: 2 of 2 cases differ from jax\n"
    line = "wrong, float32 (3, 7): got RuntimeError: no such kernel, jax has arrays"
    assert line in captured.out.splitlines()


def test_a_wrong_jit_is_reported(monkeypatch):
    def draw(key):
        return {"a": jax.random.normal(key, (3,)), "b": jnp.ones(2)}

    assert functions.functions(KEY, DEVICE, {"draw": draw}).result == "equal"
    wrong = {"b": jnp.array([1.0, 2.0])}
    monkeypatch.setattr(functions, "jit", lambda fun: lambda key: {**fun(key), **wrong})
    row = functions.functions(KEY, DEVICE, {"draw": jax.jit(draw)})
    assert row.different == 1
    assert str(row.first) == (
        "draw b: 1 of 2 entries differ, the first at (1,): got 2.0, jax has 1.0"
    )


DIFFERENCES = {
    "equal": (np.zeros((2, 3)), np.zeros((2, 3)), None),
    "NaN": (np.full(3, np.nan), np.full(3, np.nan), None),
    "empty": (np.zeros((0, 3)), np.zeros((0, 3)), None),
    "a sign of zero": (np.array([0.0, 1.0]), np.array([-0.0, 1.0]), (0,)),
    "a scalar": (np.float32(1), np.float32(2), ()),
    "an imaginary part": (np.array([[1 + 1j]]), np.array([[1 + 2j]]), (0, 0)),
    "the last of bfloat16": (
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([1, 3], ml_dtypes.bfloat16),
        (1,),
    ),
    "float8": (
        np.array([1, 2], ml_dtypes.float8_e5m2),
        np.array([1, 2.5], ml_dtypes.float8_e5m2),
        (1,),
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_first_difference(name):
    ours, theirs, index = DIFFERENCES[name]
    found = first_difference("case", {"a": ours}, {"a": theirs})
    assert (found and found.index) == index
    assert (found is None) == (index is None)
    if found is not None:
        assert (found.path, found.entries, found.size) == ("a", 1, ours.size)


UNLIKE = {
    "shape": ({"a": np.zeros(3)}, "float64 (3,)"),
    "dtype": ({"a": np.zeros(2, np.float32)}, "float32 (2,)"),
    "tree": ({"b": np.zeros(2)}, "the tree PyTreeDef({'b': *})"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_arrays_of_another_kind_differ(name):
    ours, shown = UNLIKE[name]
    found = first_difference("case", ours, {"a": np.zeros(2)})
    assert found is not None
    assert (found.index, found.ours) == (None, shown)


def test_what_jax_refuses_is_not_compared(drawn):
    def refusing(key, shape, dtype):
        raise ValueError("none of this\nshape")

    drawn(normal=Pair(jaxinit.normal(), refusing, [(3, 7)]))
    (row,) = check(quick=True, parts=["initializers"]).rows
    assert (row.cases, row.different) == (0, 0)
    assert row.result == "jax refuses: ValueError: none of this"


def test_values_that_jax_draws_and_this_refuses_differ():
    def refuse():
        raise ValueError("no")

    outcome = compared("case", refuse, lambda: jnp.zeros(2))
    assert outcome.difference is not None


# ---- what is covered


def test_every_initializer_of_jax_is_checked():
    kinds = {type(pair.ours) for pair in draws.PAIRS.values()}
    named = {repr(pair.ours).partition("(")[0] for pair in draws.PAIRS.values()}
    named |= {"delta_orthogonal"} if jaxinit.delta_orthogonal in kinds else set()
    of_jax_alone = {
        name
        for name, value in vars(of_jax).items()
        if callable(value) and name[0] != "_" and name != "Initializer"
    }
    for name in of_jax_alone:
        ours = getattr(jaxinit, name)
        if name not in ("zeros", "ones", "constant"):
            ours = ours(*(1.0, "fan_in", "normal") * (name == "variance_scaling"))
            name = repr(ours).partition("(")[0]
        assert name in named


@pytest.mark.parametrize("name", draws.PAIRS)
def test_every_dtype_and_every_shape_is_drawn(name):
    pair = draws.PAIRS[name]
    drawing = Draws(KEY, DEVICE, draws.NARROW, False)
    chosen = drawing._chosen(pair)
    assert [shape for shape, _ in chosen] == list(pair.shapes)
    assert all("float32" in dtypes for _, dtypes in chosen)
    drawn_in = {dtype for shape, dtypes in chosen if 0 not in shape for dtype in dtypes}
    assert drawn_in == {*draws.WIDE, *draws.NARROW}


def test_every_narrow_dtype_that_can_be_drawn_is_named():
    kinds = {name for name in dir(ml_dtypes) if "float" in name} | {"float16"}
    others = {"float6_e2m3fn", "float6_e3m2fn", "float8_e8m0fnu"}  # refused by name
    assert kinds - others - {"finfo"} == set(draws.NARROW)
    assert draws.narrow_dtypes(DEVICE) == list(draws.NARROW)


def test_a_framework_that_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(models, "FRAMEWORKS", {"Some": ("some", "no_such_package")})
    assert cli.main(["check", "--parts", "models"]) == 0
    printed = capsys.readouterr().out
    assert "no_such_package is not installed" in printed
    assert printed.endswith("nothing was compared\n")


def test_a_framework_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.setattr(models, "FRAMEWORKS", {"Some": ("some", "jax")})
    (row,) = models.models(KEY, DEVICE)
    assert row.result.startswith("jax cannot be imported: ModuleNotFoundError")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.exhaustive if name != "Equinox" else ())
        for name in models.FRAMEWORKS
    ],
)
def test_models_start_with_the_arrays_of_jax(monkeypatch, name):
    monkeypatch.setattr(models, "FRAMEWORKS", {name: models.FRAMEWORKS[name]})
    (row,) = models.models(KEY, DEVICE)
    assert (row.cases, row.different) == (1, 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["split keys"])
def test_another_device_than_the_first(kind):
    device = jax.devices()[-1]
    key = jax.device_put(KEY, device)
    row = functions.functions(key, device, {kind: functions.KINDS[kind]})
    assert (row.cases, row.different) == (1, 0)


@pytest.mark.exhaustive
def test_all_of_it_is_equal():
    found = check(size=64)
    assert found.different == 0, str(found)
    assert found.cases > 500
    assert all(row.cases for row in found.rows)
    assert not found.lacking


# ---- how it is shown


TIMINGS = (
    Timing("normal", (64, 64), 0.001, 0.004, 4.0),
    Timing("fill", (64, 64), None, 0.0005, None),
)
FOUND = Check(
    "NVIDIA H100",
    "gpu",
    {"jax": "1", "jaxlib": "2", "jaxinit": "3"},
    7,
    ("float4_e2m1fn",),
    (
        CheckRow("initializers", "normal()", 1200, 0, 1.25),
        CheckRow(
            "laws",
            "jax.random.normal",
            3,
            1,
            2.0,
            first_difference("float32 (2,)", np.zeros(2), np.ones(2)),
        ),
        CheckRow("models", "Haiku", 0, 0, 0.0, note="haiku is not installed"),
    ),
    TIMINGS,
)
SHOWN = """\
NVIDIA H100 (gpu), jax 1, jaxlib 2, jaxinit 3, seed 7

part          what               cases  result                  seconds
initializers  normal()           1,200  equal                       1.2
laws          jax.random.normal      3  1 different                 2.0
models        Haiku                  0  haiku is not installed      0.0
jax.random.normal, float32 (2,): 2 of 2 entries differ, the first at (0,): got 0.0, \
jax has 1.0

float32  shape    ms  jax ms  faster
normal   64x64  1.00    4.00   4.00x
fill     64x64     -    0.50       -

1,203 cases, 1 differ; no float4_e2m1fn on this device"""


def test_it_prints_as_tables():
    assert str(FOUND) == SHOWN
    assert max(map(len, FOUND.text(40).splitlines()[2:8])) <= 40
    assert FOUND._repr_html_().count("<table") == 3
    assert "&lt;" in dataclasses.replace(FOUND, device="<x>")._repr_html_()


def test_it_is_data():
    values = json.loads(json.dumps(FOUND.as_json(), allow_nan=False))
    assert (values["cases"], values["different"]) == (1203, 1)
    assert values["rows"][1]["first"]["index"] == [0]
    assert values["timings"][1] == {
        "what": "fill",
        "shape": [64, 64],
        "ours": None,
        "jax": 0.0005,
        "ratio": None,
    }


@pytest.mark.exhaustive
@pytest.mark.unoptimized
def test_times_are_taken(capsys):
    command = "check --quick --parts speed --size 8 --json"
    assert cli.main(command.split()) == 0
    values = json.loads(capsys.readouterr().out)
    timed = values["timings"]
    assert [row["what"] for row in timed] == [
        "normal",
        "uniform",
        "truncated_normal",
        "fill",
    ]
    assert all(row["ratio"] > 0 and row["ours"] > 0 for row in timed[:-1])


@pytest.mark.unoptimized
def test_progress_is_told(drawn):
    drawn(normal=RIGHT)
    lines = []
    check(quick=True, parts=["initializers", "speed"], size=8, progress=lines.append)
    assert lines[0] == "initializers: normal equal"
    assert lines[-1] == "speed: fill"


REFUSED = {
    "a part": ({"parts": ["speeed"]}, ValueError, "unknown part 'speeed'.*'speed'"),
    "no part": ({"parts": []}, ValueError, "initializers, laws.*got \\[\\]"),
    "a text": ({"parts": "speed"}, ValueError, "in a list, got 'speed'"),
    "a size": ({"size": 0}, ValueError, "size must be a positive int, got 0"),
    "a half": ({"size": 1.5}, TypeError, "size must be an int, got 1.5"),
    "a seed": ({"seed": "x"}, TypeError, "seed must be an int, got 'x'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    arguments, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        check(**arguments)


def test_wrong_arguments_of_the_command(capsys):
    assert cli.main(["check", "--parts", "laws,models,"]) == 2
    assert "'' is none of initializers, laws" in capsys.readouterr().err
