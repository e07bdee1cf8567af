"""Initializers and rules by name, and as data for JSON, YAML and the like."""

import dataclasses
import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxinit._array import combine, parts
from jaxinit._array.initializer import Initializer
from jaxinit._array.suggest import unknown
from jaxinit._tree.rules import Rules
from jaxinit.initializers import (
    basic,
    heads,
    implicit,
    orthogonal,
    sequence,
    state_space,
    structured,
    tables,
    variance_scaling,
)

_VERSION = 1
_ROOMS = (
    basic,
    variance_scaling,
    orthogonal,
    structured,
    tables,
    sequence,
    state_space,
    implicit,
    heads,
    combine,
    parts,
)
_scaling = variance_scaling.variance_scaling

# The same laws under the names of torch.nn.init and keras.initializers, with the
# defaults that they have there.
_ELSEWHERE: dict[str, Any] = {
    "uniform_": functools.partial(basic.uniform, 1.0),
    "normal_": functools.partial(basic.normal, 1.0),
    "trunc_normal_": lambda stddev=1.0, mean=0.0, low=-2.0, high=2.0: (
        basic.truncated_normal(stddev, mean=mean, low=low, high=high)
    ),
    "constant_": basic.constant,
    "ones_": basic.ones,
    "zeros_": basic.zeros,
    "eye_": structured.identity,
    "dirac_": structured.dirac,
    "xavier_uniform_": variance_scaling.glorot_uniform,
    "xavier_normal_": functools.partial(_scaling, 1.0, "fan_avg", "normal"),
    "kaiming_uniform_": variance_scaling.he_uniform,
    "kaiming_normal_": functools.partial(_scaling, 2.0, "fan_in", "normal"),
    "orthogonal_": orthogonal.orthogonal,
    "sparse_": functools.partial(structured.sparse, axis=-1),
    "Zeros": basic.zeros,
    "Ones": basic.ones,
    "Constant": functools.partial(basic.constant, 0.0),
    "Identity": structured.identity,
    "STFT": tables.stft,
    "RandomNormal": functools.partial(basic.normal, 0.05),
    "RandomUniform": functools.partial(basic.uniform, low=-0.05, high=0.05),
    "TruncatedNormal": functools.partial(basic.truncated_normal, 0.05),
    "VarianceScaling": functools.partial(_scaling, 1.0, "fan_in", "truncated_normal"),
    "GlorotUniform": variance_scaling.glorot_uniform,
    "GlorotNormal": variance_scaling.glorot_normal,
    "LecunUniform": variance_scaling.lecun_uniform,
    "LecunNormal": variance_scaling.lecun_normal,
    "HeUniform": variance_scaling.he_uniform,
    "HeNormal": variance_scaling.he_normal,
    "Orthogonal": orthogonal.orthogonal,
}


def get(name: str, **settings: Any) -> Initializer:
    """An initializer by its name.

    Args:
        name: name of an initializer of this package, or of a function of
            `torch.nn.init` ("kaiming_normal_") or a class of `keras.initializers`
            ("HeNormal"): these give the law and the defaults that they have there.
        **settings: its arguments, by the names they have in this package.

    Returns:
        The initializer.

    Raises:
        ValueError: if the name is unknown (the nearest are listed), or a setting is not
            valid.
        TypeError: if a setting is unknown or missing.

    >>> get("he_normal", batch_axis=0)
    he_normal(batch_axis=0)
    >>> get("kaiming_normal_")
    variance_scaling(2.0, 'fan_in', 'normal')
    """
    known = _names()
    if name not in known:
        raise ValueError(unknown("initializer", name, known))
    made = known[name]
    if isinstance(made, Initializer):
        return dataclasses.replace(made, **settings) if settings else made
    _check_settings(name, made, settings)
    return made(**settings)


@functools.cache
def _names() -> dict[str, Any]:
    """All initializers, and functions that return one, by name."""
    own = {
        name: value
        for room in _ROOMS
        for name, value in vars(room).items()
        if name.islower() and name[0] != "_" and _makes_initializer(value)
    }
    return {**own, **_ELSEWHERE}


def _makes_initializer(value: Any) -> bool:
    if isinstance(value, type):
        return issubclass(value, Initializer)
    if isinstance(value, Initializer):
        return True
    return inspect.isfunction(value) and value.__annotations__.get("return") in (
        Initializer,
        parts.split,
    )


def _check_settings(name: str, made: Callable, settings: Mapping[str, Any]) -> None:
    parameters = inspect.signature(made).parameters
    for setting in settings:
        if setting not in parameters:
            raise TypeError(unknown(f"setting of {name}", setting, parameters))
    missing = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is parameter.empty and parameter.name not in settings
    ]
    if missing:
        raise TypeError(f"{name} needs {', '.join(missing)}.")


def to_config(value: Initializer | Rules) -> dict[str, Any]:
    """An initializer or rules as data: dicts, lists, strings, numbers and None.

    Args:
        value: an initializer of this package, or rules of such. Functions cannot be
            written: patterns must be globs or regular expressions.

    Returns:
        `{"version": 1, "name": "normal", "stddev": 0.02}`, with the settings that
        differ from the defaults; `{"version": 1, "scheme": "gpt2", "layers": 12}`; or
        `{"version": 1, "rules": [...]}`, schemes among them as a whole, and rules that
        need not match marked `"optional": True`.

    Raises:
        TypeError: naming all that cannot be written.

    >>> import jaxinit
    >>> to_config(jaxinit.truncated_normal(0.02, upper=3.0))
    {'version': 1, 'name': 'truncated_normal', 'stddev': 0.02, 'upper': 3.0}
    """
    if isinstance(value, Rules):
        return {"version": _VERSION, **_rules(value)}
    return {"version": _VERSION, **_written("value", value)}


def _rules(rules: Rules) -> dict[str, Any]:
    """A scheme by its name and arguments; other rules one by one."""
    if rules.call:
        name, settings = rules.call
        return {"scheme": name, **{k: _written(k, v) for k, v in settings.items()}}
    entries: list[dict[str, Any]] = []
    for part in rules.parts:
        if part.call:
            entries.append(_rules(part))
            continue
        entries += [
            _rule(*pair) | ({} if pair[0] in part.required else {"optional": True})
            for pair in part.items()
        ]
    return {"rules": entries}


def _rule(pattern: Any, value: Any) -> dict[str, Any]:
    if isinstance(pattern, str):
        where = {"glob": pattern}
    elif hasattr(pattern, "pattern") and not pattern.flags & ~re.UNICODE:
        where = {"regex": pattern.pattern}
    else:
        raise TypeError(
            f"the pattern {pattern!r} cannot be written as a configuration: use a "
            "glob, or a regular expression of a string without flags."
        )
    return {**where, "init": _written(f"the rule for {pattern!r}", value)}


def _written(name: str, value: Any) -> Any:
    if isinstance(value, Initializer):
        if _names().get(type(value).__name__) is not type(value):
            raise TypeError(
                f"{name} is {value!r}, which is not of this package: it cannot be "
                "written as a configuration."
            )
        changed = {
            field.name: _written(f"{type(value).__name__}.{field.name}", own)
            for field in dataclasses.fields(value)
            if (own := getattr(value, field.name)) != field.default
        }
        return {"name": type(value).__name__, **changed}
    match value:
        case Rules():
            return _rules(value)
        case basic.Frozen():
            return _written(name, value.array.tolist())
        case np.dtype():
            return value.name
        case type():
            return value.__name__
        case tuple() | list():
            return [_written(f"{name}[{i}]", item) for i, item in enumerate(value)]
        case complex():
            return {
                "real": _written(name, value.real),
                "imag": _written(name, value.imag),
            }
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(
        f"{name} is {value!r}, which cannot be written as a configuration: it must be "
        "an initializer of this package, a number, a name or a list of these."
    )


def from_config(config: Mapping[str, Any] | str) -> Any:
    """The initializer or rules that a configuration describes.

    Args:
        config: what `to_config` returns, or a name as `get` takes. In a nested
            initializer "version" is left out, and a name may stand for
            `{"name": name}`.

    Returns:
        The initializer, or `Rules`.

    Raises:
        ValueError: if the version is not 1, a name or key is unknown (the nearest are
            listed), or a setting is not valid.
        TypeError: if a setting is unknown or missing.

    >>> from_config({"version": 1, "name": "normal", "stddev": 0.02})
    normal(stddev=0.02)
    >>> from_config({"version": 1, "rules": [{"glob": "**/bias", "init": "zeros"}]})
    Rules({'**/bias': zeros})
    """
    if isinstance(config, str):
        return get(config)
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping or a name, got {config!r}.")
    if config.get("version") != _VERSION:
        raise ValueError(
            f"config must have the version {_VERSION}, got {config.get('version')!r}."
        )
    rest = {key: value for key, value in config.items() if key != "version"}
    return _read(rest) if {"rules", "scheme"} & set(rest) else _read_initializer(rest)


def _read_rules(config: Mapping[str, Any]) -> Rules:
    _check_keys("rules", config, {"rules"})
    parts = [
        _read_scheme(rule) if "scheme" in rule else _read_rule(rule)
        for rule in config["rules"]
    ]
    return functools.reduce(operator.or_, parts, Rules({}))


def _read_scheme(config: Mapping[str, Any]) -> Rules:
    import jaxinit.schemes as schemes  # slow to import, and not needed before

    known = {name: x for name, x in vars(schemes).items() if inspect.isfunction(x)}
    name = config["scheme"]
    if name not in known:
        raise ValueError(unknown("scheme", name, known))
    settings = {key: _read(value) for key, value in config.items() if key != "scheme"}
    _check_settings(name, known[name], settings)
    return known[name](**settings)


def _read_rule(rule: Mapping[str, Any]) -> Rules:
    _check_keys("a rule", rule, {"glob", "regex", "init", "optional"})
    if "init" not in rule or ("glob" in rule) == ("regex" in rule):
        raise ValueError(f"a rule must have glob or regex, and init, got {dict(rule)}.")
    pattern = rule["glob"] if "glob" in rule else re.compile(rule["regex"])
    init = rule["init"]
    made = get(init) if isinstance(init, str) else _read_initializer(init)
    return Rules({pattern: made}, required=[] if rule.get("optional") else None)


def _read_initializer(config: Mapping[str, Any]) -> Initializer:
    if not isinstance(config.get("name"), str):
        raise ValueError(f"an initializer must have a name, got {dict(config)}.")
    settings = {key: _read(value) for key, value in config.items() if key != "name"}
    return get(config["name"], **settings)


def _read(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"real", "imag"}:
        return complex(_read(value["real"]), _read(value["imag"]))
    if isinstance(value, Mapping) and "rules" in value:
        return _read_rules(value)
    if isinstance(value, Mapping) and "scheme" in value:
        return _read_scheme(value)
    if isinstance(value, Mapping):
        return _read_initializer(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_read(item) for item in value)
    return float(value) if value in ("inf", "-inf", "nan") else value


def _check_keys(what: str, config: Mapping[str, Any], known: set[str]) -> None:
    for key in config:
        if key not in known:
            raise ValueError(unknown(f"key of {what}", key, known))
