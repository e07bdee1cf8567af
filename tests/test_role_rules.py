"""Rules and schemes that go by roles, and models made by a scheme in one call."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from sampling import sampled
from zoo import MODELS

import jaxinit
import jaxinit.linen
import jaxinit.nnx
from jaxinit import schemes, signal
from jaxinit._tree.plan import model_plan
from jaxinit.schemes import parts

pytestmark = pytest.mark.unoptimized

WIDTH, HIDDEN, HEADS, BLOCKS, VOCABULARY, LENGTH = 6, 24, 2, 3, 11, 5
TOKENS = jax.ShapeDtypeStruct((3, LENGTH), jnp.int32)


class Block(nn.Module):
    """Flax numbers the outer Dense first: `Dense_0` is the output of the MLP."""

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(HEADS)(y)
        y = nn.LayerNorm()(x)
        return x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(HIDDEN)(y)))


class Model(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(VOCABULARY, WIDTH)
        place = self.param("where", nn.initializers.normal(), (LENGTH, WIDTH))
        x = embed(tokens) + place
        for _ in range(BLOCKS):
            x = Block()(x)
        return embed.attend(nn.LayerNorm()(x))


@pytest.fixture(scope="module")
def shapes():
    key = jax.random.key(0)
    return jax.eval_shape(Model().init, key, jnp.zeros((3, LENGTH), int))["params"]


@pytest.fixture(scope="module")
def roles():
    return jaxinit.linen.roles(Model(), TOKENS)


def deviations(plan):
    return {leaf.path: leaf.std for leaf in plan}


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


# Patterns.


def test_a_pattern_asks_for_a_role(shapes, roles):
    rules = {
        jaxinit.role(part="query"): jaxinit.normal(1.0),
        jaxinit.role(kind="kernel", residual=True): jaxinit.normal(2.0),
        jaxinit.role(kind="embedding", head=None): jaxinit.normal(3.0),
        lambda leaf: leaf.role.kind == "position": jaxinit.normal(4.0),
        jaxinit.role(function="gelu"): lambda leaf: jaxinit.normal(leaf.role.fan_in),
        "**": jaxinit.zeros,
    }
    found = deviations(jaxinit.plan(shapes, rules, roles=roles))
    attention = "Block_1/MultiHeadDotProductAttention_0"
    assert found[f"{attention}/query/kernel"] == 1
    assert found[f"{attention}/query/bias"] == 1  # the bias of a query is one too
    assert found[f"{attention}/out/kernel"] == found["Block_0/Dense_0/kernel"] == 2
    assert found["Embed_0/embedding"] == 3
    assert found["where"] == 4
    assert found["Block_2/Dense_1/kernel"] == WIDTH
    assert found[f"{attention}/key/kernel"] == 0


def test_patterns_are_values():
    pattern = jaxinit.role(kind="kernel", head=True)
    assert pattern == pickle.loads(pickle.dumps(pattern))
    assert repr(pattern) == "role(kind='kernel', head=True)"
    rules = jaxinit.Rules({pattern: jaxinit.zeros}) | schemes.auto()
    assert pickle.loads(pickle.dumps(rules)) == rules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "weights"}, "kind must be one of kernel, convolution, .*'weights'"),
        ({"part": 3}, "part must be a str, got 3"),
        ({"residual": "yes"}, "residual must be a bool, got 'yes'"),
    ],
)
def test_patterns_refuse(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jaxinit.role(**settings)


def test_roles_are_asked_for_where_there_are_none(shapes, roles):
    rules = {jaxinit.role(head=True): jaxinit.zeros, "**": jaxinit.ones}
    with pytest.raises(jaxinit.PlanError, match="asks for a role, which shapes alone"):
        jaxinit.plan(shapes, rules)
    with pytest.raises(jaxinit.PlanError, match="auto reads the computation"):
        jaxinit.plan(shapes, schemes.auto())
    with pytest.raises(TypeError, match=r"roles must be what jaxinit\.roles"):
        jaxinit.plan(shapes, rules, roles=dict(roles))


def test_roles_of_another_model_are_refused(shapes, roles):
    other = {**shapes, "more": array(3)}
    with pytest.raises(jaxinit.PlanError, match="more: roles has no such leaf"):
        jaxinit.plan(other, schemes.flax(), roles=roles)
    with pytest.raises(jaxinit.PlanError, match="there is 'where', of a tree that"):
        jaxinit.plan({"params": shapes}, schemes.flax(), roles=roles)
    other = {**shapes, "where": array(4, WIDTH)}
    with pytest.raises(jaxinit.PlanError, match=r"where: of shape \(4, 6\), but roles"):
        jaxinit.plan(other, schemes.flax(), roles=roles)


# Schemes.


def test_gpt2_counts_what_names_hide(shapes, roles):
    """By names it takes `Dense_0`, the output, for the input of an MLP."""
    plan = jaxinit.plan(shapes, schemes.gpt2(), roles=roles)
    found = deviations(plan)
    narrow = 0.02 / math.sqrt(2 * BLOCKS)
    for block in range(BLOCKS):
        assert found[f"Block_{block}/Dense_0/kernel"] == pytest.approx(narrow)
        assert found[f"Block_{block}/Dense_1/kernel"] == 0.02
        out = f"Block_{block}/MultiHeadDotProductAttention_0/out/kernel"
        assert found[out] == pytest.approx(narrow)
    assert found["where"] == 0.01
    assert found["Embed_0/embedding"] == 0.02
    text = str(plan)
    assert "its name says feed-forward output" in text
    assert "position: added, with a value for each position" in text
    assert jaxinit.plan(shapes, schemes.gpt2(BLOCKS), roles=roles) == plan


def test_numbers_that_are_given_are_checked(shapes, roles):
    for rules, message in (
        (
            schemes.gpt2(layers=4),
            "layers=4 was given, .* the computation has 3 layers, with 6",
        ),
        (schemes.small_init(width=8), "width=8 was given, but .* is 6 wide"),
    ):
        with pytest.raises(jaxinit.PlanError, match=message):
            jaxinit.plan(shapes, rules, roles=roles)
    named = {"block_0": {"attn": {"out": {"kernel": array(6, 6)}}}}
    named["block_0"]["mlp"] = {"fc2": {"kernel": array(24, 6)}}
    with pytest.raises(jaxinit.PlanError, match="layers is not known from names alone"):
        jaxinit.plan(named, schemes.gpt2())


def test_a_plan_by_name_says_so():
    named = {"block_0": {"attn": {"out": {"kernel": array(6, 6)}}}}
    named["block_0"]["mlp"] = {"fc2": {"kernel": array(24, 6)}}
    text = str(jaxinit.plan(named, schemes.gpt2(layers=1)))
    assert "attention output, by name" in text
    assert "by name" not in str(jaxinit.plan(named, {"**": jaxinit.zeros}))


# The layouts of other people's code that names get wrong: the deviation of one leaf.


def split_heads(x):
    return x.reshape(*x.shape[:-1], 2, -1)


def attend(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
    return jnp.einsum("bhts,bshk->bthk", weights, v)


def einsum_attention(p, x):
    q, k, v = (jnp.einsum("btd,dhk->bthk", x, p[name]) for name in ("a", "b", "c"))
    return x + jnp.einsum("bthk,hkd->btd", attend(q, k, v), p["d"])


def outputs_first(p, x):
    q, k, v = jnp.split(x @ p["w"].T, 3, axis=-1)
    h = attend(split_heads(q), split_heads(k), split_heads(v))
    return x + h.reshape(x.shape) @ p["o"].T


def stacked(p, x):
    def layer(x, w):
        return x + jax.nn.relu(x @ w["up"]) @ w["down"], None

    return jax.lax.scan(layer, x, p)[0]


def stacked_inside(p, x):
    for i in range(4):
        x = x + jax.nn.relu(x @ p["up"][:, i]) @ p["down"][:, i]
    return x


def depthwise(p, x):
    return jax.lax.conv_general_dilated(
        x, p["w"], (1, 1), "SAME", feature_group_count=5,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def transposed(p, x):
    return jax.lax.conv_transpose(x, p["w"], (2, 2), "SAME")


def experts(p, x):
    gates = jax.nn.softmax(x @ p["router"])
    h = jax.nn.relu(jnp.einsum("td,edf->etf", x, p["up"]))
    return x + jnp.einsum("te,etd->td", gates, jnp.einsum("etf,efd->etd", h, p["down"]))


def gated(p, x):
    return x + (jax.nn.silu(x @ p["w3"]) * (x @ p["w1"])) @ p["w2"]


ROWS_OF_8 = array(5, 8)
SEQUENCE, ROWS, IMAGES = array(3, 5, 6), array(7, 6), array(2, 8, 8, 5)
HE = 2.0  # variance times fan_in
LAYOUTS = {
    # apply, shapes, input, {path: (fan_in, writers of the stream or None)}
    "einsum": (
        einsum_attention,
        {**{name: array(6, 2, 3) for name in "abc"}, "d": array(2, 3, 6)},
        SEQUENCE,
        {"a": (6, None), "c": (6, None), "d": (6, 1)},
    ),
    "outputs first": (
        outputs_first,
        {"w": array(18, 6), "o": array(6, 6)},
        SEQUENCE,
        {"w": (6, None), "o": (6, 1)},
    ),
    "stacked by scan": (
        stacked,
        {"up": array(4, 6, 24), "down": array(4, 24, 6)},
        ROWS,
        {"up": (6, None), "down": (24, 4)},
    ),
    "stacked at axis 1": (
        stacked_inside,
        {"up": array(6, 4, 24), "down": array(24, 4, 6)},
        ROWS,
        {"up": (6, None), "down": (24, 4)},
    ),
    "depthwise": (depthwise, {"w": array(3, 3, 1, 5)}, IMAGES, {"w": (9, None)}),
    "transposed": (transposed, {"w": array(4, 4, 5, 7)}, IMAGES, {"w": (20, None)}),
    "experts": (
        experts,
        {"router": array(6, 3), "up": array(3, 6, 24), "down": array(3, 24, 6)},
        ROWS,
        {"router": (6, None), "up": (6, None), "down": (24, 1)},
    ),
    "gated": (
        gated,
        {"w3": array(6, 24), "w1": array(6, 24), "w2": array(24, 6)},
        ROWS,
        {"w3": (6, None), "w1": (6, None), "w2": (24, 1)},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_that_names_get_wrong(name):
    apply, shapes, x, expected = LAYOUTS[name]
    roles = jaxinit.roles(apply, shapes, x)
    found = deviations(jaxinit.plan(shapes, schemes.mlp("relu"), roles=roles))
    for path, (fan_in, total) in expected.items():
        assert found[path] == pytest.approx(math.sqrt(HE / fan_in), rel=1e-6), path
        place = roles[path].uses[0].residual
        assert (place and place[1]) == total, path
    if all(total is None for _, total in expected.values()):
        return
    if name in ("einsum", "outputs first"):
        found = deviations(jaxinit.plan(shapes, schemes.gpt2(), roles=roles))
        for path, (_, total) in expected.items():
            assert found[path] == pytest.approx(0.02 / math.sqrt(total or 1)), path


def test_rules_of_ones_own_satisfy_what_a_scheme_requires():
    tree = {"block_0": {"attn": {"out": {"kernel": array(6, 6)}}, "odd": array(24, 6)}}
    with pytest.raises(jaxinit.PlanError, match="feed-forward output"):
        jaxinit.plan(tree, jaxinit.Rules({}) | schemes.bert())
    tree["block_0"]["odd"] = {"kernel": array(24, 6)}
    own = jaxinit.Rules({"block_0/odd/kernel": jaxinit.zeros})
    found = deviations(jaxinit.plan(tree, own | schemes.bert()))
    assert found["block_0/odd/kernel"] == 0


def test_every_part_of_a_scheme_has_a_role():
    """Or is of what a computation cannot tell."""
    by_name = {"SLOPE"}
    found = {
        name
        for name, part in vars(parts).items()
        if isinstance(part, parts.Part) and part.by_role is None
    }
    assert found == by_name


# Models in one call.


def test_linen_in_one_call_has_the_arrays_of_the_plan(shapes, roles, key):
    made = jaxinit.linen.init(Model(), key, TOKENS, scheme=schemes.gpt2())
    expected = jaxinit.plan(shapes, schemes.gpt2(), roles=roles).init(key)
    jax.tree.map(np.testing.assert_array_equal, made["params"], expected)


def test_models_without_parameters_or_calls(key):
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x

    assert jaxinit.linen.init(Bare(), key, array(2, 3), scheme=schemes.auto()) == {}
    with pytest.raises(TypeError, match="cannot be called on inputs"):
        jaxinit.nnx.create(
            lambda rngs: [nnx.Linear(2, 3, rngs=rngs)],
            key,
            scheme=schemes.auto(),
            inputs=(array(4, 2),),
        )


@pytest.mark.exhaustive
def test_linen_under_vmap_and_a_transfer_guard(key):
    x = array(3, 6)
    with jax.transfer_guard("disallow"):
        assert jaxinit.linen.roles(nn.Dense(4), x)["kernel"].head
    keys = jax.random.split(key, 3)
    for scheme in (None, schemes.auto()):
        made = jax.vmap(
            lambda key, scheme=scheme: jaxinit.linen.init(
                nn.Dense(4), key, x, scheme=scheme
            )
        )(keys)["params"]["kernel"]
        one = jaxinit.linen.init(nn.Dense(4), keys[1], x, scheme=scheme)["params"]
        np.testing.assert_array_equal(made[1], one["kernel"])


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        spread = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "x"))
        return nn.Dense(4, kernel_init=spread)(x)


@pytest.mark.exhaustive
@pytest.mark.parametrize("train", sampled([False, True], [False]))
def test_linen_on_a_mesh_leaves_statistics_as_they_are(key, train):
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    keys = {"params": key, "dropout": jax.random.key(1)}
    x = array(3, 6)
    made = jaxinit.linen.init(
        Normed(), keys, x, scheme=schemes.mlp("relu"), mesh=mesh, train=train
    )
    assert made["params"]["Dense_1"]["kernel"].names == (None, "x")
    kernel = made["params"]["Dense_1"]["kernel"].value
    assert kernel.sharding.spec == jax.P(None, "x")
    plain = jaxinit.linen.init(
        Normed(), keys, x, scheme=schemes.mlp("relu"), train=train
    )
    np.testing.assert_array_equal(plain["params"]["Dense_1"]["kernel"].value, kernel)
    own = jax.jit(Normed().init, static_argnames="train")(
        keys, jnp.zeros(x.shape), train=train
    )
    assert float(own["batch_stats"]["BatchNorm_0"]["var"][0]) == 1
    jax.tree.map(np.testing.assert_array_equal, made["batch_stats"], own["batch_stats"])


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_linen_with_a_mesh_in_use(key, kind):
    devices = jax.devices()[:2]
    mesh = jax.make_mesh((2,), ("x",), axis_types=(kind,), devices=devices)
    plain = jaxinit.linen.init(Normed(), key, array(3, 6), scheme=SCHEME, train=False)
    with jax.set_mesh(mesh):
        roles = jaxinit.linen.roles(Normed(), array(3, 6), train=False)
        made = jaxinit.linen.init(
            Normed(), key, array(3, 6), scheme=SCHEME, train=False
        )
        typed = jax.eval_shape(lambda: jnp.ones((3, 6)))  # has the mesh in its type
        by_shape = jaxinit.linen.init(Normed(), key, typed, scheme=SCHEME, train=False)
    assert roles["Dense_1/kernel"].head
    jax.tree.map(np.testing.assert_array_equal, by_shape["params"], plain["params"])
    jax.tree.map(np.testing.assert_array_equal, made["params"], plain["params"])


SCHEME = schemes.auto()


class Small(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def test_nnx_in_one_call_has_the_arrays_of_the_plan(key):
    rules = schemes.mlp("relu")
    made = jaxinit.nnx.create(Small, key, scheme=rules, inputs=(array(5, 6),))
    shapes = nnx.state(nnx.eval_shape(lambda: Small(nnx.Rngs(0))), nnx.Param)
    roles = jaxinit.nnx.roles(Small, array(5, 6))
    expected = jaxinit.plan(shapes, rules, roles=roles).init(key)
    for path in ("first", "last"):
        np.testing.assert_array_equal(
            getattr(made, path).kernel.get_value(), expected[path].kernel.get_value()
        )
    own = jaxinit.nnx.create(Small, key)
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.state(made, nnx.BatchStat),
        nnx.state(own, nnx.BatchStat),
    )
    assert made.drop.rngs.count.get_value() == own.drop.rngs.count.get_value()
    assert made(jnp.ones((5, 6))).shape == (5, 3)
    with pytest.raises(ValueError, match="inputs are for a scheme"):
        jaxinit.nnx.create(Small, key, inputs=(array(5, 6),))
    with pytest.raises(TypeError, match="inputs must be a sequence"):
        jaxinit.nnx.create(Small, key, scheme=rules, inputs=array(5, 6))


# auto.


def auto_variances(apply, shapes, *inputs):
    roles = jaxinit.roles(apply, shapes, *inputs)
    found = deviations(jaxinit.plan(shapes, schemes.auto(), roles=roles))
    return {path: std**2 for path, std in found.items()}


@pytest.mark.parametrize(
    ("fn", "second"),
    [
        (jax.nn.relu, 0.5),
        (jnp.tanh, 0.394294),
        (jax.nn.gelu, 0.425192),
        (jax.nn.selu, 1.0),
        (lambda x: x * jax.nn.sigmoid(1.5 * x), None),  # nobody registered it
        (lambda x: jnp.where(x < -1, -0.3 * x, jnp.cos(x)), None),
    ],
)
def test_auto_makes_up_for_any_activation(fn, second):
    shapes = {"a": array(6, 24), "b": array(24, 5)}
    found = auto_variances(lambda p, x: fn(x @ p["a"]) @ p["b"], shapes, ROWS)
    if second is None:
        second = 1 / jaxinit.gain(fn) ** 2
    assert found["a"] == pytest.approx(1 / 6, rel=1e-6)
    assert found["b"] == pytest.approx(1 / (24 * second), rel=1e-3)


def scaled_at_run_time(p, x):
    h = jax.nn.relu(x @ (p["a"] * math.sqrt(2 / 6)))
    return jnp.sin(30 * (h @ p["b"])) @ p["c"]


def gated_branch(p, x):
    x = x @ p["in"]
    for i in range(2):
        h = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
        h = jax.nn.silu(h @ p["gate"][i]) * (h @ p["up"][i])
        x = x + h @ p["down"][i]
    return x @ p["head"]


def averaged(p, x):
    h = jax.nn.relu(jnp.einsum("nwd,df->nwf", x, p["a"]))
    return h.max(axis=1) @ p["b"]


def pooled(p, x):
    h = jax.nn.relu(jnp.einsum("nwd,df->nwf", x, p["a"]))
    return h.mean(axis=1) @ p["b"]


def running(p, x):
    return jnp.cumsum(jnp.einsum("nwd,df->nwf", x, p["a"]), axis=1) @ p["b"]


def looked_up(p, t):
    return jax.nn.relu(p["table"][t].reshape(5, 8) @ p["a"]) @ p["b"]


def normed_behind(p, t):
    x = p["table"][t]
    for i in range(2):
        y = x + jax.nn.relu(x @ p["up"][i]) @ p["down"][i]
        x = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-6)
    return x @ p["head"]


def with_sines(p, t):
    angles = jnp.arange(5.0)[:, None] * jnp.arange(1.0, 5.0)
    even = jnp.zeros((5, 8)).at[:, ::2].set(jnp.sin(angles))
    x = p["table"][t] + even.at[:, 1::2].set(jnp.cos(angles))
    return x @ p["a"], (x + jnp.tanh(x @ p["up"]) @ p["down"]) @ p["a"]


def halves(p, x):
    gate, up = jnp.split(x @ p["both"], 2, axis=-1)
    even, odd = gate[:, ::2], gate[:, 1::2]
    squares = even * even
    return (jax.nn.silu(gate) * up) @ p["down"], (even * odd) @ p["a"], squares @ p["b"]


SILU = 0.355779
RECTIFIED = 0.5  # and so of a mean over places that are alike
MAXIMUM = 1.54387  # second moment of the largest of four rectified normal numbers
WANTED = {
    "scaled at run time": (
        scaled_at_run_time,
        {"a": array(6, 24), "b": array(24, 12), "c": array(12, 3)},
        (ROWS,),
        # the multiplier is made up for; sin of a unit normal has second moment 0.432
        {"a": 1 / 2, "b": 1 / (12 * 30**2), "c": 1 / (12 * 0.432332)},
    ),
    "gated, residual": (
        gated_branch,
        {
            "in": array(6, 8),
            **{name: array(2, 8, 24) for name in ("gate", "up")},
            "down": array(2, 24, 8),
            "head": array(8, 3),
        },
        (ROWS,),
        {
            "in": 1 / 6,
            "gate": 1 / 8,
            "up": 1 / 8,
            "down": 1 / (24 * SILU * 2),
            "head": 1 / (8 * 2),
        },
    ),
    "largest of four": (
        averaged,
        {"a": array(6, 24), "b": array(24, 3)},
        (array(7, 4, 6),),
        {"a": 1 / 6, "b": 1 / (24 * MAXIMUM)},
    ),
    "mean over places": (
        pooled,
        {"a": array(6, 24), "b": array(24, 3)},
        (array(7, 4, 6),),
        {"b": 1 / (24 * RECTIFIED)},
    ),
    "rows, which a plain net does not amplify": (
        looked_up,
        {"table": array(9, 4), "a": array(8, 24), "b": array(24, 3)},
        (array(5, 2, dtype=jnp.int32),),
        {"table": 1 / 4, "a": 1 / 8, "b": 1 / (24 * RECTIFIED)},
    ),
    "rows that nothing but a head takes": (
        lambda p, t: p["table"][t] @ p["a"],
        {"table": array(9, 4), "a": array(4, 3)},
        (array(5, dtype=jnp.int32),),
        {"a": 1.0},
    ),
    "a norm on the stream, behind which it is of size one": (
        normed_behind,
        {
            "table": array(9, 8),
            "up": [array(8, 24)] * 2,
            "down": [array(24, 8)] * 2,
            "head": array(8, 3),
        },
        (array(5, dtype=jnp.int32),),
        {
            "down/0": 1 / (2 * 8 * 24 * RECTIFIED),  # rows have the size 1 / 8
            "down/1": 1 / (2 * 24 * RECTIFIED),
            "up/1": 1 / 8,
            "head": 1 / 8,
        },
    ),
    "halves of one output": (
        halves,
        {
            "both": array(6, 16),
            "down": array(8, 3),
            "a": array(4, 3),
            "b": array(4, 3),
        },
        (ROWS,),
        # what is multiplied is independent, unless it is the same half
        {"down": 1 / (8 * SILU), "a": 1 / 4, "b": 1 / (4 * 3)},
    ),
    "sines beside rows": (
        with_sines,
        {
            "table": array(9, 8),
            "a": array(8, 3),
            "up": array(8, 24),
            "down": array(24, 8),
        },
        (array(5, dtype=jnp.int32),),
        # rows of size 1 / 8, sines of 1 / 2; tanh of a unit normal has 0.394
        {"up": 1 / (8 * 0.625), "down": 0.625 / (24 * 0.394294)},
    ),
    "running sum": (
        running,
        {"a": array(6, 24), "b": array(24, 3)},
        (array(7, 4, 6),),
        {"b": 1 / (24 * 2.5)},
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_auto_follows_moments(name):
    apply, shapes, inputs, wanted = WANTED[name]
    found = auto_variances(apply, shapes, *inputs)
    for path, variance in wanted.items():
        assert found[path] == pytest.approx(variance, rel=1e-3), path


def test_the_largest_of_four():
    drawn = np.random.default_rng(0).standard_normal((200_000, 4)).clip(0).max(1)
    error = np.std(drawn**2) / math.sqrt(len(drawn))
    assert abs(np.mean(drawn**2) - MAXIMUM) < 5 * error


class Deep(nn.Module):
    fn: object
    kind: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(64)(x)
        for _ in range(12):
            y = nn.Dense(64)(self.fn(x))
            x = x + y if self.kind == "residual" else y
        return nn.Dense(10)(self.fn(x))


class Windows(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(6):
            x = nn.relu(nn.Conv(16, (3, 3), padding="CIRCULAR")(x))
        return nn.Dense(10)(x.mean((1, 2)))


def chained(fn):
    def apply(p, x):
        for name in ("a", "b", "c"):
            x = fn(x @ p[name] + p[f"{name}_bias"])
        return x @ p["d"]

    return apply


SQUARED = {**{name: array(8, 8) for name in "abcd"}}
SQUARED |= {f"{name}_bias": array(8) for name in "abc"}
# Of the standard normal law, by independent quadrature: the variance of the kernel
# between two functions times fan_in, that of its bias, and whether it is centered.
CRITICAL = {
    "relu": (jax.nn.relu, 2.0, 0.0, False),
    "leaky_relu": (jax.nn.leaky_relu, 1.99980002, 0.0, False),
    "tanh": (jnp.tanh, 2.153, 0.1510, False),
    "selu": (jax.nn.selu, 0.9315, 0.0685, False),
    "gelu": (jax.nn.gelu, 2.193, 0.2420, True),
    "silu": (jax.nn.silu, 2.635, 0.1749, True),
    "softplus": (jax.nn.softplus, 3.408, 0.0745, True),
    "sigmoid": (jax.nn.sigmoid, 22.30, 0.0325, True),
    "a jump": (jnp.sign, 1.0, 0.0, False),
}


@pytest.mark.parametrize("name", sampled(CRITICAL, [*CRITICAL][3:-2]))
def test_auto_keeps_differences_in_plain_nets(name, key):
    fn, kernel, bias, is_centered = CRITICAL[name]
    apply = chained(fn)
    roles = jaxinit.roles(apply, SQUARED, ROWS_OF_8)
    use = roles["b"].uses[0]
    assert 8 * use.variance == pytest.approx(kernel, rel=3e-3)
    assert roles["b_bias"].uses[0].variance == pytest.approx(bias, abs=2e-3)
    assert use.centered == is_centered
    assert roles["a_bias"].uses[0].variance == 0  # no function precedes
    plan = jaxinit.plan(SQUARED, schemes.auto(), roles=roles)
    found = {leaf.path: leaf for leaf in plan}
    assert found["b"].std ** 2 == pytest.approx(use.variance, rel=1e-6)
    assert found["b_bias"].std ** 2 == pytest.approx(roles["b_bias"].uses[0].variance)
    drawn = found["b"].draw(key)
    assert bool((jnp.abs(drawn.sum(0)) < 1e-5).all()) == is_centered


def test_auto_does_not_draw_biases_beside_norms_streams_and_heads():
    def apply(p, x):
        x = x + jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"] + p["b_bias"]) @ p["c"]
        x = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
        x = jnp.tanh(x @ p["d"] + p["a_bias"])
        return x + p["c_bias"]

    roles = jaxinit.roles(apply, SQUARED, ROWS_OF_8)
    drawn = {path for path in SQUARED if roles[path].kind == "bias"}
    drawn = {path for path in drawn if roles[path].uses[0].variance}
    assert drawn == {"b_bias"}
    assert 8 * roles["c"].uses[0].variance == pytest.approx(1 / 0.394294, rel=1e-3)


def test_auto_centers_no_odd_inputs():
    shapes = {path: array(*(7 for _ in leaf.shape)) for path, leaf in SQUARED.items()}
    roles = jaxinit.roles(chained(jax.nn.sigmoid), shapes, array(5, 7))
    assert not roles["b"].uses[0].centered
    assert 7 * roles["b"].uses[0].variance == pytest.approx(1 / 0.2934, rel=1e-3)


HEALTHY = {
    "relu": Deep(nn.relu, "plain"),
    "tanh": Deep(jnp.tanh, "plain"),
    "selu": Deep(nn.selu, "plain"),
    "elu": Deep(nn.elu, "plain"),
    "gelu": Deep(nn.gelu, "plain"),
    "sigmoid": Deep(nn.sigmoid, "plain"),
    "residual relu": Deep(nn.relu, "residual"),
    "convolutions": Windows(),
}


@pytest.mark.parametrize("name", sampled(HEALTHY, {*HEALTHY} - {"gelu"}))
def test_auto_keeps_the_signal(name, key):
    """Where the layers' own start loses it, but for SELU."""
    model = HEALTHY[name]
    shape = (64, 8, 8, 3) if name == "convolutions" else (64, 16)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    params = jaxinit.linen.init(model, key, x, scheme=schemes.auto())
    layers = signal.propagate(model, params, x).layers
    found = [layer.std for layer in layers if layer.kind in ("Dense", "Conv")]
    # a writer of a residual stream of 12 has its share, 1 / sqrt(12)
    least = 0.1 if name == "residual relu" else 0.5
    assert least < min(found) <= max(found) < 2.5
    own = signal.propagate(model, jaxinit.jit(model.init)(key, x), x).layers
    stds = [layer.std for layer in own if layer.kind in ("Dense", "Conv")]
    assert (least < min(stds) <= max(stds) < 2.5) == (name == "selu")


def test_auto_of_recurrent_cells(key):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.RNN(nn.OptimizedLSTMCell(8))(x)
            return nn.Dense(3)(nn.RNN(nn.GRUCell(8))(h)[:, -1])

    x = array(4, 7, 6)
    made = jaxinit.linen.init(Net(), key, x, scheme=schemes.auto())["params"]
    for path in ("OptimizedLSTMCell_0/hf", "GRUCell_0/hn", "GRUCell_0/hz"):
        cell, name = path.split("/")
        kernel = np.asarray(made[cell][name]["kernel"], np.float64)
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=1e-5)
    assert (made["OptimizedLSTMCell_0"]["hf"]["bias"] == 1).all()
    assert (made["OptimizedLSTMCell_0"]["hi"]["bias"] == 0).all()


@pytest.mark.parametrize("added", [0, 1])
def test_auto_of_joint_gates(added):
    """The bias remembers, unless the cell does so by itself."""

    def apply(p, x):
        def step(carry, x):
            h, c = carry
            z = jnp.concatenate([x, h], -1) @ p["w"] + p["b"]
            i, f, g, o = jnp.split(z, 4, -1)
            c = jax.nn.sigmoid(f + added) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[1], 4))
        return jax.lax.scan(step, (zero, zero), x)[1] @ p["out"]

    shapes = {"w": array(10, 16), "b": array(16), "out": array(4, 3)}
    roles = jaxinit.roles(apply, shapes, array(5, 2, 6))
    plan = {x.path: x for x in jaxinit.plan(shapes, schemes.auto(), roles=roles)}
    inputs, state = plan["w"].initializer.init
    assert state == jaxinit.split(jaxinit.orthogonal(), 4, axis=1)
    assert (inputs.axis, inputs.init.mode) == (1, "fan_in")
    of_gate = [jaxinit.zeros, jaxinit.ones, jaxinit.zeros, jaxinit.zeros]
    bias = plan["b"].initializer
    assert bias == jaxinit.zeros if added else [*bias.init] == of_gate


def test_auto_leaves_to_the_model_what_it_does_not_know(key):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            rate = self.param("log_rate", nn.initializers.constant(0.25), (6,))
            self.param("never", nn.initializers.constant(0.5), (2,))
            return nn.Dense(3)(x * jnp.exp(rate))

    made = jaxinit.linen.init(Net(), key, ROWS, scheme=schemes.auto())["params"]
    assert (made["log_rate"] == 0.25).all()
    assert (made["never"] == 0.5).all()
    shapes = jax.eval_shape(lambda: made)
    roles = jaxinit.linen.roles(Net(), ROWS)
    with pytest.raises(jaxinit.PlanError, match="only the model itself knows") as why:
        jaxinit.plan(shapes, schemes.auto(), roles=roles)
    assert "its role is unknown (what meets the activations is behind" in str(why.value)
    assert "its role is unused" in str(why.value)
    own = jaxinit.Rules({"log_rate": jaxinit.zeros, "never": jaxinit.ones})
    plan = jaxinit.plan(shapes, own | schemes.auto(), roles=roles)
    assert plan.init(key)["never"][0] == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MODELS)
def test_auto_has_a_start_for_every_leaf(name):
    """And what it leaves to the model is unknown, unused or a statistic."""
    model = MODELS[name]()
    roles = jaxinit.roles(model.apply, model.params, *model.inputs)
    plan = model_plan(model.params, schemes.auto(), roles)
    for leaf in plan:
        assert leaf.is_kept == (leaf.role.kind in ("unknown", "unused", "statistic"))
        if leaf.role.kernels:
            variances = [use.variance for use in leaf.role.kernels]
            assert all(0 < x < math.inf for x in variances), leaf.path


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_arrays_of_a_mesh_keep_their_shardings_where_these_are_types(kind):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))

    def apply(p, x):
        is_cut = jax.typeof(x).sharding.spec == jax.P("x", None)
        assert is_cut == (kind == AxisType.Explicit)
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    params = dict.fromkeys("ab", jnp.ones((4, 4)))
    x = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, jax.P("x")))
    found = jaxinit.roles(apply, params, x)
    assert [role.kind for role in found.values()] == ["kernel", "kernel"]
