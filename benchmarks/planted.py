"""Trees with one mistake each, for `benchmarks.audit`: what should be found in them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as of_jax

import jaxinit
from jaxinit.initializers.base import Initializer

MILLION = (1000, 1000)
BATCH, LENGTH, WIDTH, HEADS, BLOCKS = 2, 7, 96, 6, 24


class Fault(NamedTuple):
    """A mistake.

    Attributes:
        draw: the parameters, from a key.
        kinds: findings of which one tells it.
        model: what is computed of parameters and inputs; None if it is not known.
        inputs: what the model is called on.
    """

    draw: Callable[[Any], Any]
    kinds: tuple[str, ...]
    model: Callable[..., Any] | None = None
    inputs: tuple[Any, ...] = ()


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _each(laws: dict[str, tuple[Any, tuple[int, ...]]]) -> Callable[[Any], Any]:
    """Every leaf by its own law and key."""

    def draw(key):
        keys = jax.random.split(key, len(laws))
        pairs = zip(laws.items(), keys, strict=True)
        return {name: init(k, shape) for (name, (init, shape)), k in pairs}

    return draw


def _of_one_key(*inits: Initializer, shape=(64, 48)) -> Callable[[Any], Any]:
    return lambda key: {f"{name}": init(key, shape) for name, init in enumerate(inits)}


def _changed(init: Any, shape, change: Callable[[np.ndarray], Any]):
    """One kernel, changed after it was drawn."""

    def draw(key):
        x = np.array(init(key, shape))
        change(x)
        return {"dense": {"kernel": x}}

    return draw


def _scaled_by(factor: float, init: Initializer) -> Callable[[Any], Any]:
    return lambda key: {"dense": {"kernel": factor * init(key, MILLION)}}


def _in_bfloat16(init: Any) -> Callable[[Any], Any]:
    draw = jax.jit(lambda key: init(key, MILLION, jnp.bfloat16))
    return lambda key: {"dense": {"kernel": draw(key)}}


# ---- models


def _torch_dense(params, x):
    return jax.nn.relu(x @ params["up"].T) @ params["down"].T


def _heads(params, x):
    return jnp.einsum("btd,dhk->bthk", x, params["query"])


def _scanned(params, x):
    def layer(h, p):
        return jnp.tanh(h @ p["kernel"] + p["bias"]), None

    return jax.lax.scan(layer, x, params["layers"])[0]


def _fused(params, x):
    query, key, value = jnp.split(x @ params["qkv"], 3, -1)
    scores = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", query, key) / 8)
    return jnp.einsum("bqk,bkd->bqd", scores, value) @ params["out"]


def _tied(params, tokens):
    return params["embedding"][tokens] @ params["embedding"].T


def _residual(params, x):
    for i in range(BLOCKS):
        y = (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-6)
        block = params[f"block_{i}"]
        x = x + jax.nn.relu(y @ block["up"]) @ block["down"]
    return x @ params["head"]


def _blocks(up: Initializer, down: Initializer) -> Callable[[Any], Any]:
    square = (WIDTH, WIDTH)
    block = _each({"up": (up, square), "down": (down, square)})

    def draw(key):
        keys = jax.random.split(key, BLOCKS)
        blocks = {f"block_{i}": block(k) for i, k in enumerate(keys)}
        return {**blocks, "head": jaxinit.lecun_normal()(key, (WIDTH, 10))}

    return draw


def _one_layer_apart(key):
    shape = (256, 256)
    draw = _each({f"layer_{i}": (jaxinit.normal(0.02), shape) for i in range(12)})
    return draw(key) | {"layer_5": jaxinit.normal(0.1)(key, shape)}


def _stacked(key):
    return {"layers": _SCAN(key)}


# ---- changes


def _first_row_everywhere(x: np.ndarray) -> None:
    x[:] = x[0]


def _two_columns_alike(x: np.ndarray) -> None:
    x[:, 1] = x[:, 0]


def _one_nan(x: np.ndarray) -> None:
    x.flat[x.size // 3] = np.nan


_SEQUENCE, _STACK = _floats(BATCH, LENGTH, WIDTH), (12, WIDTH, WIDTH)
_SCAN = _each(
    {"kernel": (jaxinit.lecun_normal(), _STACK), "bias": (jaxinit.zeros, _STACK[:2])}
)
_TOKENS = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
_QKV = {
    "out": (jaxinit.lecun_normal(), (WIDTH, WIDTH)),
    "qkv": (jaxinit.orthogonal(), (WIDTH, 3 * WIDTH)),
}
_OFF = {
    "lecun_normal": jaxinit.lecun_normal(),
    "he_uniform": jaxinit.he_uniform(),
    "glorot_uniform": jaxinit.glorot_uniform(),
    "torch's layers": jaxinit.he_uniform(negative_slope=5**0.5),
}
FAULTS: dict[str, Fault] = {
    "fans the wrong way round: torch's layout by jax's axes": Fault(
        _each(
            {
                "up": (jaxinit.he_normal(), (400, WIDTH)),
                "down": (jaxinit.he_normal(), (WIDTH, 400)),
            }
        ),
        ("fans",),
        _torch_dense,
        (_floats(BATCH, WIDTH),),
    ),
    "a window taken for heads: (96, 6, 16) by the default axes": Fault(
        _each({"query": (jaxinit.he_normal(), (WIDTH, HEADS, WIDTH // HEADS))}),
        ("fans",),
        _heads,
        (_SEQUENCE,),
    ),
    "one key, one law": Fault(
        _of_one_key(jaxinit.he_normal(), jaxinit.he_normal()), ("equal",)
    ),
    "one key, two deviations": Fault(
        _of_one_key(jaxinit.normal(0.02), jaxinit.normal(0.05)), ("multiple",)
    ),
    "one key, normal and uniform": Fault(
        _of_one_key(jaxinit.normal(0.02), jaxinit.uniform(0.05)), ("equal", "multiple")
    ),
    **{
        f"jax's {name} in bfloat16, 1e6 entries": Fault(
            _in_bfloat16(init), ("biased", "few-values")
        )
        for name, init in {
            "normal": of_jax.normal(0.02),
            "uniform": of_jax.uniform(0.1),
            "lecun_normal": of_jax.lecun_normal(),
            "he_uniform": of_jax.he_uniform(),
        }.items()
    },
    **{
        f"{name} times {factor}, 1e6 entries": Fault(
            _scaled_by(factor, init), ("scale",)
        )
        for name, init in _OFF.items()
        for factor in (0.95, 1.05)
    },
    "all rows equal": Fault(
        _changed(jaxinit.he_normal(), (64, 48), _first_row_everywhere), ("symmetric",)
    ),
    "two columns equal": Fault(
        _changed(jaxinit.he_normal(), (64, 48), _two_columns_alike), ("symmetric",)
    ),
    "one NaN in 1e6": Fault(
        _changed(jaxinit.he_normal(), MILLION, _one_nan), ("not-finite",)
    ),
    "stacked layers counted": Fault(
        _stacked,
        ("stacked",),
        _scanned,
        (_floats(BATCH, WIDTH),),
    ),
    "stacked layers counted, roles not known": Fault(_stacked, ("stacked",)),
    "query, key and value as one orthogonal matrix": Fault(
        _each(_QKV), ("fused",), _fused, (_SEQUENCE,)
    ),
    "an embedding of unit variance tied to logits": Fault(
        _each({"embedding": (jaxinit.normal(1.0), (500, WIDTH))}),
        ("embedding",),
        _tied,
        (_TOKENS,),
    ),
    "both kernels of every branch zero": Fault(
        _blocks(jaxinit.zeros, jaxinit.zeros),
        ("no-gradient",),
        _residual,
        (_floats(BATCH, WIDTH),),
    ),
    "24 branches that depth does not scale": Fault(
        _blocks(jaxinit.he_normal(), jaxinit.he_normal()),
        ("depth",),
        _residual,
        (_floats(BATCH, WIDTH),),
    ),
    "one layer of twelve drawn otherwise": Fault(_one_layer_apart, ("alone",)),
}
