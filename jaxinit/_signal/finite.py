"""Whether what a model is run on is finite, and what to say where it is not."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxinit._signal.recorder import is_float
from jaxinit._tree.paths import joined, leaf_paths

_MOST_NAMES = 3


def nonfinite(params: Any, inputs: tuple) -> list[jax.Array]:
    """How many entries of each floating-point array are NaN or infinite."""
    return [jnp.sum(~jnp.isfinite(x)) for _, x in _named(params, inputs)]


def what_is_nonfinite(params: Any, inputs: tuple, counts: Sequence[Any]) -> str:
    """Says which arrays are not finite, given their counts; "" if all are."""
    said = [
        f"{int(count)} of the {jnp.size(x)} entries of {name}"
        for (name, x), count in zip(_named(params, inputs), counts, strict=True)
        if count
    ]
    if not said:
        return ""
    if len(said) > _MOST_NAMES:
        said[_MOST_NAMES:] = [f"some of {len(said) - _MOST_NAMES} other arrays"]
    return f"{', '.join(said)} are NaN or infinite"


def refuse_nonfinite(
    params: Any, inputs: tuple, counts: Sequence[Any], results: Any
) -> None:
    """Refuses parameters and a batch that are not finite and make the results so.

    What is not finite and does no harm, such as the infinite entries of a mask, is
    taken. Under a trace nothing is known, and nothing refused.

    Raises:
        ValueError: naming the arrays, and how many of their entries are not finite.
    """
    if any(isinstance(x, Tracer) for x in (*counts, results)):
        return
    if np.isfinite(np.asarray(results)).all():
        return
    if said := what_is_nonfinite(params, inputs, counts):
        raise ValueError(
            f"{said}, and so is what layers make of them: nothing can be learned from "
            "that; remove or replace them."
        )


def _named(params: Any, inputs: tuple) -> list[tuple[str, Any]]:
    """The floating-point arrays a model is run on, by their name in messages."""
    batch = [(joined(path), leaf) for path, leaf in leaf_paths(inputs)]
    alone = len(batch) == 1
    named = [(f"params {joined(path)}", leaf) for path, leaf in leaf_paths(params)]
    named += [("the batch" if alone else f"input {name}", x) for name, x in batch]
    return [(name, x) for name, x in named if is_float(x)]
