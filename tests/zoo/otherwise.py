"""Plain functions: attentions, experts and windows that are computed otherwise."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    Use,
    bias,
    dense,
    embedding,
    every,
    floats,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
    one_of,
    scale,
    unknown,
)

B, T, N, D, F, O, V = 2, 6, 7, 12, 15, 4, 19  # noqa: E741
H, S = 3, 4
PARTS = {"q": "query", "k": "key", "v": "value"}


def attended(heads=H, size=S, residual=(0, 1)):
    """The truth of q, k, v and o, without biases."""
    inner = heads * size
    truth = {name: kernel(D, inner, part=part) for name, part in PARTS.items()}
    return truth | {"o": kernel(inner, D, part="attention output", residual=residual)}


def attention_params():
    return {"q": floats(D, H * S), "k": floats(D, H * S), "v": floats(D, H * S)} | {
        "o": floats(H * S, D)
    }


def parted(p, x):
    return (jnp.reshape(x @ p[c], (*x.shape[:2], H, S)) for c in "qkv")


@model
def attention_by_pieces() -> Model:
    """Keys and values by chunks in a scan, with a running maximum and a running sum."""
    chunk = 2

    def apply(p, ids):
        x = p["embed"][ids]
        q, k, v = parted(p, layer_norm(x, p["norm"]))
        k, v = (jnp.moveaxis(y.reshape(B, -1, chunk, H, S), 1, 0) for y in (k, v))

        def step(carry, inputs):
            most, total, out = carry
            i, k, v = inputs
            s = jnp.einsum("bthd,bchd->bhtc", q, k) / S**0.5
            seen = jnp.arange(T)[:, None] >= i * chunk + jnp.arange(chunk)
            s = jnp.where(seen, s, -1e30)
            new = jnp.maximum(most, s.max(-1))
            w, old = jnp.exp(s - new[..., None]), jnp.exp(most - new)
            out = out * old[..., None] + jnp.einsum("bhtc,bchd->bhtd", w, v)
            return (new, total * old + w.sum(-1), out), None

        start = (
            jnp.full((B, H, T), -1e30),
            jnp.zeros((B, H, T)),
            jnp.zeros((B, H, T, S)),
        )
        (_, total, y), _ = jax.lax.scan(step, start, (jnp.arange(T // chunk), k, v))
        y = jnp.moveaxis(y / total[..., None], 1, 2).reshape(B, T, H * S)
        return linear(p["head"], x + y @ p["o"])

    # Debatable: whether it is told without a softmax in one piece.
    part = one_of("attention output", None)
    return of_one_block(apply, o=kernel(H * S, D, part=part, residual=(0, 1)))


def of_one_block(apply, **others) -> Model:
    """Tokens, a norm, an attention and a head; `others` are truths that differ."""
    params = attention_params() | {
        "embed": floats(V, D),
        "norm": scales(D),
        "head": affine(D, V),
    }
    truth = attended() | {
        "embed": embedding(D),
        **norm("norm"),
        **dense("head", D, V, head=True),
    }
    return Model(apply, params, (integers(B, T),), truth | others)


@model
def attention_of_squares() -> Model:
    """Hua et al. 2022 (GAU): two scales and shifts make query and key of one kernel."""

    def apply(p, x):
        x = linear(p["enc"], x)
        h = layer_norm(x, p["norm"])
        u, v, z = (jax.nn.silu(h @ p[name]) for name in "uvz")
        q, k = (z * p["gamma"][i] + p["beta"][i] for i in range(2))
        a = jnp.square(jax.nn.relu(jnp.einsum("btd,bsd->bts", q, k) / T))
        x = x + (u * jnp.einsum("bts,bsd->btd", a, v)) @ p["o"]
        return linear(p["head"], x)

    params = {
        "enc": affine(N, D),
        "norm": scales(D),
        "u": floats(D, F),
        "v": floats(D, F),
        "z": floats(D, S),
        "gamma": floats(2, S),
        "beta": floats(2, S),
        "o": floats(F, D),
        "head": affine(D, O),
    }
    # Debatable: names of parts, where scores have no softmax and share a kernel.
    own = {"function": "silu", "part": ANY}
    truth = {
        **dense("enc", N, D),
        **norm("norm"),
        "u": kernel(D, F, **own),
        "v": kernel(D, F, **own),
        "z": kernel(D, S, **own),
        "gamma": [scale(1, stack_axis=0, multiplier=ANY, part=ANY)] * 2,
        "beta": [bias(ANY, 1, stack_axis=0, multiplier=ANY, part=ANY)] * 2,
        "o": kernel(F, D, residual=(0, 1), part=ANY),
        **dense("head", D, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def some_tokens_deeper() -> Model:
    """Raposo et al. 2024: a block for the tokens that a router likes best."""
    count = 3

    def apply(p, ids):
        x = p["embed"][ids]
        for q in p["blocks"]:
            score = (x @ q["router"])[..., 0]
            weight, places = jax.lax.top_k(score, count)
            h = jnp.take_along_axis(x, places[..., None], axis=1)
            h = jax.nn.gelu(linear(q["fc1"], layer_norm(h, q["norm"])))
            h = linear(q["fc2"], h) * jax.nn.sigmoid(weight)[..., None]
            x = x.at[jnp.arange(B)[:, None], places].add(h)
        return linear(p["head"], x)

    block = {
        "router": floats(D, 1),
        "norm": scales(D),
        "fc1": affine(D, F),
        "fc2": affine(F, D),
    }
    params = {"embed": floats(V, D), "blocks": [block] * 2, "head": affine(D, V)}
    # Debatable: a gate, by the letter; the router chooses, and it weighs.
    truth = {
        "embed": embedding(D),
        **every("blocks/{}/", 2, {
            "router": kernel(D, 1, function=ANY, part=ANY, residual=ANY),
            **norm("norm"),
            **dense("fc1", D, F, function="gelu"),
            "fc2/kernel": kernel(F, D, residual=WRITES, part=one_of("up", None)),
            "fc2/bias": bias("fc2/kernel", part=ANY),
        }),
        **dense("head", D, V, head=True),
    }  # fmt: skip
    return Model(apply, params, (integers(B, T),), truth)


@model
def turned_as_complex() -> Model:
    """Rotary positions as Llama's first code has them: pairs as complex numbers."""

    def turned(x):
        pairs = x.reshape(*x.shape[:-1], S // 2, 2)
        z = jax.lax.complex(pairs[..., 0], pairs[..., 1])
        angles = jnp.outer(jnp.arange(T), 0.1 ** jnp.arange(S // 2))
        z = z * jnp.exp(1j * angles)[:, None]
        return jnp.stack([z.real, z.imag], axis=-1).reshape(x.shape)

    def apply(p, ids):
        x = p["embed"][ids]
        q, k, v = parted(p, layer_norm(x, p["norm"]))
        s = jnp.einsum("bthd,bshd->bhts", turned(q), turned(k)) / S**0.5
        s = s + jnp.triu(jnp.full((T, T), -1e30), 1)
        y = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(s), v)
        return linear(p["head"], x + y.reshape(B, T, H * S) @ p["o"])

    return of_one_block(apply)


@model
def windows_with_the_last() -> Model:
    """Sliding windows: each chunk of queries has its own keys and those before it."""
    chunk = 2

    def apply(p, ids):
        x = p["embed"][ids]
        q, k, v = parted(p, layer_norm(x, p["norm"]))
        q, k, v = (y.reshape(B, T // chunk, chunk, H, S) for y in (q, k, v))

        def with_last(y):
            last = jnp.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))[:, :-1]
            return jnp.concatenate([last, y], axis=2)

        s = jnp.einsum("bnqhd,bnkhd->bnhqk", q, with_last(k)) * S**-0.5
        apart = jnp.arange(chunk)[:, None] + chunk - jnp.arange(2 * chunk)
        s = jnp.where((apart >= 0) & (apart < chunk), s, -jnp.inf)
        y = jnp.einsum("bnhqk,bnkhd->bnqhd", jax.nn.softmax(s), with_last(v))
        return linear(p["head"], x + y.reshape(B, T, H * S) @ p["o"])

    return of_one_block(apply)


@model
def soft_tree() -> Model:
    """Frosst and Hinton 2017: probabilities of paths weigh the values of leaves."""
    depth = 3

    def apply(p, x):
        right = jax.nn.sigmoid(linear(p["inner"], x))
        paths = jnp.ones((B, 1))
        for level in range(depth):
            d = right[:, 2**level - 1 : 2 ** (level + 1) - 1]
            paths = jnp.stack([paths * d, paths * (1 - d)], axis=-1).reshape(B, -1)
        return paths @ p["leaves"]

    params = {"inner": affine(N, 7), "leaves": floats(8, O)}
    truth = {
        # Debatable: gates of paths; each level is a part of it.
        "inner/kernel": kernel(N, 7, function="sigmoid", part=ANY, sections=ANY),
        "inner/bias": bias("inner/kernel", part=ANY, sections=ANY),
        "leaves": kernel(8, O, head=True),
    }
    return Model(apply, params, (floats(B, N),), truth)


@model
def distances_to_centers() -> Model:
    """Arandjelovic et al. 2016 (NetVLAD), and a mean whose exponent is a leaf."""
    centers = 5

    def unit(x):
        return x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)

    def apply(p, x):
        h = unit(linear(p["enc"], x))
        a = jax.nn.softmax(linear(p["assign"], h))
        apart = h[:, :, None] - p["centers"]
        v = unit(jnp.einsum("btk,btkd->bkd", a, apart)).reshape(B, -1)
        y = jnp.maximum(linear(p["pool"], x), 1e-6) ** p["exponent"]
        y = y.mean(1) ** (1 / p["exponent"])
        return linear(p["out"], v) + linear(p["beside"], y)

    params = {
        "enc": affine(N, D),
        "assign": affine(D, centers),
        "centers": floats(centers, D),
        "pool": affine(N, 8),
        "exponent": floats(),
        "out": affine(centers * D, O),
        "beside": affine(8, O),
    }
    truth = {
        **dense("enc", N, D),
        # Debatable: it weighs centers as a router does experts.
        "assign/kernel": kernel(D, centers, part=ANY),
        "assign/bias": bias("assign/kernel", part=ANY),
        # Centers are no positions of what they are subtracted from.
        "centers": unknown(),
        **dense("pool", N, 8, function=ANY),
        "exponent": unknown(),
        **dense("out", centers * D, O, head=True),
        **dense("beside", 8, O, head=True),
    }
    return Model(apply, params, (floats(B, T, N),), truth)


@model
def kernels_of_places() -> Model:
    """A layer connected locally, then kernels of distances between places."""

    def apply(p, x):
        h = jax.lax.conv_general_dilated_local(
            x, p["local"], (1, 1), "VALID", (3, 3),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        h = jax.nn.relu(h + p["local_bias"]).reshape(B, -1, 6)
        count = h.shape[1]
        apart = jnp.arange(count)[:, None] - jnp.arange(count) + count - 1
        h = jnp.tanh(jnp.einsum("ts,bsd->btd", p["toeplitz"][apart], h))
        return linear(p["out"], h.mean(1))

    params = {
        "local": floats(3, 4, 9 * 2, 6),
        "local_bias": floats(3, 4, 6),
        "toeplitz": floats(23),
        "out": affine(6, O),
    }
    truth = {
        # A kernel of its own at each place.
        "local": kernel(18, 6, 2, 3, "relu", batch_axis=(0, 1)),
        # Debatable: a bias of each kernel, or of each place.
        "local_bias": Use(one_of("bias", "position"), ANY, ANY, ANY, of=ANY),
        # Its numbers are looked up: a kernel, without axes of its own.
        "toeplitz": kernel(12, ANY, ANY, ANY, "tanh"),
        **dense("out", 6, O, head=True),
    }
    return Model(apply, params, (floats(B, 5, 6, 2),), truth)


@model
def averages_of_depths() -> Model:
    """Pagliardini et al. 2024 (DenseFormer): numbers weigh what all layers gave."""

    def apply(p, x):
        x = linear(p["enc"], x)
        seen = [x]
        for i, q in enumerate(p["layers"]):
            h = jax.nn.gelu(linear(q["fc1"], layer_norm(x, q["norm"])))
            seen.append(x + linear(q["fc2"], h))
            x = sum(p["weights"][i, j] * y for j, y in enumerate(seen))
        return linear(p["out"], x)

    layer = {"norm": scales(D), "fc1": affine(D, F), "fc2": affine(F, D)}
    params = {
        "enc": affine(N, D),
        "layers": [layer] * 2,
        "weights": floats(2, 3),
        "out": affine(D, O),
    }
    truth = {
        **dense("enc", N, D),
        **every("layers/{}/", 2, {
            **norm("norm"),
            **dense("fc1", D, F, function="gelu"),
            # Debatable: streams that are mixed anew behind every layer.
            **dense("fc2", F, D, residual=ANY),
        }),
        # Its products with activations are summed.
        "weights": unknown(),
        **dense("out", D, O, head=True),
    }  # fmt: skip
    return Model(apply, params, (floats(B, N),), truth)


@model
def experts_added_up() -> Model:
    """A scan over experts that adds what each says, times its gate, to a sum."""
    count = 3

    def apply(p, x):
        gates = jax.nn.softmax(x @ p["router"])

        def step(total, inputs):
            up, up_bias, down, gate = inputs
            y = jax.nn.gelu(x @ up + up_bias) @ down
            return total + gate[:, None] * y, None

        each = (p["up"], p["up_bias"], p["down"], gates.T)
        y, _ = jax.lax.scan(step, jnp.zeros_like(x), each)
        return linear(p["out"], x + y)

    params = {
        "router": floats(D, count),
        "up": floats(count, D, F),
        "up_bias": floats(count, F),
        "down": floats(count, F, D),
        "out": affine(D, O),
    }
    truth = {
        "router": kernel(D, count, part=one_of("router", "gate")),
        # What the loop adds up, it does side by side.
        "up": kernel(D, F, 1, 2, "gelu", batch_axis=0),
        "up_bias": bias("up", 1, batch_axis=0),
        # Debatable: one addition, or one of each expert.
        "down": kernel(F, D, 1, 2, batch_axis=0, residual=ANY, part=ANY),
        **dense("out", D, O, head=True),
    }
    return Model(apply, params, (floats(8, D),), truth)


@model
def filters_of_channels() -> Model:
    """jnp.convolve mapped over channels and the batch, before kernels of channels."""

    def apply(p, x):
        def filtered(x, w):
            return jnp.convolve(x, w, mode="same")

        h = jax.vmap(jax.vmap(filtered), (0, None))(x, p["filters"])
        h = jax.nn.relu(h + p["bias"][:, None])
        return linear(p["out"], h.mean(-1))

    params = {"filters": floats(N, 3), "bias": floats(N), "out": affine(N, O)}
    truth = {
        # Debatable: channels are features, or a batch of filters.
        "filters": Use("convolution", (), ANY, ANY, (), 1, 3, 3, ANY, function="relu"),
        "bias": bias("filters", ANY, batch_axis=ANY),
        **dense("out", N, O, head=True),
    }
    return Model(apply, params, (floats(B, N, 10),), truth)
