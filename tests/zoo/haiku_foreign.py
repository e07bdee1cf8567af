"""Haiku: models of other people's code bases, with its modules and its parameters."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import window
from zoo.haiku_models import linear, normalized, of_haiku
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    cut,
    embedding,
    floats,
    integers,
    kernel,
    model,
    position,
    scale,
    stacked,
)

B, T, D, F, O, V = 2, 6, 12, 15, 4, 19  # noqa: E741


@model
def causal_windows() -> Model:
    """A temporal network: dilated causal windows, gates of tanh and sigmoid, skips."""
    import haiku as hk

    def fun(x):
        x = hk.Conv1D(D, 1, name="start")(x)
        skips = 0.0
        for i in range(2):
            z = hk.Conv1D(2 * F, 2, rate=2**i, padding=hk.pad.causal, name=f"dil_{i}")(
                x
            )
            a, b = jnp.split(z, 2, axis=-1)
            z = jnp.tanh(a) * jax.nn.sigmoid(b)
            skips = skips + hk.Conv1D(8, 1, name=f"skip_{i}")(z)
            if i == 0:
                x = x + hk.Conv1D(D, 1, name=f"res_{i}")(z)
        return hk.Conv1D(O, 1, name="end")(jax.nn.relu(skips))

    one = {"names": ("w", "b"), "spatial_axis": 0, "in_axis": 1, "out_axis": 2}
    halves = [
        (2, ((0, F),), ANY, "tanh"),
        (2, ((F, 2 * F),), "gate", "sigmoid"),
    ]
    truth = {
        **window("start", 7, D, **one),
        **window("res_0", F, D, residual=(0, 1), **one),
        **window("end", 8, O, head=True, **one),
    }
    for i in range(2):
        truth |= window(
            f"dil_{i}", 2 * D, 4 * F, **one | {"function": ANY}, sections=halves
        )
        truth[f"dil_{i}/b"] = bias(f"dil_{i}/w", sections=ANY)
        # Debatable: a sum of skips that begins at nothing.
        truth |= window(f"skip_{i}", F, 8, function="relu", residual=ANY, **one)
    return of_haiku(fun, [floats(B, T, 7)], truth)


@model
def stacked_gated_layers() -> Model:
    """layer_stack with parameters of one's own, and a bias behind the sum."""
    import haiku as hk

    layers = 3

    def fun(ids):
        zeros = hk.initializers.Constant(0.0)
        x = hk.Embed(V, D, name="tok")(ids)
        x = x + hk.get_parameter("pos", [1, T, D], init=zeros)

        def layer(x):
            h = hk.RMSNorm(-1, name="n")(x)
            w = hk.get_parameter("w_in", [2, D, F], init=zeros)
            g, u = jnp.einsum("btd,gdf->gbtf", h, w)
            h = jax.nn.sigmoid(g) * u
            return x + hk.Linear(D, with_bias=False, name="o")(h)

        x = hk.experimental.layer_stack(layers, name="deep")(layer)(x)
        return hk.Bias(bias_dims=[-1], name="b")(
            hk.Linear(O, with_bias=False, name="y")(x)
        )

    block = {
        "n/scale": scale(),
        "~/w_in": kernel(
            D,
            2 * F,
            1,
            (0, 2),
            ANY,
            sections=[
                (0, ((0, 1),), "gate", "sigmoid"),
                (0, ((1, 2),), "up", "identity"),
            ],
        ),
        "o/w": kernel(F, D, residual=(0, layers)),
    }
    truth = {
        "tok/embeddings": embedding(D),
        "~/pos": position(1, 2),
        **below("deep/", stacked(block)),
        "y/w": kernel(D, O, head=True),
        "b/b": bias("y/w"),
    }
    return of_haiku(fun, [integers(B, T)], truth)


@model
def agent_with_memory() -> Model:
    """R2D2: windows, an LSTM with the last action beside, a dueling pair of heads."""
    import haiku as hk

    actions, state = 4, 9

    def fun(frames, last):
        x = hk.BatchApply(
            hk.Sequential(
                [
                    hk.Conv2D(5, 3, 2, name="c1"),
                    jax.nn.relu,
                    hk.Flatten(),
                    hk.Linear(11, name="flat"),
                    jax.nn.relu,
                ]
            )
        )(frames)
        x = jnp.concatenate([x, jax.nn.one_hot(last, actions)], axis=-1)
        core = hk.LSTM(state, name="core")
        x, _ = hk.dynamic_unroll(core, x, core.initial_state(B))
        v = hk.Linear(1, name="value")(jax.nn.relu(hk.Linear(8, name="v_hidden")(x)))
        a = hk.Linear(actions, name="adv")(
            jax.nn.relu(hk.Linear(8, name="a_hidden")(x))
        )
        return v + a - a.mean(-1, keepdims=True)

    names = ("w", "b")
    parts = ("input gate", "cell", "forget gate", "output gate")
    rows = 11 + actions + state
    rows_cut = [
        (0, ((0, 11 + actions),), "input", ANY),
        (0, ((11 + actions, rows),), "recurrent", ANY),
    ]
    offsets = [(0, *section[1:3], None) for section in cut(0, state, parts)]
    truth = {
        **window("c1", 27, 45, names, function="relu"),
        **linear("flat", 4 * 4 * 5, 11, function="relu"),
        "core/linear/w": kernel(
            rows, 4 * state, function=ANY, recurrent=True,
            sections=rows_cut + cut(1, state, parts),
        ),
        "core/linear/b": bias("core/linear/w", sections=offsets),
        **linear("v_hidden", state, 8, function="relu"),
        **linear("value", 8, 1, head=True),
        **linear("a_hidden", state, 8, function="relu"),
        **linear("adv", 8, actions, head=True),
    }  # fmt: skip
    inputs = [floats(T, B, 8, 8, 3), integers(T, B)]
    return of_haiku(fun, inputs, truth)


@model
def pooled_by_attention() -> Model:
    """Query, key and value from three places; a batch norm in a residual MLP."""
    import haiku as hk

    def fun(x, q):
        x = hk.Linear(D, name="x")(x)
        q = hk.Linear(D, name="q")(q)[:, None]
        init = hk.initializers.VarianceScaling(1.0)
        att = hk.MultiHeadAttention(3, 4, w_init=init, model_size=D, name="pool")
        y = att(q, x, x)[:, 0]
        for i in range(2):
            h = hk.BatchNorm(True, True, 0.9, name=f"bn_{i}")(y, is_training=True)
            h = hk.Linear(F, name=f"a_{i}")(jax.nn.relu(h))
            y = y + hk.Linear(D, name=f"b_{i}")(jax.nn.relu(h))
        return hk.nets.MLP([8, O], activation=jnp.tanh, name="mlp")(y)

    truth = {
        **linear("x", 7, D),
        **linear("q", 5, D),
        **linear("pool/query", D, 12, part="query"),
        **linear("pool/key", D, 12, part="key"),
        **linear("pool/value", D, 12, part="value"),
        **linear("pool/linear", 12, D, part="attention output"),
        **linear("mlp/~/linear_0", D, 8, function="tanh"),
        **linear("mlp/~/linear_1", 8, O, head=True),
    }
    for i in range(2):
        truth |= {f"bn_{i}/scale": scale(1), f"bn_{i}/offset": bias(None, 1)}
        truth |= linear(f"a_{i}", D, F, function="relu")
        truth |= linear(f"b_{i}", F, D, residual=(i, 2))
    return of_haiku(fun, [floats(B, T, 7), floats(B, 5)], truth)


@model
def upsampled_vectors() -> Model:
    """A generator of transposed windows with instance norms, conditioned by a label."""
    import haiku as hk

    def fun(z, y):
        e = hk.Embed(6, 5, name="label")(y)
        x = hk.Linear(4 * 4 * 8, name="seed")(jnp.concatenate([z, e], axis=-1))
        x = jax.nn.relu(x.reshape(B, 4, 4, 8))
        x = hk.Conv2DTranspose(6, 4, 2, name="t1")(x)
        x = jax.nn.relu(hk.InstanceNorm(True, True, name="in1")(x))
        x = hk.Conv2DTranspose(3, 4, 2, name="t2")(x)
        return jax.nn.sigmoid(x)

    # Transposed windows keep (outputs, inputs): one output has a quarter of the window.
    names, axes = ("w", "b"), {"in_axis": 3, "out_axis": 2, "transposed": True}
    truth = {
        "label/embeddings": embedding(5),
        **linear("seed", 12, 128, function="relu"),
        **window("t1", 4 * 8, 16 * 6, names, **axes),
        **normalized("in1"),
        **window("t2", 4 * 6, 16 * 3, names, function="sigmoid", head=True, **axes),
    }
    return of_haiku(fun, [floats(B, 7), integers(B)], truth)
