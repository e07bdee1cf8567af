"""The pictures of benchmarks: a ReLU network in bfloat16, and the start of a GPT."""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

import jaxinit
from benchmarks.harness import RESULTS, load, versions

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


def draw_start(result: dict, path: Path) -> None:
    """Writes the last seconds and peak memory of `models` as PNG."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in result["rows"] if row["framework"] == "linen"]
    rows.sort(key=lambda row: row["method"] == "jaxinit.jit")
    names = [row["method"] for row in rows]
    seconds = [statistics.median(row["seconds"]) for row in rows]
    memory = [statistics.median(row["extra_bytes"]) / 1e9 for row in rows]
    figure, both = plt.subplots(1, 2, figsize=(7.5, 2.1), layout="constrained")
    titles = ("seconds to parameters in memory", "peak memory, GB")
    for axes, title, values in zip(both, titles, (seconds, memory), strict=True):
        bars = axes.barh(names, values, color=["0.6", "0.6", "#0072B2"])
        axes.bar_label(bars, fmt=" %.1f")
        axes.invert_yaxis()
        axes.set_title(title, loc="left", size=10)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.supxlabel(
        f"GPT, {rows[0]['blocks']} blocks, Flax Linen, nothing compiled before; "
        f"jax {result['versions']['jax']}, {result['processor']}",
        color="0.45",
        size=8,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Draws the last start of a GPT; measures, prints and draws the ReLU network."""
    *_, last = load("models")
    draw_start(last, RESULTS / "start.png")
    measured = run()
    for name, values in measured.items():
        print(f"{name}: {' '.join(f'{value:.2f}' for value in values)}")
    draw(measured, RESULTS / "bfloat16.png")


if __name__ == "__main__":
    main()
