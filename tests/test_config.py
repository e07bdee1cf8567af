"""Initializers by name, and as data: there and back, and strict about what is not."""

import inspect
import json
import math
import pydoc
import re

import jax.numpy as jnp
import pytest
from references import CASES, CATALOGUE, assert_refuses, pair

import jaxinit
import jaxinit.schemes
from jaxinit import from_config, get, to_config
from jaxinit.initializers import _elsewhere
from jaxinit.initializers._makers import is_maker

VALUES = {
    **{case: pair(case)[0] for case in CASES},
    **{name: init for name, (init, _) in CATALOGUE.items()},
    "dtype": jaxinit.he_normal(dtype=jnp.bfloat16),
    "python_dtype": jaxinit.constant(1, float),
    "infinite": jaxinit.truncated_normal(upper=math.inf, lower=-math.inf),
    "not_a_number": jaxinit.constant(math.nan),
    "complex": jaxinit.constant([1 + 2j, 3.0]),
    "deep": jaxinit.scaled(jaxinit.split(jaxinit.stacked(jaxinit.zeros), (2, 3)), 2.0),
}


@pytest.mark.parametrize("name", VALUES)
def test_there_and_back(name):
    text = json.dumps(to_config(VALUES[name]), allow_nan=False)
    assert from_config(json.loads(text)) == VALUES[name]


def test_every_class_can_be_written():
    classes = {
        value
        for value in vars(jaxinit).values()
        if isinstance(value, type) and issubclass(value, jaxinit.Initializer)
    }
    assert classes - {type(init) for init in VALUES.values()} == {jaxinit.Initializer}


def test_rules_there_and_back():
    rules = jaxinit.Rules(
        {
            "**/kernel": jaxinit.he_normal(),
            re.compile(r".*/bias"): jaxinit.zeros,
            "**": jaxinit.stacked(jaxinit.identity()),
        }
    )
    again = from_config(json.loads(json.dumps(to_config(rules))))
    assert list(again.items()) == list(rules.items())


def test_what_is_written_is_short_and_readable():
    assert to_config(jaxinit.normal(0.02)) == {
        "version": 1,
        "name": "normal",
        "stddev": 0.02,
    }
    rules = {"version": 1, "rules": [{"glob": "**", "init": "he_normal"}]}
    assert list(from_config(rules).items()) == [("**", jaxinit.he_normal())]
    assert from_config("ones") == jaxinit.ones


NAMES = {
    "he_normal": jaxinit.he_normal(),
    "zeros": jaxinit.zeros,
    "dirac": jaxinit.dirac(),
    "HeNormal": jaxinit.he_normal(),
    "kaiming_normal": jaxinit.he_normal(),
    "kaiming_normal_": jaxinit.variance_scaling(2.0, "fan_in", "normal"),
    "normal": jaxinit.normal(0.01),
    "normal_": jaxinit.normal(1.0),
    "RandomNormal": jaxinit.normal(0.05),
    "trunc_normal_": jaxinit.truncated_normal(1.0, low=-2.0, high=2.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert get(name) == NAMES[name]


def test_settings_of_a_name():
    assert get("he_normal", batch_axis=0) == jaxinit.he_normal(batch_axis=0)
    assert get("kaiming_normal_", in_axis=-1, out_axis=-2).in_axis == -1
    assert get("zeros", dtype="int8") == jaxinit.constant(0.0, jnp.int8)
    assert get("trunc_normal_", stddev=0.02).stddev == 0.02


# Every name of torch.nn.init and keras.initializers, with the settings it has there.

SCALING = jaxinit.variance_scaling
ELSEWHERE = {
    "uniform_": ({"a": -1, "b": 3}, jaxinit.uniform(low=-1, high=3)),
    "normal_": ({"mean": 1, "std": 2}, jaxinit.normal(2, mean=1)),
    "trunc_normal_": (
        {"mean": 1, "std": 2, "a": -3, "b": 3},
        jaxinit.truncated_normal(2, mean=1, low=-3, high=3),
    ),
    "constant_": ({"val": 2}, jaxinit.constant(2)),
    "ones_": ({}, jaxinit.ones),
    "zeros_": ({}, jaxinit.zeros),
    "eye_": ({}, jaxinit.identity()),
    "dirac_": ({"groups": 2}, jaxinit.dirac(2)),
    "xavier_uniform_": ({"gain": 2}, SCALING(4.0, "fan_avg", "uniform")),
    "xavier_normal_": ({"gain": 2}, SCALING(4.0, "fan_avg", "normal")),
    "kaiming_uniform_": (
        {"a": 2, "mode": "fan_out", "nonlinearity": "leaky_relu"},
        SCALING(2 / 5, "fan_out", "uniform"),
    ),
    "kaiming_normal_": (
        {"a": 2, "mode": "fan_out", "nonlinearity": "relu"},
        SCALING(2.0, "fan_out", "normal"),
    ),
    "orthogonal_": ({"gain": 2}, jaxinit.orthogonal(2)),
    "sparse_": (
        {"sparsity": 0.5, "std": 2},
        jaxinit.sparse(0.5, 2, axis=-1),
    ),
    "Zeros": ({}, jaxinit.zeros),
    "Ones": ({}, jaxinit.ones),
    "Constant": ({"value": 2}, jaxinit.constant(2)),
    "Identity": ({"gain": 2}, jaxinit.identity(2)),
    "STFT": (
        {"side": "imag", "window": None, "scaling": None, "periodic": True},
        jaxinit.stft("imag", "none", "none", True),
    ),
    "RandomNormal": ({"mean": 1, "stddev": 2}, jaxinit.normal(2, mean=1)),
    "RandomUniform": ({"minval": -1, "maxval": 3}, jaxinit.uniform(low=-1, high=3)),
    "TruncatedNormal": ({"mean": 1, "stddev": 2}, jaxinit.truncated_normal(2, mean=1)),
    "VarianceScaling": (
        {"scale": 2, "mode": "fan_out", "distribution": "untruncated_normal"},
        SCALING(2.0, "fan_out", "normal"),
    ),
    "GlorotUniform": ({}, jaxinit.glorot_uniform()),
    "GlorotNormal": ({}, jaxinit.glorot_normal()),
    "LecunUniform": ({}, jaxinit.lecun_uniform()),
    "LecunNormal": ({}, jaxinit.lecun_normal()),
    "HeUniform": ({}, jaxinit.he_uniform()),
    "HeNormal": ({}, jaxinit.he_normal()),
    "Orthogonal": ({"gain": 2}, jaxinit.orthogonal(2)),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_of_other_packages_take_their_settings(name):
    settings, expected = ELSEWHERE[name]
    assert get(name, **settings) == expected
    assert from_config({"version": 1, "name": name, **settings}) == expected
    assert_refuses(lambda: get(name, **settings, seed=3), ["seed", "the key"])
    assert_refuses(lambda: get(name, **settings, generator=3), ["generator", "the key"])
    assert_refuses(lambda: get(name, **settings, xyzzy=3), [f"setting of {name}"])


def test_no_name_of_other_packages_is_left_out():
    assert {*ELSEWHERE} == {*_elsewhere.ELSEWHERE}
    keras = get("VarianceScaling", distribution="normal")  # truncated, as there
    assert keras == jaxinit.lecun_normal()
    assert get("kaiming_normal_", nonlinearity="tanh").scale == (5 / 3) ** 2
    assert get("uniform_", b=2) == jaxinit.uniform(low=0, high=2)


def test_a_name_stands_for_an_initializer_wherever_one_goes():
    def read(name, **settings):
        return from_config({"version": 1, "name": name, **settings})

    assert read("scaled", init="zeros", factor=2) == jaxinit.scaled(jaxinit.zeros, 2)
    assert read("stacked", fn_of_index="ones") == jaxinit.stacked(jaxinit.ones)
    both = read("split", init=["zeros", {"name": "ones"}], sections=2)
    assert both == jaxinit.split([jaxinit.zeros, jaxinit.ones], 2)


def nested(levels):
    config = {"name": "scaled", "init": "zeros", "factor": 2.0}
    for _ in range(levels):
        config = {"name": "scaled", "init": config, "factor": 2.0}
    return {"version": 1, **config}


def itself():
    config = {"version": 1, "name": "scaled", "factor": 2.0}
    config["init"] = config
    return config


def rules(*entries):
    return lambda: from_config({"version": 1, "rules": [*entries]})


class mine(jaxinit.Initializer):  # noqa: N801
    """Of a user."""


NORMAL = {"version": 1, "name": "normal"}
WRONG = {
    "name": (lambda: get("he_norml"), ["initializer", "'he_norml'", "'he_normal'"]),
    "no near name": (lambda: get("xyzzy"), ["'xyzzy'", "dir(jaxinit) lists all"]),
    "far name": (lambda: get("nope"), ["the nearest are", "dir(jaxinit) lists all"]),
    "empty name": (lambda: get(""), ["''; dir(jaxinit) lists all"]),
    "initializer for a name": (lambda: get(jaxinit.zeros), ["zeros", "already"]),
    "empty": (lambda: from_config({}), ["no key 'version'", "'version': 1"]),
    "a check is no name": (lambda: get("checked_initializer"), ["unknown initializer"]),
    "a base is no name": (lambda: get("Initializer"), ["unknown initializer"]),
    "setting": (lambda: get("normal", std=1.0), ["setting of normal", "'stddev'"]),
    "setting missing": (lambda: get("variance_scaling", scale=1.0), ["needs mode"]),
    "setting of zeros": (lambda: get("zeros", stddev=1.0), ["stddev"]),
    "number for a name": (lambda: get(3), ["name must", "'he_normal'", "3"]),
    "maker for a name": (lambda: get(jaxinit.he_normal), ["name must", "parentheses"]),
    "setting by both names": (lambda: get("normal_", std=1, stddev=1), ["twice"]),
    "setting of torch missing": (lambda: get("constant_"), ["constant_ needs"]),
    "mode of torch": (lambda: get("kaiming_normal_", mode="fan_avg"), ["mode"]),
    "nonlinearity": (lambda: get("kaiming_normal_", nonlinearity="x"), ["name", "'x'"]),
    "rules of a number": (
        lambda: from_config({"version": 1, "rules": 3}),
        ["rules must be a list", "3"],
    ),
    "rules of a text": (
        lambda: from_config({"version": 1, "rules": "zeros"}),
        ["rules must be a list", "'zeros'"],
    ),
    "rule of a text": (rules("zeros"), ["rules must be a list of mappings"]),
    "regex": (rules({"regex": "(", "init": "zeros"}), ["regex must", "'('"]),
    "glob": (rules({"glob": 3, "init": "zeros"}), ["glob must be a string", "3"]),
    "optional": (
        rules({"glob": "**", "init": "zeros", "optional": 1}),
        ["optional must be true or false", "1"],
    ),
    "init": (rules({"glob": "**", "init": 3}), ["must have a name", "3"]),
    "scheme of a number": (
        lambda: from_config({"version": 1, "scheme": 3}),
        ["scheme", "3"],
    ),
    "in itself": (lambda: from_config(itself()), ["100 levels", "itself"]),
    "deep": (lambda: from_config(nested(2000)), ["100 levels", "itself"]),
    "too large": (
        lambda: from_config({**NORMAL, "stddev": 10**400}),
        ["stddev", "a float can hold"],
    ),
    "true as the version": (
        lambda: from_config({**NORMAL, "version": True}),
        ["version 1", "True"],
    ),
    "a float as the version": (
        lambda: from_config({**NORMAL, "version": 1.0}),
        ["version 1", "1.0"],
    ),
    "value": (lambda: get("normal", stddev=-1.0), ["stddev", "zero or greater"]),
    "field": (
        lambda: from_config({**NORMAL, "sddev": 1.0}),
        ["setting of normal", "'sddev'", "'stddev'"],
    ),
    "no version": (
        lambda: from_config({"name": "normal"}),
        ["no key 'version'", "'version': 1"],
    ),
    "version": (lambda: from_config({**NORMAL, "version": 2}), ["version 1", "2"]),
    "no name": (lambda: from_config({"version": 1}), ["must have a name"]),
    "not a mapping": (lambda: from_config(3), ["mapping or a name", "3"]),
    "key beside rules": (
        lambda: from_config({"version": 1, "rules": [], "rule": 1}),
        ["key of rules", "'rule'", "'rules'"],
    ),
    "key of a rule": (
        lambda: from_config(
            {"version": 1, "rules": [{"globb": "**", "init": "zeros"}]}
        ),
        ["key of a rule", "'globb'", "'glob'"],
    ),
    "rule without pattern": (
        lambda: from_config({"version": 1, "rules": [{"init": "zeros"}]}),
        ["glob, regex or role"],
    ),
    "scheme": (
        lambda: from_config({"version": 1, "scheme": "gpt3", "layers": 2}),
        ["scheme", "'gpt3'", "'gpt2'"],
    ),
    "setting of a scheme": (
        lambda: from_config({"version": 1, "scheme": "gpt2", "layer": 2}),
        ["setting of gpt2", "'layer'", "'layers'"],
    ),
    "scheme by a function": (
        lambda: to_config(jaxinit.schemes.mlp(abs)),
        ["activation", "cannot be written"],
    ),
    "of a user": (lambda: to_config(mine()), ["mine()", "not of this package"]),
    "function": (
        lambda: to_config(jaxinit.stacked(lambda i: jaxinit.ones)),
        ["stacked.fn_of_index", "lambda"],
    ),
    "predicate": (
        lambda: to_config(jaxinit.Rules({(lambda leaf: True): jaxinit.ones})),
        ["pattern", "glob"],
    ),
    "role of a wrong kind": (
        lambda: from_config(
            {"version": 1, "rules": [{"role": "query", "init": "ones"}]}
        ),
        ["role must be a mapping", "got 'query'"],
    ),
    "setting of a role": (
        lambda: from_config(
            {"version": 1, "rules": [{"role": {"parts": "query"}, "init": "ones"}]}
        ),
        ["setting of role", "'parts'", "'part'"],
    ),
    "by section of a wrong kind": (
        lambda: from_config(
            {"version": 1, "rules": [{"glob": "*", "init": "ones", "by_section": 1}]}
        ),
        ["by_section must be true or false", "1"],
    ),
    "flags": (
        lambda: to_config(jaxinit.Rules({re.compile("x", re.I): jaxinit.ones})),
        ["flags"],
    ),
    "rule of a function": (
        lambda: to_config(jaxinit.Rules({"**": lambda leaf: jaxinit.ones})),
        ["the rule for '**'", "lambda"],
    ),
}


def test_rules_by_roles_are_written():
    part = jaxinit.role(part="query", residual=False)
    gates = jaxinit.role(recurrent=True)
    rules = jaxinit.Rules(
        {
            part: jaxinit.sinusoidal(),
            gates: jaxinit.by_section(jaxinit.orthogonal()),
            "**": jaxinit.normal(),
        },
        required=[part, "**"],
    )
    config = to_config(rules)
    assert config["rules"] == [
        {"role": {"part": "query", "residual": False}, "init": {"name": "sinusoidal"}},
        {
            "role": {"recurrent": True},
            "by_section": True,
            "init": {"name": "orthogonal"},
            "optional": True,
        },
        {"glob": "**", "init": {"name": "normal"}},
    ]
    assert from_config(json.loads(json.dumps(config))) == rules


@pytest.mark.parametrize("name", WRONG)
def test_messages(name):
    assert_refuses(*WRONG[name])


def test_deep_enough():
    assert to_config(from_config(nested(50))) == to_config(from_config(nested(50)))


def test_the_version_is_that_of_the_metadata():
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxinit.__version__)


def test_signatures_show_plain_types():
    for value in vars(jaxinit).values():
        if is_maker(value) or inspect.isfunction(value):
            assert "Annotated" not in str(inspect.signature(value))
    assert str(inspect.signature(jaxinit.normal)) == (
        "(stddev: float = 0.01, dtype: Any = None, *, mean: float = 0.0) -> None"
    )
    text = pydoc.render_doc(jaxinit.normal) + pydoc.render_doc(jaxinit.he_normal)
    assert "Annotated" not in text
