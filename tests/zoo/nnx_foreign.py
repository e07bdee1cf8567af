"""Flax NNX: modules with lists, dictionaries and names that say little."""

import jax.numpy as jnp

from zoo.flax_layers import attention
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    UNNAMED,
    Model,
    below,
    bias,
    convolution,
    cut,
    dense,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    position,
    scale,
    stacked,
    token,
    unknown,
)

B, T, D, F, O, V = 2, 6, 12, 15, 4, 19  # noqa: E741


@model
def students_and_teachers() -> Model:
    """DeiT: a class token and a distillation token, each with its own head."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.n1, self.n2 = nnx.LayerNorm(D, rngs=rngs), nnx.LayerNorm(D, rngs=rngs)
            self.att = nnx.MultiHeadAttention(3, D, decode=False, rngs=rngs)
            self.a = nnx.Linear(D, F, rngs=rngs)
            self.b = nnx.Linear(F, D, rngs=rngs)

        def __call__(self, x):
            x = x + self.att(self.n1(x))
            return x + self.b(nnx.gelu(self.a(self.n2(x))))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.patch = nnx.Conv(3, D, (4, 4), (4, 4), padding="VALID", rngs=rngs)
            self.cls = nnx.Param(jnp.zeros((1, 1, D)))
            self.dist = nnx.Param(jnp.zeros((1, 1, D)))
            self.pos = nnx.Param(jnp.zeros((1, 6, D)))
            self.blocks = nnx.List([Block(rngs) for _ in range(2)])
            self.norm = nnx.LayerNorm(D, rngs=rngs)
            self.h1, self.h2 = (nnx.Linear(D, O, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            x = self.patch(x).reshape(B, 4, D)
            two = [jnp.tile(t[...], (B, 1, 1)) for t in (self.cls, self.dist)]
            x = jnp.concatenate([*two, x], axis=1) + self.pos[...]
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            return (self.h1(x[:, 0]) + self.h2(x[:, 1])) / 2

    block = {
        **norm("n1"),
        **norm("n2"),
        **attention("att", D, 3, 4, (0, 4), scaled=False),
        **dense("a", D, F, function="gelu"),
        **dense("b", F, D, residual=(1, 4)),
    }
    truth = {
        "patch/kernel": convolution(48, 16 * D),
        "patch/bias": bias("patch/kernel"),
        "cls": token(D, ANY, 2),
        "dist": token(D, ANY, 2),
        "pos": position(1, 2),
        **every("blocks/{}/", 2, block),
        **norm("norm"),
        **dense("h1", D, O, head=True, multiplier=ANY),
        **dense("h2", D, O, head=True, multiplier=ANY),
    }
    for name in ("h1", "h2"):
        truth[f"{name}/bias"] = bias(f"{name}/kernel", multiplier=ANY)
    return of_nnx(Net, [floats(B, 8, 8, 3)], truth)


@model
def rows_and_columns() -> Model:
    """GMLP without a gate: nnx.Einsum for heads, and a mixing of tokens by einsum."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.tok = nnx.Embed(V, D, rngs=rngs)
            self.up = nnx.Einsum("btd,dhk->bthk", (D, 3, 5), (3, 5), rngs=rngs)
            self.mix = nnx.Param(jnp.zeros((3, T, T)))
            self.down = nnx.Einsum("bthk,hkd->btd", (3, 5, D), None, rngs=rngs)
            self.out = nnx.LinearGeneral(D, (2, O), rngs=rngs)

        def __call__(self, ids):
            x = self.tok(ids)
            h = nnx.tanh(self.up(x))
            h = jnp.einsum("hts,bshk->bthk", self.mix[...], h)
            return self.out(x + self.down(h))

    truth = {
        "tok/embedding": embedding(D),
        "up/kernel": kernel(D, 15, 0, (1, 2), "tanh"),
        "up/bias": bias("up/kernel", (0, 1)),
        # A kernel for each head, along tokens.
        "mix": kernel(T, T, 2, 1, batch_axis=0),
        "down/kernel": kernel(15, D, (0, 1), 2, residual=(0, 1)),
        "out/kernel": kernel(D, 2 * O, 0, (1, 2), head=True),
        "out/bias": bias("out/kernel", (0, 1)),
    }
    return of_nnx(Net, [integers(B, T)], truth)


@model
def ensemble_by_vmap() -> Model:
    """nnx.vmap of networks, on bootstrapped inputs of their own."""
    from flax import nnx

    members = 3

    class Member(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(7, F, rngs=rngs)
            self.n = nnx.RMSNorm(F, rngs=rngs)
            self.b = nnx.Linear(F, 2, rngs=rngs)

        def __call__(self, x):
            return self.b(self.n(nnx.softplus(self.a(x))))

    class Net(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=members)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs):
                return Member(rngs)

            self.members = make(rngs)

        def __call__(self, x):
            y = nnx.vmap(lambda m, x: m(x), in_axes=(0, 0), out_axes=0)(self.members, x)
            return y.mean(0), y.var(0)

    own = {"batch_axis": 0}
    # Debatable: a mean over members may belong to the kernel, or not.
    truth = {
        "members/a/kernel": kernel(7, F, 1, 2, "softplus", **own),
        "members/a/bias": bias("members/a/kernel", 1, **own),
        "members/n/scale": scale(1, **own),
        "members/b/kernel": kernel(F, 2, 1, 2, ANY, head=True, multiplier=ANY, **own),
        "members/b/bias": bias("members/b/kernel", 1, multiplier=ANY, **own),
    }
    return of_nnx(Net, [floats(members, B, 7)], truth)


@model
def scanned_cell() -> Model:
    """nnx.RNN of an OptimizedLSTMCell, and a GRU cell under one's own loop."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx.GRUCell(7, 9, rngs=rngs), rngs=rngs)
            self.read = nnx.Linear(9, O, rngs=rngs)

        def __call__(self, x):
            return self.read(nnx.relu(self.rnn(x)))

    parts = ("reset gate", "update gate", "candidate")
    own = cut(1, 9, parts)
    truth = {
        "rnn/cell/dense_i/kernel": kernel(7, 27, function=ANY, sections=own),
        "rnn/cell/dense_i/bias": bias(
            "rnn/cell/dense_i/kernel",
            sections=[(0, *section[1:3], None) for section in own],
        ),
        # The candidate's part of the state meets the reset gate before the tanh.
        "rnn/cell/dense_h/kernel": kernel(
            9,
            27,
            function=ANY,
            recurrent=True,
            sections=cut(1, 9, parts, candidate="identity"),
        ),
        **dense("read", 9, O, head=True),
    }
    return of_nnx(Net, [floats(B, T, 7)], truth)


@model
def scaled_stack() -> Model:
    """Scanned layers with LayerScale in the stack, and a norm after each branch."""
    from flax import nnx

    layers = 3

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.w = nnx.Linear(D, F, use_bias=False, rngs=rngs)
            self.v = nnx.Linear(F, D, use_bias=False, rngs=rngs)
            self.n = nnx.RMSNorm(D, rngs=rngs)
            self.s = nnx.Param(jnp.ones(D))

        def __call__(self, x):
            return x + self.s[...] * self.n(self.v(jnp.square(nnx.relu(self.w(x)))))

    class Net(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=layers)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs):
                return Block(rngs)

            self.first = nnx.Linear(7, D, rngs=rngs)
            self.layers = make(rngs)
            self.last = nnx.Linear(D, O, rngs=rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def run(block, x):
                return block(x)

            return self.last(run(self.layers, self.first(x)))

    block = {
        "w/kernel": kernel(D, F, function=UNNAMED),
        "v/kernel": kernel(F, D, residual=(0, layers)),
        "n/scale": scale(),
        "s": gate(0),
    }
    truth = {
        **dense("first", 7, D),
        **below("layers/", stacked(block)),
        **dense("last", D, O, head=True),
    }
    return of_nnx(Net, [floats(B, 7)], truth)


@model
def towers_of_words() -> Model:
    """A shared tower for two texts, bags of words, cosines, a temperature."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(V, 7, rngs=rngs)
            self.a = nnx.Linear(7, F, rngs=rngs)
            self.b = nnx.Linear(F, 5, rngs=rngs)
            self.t = nnx.Param(jnp.zeros(()))

        def tower(self, ids):
            x = self.b(nnx.elu(self.a(self.words(ids).mean(1))))
            return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

        def __call__(self, one, two):
            like = jnp.einsum("id,jd->ij", self.tower(one), self.tower(two))
            return like * jnp.exp(self.t[...])

    # Debatable: whether a product of two towers is a contraction that follows.
    truth = {
        "words/embedding": [embedding(7, multiplier=ANY)] * 2,
        "a/kernel": [kernel(7, F, function="elu")] * 2,
        "a/bias": [bias("a/kernel")] * 2,
        "b/kernel": [kernel(F, 5, function=ANY, head=ANY)] * 2,
        "b/bias": [bias("b/kernel")] * 2,
        "t": unknown(),
    }
    return of_nnx(Net, [integers(B, T), integers(B, T)], truth)
