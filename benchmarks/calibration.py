"""How often right arrays score badly, and whether wrong ones are caught."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from benchmarks.harness import Table, fresh
from jaxinit.stats import Measured, expected_moments, score, score_measured

# name: an initializer with those settings, and the dtype of its draws
LAWS = {
    "normal": (jaxinit.normal(1.0), "float32"),
    "truncated normal": (jaxinit.truncated_normal(1.0), "float32"),
    "truncated at -0.5, 3": (
        jaxinit.truncated_normal(1.0, lower=-0.5, upper=3.0),
        "float32",
    ),
    "uniform": (jaxinit.uniform(1.0), "float32"),
    "normal, float8": (jaxinit.normal(1.0), "float8_e4m3fn"),
    "uniform, float8": (jaxinit.uniform(1.0), "float8_e4m3fn"),
}
SIZES = (8, 32, 128, 1024)
RATES = (1e-2, 1e-3, 1e-4)
_CHUNK = 2**22  # entries drawn at once
# name: shape, by how much the standard deviation is wrong
_WRONG = {
    "deviation 2 % too large": ((1000, 1000), 1.02),
    "deviation 2 % too small": ((1000, 1000), 0.98),
    "scale sqrt(fan) too large": ((16, 16), 4.0),
    "scale sqrt(fan) too small": ((16, 16), 0.25),
}


def run(draws: int = 1_000_000) -> list[dict]:
    """Scores of simulated arrays, for each law at each size; and the power."""
    return fresh(measure, draws)


def measure(draws: int) -> list[dict]:
    """The same, in this process."""
    alarms = [row for law in LAWS for row in rates(law, draws, SIZES)]
    return [*alarms, *power(draws=100)]


def rates(law: str, draws: int, sizes: Sequence[int]) -> Iterator[dict]:
    """How many of `draws` right arrays fail at each false-alarm rate."""
    init, dtype = LAWS[law]
    expected = expected_moments(init, (), jnp.dtype(dtype))
    for size, measured in _simulated(init, dtype, draws, sizes, expected.mean).items():
        scores = score_measured(measured, expected, dtype)
        for name, p, method in (
            ("mean", scores.mean_p, scores.mean_method),
            ("variance", scores.variance_p, scores.variance_method),
        ):
            for rate in RATES:
                yield {
                    "law": law,
                    "size": size,
                    "of": name,
                    "method": method,
                    "draws": draws,
                    "rate": rate,
                    "expected": rate * draws,
                    "alarms": int(np.sum(p < rate)),
                }


def _simulated(init, dtype, draws: int, sizes: Sequence[int], centre: float) -> dict:
    """What would be measured of `draws` arrays of each size: many values as one.

    The arrays of all sizes are cut from the same entries.
    """
    entries = min(_CHUNK, draws * max(sizes))
    found: dict[int, list] = {size: [] for size in sizes}
    for number in range(-(-draws * max(sizes) // entries)):
        key = jax.random.fold_in(jax.random.key(0), number)
        x = init(key, (entries,), jnp.dtype(dtype))
        for size, sums in found.items():
            if len(sums) * (entries // size) < draws:
                sums.append(np.asarray(_sums(x, size, centre), np.float64))
    return {size: _measured(size, sums, draws, centre) for size, sums in found.items()}


@functools.partial(jax.jit, static_argnums=1)
def _sums(x, size, centre):
    x = x.reshape(size, -1).astype(jnp.float32) - centre
    return jnp.stack([x.sum(0), (x * x).sum(0)])


def _measured(size: int, sums: list, draws: int, centre: float) -> Measured:
    offsets, squares = np.concatenate(sums, axis=1)[:, :draws] / size
    values: Any = (centre + offsets, squares - offsets**2, 0.0, 0.0, 0, 0)
    return Measured(size, *values)


def power(draws: int) -> Iterator[dict]:
    """How many wrong arrays fail at the default rate of 1e-9."""
    init = jaxinit.variance_scaling(1.0, "fan_in", "truncated_normal")
    for name, (shape, factor) in _WRONG.items():
        keys = jax.random.split(jax.random.key(0), draws)
        scores = [score(factor * init(key, shape), init) for key in keys]
        yield {
            "wrong": name,
            "shape": shape,
            "draws": draws,
            "caught": sum(s.variance_p < 1e-9 for s in scores),
            "least": min(abs(s.variance) for s in scores),
        }


def _observed(row: dict) -> str:
    observed, error = row["alarms"] / row["draws"], row["expected"] ** 0.5
    off = f"{(row['alarms'] - row['expected']) / error:+.1f}"
    return f"{observed:.2e} ({'a bound' if row['method'] == 'Bernstein' else off})"


def tables(rows: list[dict]) -> list[Table]:
    """A line for each law, size and moment; a line for each mistake."""
    alarms = [row for row in rows if "alarms" in row]
    head = ("law", "entries", "of", "method", *(f"at {rate:g}" for rate in RATES))
    lines: dict[tuple, list[str]] = {}
    for row in alarms:
        name = (row["law"], str(row["size"]), row["of"], row["method"])
        lines.setdefault(name, []).append(_observed(row))
    title = (
        f"False alarms of {alarms[0]['draws']:,} right arrays; in brackets, off by so "
        "many of its standard errors"
    )
    caught = [
        (
            row["wrong"],
            "x".join(map(str, row["shape"])),
            f"{row['caught']} of {row['draws']}",
            f"{row['least']:.1f}",
        )
        for row in rows
        if "caught" in row
    ]
    names = ("wrong", "shape", "caught", "least standard errors")
    return [
        Table(title, head, [(*name, *cells) for name, cells in lines.items()]),
        Table("Wrong arrays that fail at 1e-9", names, caught),
    ]
