"""Schemes as values: arguments are checked; they are written, read and pickled."""

import copy
import inspect
import io
import json
import math
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxinit
from jaxinit import schemes
from jaxinit.schemes import mup
from tests.scheme_models import LAYERS, leaf, shapes
from tests.test_schemes import CASES, FRAMEWORKS

# What every kind of argument is, and what it is not.
HUGE = 10**100
COUNTS = {
    "good": (1, np.int64(24), 1000),
    "bad": (0, -1, 1.5, True, np.True_, None, "12", math.nan, (12,), 2_000_000, HUGE),
}
NUMBERS = {
    "good": (0.01, 2, np.float32(0.5), jnp.float32(0.5)),
    "bad": (-1, True, np.True_, None, "0.1", math.nan, math.inf, 1j, [0.1]),
}
PAIRS = {
    "good": ((0.1, -0.2), [1, 0], np.array([0.5, 0.5])),
    "bad": ((0.7,), (1, 2, 3), 0.7, None, "ab", (True, 1), (math.nan, 1), {0.1, 0.2}),
}
RULES = {
    "good": (None, schemes.flax(), {"**": jaxinit.ones}),
    "bad": (3, "flax", True, schemes.flax, jaxinit.ones, [1]),
}
STACK = {"good": (0, *COUNTS["good"]), "bad": COUNTS["bad"][1:]}
KINDS = {
    **dict.fromkeys(("layers", "blocks", "heads", "width"), COUNTS),
    "encoder_layers": STACK,
    "decoder_layers": STACK,
    "stddev": NUMBERS,
    "mapping_rate": {"good": NUMBERS["good"], "bad": (0, *NUMBERS["bad"])},
    **dict.fromkeys(("query_key", "value_out"), PAIRS),
    "rest": RULES,
    "mode": {"good": ("fan_in", "fan_out"), "bad": ("fan_avg", None, 2, "in")},
    "embedding": {"good": (None, jaxinit.normal(0.1)), "bad": (0.1, "normal", True)},
    "activation": {
        "good": ("relu", "tanh", jnp.tanh),
        "bad": ("rulu", 3, None, True, ("relu",)),
    },
}
KERNELS = {
    "gan_discriminator": {"good": ("he", "glorot"), "bad": ("He", None, 3, "")},
    "language": {"good": ("glorot", "orthogonal"), "bad": ("he", None, 3, True)},
}
NEEDED = {
    **{"activation": "relu", "layers": 2, "blocks": 2, "heads": 2, "width": 8},
    "encoder_layers": 1,
}
ARGUMENTS = {
    f"{name}({argument})": (function, argument)
    for name, function in vars(schemes).items()
    if inspect.isfunction(function)
    for argument in inspect.signature(function).parameters
}


# These take None for what the computation tells.
FOUND = {
    *(f"{name}(layers)" for name in ("gpt2", "vit", "wang", "mitchell", "language")),
    "fixup(blocks)",
    "mimetic(heads)",
    *(f"{name}(width)" for name in ("small_init", "wang", "mitchell")),
}


def called(function, argument, value):
    """A scheme, its other arguments as they may be."""
    parameters = inspect.signature(function).parameters
    others = {name: x for name, x in NEEDED.items() if name in parameters}
    if argument == "encoder_layers":
        others["decoder_layers"] = 1  # not both may be 0
    return function(**{**others, argument: value})


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_are_checked_where_they_are_given(case):
    function, argument = ARGUMENTS[case]
    kind = KERNELS[function.__name__] if argument == "kernel" else KINDS[argument]
    for value in kind["good"]:
        rules = called(function, argument, value)
        assert rules.call[0] is function
    for value in kind["bad"]:
        if value is None and case in FOUND:
            assert called(function, argument, value).call[0] is function
            continue
        with pytest.raises((TypeError, ValueError), match=r"\S") as error:
            called(function, argument, value)
        assert argument in str(error.value), value


def test_counts_of_both_stacks_may_not_be_zero():
    with pytest.raises(ValueError, match="are both 0"):
        schemes.t_fixup()
    shapes = {"block_0": {"attn": {"out": {"kernel": leaf(4, 4)}}}}
    for scheme in (schemes.deepnorm, schemes.sub_ln):
        rules = jaxinit.Rules(scheme(), required=[])
        with pytest.raises(jaxinit.PlanError, match="number of layers is not known"):
            jaxinit.plan(shapes, rules)


def test_signatures_have_plain_types():
    for name, (function, argument) in ARGUMENTS.items():
        assert "Annotated" not in str(inspect.signature(function)), name
        assert argument in function.__doc__, name


GROWN = mup.widths({"w": leaf(2)}, {"w": leaf(4)})
MUP = {
    "learning_rate": lambda x: mup.adam(x, GROWN),
    "learning_rate of adamw": lambda x: mup.adamw(x, GROWN),
    "learning_rate of sgd": lambda x: mup.sgd(x, GROWN),
    "weight_decay": lambda x: mup.adamw(0.1, GROWN, weight_decay=x),
    "weight_decay of sgd": lambda x: mup.sgd(0.1, GROWN, weight_decay=x),
    "momentum": lambda x: mup.sgd(0.1, GROWN, momentum=x),
    "base_width": lambda x: mup.output_multiplier(x, 4),
    "width": lambda x: mup.output_multiplier(4, x),
    "base_head_dim": lambda x: mup.attention_scale(x, 4),
    "head_dim": lambda x: mup.attention_scale(4, x),
}


@pytest.mark.parametrize("case", MUP)
def test_numbers_of_mup_are_checked(case):
    for value in NUMBERS["good"]:
        MUP[case](value)
    for value in ("a", *NUMBERS["bad"]):
        with pytest.raises(ValueError, match=case.partition(" ")[0]):
            MUP[case](value)


NO_WIDTHS = {
    "adam": lambda x: mup.adam(0.1, x),
    "adamw": lambda x: mup.adamw(0.1, x),
    "sgd": lambda x: mup.sgd(0.1, x),
    "scale_by_width": lambda x: mup.scale_by_width(x, "adam"),
    "rules": lambda x: mup.rules(schemes.flax(), x),
}


@pytest.mark.parametrize("case", NO_WIDTHS)
def test_widths_are_those_of_mup(case):
    NO_WIDTHS[case](GROWN)
    for value in (3, None, {"w": 4.0}, list(GROWN)):
        with pytest.raises(TypeError, match=r"grown must be what .*widths returned"):
            NO_WIDTHS[case](value)


def test_learning_rates_may_be_schedules_or_traced():
    optimizers = [
        mup.sgd(optax.constant_schedule(0.1), GROWN),
        optax.inject_hyperparams(mup.sgd, static_args="nesterov")(0.1, GROWN),
    ]
    params = {"w": jnp.ones(4)}

    def step(optimizer):
        return optimizer.update(params, optimizer.init(params), params)[0]["w"]

    expected = step(mup.sgd(0.1, GROWN))
    for optimizer in optimizers:
        found = jax.jit(step, static_argnums=0)(optimizer)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def drawn_by(rules, tree):
    return {x.path: (x.initializer, x.words) for x in jaxinit.plan(tree, rules)}


@pytest.mark.sample(12)
@pytest.mark.parametrize("case", CASES)
def test_schemes_are_written_by_their_call_and_read(case):
    rules, model, _, _ = CASES[case]
    config = jaxinit.to_config(rules)
    assert config["scheme"] == case.partition(" ")[0]
    back = jaxinit.from_config(json.loads(json.dumps(config)))
    tree = shapes(model, "linen")
    assert drawn_by(back, tree) == drawn_by(rules, tree)


def in_first(leaf):
    """A predicate, which pickle finds by its name."""
    return leaf.path == "in1/kernel"


PICKLED = {
    **{case: (rules, model) for case, (rules, model, _, _) in CASES.items()},
    **{
        name: (getattr(schemes, name)(), "mlp" if name == "equinox" else "recurrent")
        for name in sorted(FRAMEWORKS)
    },
    "rules of a scheme, one by one": (
        jaxinit.Rules(schemes.zero_gamma().items()),
        "resnet",
    ),
    "muP": (
        mup.rules(
            jaxinit.Rules({"head/kernel": jaxinit.zeros}) | schemes.mlp("relu"),
            mup.widths(shapes("mlp", "linen"), shapes("mlp", "linen")),
        ),
        "mlp",
    ),
    "globs and more": (
        jaxinit.Rules(
            {
                in_first: jaxinit.keyed(jaxinit.normal(), "other"),
                re.compile("head/(kernel)"): jaxinit.split(jaxinit.zeros, 5),
                "**/bias": jaxinit.constant([1.0]),
            },
            required=["**/bias"],
        )
        | jaxinit.Rules({"**": jax.nn.initializers.zeros}, required=[]),
        "mlp",
    ),
}


@pytest.mark.sample(16)
@pytest.mark.parametrize("case", PICKLED)
def test_rules_are_values(case):
    """They pickle, copy and compare, and their copies plan the same."""
    rules, model = PICKLED[case]
    tree = shapes(model, "linen")
    planned = list(jaxinit.plan(tree, rules))
    for back in (pickle.loads(pickle.dumps(rules)), copy.deepcopy(rules)):
        assert back == rules
        assert (repr(back), back.name) == (repr(rules), rules.name)
        assert list(jaxinit.plan(tree, back)) == planned
        assert back.call == rules.call
    assert rules != jaxinit.Rules({**dict(rules.items()), "no/such": jaxinit.ones})


def test_schemes_compare_and_print_as_their_call():
    mine = jaxinit.Rules({"head/**": jaxinit.zeros})
    assert schemes.gpt2(12) == schemes.gpt2(layers=12) != schemes.gpt2(13)
    assert len({schemes.gpt2(12), schemes.gpt2(layers=12), schemes.bert()}) == 2
    assert repr(schemes.rezero(schemes.gpt2(12))) == "rezero(rest=gpt2(layers=12))"
    assert repr(mine | schemes.bert()) == "Rules({'head/**': zeros}) | bert()"


UNPICKLABLE = {
    "value": {"a/b": jaxinit.ones, "**/x": lambda leaf: jaxinit.ones},
    "pattern": {lambda leaf: True: jaxinit.ones},
    "function within": {"**/x": jaxinit.stacked(lambda i: jaxinit.ones)},
}


@pytest.mark.parametrize("case", UNPICKLABLE)
def test_a_rule_that_cannot_be_pickled_is_named(case):
    rules = jaxinit.Rules(UNPICKLABLE[case])
    which = "<function" if case == "pattern" else r"'\*\*/x'"
    message = f"the rule for {which}.* cannot be pickled.*lambda"
    for owner in (rules, schemes.rezero(rules)):
        with pytest.raises(TypeError, match=message):
            pickle.dumps(owner)
        assert copy.deepcopy(owner) == copy.copy(owner) == owner


def test_picklers_that_take_functions_by_their_code_are_let_through():
    """As cloudpickle: its own reducer decides of every function."""
    scope = {"__name__": "cloudpickle.cloudpickle", "pickle": pickle, "io": io}
    source = """
class Pickler(pickle.Pickler):
    def reducer_override(self, value):
        is_local = getattr(value, "__name__", "") == "<lambda>"
        return (float, ("0.5",)) if is_local else NotImplemented

def dumps(value):
    Pickler(file := io.BytesIO()).dump(value)
    return file.getvalue()
"""
    exec(source, scope)
    rules = jaxinit.Rules({"a": jaxinit.ones, "b": {"f": lambda leaf: 1}["f"]})
    with pytest.raises(TypeError, match=r"the rule for 'b'.*got 0.5"):  # it was let by
        pickle.loads(scope["dumps"](rules))


def test_schemes_among_rules_are_written_and_read():
    own = jaxinit.Rules(
        {"head/**": jaxinit.zeros, "no/such": jaxinit.ones}, required=[]
    )
    inner = jaxinit.Rules({"wte/**": jaxinit.normal()}) | schemes.gpt2(LAYERS)
    rules = own | schemes.layer_scale(24, rest=inner)
    config = jaxinit.to_config(rules)
    optional = {"init": {"name": "constant", "value": 0.0}, "optional": True}
    assert config["rules"][0] == {"glob": "head/**", **optional}
    assert config["rules"][2]["rest"]["rules"][1] == {"scheme": "gpt2", "layers": 2}
    back = jaxinit.from_config(json.loads(json.dumps(config)))
    tree = shapes("gated transformer", "linen")
    assert drawn_by(back, tree) == drawn_by(rules, tree)


def test_optional_rules_are_written_and_read():
    rules = jaxinit.Rules(
        {"**/kernel": jaxinit.he_normal(), "**/bias": jaxinit.zeros},
        required=["**/kernel"],
    )
    back = jaxinit.from_config(jaxinit.to_config(rules))
    assert back.required == ("**/kernel",)
    assert list(back.items()) == list(rules.items())
