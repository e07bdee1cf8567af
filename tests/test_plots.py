"""Pictures: what they show, and that they touch no global state."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from sampling import sampled

import jaxinit
from jaxinit import plots, signal
from jaxinit.laws.rounded import all_numbers, cell
from tests.probes import keys, probe

pytestmark = pytest.mark.unoptimized

WIDTH, DEPTH = 64, 4
HE = jaxinit.he_normal()


@functools.cache
def found(init=HE, fn=jax.nn.relu, depth=DEPTH):
    weights = [init(key, (WIDTH, WIDTH)) for key in keys(depth)]
    x = np.random.default_rng(1).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    return signal.propagate([LAYERS[fn]] * depth, weights, x, probe)


LAYERS = {fn: lambda w, x, fn=fn: fn(x @ w) for fn in (jax.nn.relu, jnp.log)}


@functools.cache
def predicted():
    return signal.predict(jax.nn.relu, HE, [WIDTH] * (DEPTH + 1))


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.exhaustive
def test_depth_shows_what_was_measured_and_predicted():
    measured = found()
    figure = plots.depth({"he": measured}, {"he": predicted()})
    for axes, what in zip(figure.axes, ["std", "gradient_std"], strict=True):
        line, theory = axes.get_lines()
        assert list(line.get_ydata()) == [getattr(x, what) for x in measured.layers]
        assert list(theory.get_ydata()) == [getattr(x, what) for x in predicted()]
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        assert axes.get_yscale() == "log"
        assert axes.get_xlabel() == "layer"
    assert figure.axes[0].get_ylabel() == "standard deviation"
    [legend] = figure.legends
    assert [text.get_text() for text in legend.texts] == ["he", "predicted"]


def test_depth_of_several_schemes_differ_in_colour_and_marker():
    schemes = {
        "a": found(),
        "b": found(jaxinit.glorot_normal()),
        "0": found(jaxinit.zeros),
    }
    axes = plots.depth(schemes).axes[0]
    lines = axes.get_lines()
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3
    floor = axes.get_ylim()[0]  # zero has no place on a log axis
    assert set(lines[2].get_ydata()) == {floor}
    assert texts(axes) == ["0"]
    assert all((line.get_ydata() > floor).all() for line in lines[:2])


@pytest.mark.exhaustive
@pytest.mark.parametrize("length", sampled([4, 40, 300], [4, 40]))
def test_a_legend_lies_within_its_figure(length):
    names = [f"{i} {'name of a scheme ' * 20}"[:length] for i in range(7)]
    figure = plots.depth(
        dict.fromkeys(names, found()), dict.fromkeys(names[:1], predicted())
    )
    figure.draw_without_rendering()
    [legend] = figure.legends
    boxes = [legend, *legend.get_texts(), figure.axes[0].xaxis.label]
    low, high = figure.bbox.min, figure.bbox.max
    for box in (x.get_window_extent() for x in boxes):
        assert (box.min >= low).all()
        assert (box.max <= high).all()
    assert not any(
        axes.get_tightbbox().overlaps(legend.get_window_extent())
        for axes in figure.axes
    )
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(shown) == 8
    if length < 100:
        assert shown == [*names, "predicted"]
    else:
        assert all(text.startswith("…") for text in shown[:7])


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("std", "gradient", "is_decimal"),
    [
        (0.5, 0.5, True),
        (1e-3, 1, False),
        pytest.param(1, 1e-3, False, marks=pytest.mark.exhaustive),
        pytest.param(1e-3, 1e-3, False, marks=pytest.mark.exhaustive),
    ],
)
def test_both_axes_have_numbers_of_one_format(std, gradient, is_decimal):
    measured = found()
    layers = [
        dataclasses.replace(layer, std=std**i, gradient_std=gradient**i)
        for i, layer in enumerate(measured.layers)
    ]
    figure = plots.depth(dataclasses.replace(measured, layers=tuple(layers)))
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert len(labels) > 2
        assert {"10^" not in label for label in labels} == {is_decimal}


def test_activations_has_a_panel_for_every_layer():
    measured = found()
    figure = plots.activations(measured)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("0123")
    for axes, layer in zip(figure.axes, measured.layers, strict=True):
        [bars] = axes.patches
        heights = bars.get_data().values
        assert sum(heights) == pytest.approx(100 * (1 - layer.zero), rel=1e-5)
        assert texts(axes) == [f"{layer.zero:.0%} are 0"]
    assert figure.get_supylabel() == "percent of entries"


@pytest.mark.exhaustive
def test_activations_of_many_layers_and_of_none_to_draw():
    many = found(depth=23)
    assert len(plots.activations(many).axes) == 20
    assert [texts(x) for x in plots.activations(found(jaxinit.zeros)).axes] == [
        ["all are 0"]
    ] * DEPTH
    broken = plots.activations(found(fn=jnp.log))
    assert [texts(axes) for axes in broken.axes] == [["not finite"]] * DEPTH


@pytest.mark.parametrize(
    "init",
    sampled(
        [
            jaxinit.he_normal(),
            jaxinit.glorot_uniform(),
            jaxinit.normal(0.1, mean=1.0),
            jaxinit.constant(0.1),
            jaxinit.scaled(jaxinit.he_uniform(), 0.5),
        ],
        [jaxinit.he_normal(), jaxinit.glorot_uniform()],
    ),
    ids=str,
)
def test_weights_beside_their_density(init):
    shape = (256, 256)
    figure = plots.weights(init(jax.random.key(0), shape), init)
    [axes] = figure.axes
    drawn, expected = (patch.get_data() for patch in axes.patches)
    widths = np.diff(drawn.edges)
    mass = expected.values * widths
    assert (drawn.values * widths).sum() == pytest.approx(1)
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    # five standard errors of the share of a bin, and one entry
    size = math.prod(shape)
    error = np.sqrt(mass * (1 - mass) / size)
    off = np.abs(drawn.values * widths - mass)
    assert (off <= 5 * error + 1 / size).all()
    other = plots.weights(2 * np.asarray(init(jax.random.key(0), shape)), init)
    drawn, expected = (patch.get_data() for patch in other.axes[0].patches)
    widths = np.diff(drawn.edges)
    off = np.abs(drawn.values - expected.values) * widths
    assert off.max() > 5 * error.max() + 1 / size
    assert axes.get_title(loc="left") == f"{init!r}, 256 x 256"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight", "density")


@pytest.mark.parametrize(
    "dtype",
    sampled(["float8_e4m3fn", "float8_e5m2", "bfloat16"], ["float8_e5m2", "bfloat16"]),
)
def test_bins_of_narrow_dtypes_hold_whole_numbers_of_them(dtype):
    init, size = jaxinit.normal(0.02), 2**14
    x = init(jax.random.key(0), (size,), jnp.dtype(dtype))
    [axes] = plots.weights(x, init).axes
    drawn, expected = (patch.get_data() for patch in axes.patches)
    np.testing.assert_array_equal(drawn.edges, expected.edges)
    ends = np.concatenate(cell(all_numbers(x.dtype)))
    np.testing.assert_array_equal(np.isin(drawn.edges[1:-1], ends), True)
    widths = np.diff(drawn.edges)
    law = np.diff(init.entry_law((size,), np.dtype(np.float32)).cdf(drawn.edges))
    [words] = texts(axes) or [""]
    if words:  # the bin of zero is left out of both
        law = np.where(expected.values * widths < law - 1e-6, 0, law)
    np.testing.assert_allclose(expected.values * widths, law, atol=1e-6)
    error = np.sqrt(law * (1 - law) / size)
    off = np.abs(drawn.values * widths - law)
    assert (off <= 5 * error + 1 / size).all()


def test_many_zeros_are_told_in_words():
    init = jaxinit.sparse(0.9)
    x = init(jax.random.key(0), (200, 100))
    [axes] = plots.weights(x, init).axes
    assert texts(axes) == ["0.9 of them are 0\n0.9 expected\nnot drawn here"]
    for bars in (patch.get_data() for patch in axes.patches):
        assert (bars.values * np.diff(bars.edges)).sum() == pytest.approx(0.1, abs=1e-3)
    # zeros that are not expected are told too
    [axes] = plots.weights(x, jaxinit.normal(0.01)).axes
    assert texts(axes) == ["0.9 of them are 0\n0 expected\nnot drawn here"]
    [axes] = plots.weights(jnp.zeros(9), jaxinit.zeros).axes  # else nothing is drawn
    assert texts(axes) == []


def test_pictures_have_no_date(tmp_path):
    """With one, they would be other files each time."""
    _, svg = plots.save(Figure(), tmp_path / "empty")
    assert b"<svg" in svg.read_bytes()
    assert b"<dc:date>" not in svg.read_bytes()


@pytest.mark.exhaustive
def test_save_writes_png_and_svg_the_same_each_time(tmp_path):
    first = plots.save(plots.depth(found()), tmp_path / "one")
    second = plots.save(plots.depth(found()), tmp_path / "two.png")
    assert [path.name for path in second] == ["two.png", "two.svg"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in first[1].read_bytes()


def test_pyplot_knows_of_nothing():
    backend = pyplot.get_backend()
    figures = [plots.depth(found()), plots.activations(found())]
    assert all(isinstance(figure, Figure) for figure in figures)
    assert figures[0]._repr_png_().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    assert pyplot.get_backend() == backend


WRONG = {
    "no scheme": (lambda: plots.depth({}), ["signals", "1 to 7", "got 0"]),
    "eight schemes": (
        lambda: plots.depth(dict.fromkeys("abcdefgh", found())),
        ["1 to 7", "got 8"],
    ),
    "another scheme": (
        lambda: plots.depth({"he": found()}, {"she": predicted()}),
        ["predictions", "'she'", "['he']"],
    ),
    "another depth": (
        lambda: plots.depth({"he": found()}, {"he": predicted()[1:]}),
        ["'he'", "3 layers", "4"],
    ),
    "empty": (
        lambda: plots.weights(jnp.zeros((0, 3)), jaxinit.zeros),
        ["array", "at least one", "float32[0, 3]"],
    ),
    "complex": (lambda: plots.weights(1j * jnp.ones(3), jaxinit.zeros), ["real"]),
    "not finite": (
        lambda: plots.weights(jnp.full((3, 3), jnp.nan), jaxinit.he_normal()),
        ["array", "finite"],
    ),
    "no density": (
        lambda: plots.weights(jnp.eye(3), jaxinit.orthogonal()),
        ["orthogonal()", "no known density"],
    ),
}

OF_WRONG_TYPE = {
    "save": (lambda: plots.save(3, "x"), ["figure", "matplotlib figure", "int"]),
    "activations": (
        lambda: plots.activations({"he": found()}),
        ["signal", "signal.propagate", "dict"],
    ),
    "depth": (lambda: plots.depth(3), ["signals", "mapping", "int"]),
    "depth, one of many": (
        lambda: plots.depth({"he": 3}),
        ["signals['he']", "signal.propagate", "int"],
    ),
    "depth, predictions": (
        lambda: plots.depth(found(), predicted()),
        ["predictions", "mapping", "tuple"],
    ),
    "depth, one prediction": (
        lambda: plots.depth({"he": found()}, {"he": 3}),
        ["predictions['he']", "signal.predict", "int"],
    ),
    "depth, one layer": (
        lambda: plots.depth({"he": found()}, {"he": [3] * DEPTH}),
        ["predictions['he']", "signal.predict", "int"],
    ),
    "weights": (
        lambda: plots.weights(["a"], jaxinit.zeros),
        ["array", "numbers", "list"],
    ),
    "weights, init": (
        lambda: plots.weights(jnp.ones(3), jax.nn.initializers.ones),
        ["init", "initializer of jaxinit", "function"],
    ),
}


@pytest.mark.parametrize("name", OF_WRONG_TYPE)
def test_type_message(name):
    fails, parts = OF_WRONG_TYPE[name]
    with pytest.raises(TypeError) as caught:
        fails()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("name", WRONG)
def test_message(name):
    fails, parts = WRONG[name]
    with pytest.raises(ValueError, match=r".") as caught:
        fails()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
