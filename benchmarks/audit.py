"""`jaxinit.audit`: false findings, laws that it names, faults that it finds, its cost.

Right trees are those of the tests: every initializer of `tests/references.py` and every
scheme of `tests/test_schemes.py`; and the examples' models of published sizes. A law is
right if it is that of the plan, as `tests/test_audit.py` says.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
import jaxinit.linen
import jaxinit.nnx
from benchmarks.harness import Table, fresh, memory, reset_peak
from benchmarks.planted import FAULTS
from examples import gpt2, resnet, vit
from jaxinit import schemes
from jaxinit.audit import Audit, Finding, audit
from jaxinit.initializers.base import Initializer
from tests.references import CASES, CATALOGUE, pair
from tests.scheme_models import PAIRS, shapes
from tests.test_audit import DRAWN, is_of, right
from tests.test_schemes import FLAT

DTYPES = ("float32", "bfloat16", "float16")
LARGE = {  # of a GPT-2 block, attention, ResNet-50 and ViT
    "float32": ((768, 768), (768, 12, 64), (3, 3, 256, 256), (16, 16, 3, 768)),
    "bfloat16": ((768, 768),),
    "float16": ((768, 768),),
}
SIZES = {"1e2": (5, 20), "1e4": (50, 200), "1e6": (500, 2000)}
Named = dict[str, tuple[Initializer, tuple[int, ...]]]


def run(rounds: int = 10) -> list[dict]:
    """All parts, each in a process of its own.

    Args:
        rounds: keys of each small tree; of large ones a third.
    """
    few = -(-rounds // 3)
    return [
        *fresh(right_initializers, rounds, few),
        *fresh(of_schemes, rounds, few),
        *fresh(right_models, few),
        *fresh(laws_of_initializers, rounds),
        *fresh(power, rounds),
        *(fresh(cost, name) for name in COSTS),
    ]


def _key(number: int) -> jax.Array:
    return jax.random.key(1000 + number)


@functools.cache
def _initializers() -> Named:
    """Those of the tests, each with the shape that it has there."""
    own = {name: pair(name) for name in CASES}
    found = {name: (ours, all_[-1]) for name, (ours, _, all_) in own.items()}
    return found | dict(CATALOGUE)


# ---- false findings


class Silence:
    """Counts what is found in right trees."""

    def __init__(self, of: str):
        self.of, self.trees, self.leaves = of, 0, 0
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.seen: dict[str, str] = {}

    def add(self, name: str, found: Audit) -> None:
        """Counts one tree."""
        self.trees += 1
        self.leaves += sum(row.leaves for row in found.rows)
        for x in found.findings:
            self.kinds[x.severity, x.kind] += 1
            self.seen.setdefault(f"{name}: {x.severity}, {x.kind}", _told(x))

    @property
    def row(self) -> dict:
        """What was counted."""
        kinds = {" ".join(kind): n for kind, n in sorted(self.kinds.items())}
        counts = {"trees": self.trees, "leaves": self.leaves, "findings": kinds}
        return {"part": "false", "of": self.of, **counts, "seen": self.seen}


def _told(finding: Finding) -> str:
    return f"{', '.join(finding.paths[:3])}: {finding.text}"


def right_initializers(keys: int, few: int) -> list[dict]:
    """Every initializer alone, in its own shape and in those of large models."""
    rows = []
    for dtype in DTYPES:
        small = Silence(f"initializers, own shapes, {dtype}")
        large = Silence(f"initializers, shapes of models, {dtype}")
        for name, (init, shape) in _initializers().items():
            _draw(small, f"{name} {shape}", init, shape, dtype, keys)
            for other in LARGE[dtype] if _may_draw(init, shape) else ():
                if _fits(init, other):
                    _draw(large, f"{name} {other}", init, other, dtype, few)
        rows += [small.row, large.row]
    return rows


def _may_draw(init: Initializer, shape: tuple[int, ...]) -> bool:
    """Whether it draws entries that are independent, which any shape may have."""
    return init.draws and init.is_independent(shape)


def _fits(init: Initializer, shape: tuple[int, ...]) -> bool:
    try:
        init.check_shape(shape)
    except ValueError:
        return False
    return True


def _draw(silence: Silence, name: str, init, shape, dtype: str, keys: int) -> None:
    for number in range(keys):
        x = init(_key(number), shape, jnp.dtype(dtype))
        silence.add(name, audit({"kernel": x}))


def of_schemes(keys: int, few: int) -> list[dict]:
    """Every scheme on a small model: what is found, and the laws that are named."""
    names = [f"Linen, {dtype}" for dtype in DTYPES]
    silences = {x: Silence(f"schemes, {x}") for x in (*names, "Linen, roles", "NNX")}
    laws = {library: Laws(f"schemes, {library}") for library in ("Linen", "NNX")}
    for case, (rules, model) in FLAT.items():
        plan = jaxinit.plan(shapes(model, "linen"), rules)
        other = jaxinit.plan(shapes(model, "nnx"), rules)
        for number in range(keys):
            params = plan.init(_key(number))
            silences["Linen, roles"].add(case, audit(params, _roles_of(model)))
            for dtype in DTYPES[: None if number < few else 1]:
                found = audit(_rounded(params, dtype))
                silences[f"Linen, {dtype}"].add(case, found)
                if dtype == "float32":
                    laws["Linen"].add(case, plan, found)
            found = audit(other.init(_key(number)))
            silences["NNX"].add(case, found)
            laws["NNX"].add(case, other, found)
    return [x.row for x in (*silences.values(), *laws.values())]


@functools.cache
def _roles_of(model: str) -> jaxinit.Roles:
    linen, _, x = PAIRS[model]
    return jaxinit.linen.roles(linen, x)


def _rounded(params: Any, dtype: str) -> Any:
    """As `jaxinit` draws them in a narrow dtype: in float32, and rounded once."""
    return jax.tree.map(lambda x: np.asarray(x).astype(jnp.dtype(dtype)), params)


def _models() -> Iterator[tuple[str, Callable[[jax.Array], Any], jaxinit.Roles]]:
    """Models of published sizes: name, parameters of a key, roles."""
    tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    linen = {
        "GPT-2": (gpt2.SMALL, tokens, schemes.gpt2()),
        "ResNet-50": (resnet.RESNET50, images, schemes.zero_gamma()),
    }
    for name, (model, x, scheme) in linen.items():
        roles = jaxinit.linen.roles(model, x)
        variables = jax.eval_shape(model.init, _key(0), x)
        plan = jaxinit.plan(variables["params"], scheme, roles=roles)
        yield name, plan.init, roles
    roles = jaxinit.nnx.roles(vit.b16, images)
    state = jax.eval_shape(jaxinit.nnx.collections(vit.b16), _key(0))["params"]
    plan = jaxinit.plan(state, schemes.vit(), roles=roles)
    yield "ViT-B/16", plan.init, roles


def right_models(keys: int) -> list[dict]:
    """GPT-2, ResNet-50 and ViT-B/16 by their schemes, with roles and without."""
    silence = Silence("GPT-2, ResNet-50, ViT-B/16")
    for name, draw, roles in _models():
        for number in range(keys):
            drawn = draw(_key(number))
            silence.add(name, audit(drawn, roles))
            for dtype in DTYPES[: None if number == 0 else 1]:
                silence.add(f"{name}, {dtype}", audit(_rounded(drawn, dtype)))
    return [silence.row]


# ---- laws


class Laws:
    """Counts leaves whose law is named rightly, surely, and surely but wrongly."""

    def __init__(self, of: str):
        self.counts: Counter[str] = Counter()
        self.of, self.wrong = of, []

    def add(self, name: str, plan: jaxinit.Plan, found: Audit) -> None:
        """Counts one tree."""
        for row in found.rows:
            planned = next(leaf for leaf in plan if is_of(leaf.path, row.path))
            size = row.leaves * int(np.prod(row.shape))
            is_right = bool(right(row.law, planned, "fitted" in row.note, size))
            self.counts["leaves"] += row.leaves
            self.counts["right"] += row.leaves * is_right
            self.counts["sure"] += row.leaves * row.sure
            if row.sure and not is_right:
                self.wrong.append(f"{name}: {row.path}: {row.law}")

    @property
    def row(self) -> dict:
        """What was counted."""
        return {"part": "laws", "of": self.of, **self.counts, "wrong": self.wrong}


def laws_of_initializers(keys: int) -> list[dict]:
    """Common laws, and all, each array alone in its tree, at three sizes."""
    common = {name: init for name, (init, _) in DRAWN.items()}
    every = {name: init for name, (init, _) in _initializers().items()}
    return [
        _laws_at(f"{of}, {size} entries", inits, shape, keys)
        for of, inits in (("common laws", common), ("all initializers", every))
        for size, shape in SIZES.items()
    ]


def _laws_at(of: str, inits: dict[str, Initializer], shape, keys: int) -> dict:
    laws, leaf = Laws(of), {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
    for name, init in inits.items():
        if not _fits(init, shape):
            continue
        plan = jaxinit.plan(leaf, {"kernel": init})
        for number in range(keys if init.draws else 1):
            laws.add(name, plan, audit(plan.init(_key(number))))
    return laws.row


# ---- power


def power(keys: int) -> list[dict]:
    """In how many trees each planted fault is found."""
    return [_power(name, keys) for name in FAULTS]


def _power(name: str, keys: int) -> dict:
    fault, caught, others = FAULTS[name], 0, Counter()
    roles = None
    if fault.model is not None:
        shapes_ = jax.eval_shape(fault.draw, _key(0))
        roles = jaxinit.roles(fault.model, shapes_, *fault.inputs)
    for number in range(keys):
        found = audit(fault.draw(_key(number)), roles).findings
        caught += any(x.kind in fault.kinds for x in found)
        others.update(x.kind for x in found if x.kind not in fault.kinds)
    counts = {"trees": keys, "caught": caught, "others": dict(others)}
    return {"part": "power", "fault": name, "kinds": fault.kinds, **counts}


# ---- cost


def _small_leaves(count: int) -> Any:
    """A tree of many kernels of 8 by 8."""
    values = np.random.default_rng(0).standard_normal((count, 8, 8), np.float32)
    return {f"layer_{i}": {"kernel": x} for i, x in enumerate(values)}


COSTS: dict[str, Callable[[], Any]] = {
    "GPT-2, 124M": lambda: gpt2.small(_key(0)),
    "1e4 leaves of 8x8": lambda: _small_leaves(10_000),
    "1e5 leaves of 8x8": lambda: _small_leaves(100_000),
}


def cost(name: str) -> dict:
    """Seconds of a first and a second audit, and bytes beside the parameters."""
    params = jax.block_until_ready(COSTS[name]())
    leaves = jax.tree.leaves(params)
    seconds, extra = [], []
    for _ in range(2):
        reset_peak()
        before, start = memory("VmRSS"), time.perf_counter()
        audit(params)
        seconds.append(time.perf_counter() - start)
        peak = memory("VmHWM")
        extra.append(None if peak is None or before is None else peak - before)
    return {
        "part": "cost",
        "of": name,
        "leaves": len(leaves),
        "bytes": sum(leaf.nbytes for leaf in leaves),
        "seconds": seconds,
        "extra_bytes": extra,
    }


# ---- tables


def tables(rows: list[dict]) -> list[Table]:
    """One for each part."""
    parts = {part: [x for x in rows if x["part"] == part] for part in _TABLES}
    return [make(parts[part]) for part, make in _TABLES.items() if parts[part]]


def _counted(kinds: dict[str, int], severity: str) -> str:
    found = {k.partition(" ")[2]: n for k, n in kinds.items() if k.startswith(severity)}
    return ", ".join(f"{n} {kind}" for kind, n in found.items()) or "0"


def _false(rows: list[dict]) -> Table:
    severities = ("error", "warning", "note")
    lines = [
        (
            row["of"],
            f"{row['trees']:,}",
            f"{row['leaves']:,}",
            *(_counted(row["findings"], severity) for severity in severities),
        )
        for row in rows
    ]
    head = ("right trees", "trees", "leaves", "errors", "warnings", "notes")
    return Table("Audit: findings in right trees", head, lines)


def _laws(rows: list[dict]) -> Table:
    lines = [
        (
            row["of"],
            f"{row['leaves']:,}",
            *(f"{100 * row[of] / row['leaves']:.1f}" for of in ("right", "sure")),
            str(len(row["wrong"])),
        )
        for row in rows
    ]
    head = ("leaves of", "leaves", "right %", "sure %", "sure and wrong")
    return Table("Audit: laws that are named", head, lines)


def _faults(rows: list[dict]) -> Table:
    lines = [
        (
            row["fault"],
            " or ".join(row["kinds"]),
            f"{row['caught']} of {row['trees']}",
            ", ".join(f"{n} {kind}" for kind, n in row["others"].items()),
        )
        for row in rows
    ]
    head = ("planted", "to be found", "caught", "also found")
    return Table("Audit: planted faults", head, lines)


def _costs(rows: list[dict]) -> Table:
    lines = [
        (
            row["of"],
            f"{row['leaves']:,}",
            f"{row['bytes'] / 1e6:,.0f}",
            *(f"{x:.1f}" for x in row["seconds"]),
            *("" if x is None else f"{x / 1e6:,.0f}" for x in row["extra_bytes"]),
        )
        for row in rows
    ]
    head = ("tree", "leaves", "MB", "first s", "second s")
    head += ("peak beside it, first MB", "second MB")
    return Table("Audit: cost", head, lines)


_TABLES: dict[str, Callable[[list[dict]], Table]] = {
    "false": _false,
    "laws": _laws,
    "power": _faults,
    "cost": _costs,
}
