"""Findings that depend on what a leaf is for, by laws that are given."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import sampled

import jaxinit
from jaxinit import (
    glorot_uniform,
    he_normal,
    lecun_normal,
    normal,
    ones,
    orthogonal,
    uniform,
    variance_scaling,
    zeros,
)
from jaxinit._arrays.measured import Measured
from jaxinit._audit.kernels import may_have
from jaxinit._audit.leaves import Leaf
from jaxinit._audit.meanings import findings_of_meanings
from jaxinit._audit.naming import Named
from jaxinit._tree.folding import fold
from jaxinit.audit import audit
from tests.scheme_models import PAIRS, shapes
from tests.test_schemes import FLAT

pytestmark = pytest.mark.unoptimized


def measured(x):
    low, high = float(x.min()), float(x.max())
    return Measured(
        size=int(x.size),
        mean=float(x.mean()),
        variance=float(x.var()),
        low=low,
        high=high,
        zeros=int((x == 0).sum()),
        nonfinite=0,
    )


def drawn(path, init, shape):
    """An array of the second moment of a law; its shape is that of a normal one."""
    law = init.moments(shape)
    rng = np.random.default_rng(list(path.encode()))
    return (law.mean + law.std * rng.standard_normal(shape)).astype(np.float32)


def group(path, init, shape, role=None, **options):
    """One leaf with its law."""
    array = options.pop("array", None)
    array = drawn(path, init, shape) if array is None else array
    leaf = Leaf(path, array, measured(array), role)
    std = math.sqrt(float(np.mean(np.square(array, dtype=np.float64))))
    options = {"law": init, "sure": True} | options
    return Named(path, (leaf,), std=std, **options)


def tree(laws, roles=None):
    """Groups of leaves of one law, by path: initializer and shape."""
    kinds = [(repr(init), shape) for init, shape in laws.values()]
    groups = []
    for path, run in fold(list(laws), kinds):
        paths = [list(laws)[i] for i in run]
        parts = [
            group(p, laws[p][0], laws[p][1], None if roles is None else roles[p])
            for p in paths
        ]
        std = math.sqrt(sum(part.std**2 for part in parts) / len(parts))
        leaves = tuple(part.leaves[0] for part in parts)
        groups.append(Named(path, leaves, law=parts[0].law, sure=True, std=std))
    return groups


def of(apply, shapes, *inputs):
    params = {
        k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()
    }
    return jaxinit.roles(apply, params, *inputs)


def found(groups):
    return [(x.kind, x.severity) for x in findings_of_meanings(groups)]


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def heads(params, x):
    return jnp.einsum("btd,dhk->bthk", x, params["w"])


def dense(params, x):
    return x @ params["w"]


def torch_dense(params, x):
    return x @ params["w"].T


def experts(params, x):
    return jnp.einsum("ebd,edf->ebf", x, params["w"])


def depthwise(params, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, params["w"], (1, 1), "SAME", None, None, numbers, x.shape[-1]
    )


def convolution(params, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, params["w"], (1, 1), "SAME", None, None, numbers
    )


def lookup(params, tokens):
    return params["w"][tokens]


def tied(params, tokens):
    return params["w"][tokens] @ params["w"].T


def scanned(params, x):
    def layer(h, w):
        return jnp.tanh(h @ w), None

    return jax.lax.scan(layer, x, params["w"])[0]


# Sizes of which no simple fraction is another
X, SEQUENCE = array(5, 66), array(2, 7, 66)
TOKENS = array(2, 7, dtype=jnp.int32)
HEADS = (heads, (66, 6, 11), SEQUENCE)
WIDE = (dense, (66, 250), X)
NARROW = (torch_dense, (250, 66), X)
SCAN = (scanned, (7, 66, 66), X)
EXPERTS = (experts, (7, 66, 34), array(7, 5, 66))
DEPTHWISE = (depthwise, (3, 3, 1, 250), array(1, 8, 8, 250))
WINDOWS = (convolution, (3, 3, 66, 34), array(1, 8, 8, 66))
TABLE = (lookup, (1000, 66), TOKENS)
TIED = (tied, (1000, 66), TOKENS)
he_out = variance_scaling(2.0, "fan_out", "normal")

# Model, initializer, and the finding: None if the law is right.
FANS = {
    "heads, the default axes": (HEADS, he_normal(), ("fans", "warning")),
    "heads, the axis of heads": (
        HEADS,
        lecun_normal(in_axis=1, out_axis=2, batch_axis=0),
        ("fans", "warning"),
    ),
    "heads": (HEADS, he_normal(in_axis=0, out_axis=(1, 2)), None),
    "heads, Glorot": (HEADS, glorot_uniform(in_axis=0, out_axis=(1, 2)), None),
    "dense": (WIDE, he_normal(), None),
    "dense, Glorot": (WIDE, glorot_uniform(), None),
    "dense, torch": (WIDE, variance_scaling(1 / 3, "fan_in", "uniform"), None),
    "dense, fan out": (WIDE, he_out, ("fans", "note")),
    "dense, a quarter": (WIDE, variance_scaling(0.25, "fan_in", "normal"), None),
    "torch's layout, jax's axes": (NARROW, lecun_normal(), ("fans", "warning")),
    "torch's layout": (NARROW, lecun_normal(in_axis=-1, out_axis=-2), None),
    "torch's layout, Glorot": (NARROW, glorot_uniform(), None),
    "experts counted": (EXPERTS, lecun_normal(), ("fans", "warning")),
    "experts": (EXPERTS, lecun_normal(batch_axis=0), None),
    "depthwise": (DEPTHWISE, lecun_normal(), None),
    "depthwise, groups counted": (DEPTHWISE, he_out, ("fans", "warning")),
    "convolution, fan out": (WINDOWS, he_out, None),
    "embedding, rows counted": (TABLE, lecun_normal(), ("fans", "warning")),
    "embedding, Glorot": (TABLE, glorot_uniform(), ("fans", "warning")),
    "embedding, width": (TABLE, variance_scaling(1.0, "fan_out", "normal"), None),
    "embedding, recommender": (
        TABLE,
        variance_scaling(1 / 3, "fan_in", "uniform"),
        None,
    ),
    "stacked layers": (SCAN, lecun_normal(batch_axis=0), None),
    "stacked layers, counted": (SCAN, lecun_normal(), ("stacked", "warning")),
    "stacked layers, orthogonal": (SCAN, orthogonal(batch_axis=0), None),
    "stacked, as one orthogonal": (SCAN, orthogonal(), ("stacked", "warning")),
    "tied, unit variance": (
        TIED,
        normal(1.0),
        ("embedding", "warning"),
    ),
    "tied": (TIED, normal(66**-0.5), None),
    "untied, unit variance": (TABLE, normal(1.0), None),
    "tied, rows counted": (
        TIED,
        lecun_normal(),
        ("fans", "warning"),
    ),
}


@pytest.mark.parametrize("name", FANS)
def test_fans_are_those_of_the_computation(name):
    (apply, shape, x), init, expected = FANS[name]
    role = of(apply, {"w": shape}, x)["w"]
    assert found([group("w", init, shape, role)]) == ([expected] if expected else [])


def test_what_a_finding_of_fans_says():
    role = of(heads, {"w": HEADS[1]}, SEQUENCE)["w"]
    paths = [f"layers_{i}/w" for i in range(2)]
    (finding,) = findings_of_meanings(
        [group(x, he_normal(), HEADS[1], role) for x in paths]
    )
    assert finding.paths == tuple(paths)
    assert "variance of 2 / 396" in finding.text
    assert "an output sums 66 inputs" in finding.text
    assert "in_axis=0, out_axis=(1, 2)" in finding.text


def test_fans_are_silent_where_a_law_is_not_sure():
    role = of(heads, {"w": HEADS[1]}, SEQUENCE)["w"]
    assert not found([group("w", he_normal(), HEADS[1], role, sure=False)])


def test_without_roles_only_stacks_that_show_are_found():
    wrong, right = lecun_normal(), lecun_normal(batch_axis=0)
    beside = {"layers/b": (zeros, (6, 64)), "out/w": (right, (6, 64, 64))}
    for init, expected in ((wrong, [("stacked", "warning")]), (right, [])):
        laws = {"layers/w": (init, (6, 48, 64))} | beside
        assert found(tree(laws)) == expected
    assert found(tree({"conv/w": (wrong, (6, 48, 64)), "conv/b": (zeros, (64,))})) == []
    assert found(tree({"w": (wrong, (6, 48, 64))})) == []


def gates(params, x):
    q, k, v = jnp.split(x @ params["w"] + params.get("b", 0.0), 3, -1)
    scores = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k) / 8)
    return jnp.einsum("bqk,bkd->bqd", scores, v) @ params["o"]


FUSED = {
    "Glorot of all": (glorot_uniform(), [("fused", "note")]),
    "each on its own": (variance_scaling(0.5, "fan_in", "uniform"), []),
    "fan out of all": (
        variance_scaling(2.0, "fan_out", "normal"),
        [("fused", "warning")],
    ),
    "one orthogonal matrix": (orthogonal(), [("fused", "warning")]),
    "fan in": (lecun_normal(), []),
    "split": (jaxinit.split(orthogonal(), 3), []),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_projections_are_several(name):
    init, expected = FUSED[name]
    roles = of(gates, {"o": (66, 66), "w": (66, 198)}, SEQUENCE)
    kinds = found([group("w", init, (66, 198), roles["w"])])
    assert [x for x in kinds if x[0] == "fused"] == expected


def test_a_law_of_unknown_scale():
    role = of(dense, {"w": (1000, 1000)}, array(5, 1000))["w"]

    def kinds(std, role, **options):
        fitted = {"is_fitted": True, "sure": False} | options
        return found([group("w", normal(std), (1000, 1000), role, **fitted)])

    note = [("scale", "note")]
    root = 1000**-0.5
    for own in (role, None):
        assert kinds(1.05 * root, own) == note
        assert kinds(0.95 * root, own) == note
        assert not kinds(root, own)
        flat = uniform(low=-0.0736, high=0.0736)  # he_uniform() times 0.95
        assert kinds(0.95 * 2**0.5 * root, own, law=flat) == note
        for factor in (5 / 3, 0.75, (8 * 12) ** -0.25, 1.677, math.sqrt(0.4)):
            assert not kinds(factor * root, own)
        assert not kinds(0.02 / math.sqrt(24), own)
        assert kinds(17.3, own) == note
    inner = of(chain, {"a": (9, 1000), "b": (1000, 1000), "c": (1000, 9)}, array(5, 9))
    assert kinds(0.0023, inner["b"]) == note
    assert not kinds(0.0023, role)  # a head may be small
    assert not kinds(0.0023, None)
    assert not kinds(0.0023, inner["b"], is_fitted=False)
    assert kinds(0.0023, inner["b"], law=None, is_fitted=False) == note


def test_what_a_finding_of_a_scale_says():
    role = of(dense, {"w": (1000, 1000)}, array(5, 1000))["w"]
    leaf = group("w", normal(1.05 * 1000**-0.5), (1000, 1000), role, law=None)
    (finding,) = findings_of_meanings([leaf])
    assert "% above that of lecun_normal() of fan 1000" in finding.text


def test_chance_may_explain_what_is_near():
    # six standard errors of a variance are nothing rare here, ten are
    error = math.sqrt(2 / 10**4)
    for ratio, size, expected in (
        (1.0, 10**9, True),
        (1.01, 10**9, True),
        (1.05, 10**6, False),
        (2.0, 100, True),
        (2.0, 1000, False),
        (0.0, 10**6, False),
        (1 + 6 * error, 10**4, True),
        (1 + 10 * error, 10**4, False),
    ):
        assert may_have(ratio, size) == expected, (ratio, size)


class Stream:
    """Residual blocks of two kernels, with a gate or without."""

    def __init__(self, blocks, gated=False, function=jax.nn.relu):
        self.blocks, self.gated, self.function = blocks, gated, function

    def shapes(self):
        found = {}
        for i in range(self.blocks):
            found |= {f"b{i}/a": (66, 66), f"b{i}/c": (66,), f"b{i}/w": (66, 66)}
            found |= {f"b{i}/g": (66,)} if self.gated else {}
        return found | {"head": (66, 10)}

    @functools.cached_property
    def roles(self):
        return of(self, self.shapes(), X)

    def __call__(self, params, x):
        for i in range(self.blocks):
            y = (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-6)
            y = self.function(y @ params[f"b{i}/a"] + params[f"b{i}/c"])
            y = y @ params[f"b{i}/w"]
            x = x + (y * params[f"b{i}/g"] if self.gated else y)
        return x @ params["head"]

    def tree(self, **laws):
        """All leaves, by what the last letter of their path is drawn."""
        usual = {"a": he_normal(), "w": he_normal(), "c": zeros, "g": ones}
        own = usual | {"d": lecun_normal()} | laws
        found = {path: (own[path[-1]], s) for path, s in self.shapes().items()}
        return tree(found, self.roles)


ERROR = [("no-gradient", "error")]
# Blocks, and the laws of what is not as usual.
GRADIENTS = {
    "as usual": (Stream(2), {}, []),
    "zero writers": (Stream(2), {"w": zeros}, []),
    "zero writers and head": (Stream(2), {"w": zeros, "d": zeros}, []),
    "zero first kernels": (Stream(2), {"a": zeros}, []),
    "both zero": (Stream(2), {"a": zeros, "w": zeros}, ERROR),
    "both zero, biases drawn": (
        Stream(2),
        {"a": zeros, "w": zeros, "c": normal(0.1)},
        [],
    ),
    "both zero, behind a sigmoid": (
        Stream(2, function=jax.nn.sigmoid),
        {"a": zeros, "w": zeros},
        [],
    ),
    "zero gates": (Stream(2, gated=True), {"g": zeros}, []),
    "zero gates and writers": (Stream(2, gated=True), {"g": zeros, "w": zeros}, ERROR),
    "all zero": (Stream(2), {"a": zeros, "w": zeros, "d": zeros}, ERROR),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_zeros_that_no_gradient_reaches(name):
    stream, laws, expected = GRADIENTS[name]
    assert found(stream.tree(**laws)) == expected


def gradients(stream, params):
    x = jax.random.normal(jax.random.key(0), (5, 66))
    return jax.grad(lambda p: jnp.sum(jnp.sin(stream(p, x))))(params)


def test_what_is_said_to_have_no_gradient_has_none():
    stream = Stream(1, gated=True)
    for laws in ({"a": zeros, "w": zeros}, {"g": zeros, "w": zeros}):
        groups = stream.tree(**laws)
        (finding,) = [x for x in findings_of_meanings(groups) if x.severity == "error"]
        values = {leaf.path: leaf.array for x in groups for leaf in x.leaves}
        slopes = gradients(stream, values)
        assert finding.paths
        assert all(not np.any(slopes[path]) for path in finding.paths)
        assert np.any(slopes["head"])


def attention(params, x):
    q, k, v = (x @ params[name] for name in "qkv")
    scores = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k) / 8)
    return (x + jnp.einsum("bqk,bkd->bqd", scores, v) @ params["o"]) @ params["head"]


@pytest.mark.parametrize(
    ("zero", "expected"),
    [("qk", ERROR), ("vo", ERROR), ("q", []), ("qo", []), ("kv", []), ("o", [])],
)
def test_zero_factors_of_an_attention(zero, expected):
    shapes = dict.fromkeys("koqv", (66, 66)) | {"head": (66, 10)}
    roles = of(attention, shapes, SEQUENCE)
    laws = {
        name: (zeros if name in zero else he_normal(), shape)
        for name, shape in shapes.items()
    }
    assert found(tree(laws, roles)) == expected


def test_zero_queries_and_keys_in_one_kernel():
    shapes = {"b": (198,), "o": (66, 66), "w": (66, 198)}
    roles = of(gates, shapes, SEQUENCE)

    def kinds(**laws):
        usual = {"b": zeros, "o": he_normal(), "w": lecun_normal()}
        named = (usual | laws).items()
        return found(tree({k: (law, shapes[k]) for k, law in named}, roles))

    assert kinds(w=zeros) == ERROR
    assert not kinds()
    assert not kinds(w=zeros, b=normal(0.1))


def test_low_rank_pairs():
    base = {"base": (lecun_normal(), (66, 66))}

    def kinds(a, b, **more):
        pair = {"x/a": (a, (66, 4)), "x/b": (b, (4, 48))}
        return found(tree(base | pair | more))

    assert kinds(zeros, zeros) == ERROR
    assert not kinds(he_normal(), zeros)
    assert not kinds(zeros, he_normal())
    remembered = {"p/x/a": (he_normal(), (66, 4)), "opt/mu/x/a": (zeros, (66, 4))}
    remembered |= {"opt/mu/x/b": (zeros, (4, 48)), "p/x/b": (zeros, (4, 48))}
    assert not found(tree(remembered))
    wide = {"x/a": (zeros, (66, 48)), "x/b": (zeros, (48, 66))}
    assert not found(tree(base | wide))


def test_a_tree_of_zeros():
    assert found(tree({"a": (zeros, (9, 8)), "b": (zeros, (8, 3))})) == ERROR
    assert not found(tree({"a": (zeros, (9, 8)), "b": (zeros, (9, 3))}))
    assert not found(tree({"a": (zeros, (9, 8)), "b": (zeros, (8,))}))
    assert not found(tree({"a": (lecun_normal(), (9, 8)), "b": (zeros, (8, 3))}))


def chain(params, x):
    return jax.nn.relu(jax.nn.relu(x @ params["a"]) @ params["b"]) @ params["c"]


@pytest.mark.parametrize(("zero", "expected"), [("ac", ERROR), ("c", []), ("a", [])])
def test_the_ends_of_a_plain_network(zero, expected):
    shapes = {"a": (66, 66), "b": (66, 66), "c": (66, 10)}
    roles = of(chain, shapes, X)
    laws = {
        name: (zeros if name in zero else he_normal(), shape)
        for name, shape in shapes.items()
    }
    assert found(tree(laws, roles)) == expected


def test_depth():
    deep = Stream(24)
    (finding,) = findings_of_meanings(deep.tree())
    assert (finding.kind, finding.severity) == ("depth", "note")
    assert finding.paths == ("b{0..23}/w",)
    assert "24 branches" in finding.text
    assert not found(deep.tree(w=normal(1 / math.sqrt(66 * 48))))
    assert not found(deep.tree(w=zeros))
    assert not found(Stream(23).tree())
    assert not found(Stream(24, gated=True).tree(g=zeros))


def post_norm(params, x):
    for i in range(24):
        y = x + jax.nn.relu(x @ params[f"a{i}"]) @ params[f"w{i}"]
        y = y - y.mean(-1, keepdims=True)
        x = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-6)
    return x @ params["head"]


def test_depth_does_not_matter_where_the_stream_is_normalized():
    shapes = {f"{name}{i}": (66, 66) for name in "aw" for i in range(24)}
    roles = of(post_norm, shapes | {"head": (66, 9)}, X)
    assert roles["w3"].residual == (3, 24)
    laws = {path: (he_normal(), shape) for path, shape in shapes.items()}
    assert not found(tree(laws, roles))


def layers(odd, law, n=12, shape=(66, 66), usual=None):
    usual = he_normal() if usual is None else usual
    return {f"l{i}/w": (law if i in odd else usual, shape) for i in range(n)}


ALONE = {
    "one of twelve": (layers([5], lecun_normal()), [("alone", "warning")]),
    "the first": (layers([0], lecun_normal()), [("alone", "note")]),
    "the last": (layers([11], zeros), [("alone", "note")]),
    "one that is zero": (layers([5], zeros), [("alone", "note")]),
    "half of them": (layers(range(0, 12, 2), lecun_normal()), []),
    "two of three": (layers([1, 2], lecun_normal(), 3), []),
    "another law of the same variance": (
        layers([5], uniform(low=-0.3015113, high=0.3015113), shape=(66, 66)),
        [],
    ),
    "too small to tell": (layers([5], lecun_normal(), shape=(4, 4)), []),
    "each by its number": (
        {f"l{i}/w": (normal(0.02 / (i + 1)), (66, 66)) for i in range(12)},
        [],
    ),
    "another shape": (
        layers([], None) | {"l12/w": (lecun_normal(), (66, 32))},
        [],
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_that_is_not_drawn_as_its_peers(name):
    laws, expected = ALONE[name]
    assert found(tree(laws)) == expected


def test_peers_have_one_purpose():
    stream = Stream(4)
    roles = stream.roles
    names = {"b0/a": "k0", "b1/a": "k1", "b2/a": "k2", "b3/a": "k3", "b2/w": "k4"}
    laws = {
        new: (zeros if new == "k4" else he_normal(), (66, 66)) for new in names.values()
    }
    renamed = {new: roles[old] for old, new in names.items()}
    assert found(tree(laws)) == [("alone", "note")]
    assert not found(tree(laws, renamed))


def by_plan(rules, model, roles):
    """What the leaves of a model are by a plan, without drawing by XLA."""
    plan = jaxinit.plan(shapes(model, "linen"), rules)
    laws = {
        leaf.path: (leaf.initializer, leaf.shape)
        for leaf in plan
        if isinstance(leaf.initializer, jaxinit.Initializer)  # not those of mimetic
    }
    return tree(laws, roles)


@functools.cache
def roles_of(model):
    linen, _, x = PAIRS[model]
    return jaxinit.roles(
        lambda params, x: linen.apply({"params": params}, x), shapes(model, "linen"), x
    )


@pytest.mark.sample(20)
@pytest.mark.parametrize("known", [True, False], ids=["roles", "no roles"])
@pytest.mark.parametrize("case", FLAT)
def test_schemes_are_silent(case, known):
    rules, model = FLAT[case]
    assert not found(by_plan(rules, model, roles_of(model) if known else None))


@pytest.mark.parametrize("case", sampled(FLAT, set(FLAT) - {"recurrent"}))
def test_draws_of_schemes_are_silent(case):
    rules, model = FLAT[case]
    params = jaxinit.init_tree(jax.random.key(1), shapes(model, "linen"), rules)
    for roles in (None, roles_of(model)):
        assert not audit(params, roles).findings


@pytest.mark.parametrize("model", sampled(PAIRS, set(PAIRS) - {"mlp"}))
def test_what_flax_draws_is_silent(model):
    linen, _, x = PAIRS[model]
    params = linen.init(jax.random.key(3), jnp.zeros(x.shape, x.dtype))["params"]
    for roles in (None, roles_of(model)):
        assert not audit(params, roles).findings


# Of the cases above; each of them costs the compiling of a draw
TOLD = {"heads, the default axes", "embedding, rows counted", "stacked layers, counted"}
# So few entries do not tell the law from all others
UNSURE = {"dense, fan out", "depthwise, groups counted"}
DRAWN = [name for name in FANS if name not in UNSURE]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", sampled(DRAWN, set(DRAWN) - TOLD))
def test_draws_with_wrong_fans_are_caught(name):
    (apply, shape, x), init, expected = FANS[name]
    roles = of(apply, {"w": shape}, x)
    findings = audit({"w": init(jax.random.key(7), shape)}, roles).findings
    assert [(x.kind, x.severity) for x in findings] == ([expected] if expected else [])


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_draw_five_percent_off_is_noted(factor):
    kernel = factor * lecun_normal()(jax.random.key(7), (1000, 1000))
    (finding,) = audit({"w": kernel}).findings
    assert (finding.kind, finding.severity) == ("scale", "note")
    assert "5.0 %" in finding.text
