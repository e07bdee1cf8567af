"""Whether the parameters and inputs of a model are finite, and messages if not."""

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
    return [jnp.sum(~jnp.isfinite(x)) for _, x in _named_arrays(params, inputs)]


def what_is_nonfinite(params: Any, inputs: tuple, counts: Sequence[Any]) -> str:
    """Says which arrays are not finite, given their counts; "" if all are finite."""
    said = [
        f"{int(count)} of the {jnp.size(x)} entries of {name}"
        for (name, x), count in zip(_named_arrays(params, inputs), counts, strict=True)
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
    """Refuses parameters and a batch with nonfinite entries that reach the results.

    Nonfinite entries that do no harm, such as those of a mask, are accepted. Under a
    trace no values are known, and nothing is refused.

    Raises:
        ValueError: naming the arrays, and how many of their entries are not finite.
    """
    if any(isinstance(x, Tracer) for x in (*counts, results)):
        return
    if np.isfinite(np.asarray(results)).all():
        return
    if said := what_is_nonfinite(params, inputs, counts):
        raise ValueError(
            f"{said}, and so are the outputs of layers: nothing can be learned from "
            "them; remove or replace these entries."
        )


def _named_arrays(params: Any, inputs: tuple) -> list[tuple[str, Any]]:
    """The floating-point arrays a model is run on, each with its name in messages."""
    batch = [(joined(path), leaf) for path, leaf in leaf_paths(inputs)]
    alone = len(batch) == 1
    named = [(f"params {joined(path)}", leaf) for path, leaf in leaf_paths(params)]
    named += [("the batch" if alone else f"input {name}", x) for name, x in batch]
    return [(name, x) for name, x in named if is_float(x)]
