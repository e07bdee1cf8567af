"""Assertions on parameters, for test suites: chex assertions on what is drawn.

Every statistical assertion has a false-alarm rate, `p_fail`: the probability that it
fails for a right array, over all leaves and checks together. At its default, 1e-9, a
test that draws with a new key every day fails for no reason once in millions of years.
What is wrong is raised in one AssertionError, with every leaf that failed. As of chex's
own assertions, `custom_message`, `custom_message_format_vars`,
`include_default_message` and `exception_type` are taken by keyword, and
`chex.disable_asserts` turns them off. They look at values: call them outside of
`jax.jit`, on concrete arrays. If these span the processes of a multi-process program,
call them in all processes: each gets the figures of the whole arrays, and if one raises
all do.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._arrays.measured import (
    Measured,
    measure_all,
    refuse_traced,
    refuse_unmeasurable,
)
from jaxinit._assertion import Problems, chex_assertion
from jaxinit._audit.allowing import meant, refuse_unmatched
from jaxinit._audit.printing import line
from jaxinit._roles.role import Roles
from jaxinit._tree.leaf import PlannedLeaf
from jaxinit._tree.partial import whole
from jaxinit._tree.paths import joined, leaf_paths
from jaxinit._tree.plan import Plan, checked_plan, problems_message
from jaxinit.audit import audit
from jaxinit.initializers._defects import defect, drawn_pieces, has_matrices
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.orthogonal_matrices import orthogonal
from jaxinit.initializers.settings import number
from jaxinit.laws import Moments
from jaxinit.stats import Score, expected_moments, fit, score_measured


@chex_assertion
def assert_variance(x: Any, expected: Any, p_fail: float = 1e-9) -> Problems:
    """Checks that a variance is the one expected, up to chance.

    Args:
        x: array, or pytree of arrays that are each checked, of a floating-point or
            complex dtype.
        expected: an initializer, `jaxinit.Moments` or a variance, a positive number; of
            a number the kurtosis is taken to be at most the normal one.
        p_fail: false-alarm rate, between 0 and 1.

    Raises:
        AssertionError: naming every leaf whose variance is another.
        TypeError: if a leaf is traced or not floating-point, or `expected` of a wrong
            type.
        ValueError: if a variance is not possible, or a leaf too small to have one.

    >>> import jaxinit
    >>> x = jaxinit.he_normal()(jax.random.key(0), (400, 300))
    >>> assert_variance(x, 2 / 400)
    >>> assert_variance(x, jaxinit.he_normal())
    """
    leaves = _measured(x)
    threshold = _checked(p_fail) / max(len(leaves), 1)
    for path, leaf, measured in leaves:
        if measured is None:
            refuse_unmeasurable(leaf)
        moments = expected_moments(expected, leaf.shape, leaf.dtype)
        score = score_measured(measured, moments, leaf.dtype)
        yield from _off_variance(path, leaf, measured, moments, score, threshold)


@chex_assertion
def assert_moments(params: Any, plan: Plan, p_fail: float = 1e-9) -> Problems:
    """Checks that a tree has the moments that its plan expects, up to chance.

    Of every leaf: entries are finite, within the bounds of its law, and have its mean
    and variance. Where entries depend on each other, what is checked follows the parts,
    in whatever they are wrapped: orthogonal matrices are orthogonal, tables and zeros
    what they must be, what is drawn independently has its mean and variance; of an
    initializer that is not known only the first two are checked. Parts that all have
    independent entries, as of `stacked`, are checked together: it is not seen which is
    where.

    Args:
        params: pytree with the paths, shapes and dtypes of the plan, as of
            `plan.init(key)`.
        plan: the plan.
        p_fail: false-alarm rate of all leaves together, between 0 and 1.

    Raises:
        AssertionError: naming every leaf that is not as expected.
        TypeError: if a leaf is traced, or drawn by a function that does not know its
            moments.
        ValueError: if the tree does not fit the plan.

    >>> import jaxinit
    >>> shapes = {"kernel": jax.ShapeDtypeStruct((64, 32), "float32")}
    >>> plan = jaxinit.plan(shapes, {"**": jaxinit.he_normal()})
    >>> assert_moments(plan.init(jax.random.key(0)), plan)
    """
    leaves = whole(params, checked_plan("plan", plan))
    _refuse_unknown(plan)
    threshold = _checked(p_fail) / max(2 * len(leaves), 1)
    measured = measure_all(leaves.values())
    for leaf, x, found in zip(plan, leaves.values(), measured, strict=True):
        if found is not None:
            yield from _off_plan(leaf, x, found, threshold)


@chex_assertion
def assert_law(x: Any, init: Initializer, p_fail: float = 1e-9) -> Problems:
    """Checks that entries have the law of an initializer, by Kolmogorov-Smirnov.

    It sees what moments do not, such as a uniform law for a normal one, and needs more
    entries to see what they do. Ties, as of low precision, only make it more lenient.

    Args:
        x: array, or pytree of arrays that are each checked, of a floating-point or
            complex dtype; brought to the host and sorted.
        init: the initializer.
        p_fail: false-alarm rate, between 0 and 1.

    Raises:
        AssertionError: naming every leaf whose entries have another law.
        TypeError: if a leaf is traced or not floating-point.
        ValueError: if a leaf has no entries, or they depend on each other.

    >>> import jaxinit
    >>> x = jaxinit.uniform(0.1)(jax.random.key(0), (400, 300))
    >>> assert_law(x, jaxinit.uniform(0.1))
    """
    leaves = _arrays(x)
    threshold = _checked(p_fail) / max(len(leaves), 1)
    for path, leaf in leaves:
        distance, p = fit(leaf, init)
        if p < threshold:
            expected = f"expected the law of {init!r}, got one {distance:.3g} away"
            yield _line(path, leaf, f"{expected}, {_chance(p, 'KS', threshold)}")


@chex_assertion
def assert_orthogonal(x: Any, init: Initializer = orthogonal()) -> Problems:  # noqa: B008
    """Checks that matrices are orthogonal, `x.T @ x = scale**2 I`, up to rounding.

    Args:
        x: array, or pytree of arrays that are each checked, of a floating-point or
            complex dtype.
        init: which axes are rows, columns and batch, and the scale: `orthogonal`,
            `delta_orthogonal`, or one of these scaled, stacked or split. Of parts that
            are not orthogonal only what is fixed is checked.

    Raises:
        AssertionError: naming every leaf that is not orthogonal.
        TypeError: if a leaf is traced or not floating-point, or `init` makes no
            orthogonal matrices.
        ValueError: if the shape of a leaf does not fit `init`.

    >>> import jaxinit
    >>> x = jaxinit.orthogonal(2.0)(jax.random.key(0), (40, 30))
    >>> assert_orthogonal(x, jaxinit.orthogonal(2.0))
    """
    for path, leaf in _arrays(x):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            refuse_unmeasurable(leaf)
        if not has_matrices(init, leaf.shape):
            raise TypeError(
                f"{init!r} makes no orthogonal matrices: expect jaxinit.orthogonal(), "
                "jaxinit.delta_orthogonal(), or one of these mirrored, scaled, stacked "
                "or split."
            )
        yield from _not_exact(path, leaf, init)


@chex_assertion
def assert_finite(tree: Any) -> Problems:
    """Checks that no entry is NaN or infinite.

    Args:
        tree: pytree of arrays; keys, integers and empty arrays pass.

    Raises:
        AssertionError: naming every leaf with such entries.
        TypeError: if a leaf is traced.

    >>> assert_finite({"w": jnp.ones(3), "step": 0})
    """
    for path, leaf, measured in _measured(tree):
        if measured is not None and measured.nonfinite:
            yield _not_finite(path, leaf, measured)


@chex_assertion
def assert_bounds(
    tree: Any, low: float = -math.inf, high: float = math.inf
) -> Problems:
    """Checks that all entries are between two numbers, or equal to them.

    Args:
        tree: pytree of arrays; keys, integers and empty arrays pass. Of complex entries
            the real and imaginary parts are looked at.
        low: least number allowed.
        high: greatest number allowed.

    Raises:
        AssertionError: naming every leaf with an entry beyond, or NaN.
        TypeError: if a leaf is traced.
        ValueError: if `low` or `high` is no number, or `low > high`.

    >>> import jaxinit
    >>> x = jaxinit.truncated_normal(0.02)(jax.random.key(0), (400, 300))
    >>> assert_bounds(x, -0.04, 0.04)
    """
    low, high = number("low", low), number("high", high)
    if low > high:
        raise ValueError(f"low must be at most high, got {low} and {high}.")
    for path, leaf, measured in _measured(tree):
        if measured is not None:
            yield from _beyond(path, leaf, measured, low, high)


@chex_assertion
def assert_sound(params: Any, allow: Any = (), roles: Roles | None = None) -> Problems:
    """Checks that an audit finds nothing of severity warning or error.

    See `jaxinit.audit.audit` for what it looks for.

    Args:
        params: pytree of arrays.
        allow: findings that are meant: a kind, as of `jaxinit.audit.KINDS`, or several,
            or a mapping from kinds to the leaves where they are: a glob such as
            "**/bias", a compiled regular expression, or several of these. A finding is
            only allowed if every leaf that it is about matches one.
        roles: what the leaves are for, as of `jaxinit.roles`; None judges by shapes.

    Raises:
        AssertionError: with all other findings.
        TypeError: if a leaf is no array or traced, or `allow` of a wrong type.
        ValueError: if a kind is not known, a glob malformed or a pattern matches no
            leaf, the tree has no leaves, or an array was deleted or spans processes.

    >>> import jaxinit
    >>> x = jaxinit.he_normal()(jax.random.key(0), (64, 32))
    >>> assert_sound({"kernel": x, "bias": jnp.zeros(32)})
    >>> assert_sound({"a": x, "b": x}, allow={"equal": ["a", "b"]})
    """
    is_meant = meant(allow)
    found = audit(params, roles)
    refuse_unmatched(allow, [row.path for row in found.rows])
    for finding in found.at_least("warning"):
        if not is_meant(finding):
            yield line(finding)


def _refuse_unknown(plan: Plan) -> None:
    unknown = [
        f"{leaf.path}: {leaf.initializer!r} does not know its moments; give its rule "
        "an initializer that states its law"
        for leaf in plan
        if leaf.std is None
    ]
    if unknown:
        raise TypeError(problems_message("the plan", unknown))


def _off_plan(
    leaf: PlannedLeaf, x: jax.Array, measured: Measured, threshold: float
) -> Problems:
    init: Any = leaf.initializer
    low, high = init.moments(x.shape, x.dtype)[3:]
    if measured.nonfinite:
        yield _not_finite(leaf.path, x, measured)
        return
    yield from _beyond(leaf.path, x, measured, low, high, float(jnp.finfo(x.dtype).eps))
    parts: list[Any] = [(init, x, measured)]
    if not init.is_independent(x.shape):
        yield from _not_exact(leaf.path, x, init)
        drawn = drawn_pieces(init, x)
        found = measure_all(part for _, part in drawn)
        parts = [(*piece, m) for piece, m in zip(drawn, found, strict=True)]
    for made, part, found in parts:
        moments = expected_moments(made, part.shape, part.dtype)
        score = score_measured(found, moments, part.dtype)
        p = threshold / len(parts)
        yield from _off_mean(leaf.path, part, found, moments, score, p)
        yield from _off_variance(leaf.path, part, found, moments, score, p)


def _off_mean(
    path: str, x: jax.Array, got: Measured, expected: Moments, score: Score, p: float
) -> Problems:
    if score.mean_p < p:
        values = f"mean: expected {expected.mean:.6g}, got {got.mean:.6g}"
        chance = _chance(score.mean_p, score.mean_method, p)
        yield _line(path, x, f"{values}, {score.mean:+.3g} standard errors, {chance}")


def _off_variance(
    path: str, x: jax.Array, got: Measured, expected: Moments, score: Score, p: float
) -> Problems:
    if score.variance_p < p:
        values = f"std: expected {expected.std:.6g}, got {got.std:.6g}"
        errors = f"variance {score.variance:+.3g} standard errors"
        chance = _chance(score.variance_p, score.variance_method, p)
        yield _line(path, x, f"{values}, {errors}, {chance}")


def _chance(p: float, method: str, threshold: float) -> str:
    return f"p {p:.2g} ({method}), threshold {threshold:.2g}"


def _not_finite(path: str, x: jax.Array, measured: Measured) -> str:
    return _line(path, x, f"expected finite entries, got {measured.nonfinite} others")


def _beyond(
    path: str, x: jax.Array, got: Measured, low: float, high: float, rounding=0.0
) -> Problems:
    below, above = (
        rounding * abs(bound) if math.isfinite(bound) else 0.0 for bound in (low, high)
    )
    if not (low - below <= got.low and got.high <= high + above):
        expected = f"expected entries from {low:.6g} to {high:.6g}"
        yield _line(path, x, f"{expected}, got {got.low:.6g} to {got.high:.6g}")


def _not_exact(path: str, x: jax.Array, init: Initializer) -> Problems:
    error, allowed, what = defect(x, init)
    if not error <= allowed:
        got = f"got {what} by {error:.3g}, threshold {allowed:.2g}"
        yield _line(path, x, f"expected an array of {init!r}, {got}")


def _line(path: str, x: jax.Array, text: str) -> str:
    return f"{path or 'the array'}, {x.dtype}{list(x.shape)}, {x.size} entries, {text}"


def _measured(tree: Any) -> list[tuple[str, jax.Array, Any]]:
    """Path, array and what is in it, of every leaf; None where that has no moments."""
    leaves = _arrays(tree)
    measured = measure_all(leaf for _, leaf in leaves)
    return [(*leaf, found) for leaf, found in zip(leaves, measured, strict=True)]


def _arrays(tree: Any) -> list[tuple[str, jax.Array]]:
    flat = [(joined(path), leaf) for path, leaf in leaf_paths(tree)]
    for _, leaf in flat:
        refuse_traced(leaf)
    return [(path, jnp.asarray(leaf)) for path, leaf in flat]


def _checked(p_fail: float) -> float:
    if not 0 < number("p_fail", p_fail) < 1:
        raise ValueError(f"p_fail must be between 0 and 1, got {p_fail!r}.")
    return float(p_fail)
