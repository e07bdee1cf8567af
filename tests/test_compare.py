"""Schemes tried against each other: one program, paired seeds, fair judgement."""

import functools
import logging
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from matplotlib.figure import Figure
from sampling import sampled

import jaxinit
from jaxinit import plots
from jaxinit._compare import datasets, judging, losses, models, schemes, study
from jaxinit._compare.data import Data
from jaxinit._compare.naming import parted, scheme
from jaxinit._compare.summary import Yardstick
from jaxinit._compare.training import Run, Trainer
from jaxinit.compare import Interrupted, compare
from jaxinit.linen import init
from jaxinit.nnx import create

pytestmark = pytest.mark.unoptimized

ROWS, FEATURES, CLASSES, BATCH = 300, 6, 3, 16
SEEDS, RATES, STEPS = 5, (1e-3, 3e-2), 23  # pieces of two steps, the last of one


class Net(nn.Module):
    """Two layers; with a norm and dropout, which know whether they are trained."""

    norm: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Dense(8)(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(CLASSES)(nn.relu(x))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(FEATURES, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.dropout(self.norm(self.first(x)))))


@functools.cache
def arrays():
    """Classes that a linear map of the features tells apart."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    return x, np.argmax(x[:, :CLASSES], 1)


SCHEMES = {
    "he": jaxinit.he_normal(),
    "zeros": jaxinit.zeros,
    "he again": jaxinit.he_normal(),
    "own": None,
}
BRIEF = {"learning_rates": RATES, "steps": STEPS, "batch_size": BATCH}


def tried(named=SCHEMES, model=None, data=None, **options):
    return compare(model or Net(), data or arrays(), named, **{**BRIEF, **options})


@functools.cache
def found():
    return tried()


def curves(result):
    return {x.scheme: x.losses for x in result.schemes}


def test_equal_schemes_have_equal_curves_and_are_not_called_different():
    result = found()
    he, again = result["he"], result["he again"]
    assert he.losses.shape == (SEEDS, STEPS)
    np.testing.assert_array_equal(he.losses, again.losses)
    assert (he.loss, he.accuracy, he.by_rate) == (
        again.loss,
        again.accuracy,
        again.by_rate,
    )
    assert he.p_best == again.p_best
    assert result[result.best].p_best == 1
    assert judging.paired(np.ones((1, SEEDS)), np.ones((1, SEEDS))) == [1.0]
    # negative controls: others differ, and so do seeds
    assert result["zeros"].p_best < 0.05
    assert not np.array_equal(he.losses, result["own"].losses)
    assert len({tuple(row) for row in he.losses}) == SEEDS


def test_what_is_said_of_each_scheme():
    result = found()
    zeros = result["zeros"]
    assert zeros.signal.verdict.name == "symmetric"
    assert zeros.at_chance == SEEDS
    assert zeros.steps_to_threshold.median == math.inf
    assert result["he"].at_chance == 0
    assert result["he"].learning_rate == RATES[1]
    assert [rate for rate, _ in result["he"].by_rate] == list(RATES)
    text = str(result)
    assert result.best != "zeros"
    worse = f"lowest loss: {result.best}; worse beyond chance: zeros; not told apart"
    assert worse in text
    assert "5 of 5 at chance" in text
    assert "<table" in result._repr_html_()
    row = result.rows[1]
    named = {"scheme", "verdict", "learning_rate", "loss", "accuracy", "diverged"}
    assert named | {"steps_to_threshold", "p_best"} < set(row)
    assert row["steps_to_threshold"] == dict.fromkeys(("median", "low", "high"))
    assert row["std"] == [0.0, 0.0]
    assert result.as_json()["rows"] == result.rows


class Compiled:
    """Counts the programs of a name that jax says it compiles."""

    def __init__(self, name):
        self.logger, self.name, self.count = logging.getLogger("jax"), name, 0
        self.handler = logging.Handler()
        self.handler.emit = self._emit

    def _emit(self, record):
        pattern = rf"Compiling (jit\()?{self.name}\)? "
        self.count += bool(re.match(pattern, record.getMessage()))

    def __enter__(self):
        self.logger.addHandler(self.handler)
        self.context = jax.log_compiles()
        self.context.__enter__()
        return self

    def __exit__(self, *error):
        self.context.__exit__(*error)
        self.logger.removeHandler(self.handler)


@pytest.mark.parametrize("count", sampled([1, 3], [1]))
def test_one_program_trains_any_number_of_schemes(count):
    named = {"zeros": jaxinit.zeros, "ones": jaxinit.ones, "he": jaxinit.he_normal()}
    with Compiled("advance") as programs, Compiled("_begun") as begun:
        on_line(dict([*named.items()][:count]), learning_rates=(0.1, 0.2))
    assert (programs.count, begun.count) == (1, 1)
    with Compiled("control") as control:
        jax.jit(_control)(jnp.zeros(3))
        jax.jit(_control)(jnp.zeros(4))
    assert control.count == 2


def _control(x):
    return x + 1


_control.__name__ = "control"


@pytest.mark.exhaustive
@pytest.mark.parametrize("thorough", sampled([False, True], [True]))
def test_chunks_change_nothing(monkeypatch, thorough):
    """With chunks of one size, not a bit; of different ones, only the rounding."""
    sizes = []

    def of_size(size):
        def chunk_size(*given):
            sizes.append(given)
            return size

        monkeypatch.setattr(study, "chunk_size", chunk_size)

    def trained(named):
        shapes = {"w": jax.ShapeDtypeStruct((FEATURES, CLASSES), "float32")}
        return curves(tried(named, (shapes, times), seeds=2))

    last = {"normal": jaxinit.normal(1.0)}
    named = {"he": jaxinit.he_normal(), "zeros": jaxinit.zeros, "1": jaxinit.ones}
    each = 2 * len(RATES)
    of_size(each - 1)  # chunks end within a scheme, and the last is padded
    whole = trained(named | last)
    np.testing.assert_array_equal(trained(last)["normal"], whole["normal"])
    assert not np.allclose(whole["normal"], whole["he"], rtol=1e-4)
    assert [runs for runs, *_ in sizes] == [4 * each, each]
    if not thorough:
        return
    of_size(4 * each)
    for name, losses_ in trained(named | last).items():
        np.testing.assert_allclose(losses_, whole[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("runs", "memory", "size"), [(10, 100, 10), (10, 99, 5), (10, 31, 3), (10, 1, 1)]
)
def test_chunks_are_of_one_size_and_fit(runs, memory, size):
    assert study.chunk_size(runs, 10, memory) == size


def test_a_step_of_a_larger_model_takes_more_memory(monkeypatch):
    seen = []

    def chunk_size(runs, bytes_of_run, memory):
        seen.append(bytes_of_run)
        raise KeyboardInterrupt  # before anything is compiled

    monkeypatch.setattr(study, "chunk_size", chunk_size)
    monkeypatch.setattr(study.Study, "_signal", lambda *_: None)
    for width in (8, 64):
        shapes = {"w": jax.ShapeDtypeStruct((FEATURES, width), "float32")}
        model = shapes, lambda params, x: x @ params["w"]
        with pytest.raises(KeyboardInterrupt):
            tried({"0": jaxinit.ones}, model)
    small, large = seen
    assert small >= 4 * (8 * FEATURES * 4 + BATCH * (8 + FEATURES))  # Adam, a batch
    assert large > 4 * small


def reference(model, params, state, rate, keys, held):
    """Training as anyone would write it, one step after the other."""
    x, y = arrays()
    rows = np.setdiff1d(np.arange(ROWS), held)
    optimizer = optax.sgd(rate, momentum=0.9)
    slots, found = optimizer.init(params), []

    def loss(params, state, x, y, key):
        logits, state = model.call(params, state, (x,), key, train=True)
        every = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return every.mean(), state

    @jax.jit
    def stepped(params, state, slots, x, y, noise):
        slope = jax.value_and_grad(loss, has_aux=True)
        (value, state), gradient = slope(params, state, x, y, noise)
        updates, slots = optimizer.update(gradient, slots, params)
        return value, optax.apply_updates(params, updates), state, slots

    for step in range(3):
        place = jax.random.fold_in(keys[1], step)
        chosen = rows[np.asarray(jax.random.randint(place, (BATCH,), 0, len(rows)))]
        noise = jax.random.fold_in(keys[2], step)
        value, params, state, slots = stepped(
            params, state, slots, x[chosen], y[chosen], noise
        )
        found.append(value)
    call = jax.jit(functools.partial(model.call, train=False))
    logits, _ = call(params, state, (x[held],), keys[2])
    every = optax.softmax_cross_entropy_with_integer_labels(logits, y[held])
    return np.array(found), float(np.mean(every))


MODELS = {"linen": Net(norm=True), "nnx": NNXNet}


@pytest.mark.parametrize("kind", sampled(MODELS, ["nnx"]))
def test_it_trains_as_anyone_would(kind):
    """Norms keep their statistics, dropout its noise, and rates are apart."""
    module = MODELS[kind]
    shape = jax.ShapeDtypeStruct((BATCH, FEATURES), "float32")
    opened = models.opened(module, shape, {})
    key, rate = jax.random.key(3), 0.2
    result = tried(
        {"he": jaxinit.he_normal()},
        module,
        key=key,
        steps=3,
        seeds=1,
        learning_rates=(rate, 1e-3),
        # Adam would make steps of the noise that gradients before a norm are.
        optimizer=functools.partial(optax.sgd, momentum=0.9),
    )
    held_key, runs = jax.random.split(key)
    held = np.sort(np.asarray(jax.random.permutation(held_key, ROWS))[: ROWS // 5])
    keys = jax.random.split(jax.random.fold_in(runs, 0), 3)
    own, state = opened.own(keys[0])
    rules = jaxinit.Rules(
        {
            "**/scale": jaxinit.ones,
            "**/bias": jaxinit.zeros,
            "**/kernel": jaxinit.he_normal(),
        }
    )
    params = jaxinit.plan(own, rules).init(keys[0])
    expected, held_loss = reference(opened, params, state, rate, keys, held)
    (at, spread), _ = result["he"].by_rate
    assert at == rate
    assert spread.median == pytest.approx(held_loss, rel=1e-4)
    assert result["he"].learning_rate == rate
    np.testing.assert_allclose(result["he"].losses[0], expected, rtol=1e-4)
    # negative controls: the other rate, and evaluation as if it were training
    assert result["he"].by_rate[1][1].median != pytest.approx(held_loss, rel=1e-3)
    x = arrays()[0][held]
    trained, plain = (
        jax.jit(functools.partial(opened.call, train=train))(
            params, state, (x,), keys[2]
        )[0]
        for train in (True, False)
    )
    assert not np.allclose(trained, plain)


def test_starts_are_those_of_linen_init_and_nnx_create():
    x, key = jnp.zeros((BATCH, FEATURES)), jax.random.key(5)
    rules = jaxinit.schemes.mlp("relu")
    model = models.opened(Net(), jax.ShapeDtypeStruct(x.shape, x.dtype), {})
    own, _ = model.own(key)
    plans = schemes.plans(model, own, {"mlp": rules, "own": None})
    for name, scheme_ in (("mlp", rules), ("own", None)):
        expected = init(Net(), key, x, scheme=scheme_, train=True)["params"]
        drawn = schemes.drawn(plans[name], key, own)
        assert jax.tree.all(jax.tree.map(np.array_equal, drawn, expected))
    model = models.opened(NNXNet, jax.ShapeDtypeStruct(x.shape, x.dtype), {})
    own, _ = model.own(key)
    [plan] = schemes.plans(model, own, {"mlp": rules}).values()
    expected = nnx.state(create(NNXNet, key, scheme=rules), nnx.Param)
    drawn = schemes.drawn(plan, key, own)
    assert jax.tree.all(jax.tree.map(np.array_equal, drawn, expected))


def test_one_initializer_is_for_kernels_along_their_axes():
    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.LayerNorm()(nn.MultiHeadDotProductAttention(2)(x))

    shape = jax.ShapeDtypeStruct((3, 5, 8), "float32")
    model = models.opened(Attention(), shape, {})
    own, _ = model.own(jax.random.key(0))
    [plan] = schemes.plans(model, own, {"he": jaxinit.he_normal()}).values()
    leaves = {leaf.path: leaf for leaf in plan}
    std = {path: leaf.std for path, leaf in leaves.items() if "kernel" in path}
    assert list(std.values()) == pytest.approx([math.sqrt(2 / 8)] * 4)
    kept = {path for path, leaf in leaves.items() if leaf.is_kept}
    assert kept == {"LayerNorm_0/scale"}
    biases = [leaf for path, leaf in leaves.items() if path.endswith("bias")]
    assert all(leaf.initializer == jaxinit.zeros for leaf in biases)


@functools.cache
def line():
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    return x, 2 * x


SHAPES = {"w": jax.ShapeDtypeStruct((1, 1), "float32")}


def times(params, x):
    return x @ params["w"]


def on_line(named, **options):
    settings = {"optimizer": optax.sgd, "seeds": SEEDS, "steps": 12, **options}
    return compare((SHAPES, times), line(), named, **settings)


def test_runs_that_diverge_are_said_and_the_others_go_on():
    named = {"zeros": jaxinit.zeros, "ones": jaxinit.ones}
    result = on_line(named, learning_rates=(1e20, 1e-1))
    assert [x.learning_rate for x in result.schemes] == [0.1, 0.1]
    assert [x.by_rate[0][1].median for x in result.schemes] == [math.inf] * 2
    assert [x.diverged for x in result.schemes] == [0, 0]
    assert result["ones"].loss.median < result["ones"].losses[0, 0] / 2
    huge = on_line({**named, "exact": jaxinit.constant(2.0)}, learning_rates=(1e20,))
    assert [x.diverged for x in huge.schemes] == [SEEDS, SEEDS, 0]
    assert (huge.best, huge["ones"].p_best < 0.05) == ("exact", True)
    assert "5 of 5 diverged" in str(huge)
    assert huge.rows[0]["loss"] == {"median": None, "low": None, "high": None}


@pytest.mark.exhaustive
def test_a_loss_and_batches_of_ones_own():
    def batch(key):
        x = jax.random.normal(key, (BATCH, 1))
        return x, {"target": 3 * x}

    result = compare(
        (SHAPES, times),
        batch,
        {"lecun": jaxinit.lecun_normal()},
        loss=lambda outputs, y: jnp.mean(jnp.abs(outputs - y["target"])),
        optimizer=functools.partial(optax.sgd, momentum=0.9),
        learning_rates=(0.1,),
        steps=60,
        seeds=2,
        threshold=0.5,
    )
    [lecun] = result.schemes
    assert lecun.loss.median < 0.5
    assert 1 < lecun.steps_to_threshold.median < 60
    assert (lecun.accuracy, lecun.at_chance, result.chance_loss) == (None, None, None)
    assert "nothing to compare it with" in str(result)


def test_too_few_seeds_name_no_winner():
    # As many runs as where some diverge, so that they share a program.
    named = {"a": jaxinit.zeros, **dict.fromkeys("bcde", jaxinit.ones)}
    text = str(on_line(named, seeds=4))
    assert "no winner: 4 seeds are too few" in text
    assert "lowest loss" not in text


def stop_after(calls):
    """Told of progress, it interrupts at the last of some calls."""
    remaining = iter(range(calls - 1))

    def tell(done, total):
        if next(remaining, None) is None:
            raise KeyboardInterrupt

    return tell


def test_an_interruption_keeps_what_is_finished(monkeypatch):
    named = {"a": jaxinit.zeros, "b": jaxinit.ones, "c": jaxinit.ones}
    with pytest.raises(Interrupted) as caught:  # all at once: as they are by then
        on_line(named, progress=stop_after(7))
    result = caught.value.result
    assert (result.steps, result.wanted_steps, len(result.schemes)) == (7, 12, 3)
    assert "interrupted after 7 of 12 steps" in str(result)
    whole = on_line(named)
    np.testing.assert_array_equal(result["b"].losses, whole["b"].losses[:, :7])
    monkeypatch.setattr(study, "chunk_size", lambda *_: SEEDS)  # one by one
    with pytest.raises(Interrupted) as caught:
        on_line(named, progress=stop_after(12 + 12 + 3))
    result = caught.value.result
    assert [x.scheme for x in result.schemes] == ["a", "b"]
    assert (result.steps, result.unfinished) == (12, ("c",))
    assert "interrupted before: c" in str(result)
    with pytest.raises(KeyboardInterrupt) as caught:
        on_line(named, progress=stop_after(1))
    assert not isinstance(caught.value, Interrupted)


def test_progress_is_told_in_pieces():
    told = []
    on_line({"a": jaxinit.zeros}, steps=45, progress=lambda *x: told.append(x))
    assert told == [(min(x, 45), 45) for x in range(3, 46, 3)]


def test_pictures_show_the_medians():
    result = found()
    figure = plots.compare(result)
    assert isinstance(figure, Figure)
    [axes] = figure.axes
    lines = {x.get_label(): x for x in axes.get_lines()}
    for each in result.schemes:
        medians = np.median(judging.smoothed(each.losses), 0)
        drawn = lines[each.scheme].get_ydata()
        np.testing.assert_allclose(drawn, medians, rtol=1e-12)
    assert axes.get_yscale() == "log"
    [legend] = figure.legends
    assert [x.get_text() for x in legend.get_texts()] == list(SCHEMES)
    with pytest.raises(TypeError, match=r"result must be what compare\.compare"):
        plots.compare({})
    assert len(plots.depth(result.signals).axes) == 2


def test_losses_are_those_of_their_formulas():
    random = np.random.default_rng(1)
    logits = random.normal(size=(4, 5, 3)).astype(np.float32)
    y = np.array(random.integers(-1, 3, (4, 5)))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    counted = [logs[i][y[i]] for i in np.ndindex(4, 5) if y[i] >= 0]
    assert losses.cross_entropy(logits, y) == pytest.approx(-np.mean(counted), rel=1e-5)
    right = [logits[i].argmax() == y[i] for i in np.ndindex(4, 5) if y[i] >= 0]
    assert losses.accuracy(logits, y) == pytest.approx(np.mean(right), rel=1e-6)
    assert losses.squared_error(np.ones((3, 1)), np.zeros(3)) == 1
    labels = np.array([0, 0, 1, -1])
    entropy = -(2 * math.log(2 / 3) + math.log(1 / 3)) / 3
    assert losses.chance_loss(losses.cross_entropy, labels) == pytest.approx(entropy)
    share, error = losses.chance_accuracy(labels)
    assert (share, error) == pytest.approx((2 / 3, 3 * math.sqrt(2 / 9 / 3)))


def test_spreads_may_be_infinite():
    spread = judging.spread
    assert spread([4, 1, 2, 3, 5]) == judging.Spread(3, 2, 4)
    assert spread([1, 2, math.inf, math.inf]) == judging.Spread(
        math.inf, 1.75, math.inf
    )
    low = np.quantile([1.0, 2, 4, 8], 0.25)
    assert spread([8, 4, 2, 1]).low == low


def test_means_of_ten_steps_and_the_step_that_reaches_a_threshold():
    falling = np.arange(30.0, 0, -1)[None]
    means = judging.smoothed(falling)[0]
    assert (means[0], means[9], means[29]) == (30, 25.5, 5.5)
    assert judging.steps_to(5.5, falling) == 30
    assert judging.steps_to(29.5, falling) == 10  # not before ten steps are known
    assert judging.steps_to(5.4, falling) == math.inf
    spike = np.where(np.arange(30) == 15, 0.0, 30.0)[None]
    assert judging.steps_to(1.0, spike) == math.inf
    grown = np.array([[1.0, 2, 50], [1, 2, 3], [1, math.nan, 1]])
    assert judging.have_diverged(grown, np.ones(3)).tolist() == [True, False, True]
    lucky = np.array([[0.01, 1.0, 1.2]])  # the first batch
    assert judging.have_diverged(lucky, np.ones(1)).tolist() == [True]
    assert judging.have_diverged(lucky, np.ones(1), 1.0).tolist() == [False]


def test_runs_that_are_no_better_than_a_constant():
    """By accuracy where there are labels; else by a twentieth of the loss."""
    held, right = np.array([2.5, 1.91, 1.89]), np.array([0.3, 0.36, 0.35])
    by_loss = Yardstick(None, 2.0, None)
    assert by_loss.at_chance(held, right).tolist() == [True, True, False]
    by_accuracy = Yardstick(None, 2.0, 0.3, error=0.05)
    assert by_accuracy.at_chance(held, right).tolist() == [True, False, True]
    assert Yardstick(None, None, None).at_chance(held, right) is None


@pytest.mark.exhaustive
def test_a_function_is_told_whether_it_is_trained():
    told = set()

    def apply(params, x, train=False):
        told.add(train)
        return x @ params["w"]

    shapes = {"w": jax.ShapeDtypeStruct((6, 3), jnp.float32)}
    compare((shapes, apply), (X, Y), {"zeros": jaxinit.zeros}, steps=1, seeds=1)
    assert told == {True, False}


@pytest.mark.exhaustive
def test_schemes_that_diverge_with_every_seed_are_named():
    """And a single column of outputs is no logits, so that it has no accuracy."""

    def endless(key, shape, dtype=jnp.float32):
        return jnp.full(shape, jnp.nan, dtype)

    shapes = {"w": jax.ShapeDtypeStruct((6, 1), jnp.float32)}
    result = compare(
        (shapes, lambda params, x: x @ params["w"]),
        (X, Y),
        {"nan": endless, "zeros": jaxinit.zeros},
        loss=lambda outputs, y: jnp.mean((outputs[:, 0] - y) ** 2),
        steps=3,
        batch_size=8,
    )
    assert result["nan"].diverged == SEEDS
    assert "lowest loss: zeros; diverged with every seed: nan" in result.notes[-1]
    assert result["zeros"].accuracy is None


def test_equal_schemes_are_rarely_called_different():
    """In 400 trials of four schemes: at most 5 % by chance, and 5 standard errors."""
    random, trials = np.random.default_rng(7), 400
    false, unadjusted = 0, 0
    for _ in range(trials):
        held = random.normal(size=(4, SEEDS)) + 3 * random.normal(size=SEEDS)
        best, p = judging.differences(held, None)
        false += min(p) < 0.05
        raw = judging.paired(np.broadcast_to(held[best], held.shape), held)
        unadjusted += min(raw) < 0.05
    bound = trials * 0.05 + 5 * math.sqrt(trials * 0.05 * 0.95)
    assert false <= bound
    assert unadjusted > bound, "negative control"
    shifted = held + np.array([0, 9, 9, 9])[:, None]
    best, p = judging.differences(shifted, None)
    assert best == 0
    assert max(p[1:]) < 0.05


def test_adjusted_p_values_are_those_of_holm():
    assert judging.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert judging.holm([0.5, 0.9]) == [1.0, 1.0]
    assert judging.differences(np.zeros((2, 4)), None)[1] is None


def test_names_of_schemes():
    assert parted('a,normal(0.1, mean=1),mlp("relu")')[1:] == [
        "normal(0.1, mean=1)",
        'mlp("relu")',
    ]
    assert scheme("own") is None
    assert scheme("he_normal") == jaxinit.he_normal()
    assert scheme("normal(0.1, mean=1)") == jaxinit.normal(0.1, mean=1)
    assert scheme("zeros") == jaxinit.zeros
    assert scheme("mlp('relu')") == jaxinit.schemes.mlp("relu")
    assert scheme("kaiming_normal_") == jaxinit.config.get("kaiming_normal_")


SETS = {
    "digits": ((1797, 8, 8, 1), (1797,)),
    "breast_cancer": ((569, 30), (569,)),
    "wine": ((178, 13), (178,)),
    "xor": ((128, 2), (128,)),
    "copy": ((128, 31, 10), (128, 31)),
    "adding": ((128, 30, 2), (128, 1)),
}


@pytest.mark.parametrize("name", sampled(SETS, ["xor", "adding"]))
def test_data_by_name(name):
    made = datasets.named(name)
    x, y = map(np.asarray, made(jax.random.key(0)) if callable(made) else made)
    assert (x.shape, y.shape) == SETS[name]
    if not callable(made):
        assert (x.mean(), x.std()) == pytest.approx((0, 1), abs=1e-4)
    elif name == "xor":
        np.testing.assert_array_equal(y, (x[:, 0] * x[:, 1] < 0).astype(int))
    elif name == "copy":
        np.testing.assert_array_equal(y[:, -5:], x[:, :5].argmax(-1))
        assert (y[:, :-5] == -1).all()
        assert (x[:, 25].argmax(-1) == 9).all()
    else:
        np.testing.assert_allclose(y[:, 0], (x[..., 0] * x[..., 1]).sum(1), rtol=1e-6)
        assert (x[..., 1].sum(1) == 2).all()


X, Y = np.zeros((9, FEATURES), np.float32), np.zeros(9, int)
KERNEL = {"he": jaxinit.he_normal()}


def warming_up(rate):
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, 2, 10))


ONLY = (SHAPES, times)
WRONG = {
    "schedule": (
        lambda: compare(ONLY, line(), KERNEL, optimizer=warming_up, steps=2),
        ["optimizer looks at the value of the learning rate", "optax.scale(rate)"],
    ),
    "labels": (
        lambda: compare(Net(), (X, Y + 3), KERNEL),
        ["labels y go up to 3", "3 logits", "0 to 2"],
    ),
    "negative labels": (
        lambda: compare(Net(), (X, Y - 1), KERNEL),
        ["must not be negative", "-1"],
    ),
    "rows": (
        lambda: compare(Net(), (X, Y[1:]), KERNEL),
        ["same number of rows", "[9, 6]", "[8]"],
    ),
    "no rows": (
        lambda: compare(Net(), ((X, Y), (X[:0], Y[:0])), KERNEL),
        ["have no rows"],
    ),
    "labels that are held out": (
        lambda: compare(Net(), ((X, Y), (X, Y - 5)), KERNEL),
        ["must not be negative"],
    ),
    "threshold": (
        lambda: compare(Net(), (X, Y), KERNEL, threshold=math.nan),
        ["threshold must be a finite number", "nan"],
    ),
    "one row": (lambda: compare(Net(), (X[:1], Y[:1]), KERNEL), ["two rows or more"]),
    "not finite": (lambda: compare(Net(), (X + np.nan, Y), KERNEL), ["x holds NaN"]),
    "held out": (
        lambda: compare(Net(), ((X, Y), (X[:, 1:], Y)), KERNEL),
        ["held-out rows must be like the others"],
    ),
    "features": (
        lambda: compare(ONLY, (X, X), KERNEL),
        ["cannot be called on a batch of x of float32[128, 6]"],
    ),
    "targets": (
        lambda: compare(ONLY, (line()[0], X[:, :2].repeat(6, 0)[:50]), KERNEL),
        ["returns float32[128, 1]", "float32[128, 2]"],
    ),
    "logits": (
        lambda: compare(ONLY, (X[:, :1, None], Y), KERNEL),
        ["for labels of int32[128]", "an axis of classes"],
    ),
    "loss": (
        lambda: compare(Net(), (X, Y), KERNEL, loss="cross_entrpy"),
        ["unknown loss", "'cross_entropy'"],
    ),
    "loss of labels": (
        lambda: compare(Net(), (X, Y), KERNEL, loss="squared_error"),
        ["floating-point targets"],
    ),
    "scheme": (
        lambda: compare(
            Net(),
            (X, Y),
            {
                "some": {"**/kernel": jaxinit.ones},
                "gpt2": jaxinit.schemes.gpt2(),
                **KERNEL,
            },
        ),
        ["scheme 'some' does not fit", "Dense_0/bias: no rule", "scheme 'gpt2' does"],
    ),
    "own of shapes": (
        lambda: compare(ONLY, line(), {"own": None}),
        ["scheme 'own' is None", "no initialization of its own"],
    ),
    "no scheme": (lambda: compare(ONLY, line(), {}), ["one scheme or more"]),
    "rates": (
        lambda: compare(ONLY, line(), KERNEL, learning_rates=(0.0,)),
        ["learning_rates", "positive"],
    ),
    "steps": (lambda: compare(ONLY, line(), KERNEL, steps=0), ["steps must be 1 or"]),
}
OF_WRONG_TYPE = {
    "class": (lambda: compare(Net, (X, Y), KERNEL), ["class Net: give a module"]),
    "model": (
        lambda: compare(NNXNet(nnx.Rngs(0)), (X, Y), KERNEL),
        ["model must be", "NNX module that is made already"],
    ),
    "data": (lambda: compare(ONLY, (X, X, X), KERNEL), ["data must be", "length 3"]),
    "batches": (lambda: compare(ONLY, lambda key: X, KERNEL), ["a batch (x, y)"]),
    "text": (lambda: compare(ONLY, (X.astype(str), X), KERNEL), ["arrays of numbers"]),
    "schemes": (
        lambda: compare(ONLY, line(), {"he": jaxinit.he_normal}),
        ["schemes['he']", "it is to be called: he_normal()"],
    ),
    "names": (lambda: compare(ONLY, line(), [jaxinit.zeros]), ["a mapping from names"]),
    "optimizer": (
        lambda: compare(ONLY, line(), KERNEL, optimizer=optax.adam(1.0)),
        ["a function of a learning rate", "it is made already"],
    ),
    "rates": (
        lambda: compare(ONLY, line(), KERNEL, learning_rates=0.1),
        ["learning_rates must be a sequence", "got 0.1"],
    ),
    "loss": (
        lambda: compare(ONLY, line(), KERNEL, loss=lambda outputs, y: outputs),
        ["loss must return one real number"],
    ),
    "progress": (
        lambda: compare(ONLY, line(), KERNEL, progress=3),
        ["progress must be True, False, or a function"],
    ),
    "key": (lambda: compare(ONLY, line(), KERNEL, key=0), ["jax.random.key(0)"]),
}


def test_optimizers_are_told_the_loss_and_how_to_find_it_elsewhere():
    """Which those need that search along a line, or wait for a plateau."""
    told = {}

    def update(slope, state, params, *, value, grad, value_fn):
        told.update(
            slope=grad["w"][0, 0], values=(value, value_fn({"w": params["w"] + 1}))
        )
        return slope, state

    def optimizer(rate):
        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    x = np.arange(4.0, dtype=np.float32).reshape(4, 1)
    rows = Data(lambda arrays, key: arrays, (x, 2 * x[:, 0]), (x, x), x)
    model = models.Function({"w": x[:1]}, lambda p, x: (x @ p["w"])[:, 0], (x,))
    trainer = Trainer(model, rows, losses.squared_error, optimizer, 1, False)
    key = jax.random.key(0)
    run = Run({"w": jnp.ones((1, 1))}, (), (), 0.1, key, key)

    def step(run):
        _, loss, _ = trainer.step(run, rows.arrays, 0)
        return loss, told["slope"], *told["values"]

    loss, slope, value, elsewhere = map(float, jax.jit(step)(run))
    assert (value, elsewhere) == (loss, 0.0)
    assert slope == -2 * loss  # of (w - 2)**2 times the same squares


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["lbfgs", "plateau"])
def test_optimizers_may_look_at_the_loss(name):
    plateau = optax.contrib.reduce_on_plateau
    made = {
        "lbfgs": optax.lbfgs,
        "plateau": lambda rate: optax.chain(optax.sgd(rate), plateau(patience=1)),
    }
    settings = {"steps": 8, "seeds": 2, "learning_rates": (0.1,)}
    result = compare(ONLY, line(), KERNEL, optimizer=made[name], **settings)
    for each in result.schemes:
        assert (each.losses[..., -1] < each.losses[..., 0]).all()


@pytest.mark.parametrize("name", sampled(WRONG, ["scheme"]))
def test_message(name):
    fails, parts = WRONG[name]
    with pytest.raises(ValueError, match=r".") as caught:
        fails()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("name", OF_WRONG_TYPE)
def test_type_message(name):
    fails, parts = OF_WRONG_TYPE[name]
    with pytest.raises(TypeError) as caught:
        fails()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


class Deep(nn.Module):
    """Twelve layers of one activation, with a norm before each or without."""

    function: str
    norm: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.reshape(len(x), -1)
        for _ in range(12):
            x = nn.Dense(32)(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = getattr(nn, self.function)(x)
        return nn.Dense(10)(x)


THEORY = {
    "zeros": jaxinit.zeros,
    "small": jaxinit.normal(0.01),
    "glorot": jaxinit.glorot_normal(),
    "he": jaxinit.he_normal(),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("function", "wanted"), [("tanh", "glorot"), ("relu", "he")])
def test_the_order_that_theory_predicts(function, wanted):
    """Zeros and N(0, 0.01) fail in deep nets, unless these have norms."""
    data = datasets.named("digits")
    plain = compare(Deep(function), data, THEORY, steps=150)
    assert plain[wanted].accuracy.median > 0.8
    assert plain[wanted].signal.verdict.name == "healthy"
    for name in ("zeros", "small"):
        assert plain[name].accuracy.median < 0.4
        assert plain[name].p_best < 0.05
    normed = compare(Deep(function, True), data, THEORY, steps=400)
    gap = normed[wanted].accuracy.median - normed["small"].accuracy.median
    assert abs(gap) < 0.1  # without norms it is above 0.4
    assert normed["zeros"].at_chance == SEEDS
