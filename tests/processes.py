"""What each process of a multi-process program does; tests compare what it prints.

    python -m tests.processes NUMBER PROCESSES COORDINATOR FOLDER

Every result is JSON: text, numbers, or an error as text. One process computes the same
without starting others, on devices of its own.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxinit
import jaxinit.linen
import jaxinit.nnx
from examples import multihost
from jaxinit import signal, stats, testing
from jaxinit._cli import checkpoint
from jaxinit.report import report

Results = Iterator[tuple[str, Callable[[], Any]]]
LAWS = {
    "bfloat16": jaxinit.uniform(0.1),
    "complex64": jaxinit.normal(),
    "float32": jaxinit.he_normal(),
    "square": jaxinit.he_normal(),
    "whole": jaxinit.normal(1.0),
    "orthogonal": jaxinit.orthogonal(),
    "zeros": jaxinit.zeros,
}
SPECS = {
    "bfloat16": P("data"),
    "complex64": P("data", "model"),
    "float32": P("data", "model"),
    "square": P("model", "data"),
    "whole": P(),
    "orthogonal": P("data", "model"),
    "zeros": P(),
}
SHAPES = {
    "bfloat16": jax.ShapeDtypeStruct((32, 24), "bfloat16"),
    "complex64": jax.ShapeDtypeStruct((32, 24), "complex64"),
    "float32": jax.ShapeDtypeStruct((64, 24), "float32"),
    "square": jax.ShapeDtypeStruct((24, 24), "float32"),
    "whole": jax.ShapeDtypeStruct((8,), "float32"),
    "orthogonal": jax.ShapeDtypeStruct((16, 8), "float32"),
    "zeros": jax.ShapeDtypeStruct((8,), "float32"),
}


def linen_model():
    partitioned = linen.with_partitioning(jaxinit.he_normal(), ("data", "model"))
    return linen.Dense(8, kernel_init=partitioned)


def nnx_model(rngs):
    partitioned = nnx.with_partitioning(jaxinit.he_normal(), ("data", "model"))
    return nnx.Dict(
        dense=nnx.Linear(8, 8, kernel_init=partitioned, rngs=rngs),
        dropout=nnx.Dropout(0.5, rngs=rngs),
    )


def placed_plan(mesh, laws=LAWS, shapes=SHAPES, specs=SPECS):
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    return jaxinit.plan(shapes, laws, shardings=shardings)


def plan_of_all(mesh):
    """A plan of every kind of leaf, or on a small mesh of those unlike each other."""
    tables = LAWS, SHAPES, SPECS
    if mesh.size <= 4:
        left_out = ("complex64", "square")
        tables = [{k: t[k] for k in t if k not in left_out} for t in tables]
    return placed_plan(mesh, *tables)


def drawn(mesh) -> dict[str, jax.Array]:
    """All of them, by the programs that measuring compiles."""
    with jax.set_mesh(mesh):
        return plan_of_all(mesh).init(jax.random.key(0))


def doors(mesh, key) -> Results:
    """Every way to draw: neither the axes nor where the key is change anything."""
    pair = {"float32": SHAPES["float32"], "whole": SHAPES["whole"]}
    places = {name: NamedSharding(mesh, SPECS[name]) for name in pair}
    laws = {name: LAWS[name] for name in pair}
    plan = jaxinit.plan(pair, laws, shardings=places)
    kernel, place = SHAPES["float32"].shape, places["float32"]
    x = jax.ShapeDtypeStruct((1, 8), np.float32)

    def alone(draw):
        return {"float32": draw(plan_key(plan, key)), "whole": plan.init(key)["whole"]}

    def init(key):
        return LAWS["float32"](key, kernel)

    def nnx_state(seed):
        model = jaxinit.nnx.create(nnx_model, seed, mesh=mesh)
        return nnx.to_pure_dict(nnx.state(model))

    yield "plan.init", lambda: plan.init(key)
    yield "plan.init, jitted", lambda: jax.jit(plan.init)(key)
    yield (
        "init_missing",
        lambda: jaxinit.init_missing(key, {"whole": plan.init(key)["whole"]}, plan),
    )
    yield "reinit", lambda: jaxinit.reinit(key, plan.init(key), plan, "float32")
    yield (
        "out_sharding",
        lambda: alone(lambda key: LAWS["float32"](key, kernel, out_sharding=place)),
    )
    yield "jit", lambda: alone(jaxinit.jit(init, out_shardings=place))
    yield "linen", lambda: jaxinit.linen.init(linen_model(), key, x, mesh=mesh)
    yield "nnx", lambda: nnx_state(key)
    yield "nnx, seed", lambda: nnx_state(0)


def plan_key(plan, key):
    """The key of the first leaf, made in a program, as keys may span processes."""
    return jax.jit(next(iter(plan)).key)(key)


def placed(mesh, key):
    """The key, whole on every device of a mesh."""
    is_raw = key.dtype == np.uint32
    words = np.asarray(key if is_raw else jax.random.key_data(key))
    whole = NamedSharding(mesh, P())
    words = jax.make_array_from_callback(words.shape, whole, words.__getitem__)
    return words if is_raw else jax.random.wrap_key_data(words)


def all_doors(mesh_of, thorough: bool) -> Iterator[tuple[str, Any]]:
    kinds = {"typed": jax.random.key, "raw": jax.random.PRNGKey}
    cases = [
        (axes, in_use, kind, is_placed)
        for axes in (AxisType.Explicit, AxisType.Auto)
        for in_use in (False, True)
        for kind in kinds
        for is_placed in ((False,) if in_use else (False, True))
    ]
    few = [
        (AxisType.Explicit, True, "typed", False),
        (AxisType.Explicit, False, "typed", True),
        (AxisType.Explicit, False, "raw", True),
    ]
    for axes, in_use, kind, is_placed in cases if thorough else few:
        mesh = mesh_of(axes)
        with jax.set_mesh(mesh) if in_use else contextlib.nullcontext():
            key = kinds[kind](0)
            key = placed(mesh, key) if is_placed else key
            where = f"{axes.name} axes, {in_use=}, {kind} key, {is_placed=}"
            for door, draw in doors(mesh, key):
                if not (thorough or in_use or door in ("plan.init", "nnx")):
                    continue
                fingerprint = partial(call_with, jaxinit.fingerprint, draw)
                yield f"{door} | {where}", fingerprint


def call_with(function, argument):
    return function(argument())


def measuring(mesh, thorough: bool) -> Results:
    """Everything that measures arrays, on arrays that are spread over a mesh."""
    each = SHAPES if thorough else ("float32", "whole")
    plan = plan_of_all(mesh)
    params = plan.init(jax.random.key(0))
    wrong = {**params, "whole": 9 * params["whole"]}
    x = np.asarray(jax.random.normal(jax.random.key(5), (8, 24)))
    layers = [lambda w, x: jax.nn.relu(x @ w)] * 3
    for name in each:
        x, law = params[name], LAWS[name]
        yield f"measure {name}", lambda x=x: vars(stats.measure(x))
        if name == "whole" and not thorough:
            continue
        if name != "orthogonal":
            yield f"score {name}", lambda x=x, law=law: vars(stats.score(x, law))
        if name not in ("orthogonal", "zeros"):
            yield f"fit {name}", lambda x=x, law=law: stats.fit(x, law)
            yield f"assert_law {name}", lambda x=x, law=law: testing.assert_law(x, law)
    yield "assert_moments", lambda: testing.assert_moments(params, plan)
    yield "assert_moments, wrong", lambda: testing.assert_moments(wrong, plan)
    yield (
        "assert_law, wrong",
        lambda: testing.assert_law(params["float32"], jaxinit.normal(1.0)),
    )
    yield "assert_variance", lambda: testing.assert_variance(params["whole"], 1.0)
    yield "assert_orthogonal", lambda: testing.assert_orthogonal(params["orthogonal"])
    yield (
        "assert_orthogonal, wrong",
        lambda: testing.assert_orthogonal(params["float32"]),
    )
    yield "assert_finite", lambda: testing.assert_finite(params)
    yield "assert_bounds", lambda: testing.assert_bounds(params, -9, 9)
    yield "fingerprint", lambda: jaxinit.fingerprint(params)
    if thorough:
        yield "report", lambda: [vars(row) for row in report(params, plan).rows]
        weights = [params["square"]] * 3
        yield (
            "propagate",
            lambda: [
                vars(layer) for layer in signal.propagate(layers, weights, x).layers
            ],
        )


def all_measuring(mesh_of, thorough: bool) -> Results:
    kinds = (AxisType.Explicit, AxisType.Auto) if thorough else (AxisType.Explicit,)
    for axes in kinds:
        mesh = mesh_of(axes)
        for in_use in (False, True) if thorough else (True,):
            with jax.set_mesh(mesh) if in_use else contextlib.nullcontext():
                for name, call in measuring(mesh, thorough):
                    yield f"{name} | {axes.name} axes, {in_use=}", call


def disagreement(mesh, odd: bool) -> Results:
    """What is said if one process, the odd one, differs from the others."""
    key = jax.random.key(0)
    check = jaxinit.check_processes
    plan = placed_plan(mesh)
    closure = jaxinit.stacked(lambda i: jaxinit.normal(1.0 + odd), axis=-1)
    many = {f"layer_{i}": SHAPES["whole"] for i in range(12)}
    odd_shape = {**SHAPES, "whole": jax.ShapeDtypeStruct((8 + 8 * odd,), "float32")}
    odd_spec = {**SPECS, "float32": P("data") if odd else P()}
    odd_name = {"v" if odd else "w": SHAPES["whole"]}
    yield "same", lambda: check(plan, key)
    yield "seed", lambda: check(plan, jax.random.key(int(odd)))
    yield "kind of key", lambda: check(plan, key if odd else jax.random.PRNGKey(0))
    yield "rule", lambda: check(placed_plan(mesh, LAWS | {"whole": closure}), key)
    yield (
        "same rule of jax",
        lambda: check(
            placed_plan(mesh, LAWS | {"whole": jax.nn.initializers.normal(1.0)}), key
        ),
    )
    yield (
        "rule of jax",
        lambda: check(
            placed_plan(mesh, LAWS | {"whole": jax.nn.initializers.normal(1.0 + odd)}),
            key,
        ),
    )
    yield "shape", lambda: check(placed_plan(mesh, shapes=odd_shape), key)
    yield "sharding", lambda: check(placed_plan(mesh, specs=odd_spec), key)
    yield "path", lambda: check(jaxinit.plan(odd_name, {"**": jaxinit.ones}), key)
    yield (
        "many",
        lambda: check(jaxinit.plan(many, {"**": jaxinit.normal(1.0 + odd)}), key),
    )

    def with_x64():
        with jax.enable_x64(odd):
            check(plan, key)

    yield "settings", with_x64
    with jax.set_mesh(mesh):
        yield "seed, mesh in use", lambda: check(plan, jax.random.key(int(odd)))
    spread = drawn(mesh)["float32"]
    own = {"spread": spread, "own": np.full(3, np.nan if odd else 1.0)}
    yield "an array of its own", lambda: testing.assert_finite(own)
    folded = {
        "spread": spread,
        "a0": np.zeros(3),
        "a1": np.full(3, 1.0 * odd),
    }
    yield "rows", lambda: len(report(folded).rows)


def values_that_differ(mesh) -> Results:
    """What `check_processes` says of trees."""
    key, process = jax.random.key(0), jax.process_index()

    def spread(spec, value):
        part = np.full((8, 8), value, np.float32).__getitem__
        return jax.make_array_from_callback((8, 8), NamedSharding(mesh, spec), part)

    # The first axis is cut among processes: the copies of a part are on one host.
    alone, copies = spread(P("data"), process), spread(P(None, "model"), process)
    check = jaxinit.check_processes
    yield "alone", lambda: check({"a": key, "w": alone})
    yield "copies", lambda: check({"a": key, "w": copies})
    yield "shapes", lambda: check({"a": np.zeros(1 + process)})


def saving(mesh, folder: Path) -> Results:
    """Checkpoints written together, by one process alone, and not at all."""
    params = drawn(mesh)
    mixed = {"spread": params, "own": jnp.arange(3.0), "key": jax.random.key(1)}
    process = jax.process_index()
    yield "together", lambda: checkpoint.save(folder / "together", mixed)
    yield "again", lambda: checkpoint.save(folder / "together", mixed)
    yield "one file", lambda: checkpoint.save(folder / "a.safetensors", params)
    yield "paths", lambda: checkpoint.save(folder / f"path{process}", params)
    yield (
        "alone",
        lambda: checkpoint.save(folder / f"alone{process}", {"a": jnp.arange(3.0)}),
    )
    yield (
        "file alone",
        lambda: checkpoint.save(
            folder / f"alone{process}.safetensors", {"a": jnp.arange(3.0)}
        ),
    )

    def fails(path):
        def write(path, params):
            if process == 1:
                raise OSError(28, "No space left on device")

        return write

    def save_and_fail():
        writer, checkpoint.writer = checkpoint.writer, fails
        try:
            checkpoint.save(folder / "full", params)
        finally:
            checkpoint.writer = writer

    yield "full disk", save_and_fail


def example(odd: bool, thorough: bool) -> Results:
    """What the example prints where all processes agree, and where one does not."""

    def said(seed: int) -> list[str]:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            multihost.main(seed)
        return text.getvalue().splitlines()

    if thorough:
        yield "one seed", lambda: said(3)
    yield "another seed", lambda: said(3 + odd)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, as JSON can hold it, or its error as text."""
    try:
        return plain(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(name): plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case complex():
            return [value.real, value.imag]
        case _:
            return value


def run(parts: dict[str, Results]) -> dict[str, dict[str, Any]]:
    return {
        part: {name: outcome(call) for name, call in results}
        for part, results in parts.items()
    }


def mesh_of(axes: AxisType) -> jax.sharding.Mesh:
    sizes = max(jax.process_count(), 2), 2
    return jax.make_mesh(sizes, ("data", "model"), axis_types=(axes,) * 2)


def main(process: int, processes: int, coordinator: str, folder: Path) -> None:
    multihost.connect(coordinator, processes, process)
    mesh, thorough = mesh_of(AxisType.Explicit), processes > 2
    found = run(
        {
            "doors": all_doors(mesh_of, thorough),
            "measuring": all_measuring(mesh_of, thorough),
            "disagreement": disagreement(mesh, process == 1),
            "values": values_that_differ(mesh),
            "saving": saving(mesh, folder),
            "example": example(process == 1, thorough),
        }
    )
    (folder / f"{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
