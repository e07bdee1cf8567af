"""Initializers by name, and as data: there and back, and strict about what is not."""

import json
import math
import re

import jax.numpy as jnp
import pytest
from references import CASES, CATALOGUE, assert_refuses, pair

import jaxinit
import jaxinit.schemes
from jaxinit import from_config, get, to_config

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


class mine(jaxinit.Initializer):  # noqa: N801
    """Of a user."""


NORMAL = {"version": 1, "name": "normal"}
WRONG = {
    "name": (lambda: get("he_norml"), ["initializer", "'he_norml'", "'he_normal'"]),
    "no near name": (lambda: get("xyzzy"), ["'xyzzy'", "known are", "'zeros'"]),
    "a check is no name": (lambda: get("checked_initializer"), ["unknown initializer"]),
    "a base is no name": (lambda: get("Initializer"), ["unknown initializer"]),
    "setting": (lambda: get("normal", std=1.0), ["setting of normal", "'stddev'"]),
    "setting missing": (lambda: get("variance_scaling", scale=1.0), ["needs mode"]),
    "setting of zeros": (lambda: get("zeros", stddev=1.0), ["stddev"]),
    "value": (lambda: get("normal", stddev=-1.0), ["stddev", "zero or greater"]),
    "field": (
        lambda: from_config({**NORMAL, "sddev": 1.0}),
        ["setting of normal", "'sddev'", "'stddev'"],
    ),
    "no version": (lambda: from_config({"name": "normal"}), ["version 1", "None"]),
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
        ["glob or regex"],
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
    "flags": (
        lambda: to_config(jaxinit.Rules({re.compile("x", re.I): jaxinit.ones})),
        ["flags"],
    ),
    "rule of a function": (
        lambda: to_config(jaxinit.Rules({"**": lambda leaf: jaxinit.ones})),
        ["the rule for '**'", "lambda"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_messages(name):
    assert_refuses(*WRONG[name])
