"""The leaves of a parameter tree as rows of data: measured, compared and folded."""

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._arrays.measured import Measured, measure_all, pool
from jaxinit._arrays.spread import gathered, local_shards, small, spans, summed
from jaxinit._tree.fingerprint import digest
from jaxinit._tree.folding import fold
from jaxinit._tree.leaf import PlannedLeaf
from jaxinit._tree.partial import whole
from jaxinit._tree.paths import joined, leaf_paths
from jaxinit._tree.plan import Plan
from jaxinit.initializers._defects import defect, drawn_pieces
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.fans import fans
from jaxinit.laws import Moments
from jaxinit.stats import Score, expected_moments, score_measured

_SPECTRAL_SIZE = 2**16  # most entries of a matrix whose norm is computed


@dataclass(frozen=True)
class Row:
    """Equal leaves: the same path up to integers, shape, dtype and initializer.

    An attribute is None if it is not known, or has no meaning for such leaves, as for
    random keys, integers and empty arrays.

    Attributes:
        path: path of the leaves, with runs of integers folded: `blocks_{0..11}/kernel`.
        collection: the Flax collection they are in, such as "params"; "" if none.
        shape: shape of each leaf.
        dtype: name of the dtype.
        leaves: number of leaves.
        bytes: size of all leaves together.
        law: the initializer that the plan has for them, as text.
        expected_mean: mean of its distribution.
        expected_std: standard deviation of its distribution.
        mean: mean over all leaves.
        std: standard deviation over all leaves.
        score: how far the mean or the variance of the worst leaf, whichever is further,
            is from the expected one, in standard errors. For constants and orthogonal
            matrices, zero if they are right, else infinite.
        p: p-value of the worst leaf.
        low: smallest entry; of complex ones, the smallest real or imaginary part.
        high: greatest entry; of complex ones, the greatest real or imaginary part.
        zeros: share of entries that are zero, between 0 and 1.
        nonfinite: number of entries that are NaN or infinite.
        distinct: number of different values; for dtypes of 16 bits or fewer.
        spectral_norm: greatest singular value of the leaves; for matrices of at most
            65,536 entries.
    """

    path: str
    collection: str
    shape: tuple[int, ...]
    dtype: str
    leaves: int
    bytes: int
    law: str | None = None
    expected_mean: float | None = None
    expected_std: float | None = None
    mean: complex | None = None
    std: float | None = None
    score: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    zeros: float | None = None
    nonfinite: int | None = None
    distinct: int | None = None
    spectral_norm: float | None = None

    @property
    def size(self) -> int:
        """Number of entries of all leaves."""
        return self.leaves * math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """Number of parameters: entries that are neither keys nor other state."""
        is_key = self.dtype.startswith("key<")
        return 0 if is_key or self.collection not in ("", "params") else self.size

    @property
    def scale(self) -> float | None:
        """The implied variance scale, `std**2 * fan_in`; None below two dimensions."""
        if self.std is None or len(self.shape) < 2:
            return None
        return self.std**2 * fans(self.shape).fan_in

    @property
    def is_wrong(self) -> bool:
        """Whether chance alone gives such a leaf less than once in 1e9 draws."""
        return self.p is not None and self.leaves * self.p < 1e-9


def rows(params: Any, plan: Plan | None) -> tuple[Row, ...]:
    """The leaves of a tree, repeated blocks folded; see `jaxinit.report.report`."""
    leaves = _leaves(params, plan)
    in_collections = isinstance(params, Mapping) and "params" in params
    folded = fold([leaf.path for leaf in leaves], [leaf.kind for leaf in leaves])
    if any(spans(leaf.array) for leaf in leaves):
        _refuse_other_folds(folded)
    return tuple(_row(p, in_collections, [leaves[i] for i in run]) for p, run in folded)


def _refuse_other_folds(folded: Any) -> None:
    """Raises in all processes if their rows differ."""
    folds = gathered(np.frombuffer(digest([repr(folded)]), np.uint8))
    if (folds != folds[0]).any():
        raise ValueError(
            "processes hold different values in leaves of their own: see which by "
            "jaxinit.check_processes(params)."
        )


@dataclass(frozen=True)
class _Leaf:
    path: str
    array: Any
    measured: Measured | None
    planned: PlannedLeaf | None

    @property
    def kind(self) -> tuple:
        """Equal for leaves that may fold."""
        measured, init = self.measured, _initializer(self)
        constant = None
        if measured is not None and measured.size > 1 and measured.is_constant:
            constant = measured.mean
        is_finite = measured is None or not measured.nonfinite
        return self.array.shape, str(self.array.dtype), constant, init, is_finite

    @functools.cached_property
    def expected(self) -> Moments | None:
        """Moments by the plan; None if its initializer does not know them."""
        init = _initializer(self)
        if self.measured is None or not isinstance(init, Initializer):
            return None
        shape, dtype = self.array.shape, self.array.dtype
        with contextlib.suppress(NotImplementedError):  # it states no law
            if not init.is_independent(shape):
                return init.moments(shape, dtype)
            return expected_moments(init, shape, dtype)
        return None


def _dependent_score(x: jax.Array, init: Initializer) -> Score | None:
    """The score of an array whose entries depend on each other.

    Infinite if a property that holds exactly, such as orthogonality, does not; else the
    score of the worst piece with independent entries; None if there is neither.
    """
    error, allowed, what = defect(x, init)
    if not error <= allowed:
        return Score(None, math.inf, 1.0, 0.0, "", "exact")
    drawn = drawn_pieces(init, x)
    measured = measure_all(part for _, part in drawn)
    scores = [
        score_measured(
            found, expected_moments(made, part.shape, part.dtype), part.dtype
        )
        for (made, part), found in zip(drawn, measured, strict=True)
        if found is not None
    ]
    if not scores:
        return Score(None, 0.0, 1.0, 1.0, "", "exact") if what else None
    worst, n = min(scores, key=lambda score: score.p), len(scores)
    ps = {"mean_p": worst.mean_p, "variance_p": worst.variance_p}
    return replace(worst, **{name: min(1.0, n * p) for name, p in ps.items()})


def _leaves(params: Any, plan: Plan | None) -> list[_Leaf]:
    flat = [
        (joined(path), leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf))
        for path, leaf in leaf_paths(params)
    ]
    planned = {leaf.path: leaf for leaf in plan or ()}
    if plan is not None:
        whole({path: leaf for path, leaf in flat if path in planned}, plan)
    measures = measure_all(leaf for _, leaf in flat)
    return [
        _Leaf(path, array, measured, planned.get(path))
        for (path, array), measured in zip(flat, measures, strict=True)
    ]


def _row(path: str, in_collections: bool, leaves: Sequence[_Leaf]) -> Row:
    first = leaves[0]
    row = Row(
        path=path,
        collection=path.partition("/")[0] if in_collections else "",
        shape=first.array.shape,
        dtype=str(first.array.dtype),
        leaves=len(leaves),
        bytes=sum(_bytes(leaf.array) for leaf in leaves),
        law=repr(first.planned.initializer) if first.planned else None,
    )
    measured = [leaf.measured for leaf in leaves if leaf.measured is not None]
    if not measured:
        return row
    pooled = pool(measured)
    arrays = [leaf.array for leaf in leaves]
    return replace(
        row,
        **_expected(leaves),
        mean=pooled.mean,
        std=pooled.std,
        low=pooled.low,
        high=pooled.high,
        zeros=pooled.zeros / pooled.size,
        nonfinite=pooled.nonfinite,
        distinct=_distinct(arrays),
        spectral_norm=None if pooled.nonfinite else _spectral_norm(arrays),
    )


def _expected(leaves: Sequence[_Leaf]) -> dict[str, float]:
    expected = leaves[0].expected
    if expected is None:
        return {}
    moments = {"expected_mean": expected.mean, "expected_std": expected.std}
    scores = _scores(leaves, expected)
    if not scores:
        return moments
    p, errors = min(scores, key=lambda score: (score[0], -score[1]))
    return {**moments, "score": errors, "p": p}


def _initializer(leaf: _Leaf) -> Any:
    return leaf.planned and leaf.planned.initializer


def _scores(leaves: Sequence[_Leaf], expected: Moments) -> list[tuple[float, float]]:
    """The p-value of each of equal leaves, and its distance in standard errors.

    Leaves that no score is known for are left out.
    """
    array, init = leaves[0].array, _initializer(leaves[0])
    if not init.is_independent(array.shape):
        each = [_dependent_score(jnp.asarray(leaf.array), init) for leaf in leaves]
        return [(score.p, score.worst) for score in each if score is not None]
    # All at once: SciPy takes longer to begin with a law than for its tails.
    measured = [leaf.measured for leaf in leaves if leaf.measured is not None]
    several = {
        name: np.array([getattr(one, name) for one in measured])
        for name in ("mean", "variance", "nonfinite")
    }
    score = score_measured(replace(measured[0], **several), expected, array.dtype)
    ps = np.minimum(1.0, 2 * np.minimum(score.mean_p, score.variance_p))
    mean: Any = 0.0 if score.mean is None else score.mean
    errors = np.maximum(np.abs(mean), np.abs(score.variance))
    errors = np.where(np.isnan(errors), np.inf, errors)
    pairs = np.broadcast_arrays(np.atleast_1d(ps), errors)
    return list(zip(*(column.tolist() for column in pairs), strict=True))


def _bytes(leaf: jax.Array) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.size * leaf.dtype.itemsize


def _distinct(arrays: Sequence[Any]) -> int | None:
    """How many different numbers of a narrow dtype are in arrays; NaN is one."""
    if arrays[0].dtype.itemsize > 2:
        return None
    bits = np.uint8 if arrays[0].dtype.itemsize == 1 else np.uint16
    occurs = np.zeros(np.iinfo(bits).max + 1, bool)
    for shard in (shard for array in arrays for shard in local_shards(array)):
        occurs[np.asarray(shard).ravel().view(bits)] = True
    if any(map(spans, arrays)):
        occurs = summed(occurs.astype(np.int64))
    values = np.flatnonzero(occurs).astype(bits).view(arrays[0].dtype)
    return np.unique(values.astype(np.float32)).size


def _spectral_norm(arrays: Sequence[Any]) -> float | None:
    if len(arrays[0].shape) != 2 or arrays[0].size > _SPECTRAL_SIZE:
        return None
    wide = np.complex128 if jnp.iscomplexobj(arrays[0]) else np.float64
    norms = (np.linalg.norm(small(x).astype(wide), 2) for x in arrays)
    return float(max(norms))
