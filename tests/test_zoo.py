"""The truths of the zoo name every leaf of its models, and its models can be traced."""

import jax
import pytest
from zoo import ANY, MODELS, UNNAMED, WRITES, Use, differences

from jaxinit._tree.paths import joined, leaf_paths


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MODELS)
def test_truths_name_every_leaf_of_a_model_that_runs(name):
    model = MODELS[name]()
    leaves = {joined(path): leaf for path, leaf in leaf_paths(model.params)}
    assert sorted(leaves) == sorted(model.truth)
    assert jax.tree.leaves(jax.eval_shape(model.apply, model.params, *model.inputs))
    for path, uses in model.uses().items():
        for use in uses:
            assert problems(use, leaves[path], model.truth) == [], path


def problems(use: Use, leaf, paths) -> list[str]:
    """What no true statement can say of a leaf of this shape."""
    axes = [
        axis
        for name in ("in", "out", "batch", "stack", "spatial")
        for axis in _plain(getattr(use, f"{name}_axis"))
    ]
    of = [use.of] if isinstance(use.of, str) else _plain(use.of or ())
    spans = [
        (axis, stop) for axis, blocks, *_ in _plain(use.sections) for _, stop in blocks
    ]
    return [
        *[f"axis {axis}" for axis in axes if not 0 <= axis < leaf.ndim],
        *[f"axis {axis} twice" for axis in set(axes) if axes.count(axis) > 1],
        *[f"of {path}" for path in of if path not in paths],
        *[f"stop {stop}" for axis, stop in spans if stop > leaf.shape[axis]],
        *_missing(use, leaf, axes),
    ]


def _plain(value) -> list:
    return [] if value is ANY else list(value)


def _missing(use: Use, leaf, axes: list[int]) -> list[str]:
    """Axes that vary, and are in none, although every axis of the use is named."""
    if use.kind == "unknown" or use.in_axis is ANY or use.out_axis is ANY:
        return []
    rest = set(range(leaf.ndim)) - set(axes)
    return [f"axis {axis} is in none" for axis in rest if leaf.shape[axis] > 1]


def test_differences_tell_what_is_wrong():
    truth = Use("kernel", (0,), (1,), fan_in=4, fan_out=5, function=UNNAMED)
    found = Use("kernel", (1,), (0,), fan_in=4.0, fan_out=5, function="relu")
    assert differences([truth], [Use(**{**vars(truth), "function": "x"})]) == []
    assert differences([truth], [found]) == [
        "use 0: in_axis: (1,), not (0,)",
        "use 0: out_axis: (0,), not (1,)",
        "use 0: function: 'relu', not UNNAMED",
    ]
    assert differences([truth], []) == ["0 uses, not 1"]
    assert differences([Use("unknown")], [found]) == ["kind: 'kernel', not 'unknown'"]
    assert differences([], []) == []
    residual = Use("kernel", residual=WRITES)
    assert differences([residual], [Use("kernel", residual=(0, 1))]) == []
    assert differences([residual], [Use("kernel")]) != []
    assert differences([Use("bias", of=ANY)], [Use("bias")]) == []
