"""Pictures of what depth does to a signal, under the initializers that are taught.

    python examples/signal_depth.py [DIR]

Dense layers of width 256 without biases, and a batch of 256 samples of normal numbers.
Broad dashes are what mean-field theory predicts. Pictures go to examples/pictures, or
to the folder named.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import jaxinit
from jaxinit import plots
from jaxinit.signal import PredictedLayer, Signal, predict, propagate

Activation = Callable[[jax.Array], jax.Array]
Schemes = dict[str, jaxinit.Initializer]

WIDTH = BATCH = 256
STEPS = 100
PICTURES = Path(__file__).parent / "pictures"

TANH: Schemes = {
    "zeros": jaxinit.zeros,
    "constant(0.004)": jaxinit.constant(0.004),
    "normal(0.01)": jaxinit.normal(0.01),
    "normal(1)": jaxinit.normal(1.0),
    "glorot_normal": jaxinit.glorot_normal(),
}
RELU: Schemes = {
    "normal(0.01)": jaxinit.normal(0.01),
    "glorot_normal": jaxinit.glorot_normal(),
    "he_normal": jaxinit.he_normal(),
}
SELU: Schemes = {
    "normal(0.04)": jaxinit.normal(0.04),
    "lecun_normal": jaxinit.lecun_normal(),
    "he_normal": jaxinit.he_normal(),
}
RECURRENT: Schemes = {
    "orthogonal(0.9)": jaxinit.orthogonal(0.9),
    "orthogonal": jaxinit.orthogonal(),
    "orthogonal(1.1)": jaxinit.orthogonal(1.1),
}


def dense(fn: Activation):
    """A layer without biases."""
    return lambda kernel, x: fn(x @ kernel)


def batch(stddev: float = 1.0) -> jax.Array:
    """Normal numbers, a sample in each row."""
    return stddev * jax.random.normal(jax.random.key(0), (BATCH, WIDTH))


def kernels(init: jaxinit.Initializer, depth: int) -> list[jax.Array]:
    """One kernel for each layer."""
    keys = jax.random.split(jax.random.key(1), depth)
    return [init(key, (WIDTH, WIDTH)) for key in keys]


def measured(
    fn: Activation, schemes: Schemes, depth: int, stddev: float = 1.0
) -> dict[str, Signal]:
    """The signal under each scheme; one compilation serves them all."""
    model, x = [dense(fn)] * depth, batch(stddev)
    return {
        name: propagate(model, kernels(init, depth), x)
        for name, init in schemes.items()
    }


def expected(
    fn: Activation, schemes: Schemes, depth: int, stddev: float = 1.0
) -> dict[str, tuple[PredictedLayer, ...]]:
    """What theory says of the schemes whose weights have mean zero."""
    widths = [WIDTH] * (depth + 1)
    return {
        name: predict(fn, init, widths, second_moment=stddev**2)
        for name, init in schemes.items()
        if not init.moments((WIDTH, WIDTH)).mean
    }


def shown(title: str, signals: dict[str, Signal]) -> dict[str, Signal]:
    """The signals, their verdicts printed."""
    for name, signal in signals.items():
        print(f"{title} {name}: {signal.verdict}")
    return signals


def tanh() -> dict[str, Figure]:
    """Zero, constant, too small, too large, and right."""
    signals = shown("tanh", measured(jnp.tanh, TANH, 10))
    predicted = expected(jnp.tanh, TANH, 10)
    return {
        "tanh": plots.depth(signals, predicted, "10 tanh layers"),
        "saturated": plots.activations(signals["normal(1)"], "tanh, weights N(0, 1)"),
        "glorot": plots.activations(signals["glorot_normal"], "tanh, glorot_normal"),
    }


def relu() -> dict[str, Figure]:
    """Glorot halves the variance in every layer, He keeps it."""
    signals = shown("relu", measured(jax.nn.relu, RELU, 20))
    predicted, he = expected(jax.nn.relu, RELU, 20), RELU["he_normal"]
    return {
        "relu": plots.depth(signals, predicted, "20 ReLU layers"),
        "weights": plots.weights(kernels(he, 1)[0], he),
    }


def selu() -> dict[str, Figure]:
    """LeCun's law and SELU bring a signal back to its size."""
    signals = shown("selu", measured(jax.nn.selu, SELU, 30, stddev=3.0))
    predicted = expected(jax.nn.selu, SELU, 30, stddev=3.0)
    title = "30 SELU layers, input of standard deviation 3"
    return {"selu": plots.depth(signals, predicted, title)}


def recurrent() -> dict[str, Figure]:
    """A linear recurrent network: one kernel, the same at every step."""
    layers, x = [dense(lambda x: x)] * STEPS, batch()
    signals = {
        name: propagate(layers, kernels(init, 1) * STEPS, x)
        for name, init in RECURRENT.items()
    }
    title = f"{STEPS} steps of a linear RNN"
    return {"recurrent": plots.depth(shown("linear", signals), title=title)}


TOPICS = (tanh, relu, selu, recurrent)


def main(folder: Path) -> None:
    """Writes every picture as PNG and SVG, and prints the verdicts."""
    folder.mkdir(exist_ok=True)
    for topic in TOPICS:
        for name, figure in topic().items():
            plots.save(figure, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
