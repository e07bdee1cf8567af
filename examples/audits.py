"""Audits of models that others wrote: `python -m examples.audits` writes AUDITS.md.

Each model starts by its own initializers. Nothing on the page but these words is
written by hand. Names choose some models, which are printed and not written.
"""

import importlib.metadata
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

import jaxinit
import jaxinit.linen
import jaxinit.nnx
from jaxinit.audit import Audit, AuditRow, Finding, audit

PAGE = Path(__file__).parent / "AUDITS.md"
KEY = jax.random.key(0)
WIDTH, LENGTH, SIDE, CLASSES, VOCABULARY = 256, 16, 96, 10, 1000
_MOST = 2  # leaves that are named for a law, paths for a finding
_SEVERITIES = ("error", "warning", "note")
_HEAD = """\
# Audits

What `jaxinit.audit` says of models and layers that others wrote and that PyPI has, each
as its own initializers start it. Written by `python -m examples.audits`, from
[audits.py](audits.py); models that are not named here were not looked at. A *class* is
leaves of one shape whose paths differ in numbers alone. A law is *sure* if all others
that are known are 10,000 times less likely. A finding may be meant by the authors: it
says what is so, and what follows from it.
"""


class Model(NamedTuple):
    """A model of a package.

    Attributes:
        package: its name on PyPI.
        make: gives the parameters, and roles if they can be read.
    """

    package: str
    make: Callable[[], tuple[Any, jaxinit.Roles | None]]


def floats(*shape: int) -> jax.Array:
    """An input of ones."""
    return jnp.ones(shape, jnp.float32)


VECTORS, SEQUENCES = floats(2, WIDTH), floats(2, LENGTH, WIDTH)
IMAGES, PICTURES = floats(2, 8, 8, 32), floats(2, SIDE, SIDE, 3)
TOKENS = jnp.zeros((2, LENGTH), jnp.int32)


# ---- Flax


class LinenLayers(nn.Module):
    """Layers of Linen, each on an input of its own."""

    @nn.compact
    def __call__(self, vectors, sequences, images, tokens):
        return (
            nn.Dense(384)(vectors),
            nn.DenseGeneral((8, 48))(vectors),
            nn.Conv(48, (3, 3))(images),
            nn.ConvTranspose(48, (3, 3))(images),
            nn.Embed(VOCABULARY, WIDTH)(tokens),
            nn.MultiHeadDotProductAttention(8)(sequences),
            nn.RNN(nn.OptimizedLSTMCell(WIDTH))(sequences),
            nn.RNN(nn.GRUCell(WIDTH))(sequences),
            nn.RNN(nn.SimpleCell(WIDTH))(sequences),
            nn.LayerNorm()(vectors),
            nn.GroupNorm(8)(images),
        )


def linen_layers():
    """Parameters and roles of the layers of Linen."""
    model, inputs = LinenLayers(), (VECTORS, SEQUENCES, IMAGES, TOKENS)
    params = jaxinit.linen.init(model, KEY, *inputs)["params"]
    return params, jaxinit.linen.roles(model, *inputs)


class NnxLayers(nnx.Module):
    """Layers of NNX, each on an input of its own."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(WIDTH, 384, rngs=rngs)
        self.general = nnx.LinearGeneral(WIDTH, (8, 48), rngs=rngs)
        self.conv = nnx.Conv(32, 48, (3, 3), rngs=rngs)
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(8, WIDTH, decode=False, rngs=rngs)
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(WIDTH, WIDTH, rngs=rngs), rngs=rngs)
        self.gru = nnx.RNN(nnx.GRUCell(WIDTH, WIDTH, rngs=rngs), rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.lora = nnx.LoRA(WIDTH, 8, WIDTH, rngs=rngs)

    def __call__(self, vectors, sequences, images, tokens):
        return (
            self.linear(vectors),
            self.general(vectors),
            self.conv(images),
            self.embed(tokens),
            self.attention(sequences),
            self.lstm(sequences),
            self.gru(sequences),
            self.norm(vectors),
            self.lora(vectors),
        )


def nnx_layers():
    """Parameters and roles of the layers of NNX."""
    model = jaxinit.nnx.create(NnxLayers, KEY)
    roles = jaxinit.nnx.roles(model, VECTORS, SEQUENCES, IMAGES, TOKENS)
    return nnx.state(model, nnx.Param), roles


# ---- Haiku


def haiku_net(call: Callable[..., Any], *inputs: jax.Array):
    """Parameters and roles of what is called in a transformed function."""
    net = hk.transform_with_state(call)
    params, state = jaxinit.jit(net.init)(KEY, *inputs)

    def apply(params, state, *inputs):
        return net.apply(params, state, None, *inputs)[0]

    return params, jaxinit.roles(apply, params, state, *inputs)


def haiku_layers(vectors, sequences, images, tokens):
    """Layers of Haiku, each on an input of its own."""
    batch = len(vectors)
    lstm, gru = hk.LSTM(WIDTH), hk.GRU(WIDTH)
    return (
        hk.Linear(384)(vectors),
        hk.Conv2D(48, 3)(images),
        hk.DepthwiseConv2D(1, 3)(images),
        hk.Embed(VOCABULARY, WIDTH)(tokens),
        lstm(vectors, lstm.initial_state(batch)),
        gru(vectors, gru.initial_state(batch)),
        hk.LayerNorm(-1, True, True)(vectors),
    )


def haiku_mlp(x):
    """A perceptron."""
    return hk.nets.MLP([512, 512, CLASSES])(x)


def haiku_images(name: str, **options: Any) -> Callable[[], Any]:
    """A net for images."""

    def call(x):
        net = getattr(hk.nets, name)(num_classes=CLASSES, **options)
        return net(x, is_training=True)

    return lambda: haiku_net(call, PICTURES)


# ---- Equinox


def equinox_model(make: Callable[..., Any], *inputs: jax.Array):
    """Parameters of what a function of a key makes, and roles if it is called."""
    model = jaxinit.jit(lambda key: eqx.filter(make(key), eqx.is_inexact_array))(KEY)
    if not inputs:
        return model, None
    static = eqx.filter(make(KEY), eqx.is_inexact_array, inverse=True)

    def apply(params, *inputs):
        return eqx.combine(params, static)(*inputs)

    return model, jaxinit.roles(apply, model, *inputs)


def equinox_layers(key):
    """Layers of Equinox."""
    keys = jax.random.split(key, 8)
    return {
        "linear": eqx.nn.Linear(WIDTH, 384, key=keys[0]),
        "conv2d": eqx.nn.Conv2d(32, 48, 3, key=keys[1]),
        "embedding": eqx.nn.Embedding(VOCABULARY, WIDTH, key=keys[2]),
        "attention": eqx.nn.MultiheadAttention(8, WIDTH, key=keys[3]),
        "lstm": eqx.nn.LSTMCell(WIDTH, WIDTH, key=keys[4]),
        "gru": eqx.nn.GRUCell(WIDTH, WIDTH, key=keys[5]),
        "norm": eqx.nn.LayerNorm(WIDTH),
    }


def equinox_mlp(key):
    """A perceptron."""
    return eqx.nn.MLP(WIDTH, CLASSES, 512, 3, key=key)


# ---- Keras


def keras_model(make: Callable[[Any], Any], *inputs: jax.Array):
    """Trainable variables by path, and roles, on the JAX backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    keras.utils.set_random_seed(0)
    model = make(keras)
    names = [variable.path for variable in model.trainable_variables]
    params = {x.path: x.value for x in model.trainable_variables}
    others = [x.value for x in model.non_trainable_variables]

    def apply(params, others, *inputs):
        trained = [params[name] for name in names]
        return model.stateless_call(trained, others, *inputs)[0]

    return params, jaxinit.roles(apply, params, others, *inputs)


def keras_layers(keras):
    """Layers of Keras, one after the other."""
    layers, tokens = keras.layers, keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH)(tokens)
    x = x + layers.MultiHeadAttention(8, WIDTH // 8)(x, x)
    x = layers.LayerNormalization()(x)
    x = layers.Conv1D(128, 3, padding="same", activation="relu")(x)
    x = layers.SeparableConv1D(96, 3)(x)
    x = layers.LSTM(WIDTH, return_sequences=True)(x)
    x = layers.GRU(WIDTH)(x)
    return keras.Model(tokens, layers.Dense(CLASSES)(x))


def keras_application(name: str) -> Callable[[Any], Any]:
    """A model of `keras.applications`, with random weights."""
    shape = (SIDE, SIDE, 3)
    return lambda keras: getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=CLASSES
    )


MODELS: dict[str, Model] = {
    "Flax Linen: layers": Model("flax", linen_layers),
    "Flax NNX: layers": Model("flax", nnx_layers),
    "Haiku: layers": Model(
        "dm-haiku", lambda: haiku_net(haiku_layers, VECTORS, SEQUENCES, IMAGES, TOKENS)
    ),
    "Haiku: nets.MLP": Model("dm-haiku", lambda: haiku_net(haiku_mlp, VECTORS)),
    "Haiku: nets.ResNet18": Model("dm-haiku", haiku_images("ResNet18")),
    "Haiku: nets.ResNet50": Model("dm-haiku", haiku_images("ResNet50")),
    "Haiku: nets.MobileNetV1": Model("dm-haiku", haiku_images("MobileNetV1")),
    "Equinox: layers": Model("equinox", lambda: equinox_model(equinox_layers)),
    "Equinox: nn.MLP": Model(
        "equinox", lambda: equinox_model(equinox_mlp, floats(WIDTH))
    ),
    "Keras: layers": Model("keras", lambda: keras_model(keras_layers, TOKENS)),
    **{
        f"Keras: applications.{name}": Model(
            "keras",
            lambda name=name: keras_model(keras_application(name), PICTURES),
        )
        for name in ("MobileNetV2", "ResNet50", "EfficientNetB0")
    },
}


# ---- the page


def audited(name: str) -> Audit:
    """What the audit says of a model."""
    return audit(*MODELS[name].make())


def page(audits: dict[str, Audit]) -> str:
    """The whole page."""
    summary = [_summary(name, found) for name, found in audits.items()]
    head = ("model", "classes", "leaves", "parameters", "sure", "findings")
    details = [section(name, found) for name, found in audits.items()]
    lines = [_HEAD, *_table(head, summary), "", _versions(), "", *details]
    return "\n".join(lines).rstrip() + "\n"


def _versions() -> str:
    packages = ("jax", *dict.fromkeys(model.package for model in MODELS.values()))
    found = (f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"Sure is the share of leaves with a sure law. Versions: {', '.join(found)}."


def _summary(name: str, found: Audit) -> tuple[str, ...]:
    leaves = sum(row.leaves for row in found.rows)
    size = sum(row.leaves * math.prod(row.shape) for row in found.rows)
    sure = sum(row.leaves for row in found.rows if row.sure) / leaves
    counts = Counter(x.severity for x in found.findings)
    told = [_count(counts[each], each) for each in _SEVERITIES if counts[each]]
    numbers = (str(len(found.rows)), f"{leaves:,}", f"{size:,}", f"{sure:.0%}")
    return name, *numbers, ", ".join(told) or "none"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}"


def section(name: str, found: Audit) -> str:
    """What is said of one model: its laws, and findings."""
    laws: dict[str, list[AuditRow]] = {}
    for row in found.rows:
        laws.setdefault(_law(row), []).append(row)
    rows = [
        (law, str(sum(row.leaves for row in some)), _listed([x.path for x in some]))
        for law, some in laws.items()
    ]
    findings = list(_findings(found))
    lines = [f"## {name}", "", *_table(("law", "leaves", "of"), rows), ""]
    return "\n".join([*lines, *findings, *([""] if findings else [])])


def _findings(found: Audit) -> Iterator[str]:
    """The findings; of one kind and severity, the first with its text."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for x in found.findings:
        alike.setdefault((x.severity, x.kind), []).append(x)
    for (severity, kind), (first, *others) in alike.items():
        text = f"- **{severity}, {kind}:** {_listed(first.paths)}: {first.text}"
        paths = [path for x in others for path in x.paths]
        yield f"{text} Others of this kind: {_listed(paths)}." if paths else text


def _law(row: AuditRow) -> str:
    if row.law is None:
        return row.note
    return f"`{row.law}`" if row.sure else f"perhaps `{row.law}`"


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _MOST
    shown = ", ".join(f"`{path}`" for path in paths[:_MOST])
    return f"{shown} and {more} more" if more > 0 else shown


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"


def main(names: Sequence[str] = ()) -> None:
    """Prints the audits of some models, or writes those of all."""
    if unknown := [name for name in names if name not in MODELS]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(MODELS)}")
    for name in names:
        print(section(name, audited(name)))
    if not names:
        PAGE.write_text(page({name: audited(name) for name in MODELS}))
        print(PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
