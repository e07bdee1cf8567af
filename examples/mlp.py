"""Perceptrons in Flax Linen: four activations on digits, and XOR.

    python -m examples.mlp --picture mlp.png
    python -m jaxinit init examples.mlp:relu --input 1x64:float32

On digits every activation starts from the initializer that practice recommends for it,
by `schemes.mlp`: Glorot's for sigmoid and tanh, He's for ReLU, LeCun's for SELU.

XOR is the smallest problem that needs a hidden layer. From zeros it stays at chance: no
hidden unit is active, so no kernel has a gradient. From equal numbers all hidden units
stay equal, which is one unit, and one ReLU cannot tell the four points apart. From He's
law it learns.
"""

import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxinit
import jaxinit.linen
from examples import training
from jaxinit import schemes

ACTIVATIONS = ("sigmoid", "tanh", "relu", "selu")
POINTS = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], jnp.float32)
PARITY = jnp.array([0, 1, 1, 0])
STARTS = {
    "zeros": jaxinit.zeros,
    "constant(0.5)": jaxinit.constant(0.5),
    "he_normal": jaxinit.he_normal(),
}


class MLP(nn.Module):
    """Rows (batch, ...) to logits (batch, classes)."""

    activation: Callable
    widths: Sequence[int] = (64, 64, 64)
    classes: int = 10

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = self.activation(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


sigmoid, tanh, relu, selu = (MLP(getattr(jax.nn, name)) for name in ACTIVATIONS)


def on_digits(activation: str, steps: int, key) -> tuple[np.ndarray, float]:
    """Losses by step, and the share of held-out digits that are told right."""
    (x, y), (x_test, y_test) = training.digits()
    model, scheme = MLP(getattr(jax.nn, activation)), schemes.mlp(activation)
    params = jaxinit.linen.init(model, key, x[:2], scheme=scheme)["params"]
    training.checked(params, scheme, jaxinit.linen.roles(model, x[:2]))

    def loss(params, batch, key):
        images, labels = batch
        return training.cross_entropy(model.apply({"params": params}, images), labels)

    trained = training.train(
        loss, params, training.batches_of(x, y, 128), steps=steps, key=key
    )
    logits = model.apply({"params": trained.params}, x_test)
    return trained.losses, training.accuracy(logits, y_test)


def on_xor(start: jaxinit.Initializer, seeds: int = 8, steps: int = 500):
    """XOR learned from several seeds at once.

    Args:
        start: initializer of both kernels; biases are zero.
        seeds: how many.
        steps: of AdamW, each with all four points.

    Returns:
        Losses (seeds, steps), and the share of points told right (seeds,).
    """
    model = MLP(nn.relu, widths=(16,), classes=2)
    rules = jaxinit.Rules({"**/kernel": start, "**/bias": jaxinit.zeros})

    def loss(params, batch, key):
        return training.cross_entropy(model.apply({"params": params}, POINTS), PARITY)

    run = training.program(
        loss, lambda key: None, steps=steps, optimizer=optax.adamw(1e-2)
    )

    def learn(key):
        params = jaxinit.linen.init(model, key, POINTS, scheme=rules)["params"]
        params, _, losses = run(params, None, key)
        logits = model.apply({"params": params}, POINTS)
        return losses, jnp.mean(jnp.argmax(logits, -1) == PARITY)

    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.device_get(jax.jit(jax.vmap(learn))(keys))


def main(arguments: Sequence[str] = ()) -> None:
    """Trains on digits and on XOR, and prints what came out."""
    given = training.options(arguments, __doc__, steps=400)
    digits, xor = {}, {}
    print(f"{'digits':<14}{'initializer':<20}{'loss':>7}{'held-out accuracy':>20}")
    for name in ACTIVATIONS:
        losses, accuracy = on_digits(name, given.steps, jax.random.key(given.seed))
        init = jaxinit.for_activation(name).initializer
        print(f"{name:<14}{init!r:<20}{losses[-20:].mean():>7.3f}{accuracy:>20.1%}")
        digits[name] = losses
    print(f"\n{'XOR':<34}{'loss':>7}{'worst accuracy of 8':>20}")
    for name, start in STARTS.items():
        losses, accuracies = on_xor(start)
        print(f"{name:<34}{losses[:, -1].mean():>7.3f}{accuracies.min():>20.0%}")
        xor[f"XOR, {name}"] = losses.mean(0)
    if given.picture:
        training.curves(given.picture, digits, xor)


if __name__ == "__main__":
    main(sys.argv[1:])
