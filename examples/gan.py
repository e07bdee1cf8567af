"""What the adversarial examples share: digits, the loss, a distance, a picture."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples import running, training


def digits(size: int = 8) -> jax.Array:
    """Handwritten digits (n, size, size, 1), from -1 to 1, interpolated if not 8."""
    (images, _), _ = training.digits()
    shape = (len(images), size, size, 1)
    return 2 * jax.image.resize(jnp.asarray(images), shape, "linear") - 1


def rows_of(images: jax.Array, size: int) -> Callable[[jax.Array], jax.Array]:
    """Batches of `size` images, picked at random: a function of a key."""

    def batches(key):
        return images[jax.random.randint(key, (size,), 0, len(images))]

    return batches


def discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Of logits (batch,) that real images are real and made ones are not, in nats."""
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_loss(fake: jax.Array) -> jax.Array:
    """Of logits (batch,) that made images are real: it does not saturate."""
    return jnp.mean(jax.nn.softplus(-fake))


def train(
    loss: Callable,
    params: Any,
    state: Any,
    batches: Callable,
    *,
    steps: int,
    optimizer: optax.GradientTransformation,
) -> training.Trained:
    """Trains as `training.train` does, a step at a time.

    On CPU, XLA runs convolutions within a loop of its own about twenty times slower
    than outside.

    Args:
        loss: (params, state, batch, key) -> (scalar, new state).
        params: where it starts.
        state: what the loss carries from step to step.
        batches: key -> batch.
        steps: how many batches.
        optimizer: of optax.
    """

    @jax.jit
    def step(params, state, memory, key):
        draw, noise = jax.random.split(key)
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (value, state), grads = value_and_grad(params, state, batches(draw), noise)
        updates, memory = optimizer.update(grads, memory, params)
        return optax.apply_updates(params, updates), state, memory, value

    memory, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(1), steps):
        params, state, memory, value = step(params, state, memory, key)
        losses.append(value)
    return training.Trained(params, state, np.array(losses))


def distance(made: np.ndarray, real: np.ndarray) -> float:
    """Fréchet's distance between normal laws fitted to the pixels of two sets.

    The square of the difference of the means, and what the covariances differ by: that
    of Heusel et al., "GANs trained by a two time-scale update rule" (2017), of pixels
    in place of the features of a network. Sets that do not vary are far from all that
    do.

    Args:
        made: images (n, height, width, channels).
        real: the same of another number.
    """
    x, y = (
        np.asarray(images, np.float64).reshape(len(images), -1)
        for images in (made, real)
    )
    first, second = np.cov(x.T), np.cov(y.T)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    both = np.linalg.eigvalsh(root @ second @ root).clip(0)
    means = np.sum((x.mean(0) - y.mean(0)) ** 2)
    return float(means + np.trace(first + second) - 2 * np.sum(np.sqrt(both)))


def report(
    given: Any,
    params: Any,
    scheme: Any,
    losses: np.ndarray,
    *images: np.ndarray,
    began: float,
) -> None:
    """Prints what came of a training, and draws it if a picture is asked for.

    Args:
        given: the options of the example.
        params: parameters of each network.
        scheme: what started them.
        losses: of both networks together, at each step.
        *images: made before the training and after it, and real ones.
        began: when it began, by `time.perf_counter`.
    """
    before, made, real = images
    running.table(
        {
            "parameters": " + ".join(f"{training.count(x):,}" for x in params),
            "scheme": scheme.name,
            "loss of both at the start": f"{losses[0]:.2f} nats",
            "loss of both at the end": f"{losses[-20:].mean():.2f} nats",
            "finite losses": f"{np.isfinite(losses).mean():.0%}",
            "distance to digits at the start": f"{distance(before, real):.1f}",
            "distance to digits at the end": f"{distance(made, real):.1f}",
            "seconds": f"{time.perf_counter() - began:.0f}",
        }
    )
    if given.picture:
        draw(given.picture, made, real)


def draw(path: Path | str, made: np.ndarray, real: np.ndarray, side: int = 8) -> None:
    """Draws `side` by `side` images of each set, the made ones on the left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for axes, title, images in zip(
        figure.subplots(1, 2), ("made", "real"), (made, real), strict=True
    ):
        grid = np.pad(images[: side * side, :, :, 0], ((0, 0), (0, 1), (0, 1)))
        height, width = grid.shape[1:]
        grid = grid.reshape(side, side, height, width).swapaxes(1, 2)
        axes.imshow(
            grid.reshape(side * height, side * width), cmap="gray", vmin=-1, vmax=1
        )
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(path, dpi=150)
