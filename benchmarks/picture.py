"""The README's picture: a ReLU network whose weights were drawn in bfloat16."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

import jaxinit
from benchmarks.harness import RESULTS, versions

OURS = "jaxinit.he_normal, bfloat16"
JAX = "jax.nn.initializers.he_normal, bfloat16"
WIDE = "jax.nn.initializers.he_normal, float32"


def run(width: int = 4096, layers: int = 8, batch: int = 64) -> dict[str, list[float]]:
    """Standard deviation of the pre-activations, layer by layer."""
    weights = {
        OURS: (jaxinit.he_normal(), jnp.bfloat16),
        JAX: (jax.nn.initializers.he_normal(), jnp.bfloat16),
        WIDE: (jax.nn.initializers.he_normal(), jnp.float32),
    }
    return {
        name: deviations(init, dtype, width, layers, batch)
        for name, (init, dtype) in weights.items()
    }


def deviations(init, dtype, width: int, layers: int, batch: int) -> list[float]:
    """The same for one initializer; all sums are taken in float32."""
    inputs, *keys = jax.random.split(jax.random.key(0), layers + 1)
    x = jax.random.normal(inputs, (batch, width))
    found = []
    for key in keys:
        x = x @ init(key, (width, width), dtype).astype(jnp.float32)
        found.append(float(x.std()))
        x = jax.nn.relu(x)
    return found


def draw(measured: dict[str, list[float]], path: Path) -> None:
    """Writes the picture as PNG."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    styles = {
        OURS: {"color": "#0072B2", "marker": "o", "zorder": 3},
        JAX: {"color": "#D55E00", "marker": "s"},
        WIDE: {"color": "black", "linestyle": "--", "zorder": 4},
    }
    for name, values in measured.items():
        axes.plot(range(1, len(values) + 1), values, label=name, **styles[name])
    axes.set_yscale("log")
    axes.set_ylim(0.05, 4)
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_xlabel("layer")
    axes.set_ylabel("standard deviation")
    axes.set_title("Pre-activations of a ReLU network of width 4096", loc="left")
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.text(
        0.99, 0.01, f"jax {versions()['jax']}, CPU", ha="right", color="0.45", size=8
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measures, prints and draws."""
    measured = run()
    for name, values in measured.items():
        print(f"{name}: {' '.join(f'{value:.2f}' for value in values)}")
    draw(measured, RESULTS / "bfloat16.png")


if __name__ == "__main__":
    main()
