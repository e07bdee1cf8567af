"""How a kernel that draws is compiled."""

import functools
from typing import Any

import jax

_WIDE_VECTORS = {"xla_cpu_prefer_vector_width": 512}


def setting(name: str) -> Any:
    """The value of a setting of jax, in this thread, by name."""
    return getattr(jax.config, name)


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
    probe = jax.jit(lambda: 0, compiler_options=_WIDE_VECTORS)
    try:
        probe.lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _WIDE_VECTORS
