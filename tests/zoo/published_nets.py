"""Linen: examples of published packages, in their own way of computing."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import lstm, of_linen
from zoo.truths import (
    ANY,
    WRITES,
    Model,
    bias,
    convolution,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    position,
    unknown,
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
        # Its products with activations are summed.
        "codebook": unknown(),
        **dense("project", groups * size, O, head=True),
        **dense("context", 9, O, head=True),
    }  # fmt: skip
    truth["choose/bias"] = bias("choose/kernel", part=ANY, multiplier=ANY)
    return of_linen(Net(), [floats(B, 24, 1)], truth)
