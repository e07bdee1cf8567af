"""Schemes by name, as one would write them in Python: `normal(0.01)`."""

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jaxinit.initializers as initializers
from jaxinit._basics.names import unknown
from jaxinit.config import _names, _schemes, from_config, get

OWN = "own"  # the model's own initialization


def parted(text: str) -> list[str]:
    """The parts of a text between commas that are outside brackets.

    >>> parted("he_normal, normal(0.01),split((ones, zeros), 2)")
    ['he_normal', 'normal(0.01)', 'split((ones, zeros), 2)']
    """
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def scheme(text: str) -> Any:
    """The scheme that a text names.

    Args:
        text: "own", or the name of an initializer or a scheme of this package, or a
            call of one, whose arguments are literals of Python.

    Returns:
        An initializer, rules, or None for the model's own initialization.

    Raises:
        ValueError: if the text is no such call, or the name is unknown.
        TypeError: if an argument is unknown or missing.

    >>> scheme("normal(0.02)"), scheme("gpt2(layers=12)")
    (normal(stddev=0.02), gpt2(layers=12))
    """
    name, given, settings = _call(text)
    if text == OWN:
        return None
    if maker := _schemes().get(name):
        settings = {**_by_position(name, maker, given), **settings}
        return from_config({"version": 1, "scheme": name, **settings})
    if name not in _names():
        raise ValueError(_unknown(name))
    own: Any = getattr(initializers, name, None)
    return get(name, **_by_position(name, own, given), **settings)


def _call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name, the arguments by position, and those by name."""
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError
        given = [ast.literal_eval(x) for x in tree.args]
        settings = {x.arg: ast.literal_eval(x.value) for x in tree.keywords if x.arg}
        if len(settings) < len(tree.keywords):
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"{text!r} is not the name of a scheme, or a call of one with literals, "
            "such as normal(0.01)."
        ) from None
    return tree.func.id, given, settings


def _unknown(name: str) -> str:
    known = [*_names(), *_schemes(), OWN]
    if difflib.get_close_matches(name, known):
        return unknown("scheme", name, known)
    return (
        f"unknown scheme {name!r}; dir(jaxinit) and dir(jaxinit.schemes) list them, "
        f"and {OWN!r} is the model's own initialization."
    )


def _by_position(
    name: str, maker: Callable[..., Any] | None, given: list[Any]
) -> Mapping[str, Any]:
    """Arguments that are given by position, by name."""
    known = []
    if maker is not None and not isinstance(maker, initializers.Initializer):
        parameters = inspect.signature(maker).parameters.values()
        known = [x.name for x in parameters if x.kind is x.POSITIONAL_OR_KEYWORD]
    if len(given) > len(known):
        raise TypeError(
            f"{name} does not take {len(given)} arguments by position: give them by "
            "name."
        )
    return dict(zip(known, given, strict=False))
