"""Names: what to say of one that is not known, and short ones of dtypes."""

import re
from collections.abc import Iterable


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """A message that names the nearest ones.

    >>> unknown("initializer", "he_norml", ["he_normal", "zeros"])
    "unknown initializer 'he_norml'; the nearest are 'he_normal'."
    """
    import difflib  # not needed to import jaxinit

    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3)
    listed = ", ".join(map(repr, near or names))
    return (
        f"unknown {kind} {name!r}; {'the nearest' if near else 'known'} are {listed}."
    )


def short_dtype(dtype: str) -> str:
    """The name of a dtype as jax prints it in types.

    >>> short_dtype("float32"), short_dtype("bfloat16"), short_dtype("key<fry>")
    ('f32', 'bf16', 'key<fry>')
    """
    name = re.match("[a-z]+", dtype)
    letters = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}
    stem = name[0] if name else ""
    return letters.get(stem, stem) + dtype.removeprefix(stem)
