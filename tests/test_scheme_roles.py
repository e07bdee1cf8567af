"""Schemes that go by branches of residual streams, and not by the names of layers."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from zoo.truths import rms_norm

import jaxinit
import jaxinit.linen
from jaxinit import schemes


class Net(nn.Module):
    """A residual network of four blocks, the third with a projected shortcut."""

    norm_first: bool
    has_norms: bool = True
    train: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.norm(self.conv(8, x)))
        for width, stride in ((8, 1), (8, 1), (16, 2), (16, 1)):
            block = self.first if self.norm_first else self.last
            x = block(x, width, stride)
        return nn.Dense(10)(x.mean((1, 2)))

    def first(self, x, width, stride):
        branch = self.conv(width, nn.relu(self.norm(x)), stride)
        branch = self.conv(width, nn.relu(self.norm(branch)))
        shortcut = nn.Conv(width, (1, 1), stride)(x) if stride > 1 else x
        return shortcut + branch

    def last(self, x, width, stride):
        branch = nn.relu(self.norm(self.conv(width, x, stride)))
        branch = self.norm(self.conv(width, branch))
        if stride > 1:
            x = self.norm(nn.Conv(width, (1, 1), stride)(x))
        return nn.relu(x + branch)

    def conv(self, width, x, stride=1):
        return nn.Conv(width, (3, 3), stride)(x)

    def norm(self, x):
        if not self.has_norms:
            return x
        return nn.BatchNorm(use_running_average=not self.train)(x)


IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def planned(scheme, roles):
    shapes = {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in roles.items()}
    return {x.path: x for x in jaxinit.plan(shapes, scheme, roles=roles)}


@pytest.mark.sample(2)
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("norm_first", "closing"), [(False, [2, 4, 6, 9]), (True, [2, 4, 6, 8])]
)
def test_zero_gamma_by_branches(norm_first, closing, train):
    """Where running statistics are given too; the norm of a shortcut closes nothing."""
    roles = jaxinit.linen.roles(Net(norm_first, train=train), IMAGES)
    plan = planned(schemes.zero_gamma(), roles)
    zeros = {path for path, x in plan.items() if x.initializer == jaxinit.zeros}
    scales = {path for path in zeros if path.endswith("/scale")}
    assert scales == {f"BatchNorm_{i}/scale" for i in closing}


def normalized_keys(p, x):
    y = rms_norm(x, p["first"])
    query, key = rms_norm(y @ p["q"], p["query"]), rms_norm(y @ p["k"], p["key"])
    weights = jax.nn.softmax(query @ key.mT)
    return x + weights @ (y @ p["v"]) @ p["o"]


def normalized_at_last(p, x):
    y = rms_norm(x, p["first"])
    return x + rms_norm(jnp.tanh(y @ p["q"]) @ p["o"], p["last"])


def two_norms_side_by_side(p, x):
    gate = jax.nn.sigmoid(rms_norm(x, p["first"]) @ p["q"])
    return x + (gate * (rms_norm(x, p["last"]) @ p["k"])) @ p["o"]


@pytest.mark.parametrize(
    ("apply", "scales", "kernels", "closing"),
    [
        (normalized_keys, ("first", "query", "key"), "qkvo", set()),
        (two_norms_side_by_side, ("first", "last"), "qko", set()),
        (normalized_at_last, ("first", "last"), "qo", {"last"}),
    ],
)
def test_a_scale_closes_what_leads_through_it(apply, scales, kernels, closing):
    """Zeros in the scale of keys would leave the branch what it is."""
    shapes = dict.fromkeys(scales, leaf(8)) | dict.fromkeys(kernels, leaf(8, 8))
    roles = jaxinit.roles(apply, shapes, leaf(2, 5, 8))
    found = {x for x, role in roles.items() if any(use.closing for use in role.uses)}
    assert found == closing


@functools.cache
def without_norms():
    return jaxinit.linen.roles(Net(False, has_norms=False), IMAGES)


def test_fixup_counts_blocks_and_their_kernels():
    plan = planned(schemes.fixup(), without_norms())
    he = jaxinit.variance_scaling(2.0, "fan_out", "normal", in_axis=(2,), out_axis=(3,))
    kernels = {p: x.initializer for p, x in plan.items() if p.endswith("kernel")}
    zeros = {path for path, x in kernels.items() if x == jaxinit.zeros}
    assert zeros == {*(f"Conv_{i}/kernel" for i in (2, 4, 6, 9)), "Dense_0/kernel"}
    plain = {path for path, x in kernels.items() if x == he}
    assert plain == {"Conv_0/kernel", "Conv_7/kernel"}  # the stem and the shortcut
    narrow = {x for path, x in kernels.items() if path not in zeros | plain}
    assert narrow == {jaxinit.scaled(he, 4**-0.5)}
    assert planned(schemes.fixup(4), without_norms()) == plan
    with pytest.raises(jaxinit.PlanError, match=r"blocks=5 was given, .* has 4"):
        planned(schemes.fixup(5), without_norms())


def stream(params, x):
    """Two blocks, one kernel of which is scaled by a number of its own."""
    x = x @ params["in"]
    for i in range(2):
        x = x + jnp.tanh(x @ params[f"a{i}"]) @ params[f"b{i}"]
        x = x + params[f"g{i}"] * (jnp.tanh(x @ params[f"c{i}"]) @ params[f"d{i}"])
    return x @ params["out"]


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


SHAPES = {"in": leaf(4, 8), "out": leaf(8, 3)} | {
    f"{name}{i}": leaf(*shape)
    for i in range(2)
    for name, shape in dict.fromkeys("abcd", (8, 8)).items() | {("g", ())}
}


@functools.cache
def roles_of_stream():
    return jaxinit.roles(stream, SHAPES, leaf(5, 4))


FACTORS = {
    "deepnorm": (schemes.deepnorm, (8 * 2) ** -0.25),
    "sub_ln": (schemes.sub_ln, math.sqrt(math.log(2 * 2))),
}


@pytest.mark.parametrize("name", FACTORS)
def test_layers_of_one_stack_are_found(name):
    scheme, factor = FACTORS[name]
    rules = jaxinit.Rules({"g*": jaxinit.ones}) | scheme()
    plan = planned(rules, roles_of_stream())
    assert plan["b1"].std == pytest.approx(factor / math.sqrt(8))
    given = jaxinit.Rules({"g*": jaxinit.ones}) | scheme(decoder_layers=2)
    assert {x.std for x in planned(given, roles_of_stream()).values()} == {
        x.std for x in plan.values()
    }
    wrong = jaxinit.Rules({"g*": jaxinit.ones}) | scheme(decoder_layers=3)
    with pytest.raises(jaxinit.PlanError, match=r"layers=3 was given, .* has 2"):
        planned(wrong, roles_of_stream())


def test_multipliers_of_branches_are_ones_in_fixup():
    plan = planned(schemes.fixup(), roles_of_stream())
    assert {plan[path].initializer for path in ("g0", "g1")} == {jaxinit.ones}
    assert plan["a0"].std == pytest.approx(4**-0.5 * math.sqrt(2 / 8))
    assert plan["d1"].initializer == jaxinit.zeros


def test_two_streams_are_not_one_stack():
    def apply(params, x):
        return stream(params["one"], x) + 2 * stream(params["two"], x)

    shapes = {"one": SHAPES, "two": SHAPES}
    roles = jaxinit.roles(apply, shapes, leaf(5, 4))
    rules = jaxinit.Rules({"**/g*": jaxinit.ones}) | schemes.deepnorm()
    with pytest.raises(jaxinit.PlanError, match=r"writers of each stream are \[4, 4\]"):
        jaxinit.plan(shapes, rules, roles=roles)
    assert jaxinit.plan(shapes, schemes.fixup(8), roles=roles)


def test_layers_of_embedded_tokens_have_no_patch_embedding():
    def apply(p, x):
        for w in p["layers"]:
            q, k, v = (x @ w[name] for name in "qkv")
            x = x + jax.nn.softmax(q @ k.mT / 3) @ v @ w["o"]
            x = x + jax.nn.gelu(x @ w["u"]) @ w["d"]
        return x.mean(1) @ p["head"]

    def patched(p, x):
        return apply(p, x @ p["patches"])

    layer = dict.fromkeys("qkvoud", leaf(8, 8))
    shapes = {"layers": [layer, layer], "head": leaf(8, 3)}
    plain = planned_by(schemes.vit(), apply, shapes)
    assert plain["layers/0/q"] == plain["layers/1/q"] != LECUN
    more = {**shapes, "patches": leaf(8, 8)}
    with_patches = planned_by(schemes.vit(), patched, more)
    assert with_patches["patches"] == LECUN
    assert with_patches["layers/0/q"] == plain["layers/0/q"]


LECUN = "lecun_normal()"


def planned_by(scheme, apply, shapes):
    roles = jaxinit.roles(apply, shapes, leaf(5, 4, 8))
    plan = jaxinit.plan(shapes, scheme, roles=roles)
    return {leaf.path: str(leaf.initializer) for leaf in plan}
