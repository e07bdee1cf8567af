"""How a kernel that draws is compiled, and under which settings and traces of jax."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

_UNROLLS = jax.__version_info__ >= (0, 11)
_UNROLLED = 8  # at most 5 were seen
_WIDE_VECTORS = {"xla_cpu_prefer_vector_width": 512}
_KNOWN_BEFORE = (0, 13)  # later versions of jax are asked whether they know the option


def setting(name: str) -> Any:
    """The value of a setting of jax, in this thread, by name."""
    return getattr(jax.config, name)


with jax.ensure_compile_time_eval():
    _EAGER = get_opaque_trace_state()


def is_tracing() -> bool:
    """Whether operations now become part of an outer program."""
    if get_opaque_trace_state() == _EAGER:
        return False
    # Under an eager jax.vmap, say, operations on no traced value are still computed.
    with jax.transfer_guard("allow"), jax.no_tracing(False):
        return isinstance(lax.add(np.int32(0), np.int32(0)), Tracer)


def is_unrolled(shape: Sequence[int]) -> bool:
    """Whether XLA may unroll the loop over the last axis instead of vectorising it.

    From jax 0.11 on, logarithms in such a loop on CPU are rounded otherwise, depending
    on all that the loop does. So only jax's own draw has the bits of jax there.
    """
    sizes = [size for size in shape if size != 1]
    return len(sizes) > 1 and sizes[-1] <= _UNROLLED and _UNROLLS


@functools.cache
def compiler_options(platform: str) -> dict[str, int] | None:
    """Options under which a drawing kernel runs fastest; they change no value.

    XLA asks LLVM for vectors of 256 bits. Drawing is long chains of arithmetic with one
    write at the end, which gain from the widest vectors of the machine.

    Args:
        platform: name of a backend, such as "cpu".

    Returns:
        `compiler_options` for a top-level `jax.jit`; None where there are none, or
        where this jax does not know them.
    """
    if platform != "cpu":
        return None
    if jax.__version_info__ < _KNOWN_BEFORE:
        return _WIDE_VECTORS
    probe = jax.jit(lambda: 0, compiler_options=_WIDE_VECTORS)
    try:
        probe.lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _WIDE_VECTORS
