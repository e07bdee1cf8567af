"""All frameworks: examples of published packages, in their own way of computing."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import image, of_equinox
from zoo.equinox_models import linear as equinox_linear
from zoo.flax_layers import lstm, of_linen, window
from zoo.haiku_models import linear, of_haiku
from zoo.nnx_models import of_nnx
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    Use,
    bias,
    convolution,
    dense,
    embedding,
    every,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    scale,
    shift,
    token,
    unused,
)

B, T, N, D, F, O, V = 2, 6, 7, 12, 15, 4, 19  # noqa: E741


@model
def sentiment_of_sentences() -> Model:
    """Flax's SST-2: LSTMs both ways, an attention of keys alone, masked by lengths."""
    from flax import linen as nn

    size = 8

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids, lengths):
            x = nn.Embed(V, D, name="embed")(ids)
            there = nn.RNN(nn.OptimizedLSTMCell(size, name="there"))
            back = nn.RNN(
                nn.OptimizedLSTMCell(size, name="back"), reverse=True, keep_order=True
            )
            x = jnp.concatenate(
                [there(x, seq_lengths=lengths), back(x, seq_lengths=lengths)], axis=-1
            )
            h = jnp.tanh(nn.Dense(F, use_bias=False, name="keys")(x))
            scores = nn.Dense(1, use_bias=False, name="energy")(h).squeeze(-1)
            mask = jnp.arange(T)[None] < lengths[:, None]
            weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
            context = (weights[:, None] @ x).squeeze(1)
            h = jnp.tanh(nn.Dense(F, name="hidden")(context))
            return nn.Dense(O, name="logits")(h)

    truth = {
        "embed/embedding": embedding(D),
        **lstm("there", D, size),
        **lstm("back", D, size),
        # Debatable: names of the parts of additive scores.
        "keys/kernel": kernel(2 * size, F, function="tanh", part=ANY),
        "energy/kernel": kernel(F, 1, part=ANY),
        # Debatable: it is the first kernel after the weighted sum.
        **dense("hidden", 2 * size, F, function="tanh", part=ANY),
        **dense("logits", F, O, head=True),
    }
    return of_linen(Net(), [integers(B, T), integers(B)], truth)


@model
def sums_in_digits() -> Model:
    """Flax's seq2seq: the decoder's cell carries a prediction that teachers replace."""
    from flax import linen as nn

    size = 9

    class Step(nn.RNNCellBase):
        @nn.compact
        def __call__(self, carry, x):
            state, _ = carry
            state, y = nn.LSTMCell(size, name="lstm")(state, x)
            logits = nn.Dense(V, name="projection")(y)
            guess = jax.nn.one_hot(jnp.argmax(logits, axis=-1), V)
            return (state, guess), logits

        @property
        def num_feature_axes(self):
            return 1

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, y):
            read = nn.RNN(nn.LSTMCell(size, name="encoder"), return_carry=True)
            state, _ = read(x)
            step = Step(name="decoder")
            return nn.RNN(step)(y[:, :-1], initial_carry=(state, y[:, 0]))

    truth = {
        **lstm("encoder", V, size),
        **lstm("decoder/lstm", V, size),
        # What is guessed is carried, but nobody reads it.
        **dense("decoder/projection", size, V, head=True),
    }
    return of_linen(Net(), [floats(B, T, V), floats(B, 5, V)], truth)


@model
def graphs_with_globals() -> Model:
    """Flax's ogbg_molpcba: edges, nodes and globals in turn, with skips and norms."""
    from flax import linen as nn

    nodes, edges, graphs, size, steps = 7, 11, 2, 8, 2

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.relu(nn.Dense(size)(x))
            return x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, n, e, g, senders, receivers, of_node, of_edge):
            n = nn.Dense(size, name="nodes")(n)
            e = nn.Dense(size, name="edges")(e)
            g = nn.Dense(size, name="globals")(g)
            for i in range(steps):
                gathered = [e, n[senders], n[receivers], g[of_edge]]
                e_new = MLP(name=f"edge_{i}")(jnp.concatenate(gathered, axis=-1))
                sent = jax.ops.segment_sum(e_new, senders, nodes)
                received = jax.ops.segment_sum(e_new, receivers, nodes)
                gathered = [n, sent, received, g[of_node]]
                n_new = MLP(name=f"node_{i}")(jnp.concatenate(gathered, axis=-1))
                pooled = [
                    jax.ops.segment_sum(n_new, of_node, graphs),
                    jax.ops.segment_sum(e_new, of_edge, graphs),
                    g,
                ]
                g_new = MLP(name=f"global_{i}")(jnp.concatenate(pooled, axis=-1))
                n = nn.LayerNorm(name=f"norm_n{i}")(n + n_new)
                e = nn.LayerNorm(name=f"norm_e{i}")(e + e_new)
                g = nn.LayerNorm(name=f"norm_g{i}")(g + g_new)
            return nn.Dense(O, name="out")(g)

    truth = {
        **dense("nodes", 5, size),
        **dense("edges", 3, size),
        **dense("globals", 4, size),
        **dense("out", size, O, head=True),
    }
    for i in range(steps):
        for name, parts in (("edge", 4), ("node", 4), ("global", 3)):
            truth |= {
                **dense(f"{name}_{i}/Dense_0", parts * size, size, function="relu"),
                # Debatable: streams that feed each other, behind a relu.
                **dense(
                    f"{name}_{i}/Dense_1", size, size, function="relu", residual=ANY
                ),
            }
        for name in "neg":
            truth |= norm(f"norm_{name}{i}")
    # Nobody reads the nodes and edges of the last step.
    for name in "ne":
        truth[f"norm_{name}{steps - 1}/scale"] = unused()
        truth[f"norm_{name}{steps - 1}/bias"] = unused()
    inputs = [floats(nodes, 5), floats(edges, 3), floats(graphs, 4)]
    inputs += [integers(edges), integers(edges), integers(nodes), integers(edges)]
    return of_linen(Net(), inputs, truth)


@model
def topics_of_documents() -> Model:
    """NumPyro's ProdLDA: an encoder of counts, batch norms without leaves, topics."""
    from flax import linen as nn

    topics = 5

    def norm_only(name):
        return nn.BatchNorm(False, use_bias=False, use_scale=False, name=name)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, counts, noise):
            h = nn.softplus(nn.Dense(F, name="fc1")(counts))
            h = nn.softplus(nn.Dense(11, name="fc2")(h))
            mean = norm_only("bn1")(nn.Dense(topics, name="mean")(h))
            spread = norm_only("bn2")(nn.Dense(topics, name="spread")(h))
            z = jax.nn.softmax(mean + noise * jnp.exp(spread / 2))
            h = nn.Dense(V, use_bias=False, name="words")(z)
            return jax.nn.log_softmax(norm_only("bn3")(h)), mean, spread

    # Debatable: both are outputs and lead to others; the noise is multiplied.
    open_ = {"function": ANY, "head": ANY, "part": ANY, "multiplier": ANY}
    truth = {
        **dense("fc1", V, F, function="softplus"),
        **dense("fc2", F, 11, function="softplus"),
        "mean/kernel": kernel(11, topics, residual=ANY, **open_),
        "mean/bias": bias("mean/kernel", part=ANY, multiplier=ANY),
        "spread/kernel": kernel(11, topics, residual=ANY, **open_),
        "spread/bias": bias("spread/kernel", part=ANY, multiplier=ANY),
        "words/kernel": kernel(topics, V, head=True),
    }
    return of_linen(Net(), [floats(B, V), floats(B, topics)], truth)


@model
def implicit_quantiles() -> Model:
    """Dabney et al. 2018 (IQN): cosines of a quantile multiply the state's features."""
    import haiku as hk

    def fun(x, taus):
        x = jax.nn.relu(hk.Conv2D(6, 4, 2, padding="VALID", name="conv")(x))
        x = hk.Flatten()(x)
        angles = jnp.pi * jnp.arange(1, 9) * taus[..., None]
        h = jax.nn.relu(hk.Linear(54, name="quantile")(jnp.cos(angles)))
        h = jax.nn.relu(hk.Linear(F, name="hidden")(x[:, None] * h))
        q = hk.Linear(O, name="values")(h)
        return q, q.mean(1)

    truth = {
        # Debatable: two factors with a ReLU each.
        **window("conv", 48, 96, ("w", "b"), function="relu", part=ANY),
        **linear("quantile", 8, 54, function="relu", part=ANY),
        **linear("hidden", 54, F, function="relu"),
        **linear("values", F, O, head=True),
    }
    truth["conv/b"] = bias("conv/w", part=ANY)
    truth["quantile/b"] = bias("quantile/w", part=ANY)
    return of_haiku(fun, [floats(B, 8, 8, 3), floats(B, 5)], truth)


@model
def mixer_of_scores() -> Model:
    """Equinox's score-based diffusion: Mixer2d, whose image has time as a channel."""
    import equinox as eqx

    channels, hidden, patch, inside, blocks = 3, 8, 2, (11, 13), 2
    places = 12

    class Block(eqx.Module):
        patch_mixer: eqx.nn.MLP
        hidden_mixer: eqx.nn.MLP
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm

        def __init__(self, key):
            self.patch_mixer = eqx.nn.MLP(places, places, inside[0], 1, key=key)
            self.hidden_mixer = eqx.nn.MLP(hidden, hidden, inside[1], 1, key=key)
            self.norm1 = eqx.nn.LayerNorm((hidden, places))
            self.norm2 = eqx.nn.LayerNorm((places, hidden))

        def __call__(self, y):
            y = y + jax.vmap(self.patch_mixer)(self.norm1(y))
            y = y.T
            y = y + jax.vmap(self.hidden_mixer)(self.norm2(y))
            return y.T

    class Net(eqx.Module):
        conv_in: eqx.nn.Conv2d
        conv_out: eqx.nn.ConvTranspose2d
        blocks: list
        norm: eqx.nn.LayerNorm

        def __init__(self, key):
            self.conv_in = eqx.nn.Conv2d(
                channels + 1, hidden, patch, stride=patch, key=key
            )
            self.conv_out = eqx.nn.ConvTranspose2d(
                hidden, channels, patch, stride=patch, key=key
            )
            self.blocks = [Block(key) for _ in range(blocks)]
            self.norm = eqx.nn.LayerNorm((hidden, places))

        def __call__(self, y, t):
            t = jnp.broadcast_to(t / 10.0, (1, *y.shape[1:]))
            y = self.conv_in(jnp.concatenate([y, t]))
            _, rows, columns = y.shape
            y = y.reshape(hidden, -1)
            for block in self.blocks:
                y = block(y)
            return self.conv_out(self.norm(y).reshape(hidden, rows, columns))

    both = {"out_axis": (0, 1)}
    block = {
        "norm1/weight": scale(**both),
        "norm1/bias": shift(**both),
        **equinox_linear("patch_mixer/layers/0", places, inside[0], function="relu"),
        **equinox_linear("patch_mixer/layers/1", inside[0], places, residual=(0, 4)),
        "norm2/weight": scale(**both),
        "norm2/bias": shift(**both),
        **equinox_linear("hidden_mixer/layers/0", hidden, inside[1], function="relu"),
        **equinox_linear("hidden_mixer/layers/1", inside[1], hidden, residual=(1, 4)),
    }
    truth = {
        **image("conv_in", (channels + 1) * 4, hidden * 4),
        **every("blocks/{}/", blocks, block),
        "norm/weight": scale(**both),
        "norm/bias": shift(**both),
        **image("conv_out", hidden, channels * 4, transposed=True, head=True),
    }
    return of_equinox(Net, [floats(B, channels, 6, 8), floats(B)], truth)


@model
def larger_by_shuffling() -> Model:
    """Lim et al. 2017 (EDSR), NNX: branches times 0.1, pixels made of channels."""
    from flax import nnx

    size = 8

    class Net(nnx.Module):
        def __init__(self, rngs):
            def conv(a, b):
                return nnx.Conv(a, b, (3, 3), rngs=rngs)

            self.head = conv(3, size)
            self.blocks = nnx.List(
                [nnx.List([conv(size, size), conv(size, size)]) for _ in range(2)]
            )
            self.body = conv(size, size)
            self.up = conv(size, 4 * size)
            self.tail = conv(size, 3)

        def __call__(self, x):
            h = x = self.head(x - 0.5)
            for first, second in self.blocks:
                h = h + 0.1 * second(nnx.relu(first(h)))
            h = self.up(x + self.body(h))
            b, rows, columns, _ = h.shape
            h = h.reshape(b, rows, columns, 2, 2, size).transpose(0, 1, 3, 2, 4, 5)
            return self.tail(h.reshape(b, 2 * rows, 2 * columns, size)) + 0.5

    fan = 9 * size
    truth = {
        **window("head", 27, fan),
        # Debatable: a stream within a branch of another.
        **window("body", fan, fan, residual=ANY),
        **window("up", fan, 4 * fan),
        **window("tail", fan, 27, head=True),
    }
    for i in range(2):
        truth |= window(f"blocks/{i}/0", fan, fan, function="relu")
        truth |= window(f"blocks/{i}/1", fan, fan, multiplier=0.1, residual=ANY)
        truth[f"blocks/{i}/1/bias"] = bias(f"blocks/{i}/1/kernel", multiplier=ANY)
    return of_nnx(Net, [floats(B, 6, 5, 3)], truth)


@model
def mixed_by_fourier() -> Model:
    """Lee-Thorp et al. 2021 (FNet): the real part of a transform is the mixing."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids, types):
            x = nn.Embed(V, D, name="word")(ids)
            x = x + self.param("position", nn.initializers.zeros, (1, T + 3, D))[:, :T]
            x = x + nn.Embed(3, D, name="type")(types)
            x = nn.Dense(D, name="mapping")(nn.LayerNorm(name="ln")(x))
            for i in range(2):
                mixed = jnp.fft.fft(jnp.fft.fft(x, axis=-1), axis=-2).real
                x = nn.LayerNorm(name=f"mixing_ln_{i}")(x + mixed)
                h = nn.gelu(nn.Dense(F, name=f"up_{i}")(x))
                x = nn.LayerNorm(name=f"out_ln_{i}")(
                    x + nn.Dense(D, name=f"down_{i}")(h)
                )
            h = jnp.tanh(nn.Dense(D, name="pooler")(x[:, 0]))
            return nn.Dense(O, name="classifier")(h)

    truth = {
        "word/embedding": embedding(D),
        "position": position(1, 2),
        "type/embedding": embedding(D),
        **norm("ln"),
        **dense("mapping", D, D),
        **dense("pooler", D, D, function="tanh"),
        **dense("classifier", D, O, head=True),
    }
    for i in range(2):
        truth |= {
            **norm(f"mixing_ln_{i}"),
            **dense(f"up_{i}", D, F, function="gelu"),
            # Debatable: whether a mixing without a leaf is counted.
            **dense(f"down_{i}", F, D, residual=WRITES),
            **norm(f"out_ln_{i}"),
        }
    return of_linen(Net(), [integers(B, T), integers(B, T)], truth)


@model
def class_attention() -> Model:
    """Touvron et al. 2021 (CaiT), NNX: only a token asks, in blocks behind the rest."""
    from flax import nnx

    heads, size = 3, 4

    class Attend(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(D, rngs=rngs)
            self.q, self.k, self.v, self.proj = (
                nnx.Linear(D, D, rngs=rngs) for _ in range(4)
            )
            self.gamma_1, self.gamma_2 = (nnx.Param(jnp.ones(D)) for _ in range(2))
            self.norm2 = nnx.LayerNorm(D, rngs=rngs)
            self.fc1 = nnx.Linear(D, F, rngs=rngs)
            self.fc2 = nnx.Linear(F, D, rngs=rngs)

        def __call__(self, cls, x):
            u = self.norm(jnp.concatenate([cls, x], axis=1))
            q = self.q(u[:, 0]).reshape(B, 1, heads, size).transpose(0, 2, 1, 3)
            k, v = (
                y.reshape(B, -1, heads, size).transpose(0, 2, 1, 3)
                for y in (self.k(u), self.v(u))
            )
            a = nnx.softmax(q * size**-0.5 @ jnp.swapaxes(k, -2, -1), axis=-1)
            y = (a @ v).transpose(0, 2, 1, 3).reshape(B, 1, D)
            cls = cls + self.gamma_1[...] * self.proj(y)
            h = self.fc2(nnx.gelu(self.fc1(self.norm2(cls))))
            return cls + self.gamma_2[...] * h

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.patch = nnx.Linear(N, D, rngs=rngs)
            self.pos = nnx.Param(jnp.zeros((1, T, D)))
            self.cls = nnx.Param(jnp.zeros((1, 1, D)))
            self.blocks = nnx.List([Attend(rngs) for _ in range(2)])
            self.norm = nnx.LayerNorm(D, rngs=rngs)
            self.head = nnx.Linear(D, O, rngs=rngs)

        def __call__(self, x):
            x = self.patch(x) + self.pos[...]
            cls = jnp.broadcast_to(self.cls[...], (B, 1, D))
            for block in self.blocks:
                cls = block(cls, x)
            return self.head(self.norm(cls)[:, 0])

    block = {
        **norm("norm"),
        **dense("q", D, D, part="query", multiplier=size**-0.5),
        **dense("k", D, D, part="key"),
        **dense("v", D, D, part="value"),
        **dense("proj", D, D, part="attention output", residual=(0, 4)),
        "gamma_1": gate(0),
        **norm("norm2"),
        **dense("fc1", D, F, function="gelu"),
        **dense("fc2", F, D, residual=(1, 4)),
        "gamma_2": gate(0),
    }
    block["q/bias"] = bias("q/kernel", part="query", multiplier=ANY)
    truth = {
        **dense("patch", N, D),
        "pos": position(1, 2),
        "cls": token(D, ANY, 2),
        **every("blocks/{}/", 2, block),
        **norm("norm"),
        **dense("head", D, O, head=True),
    }
    return of_nnx(Net, [floats(B, T, N)], truth)


@model
def quantized_speech() -> Model:
    """Baevski et al. 2020 (wav2vec 2.0): codes of groups, by sums of products."""
    from flax import linen as nn

    groups, codes, size = 2, 5, 3

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (5,), (2,), use_bias=False, name="conv_0")(x)
            x = nn.gelu(nn.GroupNorm(8, name="norm_0")(x))
            x = nn.gelu(nn.Conv(9, (3,), (2,), use_bias=False, name="conv_1")(x))
            x = nn.LayerNorm(name="norm")(x)
            logits = nn.Dense(groups * codes, name="choose")(x)
            logits = logits.reshape(-1, groups, codes)
            soft = jax.nn.softmax(logits / 2.0)
            hard = jax.nn.one_hot(jnp.argmax(logits, -1), codes)
            chosen = jax.lax.stop_gradient(hard - soft) + soft
            book = self.param(
                "codebook", nn.initializers.normal(), (1, groups * codes, size)
            )
            y = chosen.reshape(-1, groups * codes)[..., None] * book
            y = y.reshape(-1, groups, codes, size).sum(-2)
            y = y.reshape(B, -1, groups * size)
            return nn.Dense(O, name="project")(y), nn.Dense(O, name="context")(x)

    open_ = Use(one_of("embedding", "kernel"), ANY, ANY, ANY, fan_in=ANY, fan_out=ANY,
                function=ANY, part=ANY)  # fmt: skip
    along = {"spatial_axis": 0, "in_axis": 1, "out_axis": 2}
    truth = {
        # A norm is before the function.
        "conv_0/kernel": convolution(5, 40, **along),
        **norm("norm_0"),
        "conv_1/kernel": convolution(24, 27, function="gelu", **along),
        **norm("norm"),
        # Debatable: what chooses codes, and what weighs them.
        **dense("choose", 9, groups * codes, function=ANY, part=ANY, head=ANY,
                multiplier=ANY),
        "codebook": open_,
        **dense("project", groups * size, O, head=True),
        **dense("context", 9, O, head=True),
    }  # fmt: skip
    truth["choose/bias"] = bias("choose/kernel", part=ANY, multiplier=ANY)
    return of_linen(Net(), [floats(B, 24, 1)], truth)
