"""What the examples share: data that need no download, a training loop, a picture.

Data are arrays of scikit-learn or the text of Python's own library. A batch is a pure
function of a key, so that a whole training is one compiled program.
"""

import argparse
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxinit
from jaxinit import testing

ADAMW = optax.adamw(1e-3)
FAST = optax.adamw(3e-3)  # for networks with norms, which are trained for seconds
HELD_OUT = 360  # of the 1797 digits
MODULES = ("argparse", "inspect", "subprocess", "tarfile", "turtle", "typing")


@dataclass(frozen=True)
class Trained:
    """What came out: parameters, state, and the loss of every step, shape (steps,)."""

    params: Any
    state: Any
    losses: np.ndarray


def digits(key: jax.Array | None = None):
    """The handwritten digits of scikit-learn, split into training and held-out ones.

    Args:
      key: another split than the usual one.

    Returns:
      Two pairs of images (n, 8, 8, 1), float32 in [0, 1], and labels (n,), int32; 1437
      to train on and 360 held out.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    labels = data.target.astype(np.int32)
    key = jax.random.key(0) if key is None else key
    order = np.asarray(jax.random.permutation(key, len(labels)))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return (images[train], labels[train]), (images[test], labels[test])


def text() -> np.ndarray:
    """The sources of some modules of the standard library, as bytes: (n,), uint8."""
    sources = [inspect.getsource(importlib.import_module(name)) for name in MODULES]
    return np.frombuffer("\n".join(sources).encode(), np.uint8)


def batches_of(x, y, size: int):
    """Batches of `size` rows of x and y, picked at random: a function of a key."""
    x, y = jnp.asarray(x), jnp.asarray(y)

    def batches(key):
        rows = jax.random.randint(key, (size,), 0, len(x))
        return x[rows], y[rows]

    return batches


def cross_entropy(logits, labels) -> jax.Array:
    """The mean loss of logits (..., classes) for integer labels (...), in nats."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def accuracy(logits, labels) -> float:
    """The share of labels (...) that are the largest of the logits (..., classes)."""
    return float(np.mean(np.argmax(logits, -1) == labels))


def program(loss, batches, *, steps: int, optimizer=ADAMW):
    """A whole training as a pure function, to be jitted, or mapped over seeds.

    Args:
      loss: (params, batch, key) -> scalar; or, where there is state such as the running
        moments of a batch norm, (params, state, batch, key) -> (scalar, new state).
      batches: key -> batch.
      steps: how many batches.
      optimizer: of optax.

    Returns:
      (params, state, key) -> (params, state, losses (steps,)).
    """

    def with_state(params, state, batch, key):
        if state is None:
            return loss(params, batch, key), None
        return loss(params, state, batch, key)

    def step(carry, key):
        params, state, memory = carry
        draw, noise = jax.random.split(key)
        value_and_grad = jax.value_and_grad(with_state, has_aux=True)
        (value, state), grads = value_and_grad(params, state, batches(draw), noise)
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), state, memory), value

    def run(params, state, key):
        carry = (params, state, optimizer.init(params))
        keys = jax.random.split(key, steps)
        (params, state, _), losses = jax.lax.scan(step, carry, keys)
        return params, state, losses

    return run


def train(
    loss, params, batches, *, steps: int, optimizer=ADAMW, state=None, key=None
) -> Trained:
    """Trains, as one compiled program; arguments as of `program`.

    Args:
      loss: what is minimised.
      params: where it starts.
      batches: key -> batch.
      steps: how many batches.
      optimizer: of optax.
      state: what the loss carries from step to step, if anything.
      key: of batches and noise; that of seed 1 if not given.
    """
    run = jax.jit(program(loss, batches, steps=steps, optimizer=optimizer))
    params, state, losses = run(
        params, state, jax.random.key(1) if key is None else key
    )
    return Trained(params, state, np.asarray(losses))


def checked(params, scheme, roles):
    """The parameters, once they are found to have the moments of their scheme.

    Args:
      params: as `jaxinit.linen.init` or `jaxinit.nnx.create` made them.
      scheme: the rules by which they did.
      roles: of `jaxinit.linen.roles` or `jaxinit.nnx.roles`.

    Raises:
      AssertionError: They have not, a false alarm in 1e9 calls.
    """
    testing.assert_moments(params, jaxinit.plan(params, scheme, roles=roles))
    return params


def linen_calls(model, **training):
    """A Linen module as pure functions of parameters and state, for `on_digits`.

    Args:
      model: the module.
      **training: what tells its call that it is trained, such as `train=True`.

    Returns:
      apply: (params, state, x, key) -> (logits, new state), in training.
      infer: (params, state, x) -> logits.
    """

    def apply(params, state, x, key):
        variables, rngs = {"params": params, **state}, {"dropout": key}
        return model.apply(variables, x, rngs=rngs, mutable=list(state), **training)

    def infer(params, state, x):
        return model.apply({"params": params, **state}, x)

    return apply, infer


def nnx_calls(model):
    """An NNX model as pure functions, and its parameters and state, for `on_digits`.

    Returns:
      apply: (params, state, x, key) -> (logits, new state), in training.
      infer: (params, state, x) -> logits.
      params: every `nnx.Param`.
      state: all else, such as running moments and the counts of random streams.
    """
    from flax import nnx

    model.eval()
    at_rest = nnx.graphdef(model)
    model.train()
    graph, params, state = nnx.split(model, nnx.Param, ...)

    def apply(params, state, x, key):
        model = nnx.merge(graph, params, state, copy=True)  # to be written to
        return model(x), nnx.state(model, nnx.Not(nnx.Param))

    def infer(params, state, x):
        return nnx.merge(at_rest, params, state)(x)

    return apply, infer, params, state


@dataclass(frozen=True)
class Learned:
    """A classifier of digits: its losses, and the share of held-out digits told right.

    Attributes:
      parameters: how many.
      losses: of every step (steps,).
      before: accuracy at the start.
      after: accuracy at the end.
    """

    parameters: int
    losses: np.ndarray
    before: float
    after: float

    def __str__(self):
        first, last = self.losses[0], self.losses[-10:].mean()
        return (
            f"{self.parameters:,} parameters; loss {first:.2f}, then {last:.3f}; "
            f"held-out accuracy {self.before:.1%}, then {self.after:.1%}"
        )


def on_digits(
    apply, infer, params, state, *, steps, key, optimizer=FAST, size=64
) -> Learned:
    """Trains a classifier on digits.

    Args:
      apply: (params, state, x, key) -> (logits, new state), in training.
      infer: (params, state, x) -> logits.
      params: where it starts.
      state: the same of what is no parameter.
      steps: how many batches.
      key: of batches and noise.
      optimizer: of optax.
      size: of a batch.
    """

    def loss(params, state, batch, key):
        logits, state = apply(params, state, batch[0], key)
        return cross_entropy(logits, batch[1]), state

    (x, y), (x_test, y_test) = digits()
    batches, infer = batches_of(x, y, size), jax.jit(infer)
    settings = {"steps": steps, "optimizer": optimizer, "key": key}
    trained = train(loss, params, batches, state=state, **settings)
    before, after = (
        accuracy(infer(*leaves, x_test), y_test)
        for leaves in ((params, state), (trained.params, trained.state))
    )
    return Learned(count(params), trained.losses, before, after)


def options(
    arguments: Sequence[str], about: str, *, steps: int, sizes: Sequence[str] = ()
) -> argparse.Namespace:
    """What an example was asked for: `steps`, `seed`, `picture`; of `sizes`, `count`.

    Args:
      arguments: of the command line.
      about: the docstring of the example.
      steps: how many, if the command line does not say.
      sizes: names of published models.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=steps, help=f"{steps} if not given"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", metavar="PATH", help="draw what was seen")
    if sizes:
        parser.add_argument("--count", choices=sizes, help="count parameters, no more")
    return parser.parse_args(arguments)


def count(tree) -> int:
    """The number of entries of all arrays, or shapes, of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def published(name: str, init, expected: int) -> str:
    """A line with a model's number of parameters, none of which is drawn.

    Args:
      name: of the model.
      init: parameters as a function of a key; or their shapes.
      expected: the number that the authors state.

    Raises:
      ValueError: It is another number.
    """
    shapes = jax.eval_shape(init, jax.random.key(0)) if callable(init) else init
    if (found := count(shapes)) != expected:
        raise ValueError(
            f"{name} has {found:,} parameters, and {expected:,} were published"
        )
    return f"{name}: {found:,} parameters, as published"


def curves(path: Path | str, *panels: Mapping[str, np.ndarray], points: int = 60):
    """Draws loss curves, each value a mean over steps, as PNG, SVG or PDF.

    Args:
      path: of the file; its ending says which kind.
      *panels: drawn side by side: of each, the loss of every step (steps,) by name.
      points: how many values of each curve, at most.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels) + 1, 4), layout="constrained")
    for axes, losses in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        for name, values in losses.items():
            parts = np.array_split(np.asarray(values), min(points, len(values)))
            ends = np.cumsum([len(part) for part in parts])
            axes.plot(ends, [part.mean() for part in parts], label=name)
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
