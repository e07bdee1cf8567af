"""What to say of a name that is not known."""

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
