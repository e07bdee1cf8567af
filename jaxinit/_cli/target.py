"""From `module:name`, as given on the command line, to an init function of a key."""

import difflib
import functools
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._compile.jit import jit
from jaxinit._roles.role import Roles
from jaxinit._tree.paths import leaf_paths
from jaxinit._tree.plan import Plan, leaf_contexts, plan
from jaxinit._tree.rules import Rules


class TargetError(Exception):
    """A target that cannot be initialised; its message is one line for the user."""

    status = 2  # of the process, as for other errors in its arguments


def load(target: str) -> Any:
    """The object that `module:name` names.

    Args:
        target: `package.module:name`; dots in the name reach into the object.

    Raises:
        TargetError: if the target is malformed, or there is no such module or name, or
            the module fails to import.
    """
    module_name, colon, name = target.partition(":")
    segments = [*module_name.split("."), *name.split(".")]
    if not colon or not all(x.isidentifier() for x in segments):
        raise TargetError(
            f"target {target!r} is not of the form module:name, such as net:Net for "
            "what is called Net in net.py"
        )
    value = _module(module_name)
    for attribute in name.split("."):
        value = _attribute(target, value, attribute)
    return value


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(
                f"no module named {error.name!r}: run from the folder that holds it, "
                "or install it with pip"
            ) from error
        raise TargetError(f"importing {name} failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise TargetError(f"importing {name} failed: {one_line(error)}") from error


def _attribute(target: str, owner: Any, attribute: str) -> Any:
    try:
        return getattr(owner, attribute)
    except AttributeError as error:
        raise TargetError(_no_attribute(target, owner, attribute)) from error
    except Exception as error:
        raise TargetError(f"reading {target} failed: {one_line(error)}") from error


def _no_attribute(target: str, owner: Any, attribute: str) -> str:
    names = [name for name in dir(owner) if not name.startswith("_")]
    near = difflib.get_close_matches(attribute, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {_some(names)}"
    shown = getattr(owner, "__name__", type(owner).__name__)
    return f"{shown} has no {attribute!r} (target {target!r}): {hint}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no names"


def init_function(
    target: Any,
    inputs: Sequence[jax.ShapeDtypeStruct],
    keywords: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[jax.Array], Any]:
    """An init function of a key for a target.

    Args:
        target: a Flax Linen module (or a class of one, or anything else with `init` and
            `apply`), a class or function that takes `rngs` and makes a Flax NNX module,
            or a function of a key.
        inputs: what the module or function is called on, after the key.
        keywords: keyword arguments of the constructor or function. Those that the
            constructor of a Linen module does not take go to the module's call.

    Returns:
        A function of a key that returns a pytree of arrays.

    Raises:
        TargetError: if `target` is none of these, or does not take these arguments.
    """
    target = _owner(target)
    if _has_init_and_apply(target):
        module, options = _linen_module(target, keywords)
        return _linen(module, inputs, options)
    _refuse_drawn(target)
    if not callable(target):
        raise TargetError(
            f"a value of type {type(target).__name__} is neither an init function of a "
            "key, nor a Flax Linen module, nor a Flax NNX constructor"
        )
    if "rngs" in _signature(target).parameters:
        return _nnx(target, inputs, keywords)
    return _function(target, inputs, keywords)


def model(
    target: Any,
    inputs: Sequence[jax.ShapeDtypeStruct],
    key: jax.Array,
    keywords: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Any, Any, dict[str, Any]]:
    """A model that can be run, its parameters, and keyword arguments of its call.

    Args:
        target: a Flax Linen module or class, or a function or class that makes a Flax
            NNX module from `rngs`.
        inputs: what the module is called on.
        key: key that the parameters are drawn with.
        keywords: keyword arguments of the class or function; those that it does not
            take go to the module's call.

    Returns:
        The module; its variables, or None for an NNX module, which holds its own; and
        the keyword arguments for the call.

    Raises:
        TargetError: if `target` is none of these, or does not take these arguments.
    """
    target = _owner(target)
    if _has_init_and_apply(target):
        module, options = _linen_module(target, keywords)
        return module, jit(_linen(module, inputs, options))(key), options
    _refuse_drawn(target)
    if callable(target) and "rngs" in _signature(target).parameters:
        from jaxinit.nnx import create

        own, options = _divided(target, keywords)
        _check_constructor(target, own)
        module = create(lambda rngs: target(rngs=rngs, **own), key)
        _check_call(module, inputs, options)
        return module, None, options
    raise _no_model(target)


def roles_of(
    target: Any,
    inputs: Sequence[jax.ShapeDtypeStruct],
    keywords: Mapping[str, Any] = MappingProxyType({}),
) -> Roles:
    """The roles of a model's parameters; the arguments are those of `model`.

    Raises:
        TargetError: if `target` is no model, or does not take these arguments.
    """
    module, options = uncalled(target, keywords)
    if _has_init_and_apply(module):
        from jaxinit.linen import roles

        _check_call(module, inputs, options)
        return roles(module, *inputs, **options)
    from jaxinit.nnx import roles

    return roles(module, *inputs, **options)


def uncalled(
    target: Any, keywords: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Any, dict[str, Any]]:
    """A model without its parameters, and keyword arguments of its call.

    Args:
        target: as in `model`.
        keywords: as in `model`.

    Returns:
        A Flax Linen module, or a function of rngs that makes a Flax NNX module; and the
        keyword arguments for the call.

    Raises:
        TargetError: if `target` is none of these, or does not take these arguments.
    """
    target = _owner(target)
    if _has_init_and_apply(target):
        return _linen_module(target, keywords)
    _refuse_drawn(target)
    if callable(target) and "rngs" in _signature(target).parameters:
        own, options = _divided(target, keywords)
        _check_constructor(target, own)
        return lambda rngs: target(rngs=rngs, **own), options
    raise _no_model(target)


def is_model(target: Any) -> bool:
    """Whether a target is a model that can be run, or a class or function of one."""
    target = _owner(target)
    is_nnx = callable(target) and "rngs" in _signature(target).parameters
    return _has_init_and_apply(target) or is_nnx


def _no_model(target: Any) -> TargetError:
    name = getattr(target, "__name__", f"a value of type {type(target).__name__}")
    return TargetError(
        f"{name} is no model that can be run: name a Flax Linen module, or what makes "
        "a Flax NNX module of rngs"
    )


def _has_init_and_apply(target: Any) -> bool:
    return callable(getattr(target, "init", None)) and hasattr(target, "apply")


def _owner(target: Any) -> Any:
    """The module, if given its `init`, whose signature in Flax tells nothing."""
    owner = getattr(target, "__self__", None)
    is_init = getattr(target, "__name__", None) == "init" and _has_init_and_apply(owner)
    return owner if is_init else target


def _refuse_drawn(target: Any) -> None:
    """Raises for a model that has its arrays already: a call takes a batch, no key."""
    if isinstance(target, (type, functools.partial)):
        return
    if any(isinstance(x, (jax.Array, np.ndarray)) for x in jax.tree.leaves(target)):
        raise TargetError(
            f"this {type(target).__name__} was made already and holds its arrays: name "
            "the class instead, or a function that makes one, in Flax NNX of rngs"
        )


def _divided(
    constructor: Callable[..., Any], keywords: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of a constructor, and the others."""
    parameters = _signature(constructor).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    own = {k: v for k, v in keywords.items() if takes_all or k in parameters}
    return own, {k: v for k, v in keywords.items() if k not in own}


def _linen_module(
    target: Any, keywords: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The module, and the keyword arguments of its call."""
    if not isinstance(target, type):
        return target, dict(keywords)
    own, options = _divided(target, keywords)
    try:
        return target(**own), options
    except Exception as error:
        raise TargetError(
            f"{one_line(error)}: give --arg NAME=VALUE, or name an instance of the "
            f"module instead, such as `model = {target.__name__}(...)` in its file"
        ) from error


def _linen(
    module: Any, inputs: Sequence[jax.ShapeDtypeStruct], options: Mapping[str, Any]
):
    _check_call(module, inputs, options)
    return lambda key: module.init(key, *_zeros(inputs), **options)


def _check_call(
    module: Any, inputs: Sequence[jax.ShapeDtypeStruct], options: Mapping[str, Any]
) -> None:
    """Raises if the call of a module, or of its `init`, does not take the inputs."""
    called = module if callable(module) else functools.partial(module.init, None)
    try:
        _signature(called).bind(*inputs, **options)
    except TypeError as error:
        raise TargetError(
            f"the module is called on {_names(called)}, but {_given(inputs, options)} "
            f"({error}): give SHAPE:DTYPE, such as 1x8:int32, for each array, and "
            "--arg NAME=VALUE for each setting"
        ) from error


def _given(inputs: Sequence[Any], options: Mapping[str, Any]) -> str:
    named = "".join(f" and --arg {name}" for name in options)
    return f"{len(inputs)} --input{named} were given"


def _nnx(
    target: Any, inputs: Sequence[jax.ShapeDtypeStruct], keywords: Mapping[str, Any]
):
    from jaxinit.nnx import collections

    if inputs:
        raise TargetError("a Flax NNX constructor takes no --input")
    _check_constructor(target, keywords)
    return collections(lambda rngs: target(rngs=rngs, **keywords))


def _check_constructor(target: Any, keywords: Mapping[str, Any]) -> None:
    try:
        _signature(target).bind(rngs=None, **keywords)
    except TypeError as error:
        given = " and ".join(["rngs", *keywords])
        raise TargetError(
            f"the constructor takes {_names(target)}, not {given} alone ({error}): "
            "give --arg NAME=VALUE, or name a function of rngs that gives it the others"
        ) from error


def _function(
    target: Any, inputs: Sequence[jax.ShapeDtypeStruct], keywords: Mapping[str, Any]
):
    try:
        _signature(target).bind(None, *inputs, **keywords)
    except TypeError as error:
        raise TargetError(
            f"the function takes {_names(target)}, but a key and "
            f"{_given(inputs, keywords)} ({error}): give SHAPE:DTYPE, such as "
            "1x8:int32, for each array after the key, and --arg NAME=VALUE for each "
            "setting"
        ) from error

    @functools.wraps(target)
    def init(key):
        return target(key, *_zeros(inputs), **keywords)

    return init


def _zeros(inputs: Sequence[jax.ShapeDtypeStruct]) -> list[jax.Array]:
    return [jnp.zeros(x.shape, x.dtype) for x in inputs]


def _signature(target: Any) -> inspect.Signature:
    """The signature; one that takes anything if there is none: the call will tell."""
    try:
        if not isinstance(target, type):
            return inspect.signature(target)
        signature = inspect.signature(target.__init__)  # metaclasses may hide it
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    except (TypeError, ValueError):
        return inspect.signature(lambda *args, **kwargs: None)


def _names(target: Any) -> str:
    return f"({', '.join(_signature(target).parameters)})"


def rounded(init: Callable[[Any], Any], dtype: Any) -> Callable[[Any], Any]:
    """`init` with its floating-point parameters rounded once to `dtype`.

    Finite values beyond the largest one of `dtype` become the largest. If `init`
    returns Flax collections, only "params" is rounded, as by a module's `param_dtype`.

    Args:
        init: function of a key that returns a pytree of arrays.
        dtype: floating-point dtype, no wider than any parameter.
    """

    def call(key):
        tree = init(key)
        if isinstance(tree, Mapping) and "params" in tree:
            return {**tree, "params": jax.tree.map(narrow, tree["params"])}
        return jax.tree.map(narrow, tree)

    def narrow(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype == dtype:
            return leaf
        limits = jnp.finfo(dtype)
        if limits.bits >= jnp.finfo(leaf.dtype).bits:
            raise TargetError(
                f"--dtype {dtype} is not narrower than {leaf.dtype}, in which the "
                "target draws: set the dtype in the model itself"
            )
        clipped = jnp.clip(leaf, float(limits.min), float(limits.max))
        return jnp.where(jnp.isinf(leaf), leaf, clipped).astype(dtype)

    return call


def expectations(name: str, rules: Any, shapes: Any) -> Plan:
    """A plan of the leaves that rules match, to compare the target with.

    Args:
        name: `module:name` of the rules, for the messages.
        rules: `Rules`, or a mapping from patterns to initializers.
        shapes: pytree of the shapes that the target makes.

    Raises:
        TargetError: if `rules` are not rules, or one matches no leaf or does not fit.
    """
    if not isinstance(rules, Rules | Mapping):
        hint = "; if it makes rules, name what it returns" if callable(rules) else ""
        raise TargetError(
            f"--rules {name} is of type {type(rules).__name__}, not jaxinit.Rules or a "
            f"mapping from path patterns to initializers{hint}"
        )
    try:
        rules = Rules(rules)
        flat, structure = leaf_paths(shapes), jax.tree.structure(shapes)
        positions = [rules.find(leaf) for leaf in leaf_contexts(flat)]
        matched = [
            None if position is None else leaf
            for (_, leaf), position in zip(flat, positions, strict=True)
        ]
        return plan(jax.tree.unflatten(structure, matched), rules)
    except Exception as error:
        raise TargetError(f"--rules {name}: {in_a_row(error)}") from error


def in_a_row(error: BaseException) -> str:
    """The lines of a message one behind the other."""
    lines = "; ".join(line.strip() for line in str(error).splitlines())
    return lines.replace(":;", ":")


def one_line(error: BaseException) -> str:
    """An exception as one line, with the last line of the user's code in its trace."""
    text = " ".join(str(error).strip().partition("\n\n")[0].split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith((sys.base_prefix, sys.prefix, "<"))
        and "/jaxinit/" not in frame.filename
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}"[:500] + place
