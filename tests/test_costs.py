"""What a leaf costs, counted in calls of Python functions: no clock is looked at."""

import contextlib
import gc
import sys

import jax
import numpy as np
import pytest

import jaxinit
from jaxinit import report, stats
from jaxinit.schemes import flax

KEY, OTHER = jax.random.key(0), jax.random.key(1)
RULES = {"**/bias": jaxinit.zeros, "**": jaxinit.normal()}
SIZES = (10, 20, 50)
IN_LOOPS = (40, 60, 100)  # from where on the number of loops in one program is the same


def calls(fun):
    """How many Python functions a call of `fun` calls."""
    events = []
    gc.disable()  # what it calls is none of the function's
    sys.setprofile(lambda frame, event, arg: events.append(event))
    try:
        fun()
    finally:
        sys.setprofile(None)
        gc.enable()
    return events.count("call")


def per_leaf(prepared, sizes=SIZES):
    """Calls for each further leaf, where few leaves are there and where many are.

    Args:
        prepared: function of a number of leaves that returns what is to be called.
        sizes: three numbers of leaves.
    """
    few, more, many = (calls(prepared(n)) for n in sizes)
    first, second = np.diff(sizes)
    return (more - few) / first, (many - more) / second


def shapes(count):
    kernel, bias = (jax.ShapeDtypeStruct(x, "float32") for x in ((2, 16), (16,)))
    return {f"layer_{i}": {"kernel": kernel, "bias": bias} for i in range(count // 2)}


def planned(count):
    return jaxinit.plan(shapes(count), RULES)


def init_of(count):
    def init(key):
        keys = jax.random.split(key, count)
        return {str(i): jax.random.normal(k, (4,)) for i, k in enumerate(keys)}

    return init


def warm_jit(count):
    init = jaxinit.jit(init_of(count))
    init(KEY)
    return lambda: init(OTHER)


def warm_plan(count):
    made = planned(count)
    made.init(KEY)
    return lambda: made.init(OTHER)


def warm_programs(count):
    programs = planned(count).programs(KEY)
    programs.run()
    return programs.run


WARM = {"jit": warm_jit, "plan.init": warm_plan, "programs.run": warm_programs}


@contextlib.contextmanager
def made_anew():
    """Collects what jax traces and XLA compiles."""
    events = []
    parts = ("jaxpr_trace_duration", "backend_compile_duration")

    def listen(event, duration, **kwargs):
        if event.endswith(parts):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", WARM)
def test_a_warm_call_traces_and_compiles_nothing(name):
    warm = WARM[name](10)
    with made_anew() as events:
        warm()
    assert not events
    with made_anew() as events:
        jax.jit(lambda x: x + 1.5).lower(np.ones(2)).compile()
    assert len(set(events)) == 2, "the list holds nothing"


@pytest.mark.parametrize("name", WARM)
def test_a_warm_call_is_little_else_than_its_executables(name):
    """One call a leaf, that of `jax.stages.Compiled`."""
    assert max(per_leaf(WARM[name])) <= 2


def arrays(count):
    return {f"layer_{i}": np.full(4, 0.5, np.float32) for i in range(count)}


def scheme(count):
    return lambda: jaxinit.plan(shapes(count), flax())


def trace(count):
    # Rules of its own: what equal plans have traced is kept.
    init = jaxinit.plan(shapes(count), {"**": jaxinit.normal(0.5)}).init
    return lambda: jax.jit(init).trace(KEY)


# The most calls of a leaf, with room for other versions of jax.
COSTS = {
    "a plan": (lambda n: lambda: planned(n), 100),
    "a plan by a scheme": (scheme, 200),
    "a plan as text": (lambda n: planned(n).__str__, 30),
    "a trace of plan.init": (trace, 2000),
    "a fingerprint": (lambda n: lambda: jaxinit.fingerprint(arrays(n)), 120),
    "a report": (lambda n: lambda: report.report(arrays(n)), 450),
    "measures": (lambda n: lambda: [*map(stats.measure, arrays(n).values())], 450),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", COSTS)
def test_costs_are_linear_in_leaves(name):
    prepared, most = COSTS[name]
    sizes = IN_LOOPS if prepared is trace else SIZES
    prepared(sizes[0] - 2)()  # what is imported, traced and compiled once
    few, many = per_leaf(prepared, sizes)
    assert many <= 1.1 * few + 1
    assert many <= most


def test_the_count_detects_what_is_not_linear():
    def pairs(n):
        return lambda: [difference(i, j) for i in range(n) for j in range(n)]

    def difference(a, b):
        return a - b

    few, many = per_leaf(pairs)
    assert many > 1.1 * few + 1
