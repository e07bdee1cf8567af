"""Initializers and rules by name, and as plain data for JSON, YAML and the like."""

import dataclasses
import functools
import inspect
import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

import jaxinit.initializers as initializers
from jaxinit._basics.integers import shown
from jaxinit._basics.names import unknown
from jaxinit._tree.role_pattern import role
from jaxinit._tree.rules import Rules
from jaxinit._tree.sections import by_section
from jaxinit.initializers._elsewhere import ELSEWHERE, Elsewhere
from jaxinit.initializers._makers import forgotten_call, is_maker
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import Frozen

_VERSION = 1
_DEEPEST = 100  # levels of a configuration


def get(name: str, **settings: Any) -> Initializer:
    """An initializer by its name.

    Args:
        name: name of an initializer of this package, or of a function of
            `torch.nn.init` ("kaiming_normal_") or a class of `keras.initializers`
            ("HeNormal"), which has the distribution and the defaults of that library.
        **settings: its arguments. An initializer of another library takes the names and
            values of that library, such as `gain`, `nonlinearity` or `minval`. A seed
            is refused, because draws follow from the key.

    Returns:
        The initializer.

    Raises:
        ValueError: if the name is unknown (the nearest are listed), or a setting is not
            valid.
        TypeError: if `name` is not a string, or a setting is unknown or missing.

    >>> get("he_normal", batch_axis=0)
    he_normal(batch_axis=0)
    >>> get("kaiming_normal_")
    variance_scaling(2.0, 'fan_in', 'normal')
    >>> get("RandomUniform", minval=-1, maxval=1)
    uniform(low=-1.0, high=1.0)
    """
    return _by_name(name, settings)


def _by_name(name: Any, settings: Mapping[str, Any]) -> Initializer:
    known = _names()
    if not isinstance(name, str):
        raise TypeError(
            f"name must be the name of an initializer, such as 'he_normal', got "
            f"{shown(name)}.{_remedy(name)}"
        )
    if name not in known:
        raise ValueError(_unknown_initializer(name, known))
    maker = known[name]
    if isinstance(maker, Initializer):  # such as `zeros`
        return dataclasses.replace(maker, **settings) if settings else maker
    _check_settings(name, maker, settings)
    return maker(**settings)


def _remedy(value: Any) -> str:
    if isinstance(value, Initializer):
        return " It is an initializer already, to be used as it is."
    return forgotten_call(value)


def _unknown_initializer(name: str, known: Collection[str]) -> str:
    import difflib  # not needed to import jaxinit

    if difflib.get_close_matches(name, known):
        return unknown("initializer", name, known)
    far = ", ".join(map(repr, difflib.get_close_matches(name, known, cutoff=0.3)))
    hint = f"the nearest are {far}; " if far else ""
    return (
        f"unknown initializer {name!r}; {hint}dir(jaxinit) lists all of this package."
    )


@functools.cache
def _names() -> dict[str, Any]:
    """All initializers, and functions that return one, by name."""
    own = {
        name: value
        for name, value in vars(initializers).items()
        if name.islower() and name[0] != "_" and _makes_initializer(value)
    }
    return {**own, **ELSEWHERE}


def _makes_initializer(value: Any) -> bool:
    if isinstance(value, Initializer):
        return True
    return is_maker(value) and value not in (Initializer, initializers.lora)


def _check_settings(name: str, maker: Any, settings: Mapping[str, Any]) -> None:
    """Refuses unknown and missing settings of a function that returns initializers."""
    is_foreign = isinstance(maker, Elsewhere)
    own = maker.make if is_foreign else maker
    parameters = inspect.signature(own).parameters
    known = maker.known() if is_foreign else parameters
    for setting in settings:
        if setting not in known:
            raise TypeError(unknown(f"setting of {name}", setting, known))
    if is_foreign:
        given = {maker.renamed.get(setting, setting) for setting in settings}
        settings = dict.fromkeys(given | {*maker.defaults, *maker.supplied})
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
        value: an initializer of this package, or rules with such initializers.
            Functions cannot be written: patterns must be globs, regular expressions or
            `jaxinit.role(...)`.

    Returns:
        `{"version": 1, "name": "normal", "stddev": 0.02}`, with the settings that
        differ from the defaults; `{"version": 1, "scheme": "gpt2", "layers": 12}`; or
        `{"version": 1, "rules": [...]}`, in which a scheme is one entry, and rules that
        need not match are marked `"optional": True`.

    Raises:
        TypeError: naming what cannot be written.

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
        scheme, settings = rules.call
        if _schemes().get(scheme.__name__) is not scheme:
            raise TypeError(
                f"{rules!r} is a scheme that is not of this package: it cannot be "
                "written as a configuration."
            )
        return {
            "scheme": scheme.__name__,
            **{k: _written(k, v) for k, v in settings.items()},
        }
    entries: list[dict[str, Any]] = []
    for part in rules.parts:
        if part.call:
            entries.append(_rules(part))
            continue
        for pattern, value in part.items():
            optional = {} if pattern in part.required else {"optional": True}
            entries.append({**_rule(pattern, value), **optional})
    return {"rules": entries}


def _rule(pattern: Any, value: Any) -> dict[str, Any]:
    if isinstance(pattern, str):
        where = {"glob": pattern}
    elif isinstance(pattern, role):
        where = {"role": pattern.settings}
    elif hasattr(pattern, "pattern") and not pattern.flags & ~re.UNICODE:
        where = {"regex": pattern.pattern}
    else:
        raise TypeError(
            f"the pattern {pattern!r} cannot be written as a configuration: use a "
            "glob, jaxinit.role(...), or a regular expression of a string without "
            "flags."
        )
    if isinstance(value, by_section):
        where, value = {**where, "by_section": True}, value.value
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
        case Frozen():
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
        raise TypeError(f"config must be a mapping or a name, got {shown(config)}.")
    if "version" not in config:
        raise ValueError(
            f"config has no key 'version': add 'version': {_VERSION}, as to_config "
            f"writes it, to {shown(dict(config))}."
        )
    version = config["version"]
    if type(version) is not int or version != _VERSION:
        raise ValueError(
            f"config must have the version {_VERSION}, got {shown(version)}."
        )
    rest = {key: value for key, value in config.items() if key != "version"}
    _refuse_deep(rest)
    return _read(rest) if {"rules", "scheme"} & set(rest) else _read_initializer(rest)


def _refuse_deep(config: Any) -> None:
    """Raises for a configuration that is nested too deep, or contains itself."""
    level = [config]
    for _ in range(_DEEPEST):
        inner = {id(child): child for whole in level for child in _children(whole)}
        if not inner:
            return
        level = list(inner.values())
    raise ValueError(
        f"config is nested more than {_DEEPEST} levels deep, or contains itself."
    )


def _children(value: Any) -> Collection[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, tuple | list) else ()


def _are_mappings(rules: Any) -> bool:
    is_list = isinstance(rules, Sequence) and not isinstance(rules, str)
    return is_list and all(isinstance(rule, Mapping) for rule in rules)


def _read_rules(config: Mapping[str, Any]) -> Rules:
    _check_keys("rules", config, {"rules"})
    rules: Any = config["rules"]
    if not _are_mappings(rules):
        raise TypeError(
            "rules must be a list of mappings, such as {'glob': '**/bias', 'init': "
            f"'zeros'}}, got {shown(rules)}."
        )
    parts = [
        _read_scheme(rule) if "scheme" in rule else _read_rule(rule) for rule in rules
    ]
    return functools.reduce(operator.or_, parts, Rules({}))


def _schemes() -> dict[str, Any]:
    import jaxinit.schemes as schemes  # slow to import, and not needed before

    return {name: x for name, x in vars(schemes).items() if inspect.isfunction(x)}


def _read_scheme(config: Mapping[str, Any]) -> Rules:
    known = _schemes()
    name = config["scheme"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(unknown("scheme", name, known))
    settings = {key: value for key, value in config.items() if key != "scheme"}
    _check_settings(name, known[name], settings)
    return known[name](**_read_settings(known[name], settings))


def _read_rule(rule: Mapping[str, Any]) -> Rules:
    _check_keys("a rule", rule, {*_PATTERNS, "init", "optional", "by_section"})
    if "init" not in rule or len(_PATTERNS & set(rule)) != 1:
        raise ValueError(
            "a rule must have glob, regex or role, one of them, and init, got "
            f"{shown(dict(rule))}."
        )
    init = _read_initializer(rule["init"])
    value = by_section(init) if _flag(rule, "by_section") else init
    return Rules(
        {_pattern(rule): value}, required=[] if _flag(rule, "optional") else None
    )


_PATTERNS = {"glob", "regex", "role"}


def _flag(rule: Mapping[str, Any], name: str) -> bool:
    value = rule.get(name, False)
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {shown(value)}.")
    return value


def _pattern(rule: Mapping[str, Any]) -> Any:
    ((kind, text),) = ((k, v) for k, v in rule.items() if k in _PATTERNS)
    if kind == "role":
        return _read_role(text)
    if not isinstance(text, str):
        raise TypeError(f"{kind} must be a string, got {shown(text)}.")
    try:
        return text if kind == "glob" else re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"regex must be a regular expression, got {shown(text)}: {error}."
        ) from None


def _read_role(settings: Any) -> role:
    if not isinstance(settings, Mapping):
        raise TypeError(
            "role must be a mapping of what is asked for, such as {'part': 'query'}, "
            f"got {shown(settings)}."
        )
    _check_settings("role", role, settings)
    return role(**settings)


def _read_initializer(config: Any) -> Initializer:
    """An initializer by its name alone, or with its settings."""
    if isinstance(config, str):
        return get(config)
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ValueError(f"an initializer must have a name, got {shown(config)}.")
    name = config["name"]
    settings = {key: value for key, value in config.items() if key != "name"}
    return _by_name(name, _read_settings(_names().get(name), settings))


def _read_settings(maker: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for a call; an initializer among them may be given by name."""
    known = inspect.signature(maker).parameters if callable(maker) else {}
    read = {}
    for key, value in settings.items():
        kind = inspect.formatannotation(known[key].annotation) if key in known else ""
        reader = _read_initializers if "Initializer" in kind else _read
        read[key] = reader(value)
    return read


def _read_initializers(value: Any) -> Any:
    """An initializer or several, each by its name or its configuration."""
    if isinstance(value, tuple | list):
        return tuple(_read_initializers(item) for item in value)
    return get(value) if isinstance(value, str) else _read(value)


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
    is_float = isinstance(value, str) and value in ("inf", "-inf", "nan")
    return float(value) if is_float else value


def _check_keys(what: str, config: Mapping[str, Any], known: set[str]) -> None:
    for key in config:
        if key not in known:
            raise ValueError(unknown(f"key of {what}", key, known))
