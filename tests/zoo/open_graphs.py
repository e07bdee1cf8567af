"""Graphs as open code bases have them: residues, frames, gated edges, read-out sets."""

import jax
import jax.numpy as jnp

from zoo.haiku_models import linear as hk_linear
from zoo.haiku_models import normalized, of_haiku
from zoo.truths import (
    ANY,
    Model,
    bias,
    bias_cut,
    cut,
    dense,
    either,
    embedding,
    every,
    floats,
    integers,
    kernel,
    layer_norm,
    model,
    norm,
)

B, D, F, HEADS, SIZE, V, O = 2, 12, 15, 3, 4, 21, 5  # noqa: E741
INNER = HEADS * SIZE


def affine(a, b):
    return {"w": floats(a, b), "b": floats(b)}


def linear(p, x):
    return x @ p["w"] + p["b"]


@model
def residues_from_backbones() -> Model:
    """Dauparas et al. 2022 (ProteinMPNN): messages of near residues, decoded in order.

    Nodes and edges are streams; what is decoded sees only what came before it.
    """
    n, near, edges, layers = 7, 4, 9, 2

    def gather(x, near_by):
        return jax.vmap(lambda x, i: x[i])(x, near_by)

    def message(p, x):
        x = jax.nn.gelu(linear(p["W1"], x), approximate=False)
        return linear(p["W3"], jax.nn.gelu(linear(p["W2"], x), approximate=False))

    def feed(p, x):
        return linear(p["W_out"], jax.nn.gelu(linear(p["W_in"], x), approximate=False))

    def beside(h, e, near_by):
        own = jnp.broadcast_to(h[:, :, None], (*h.shape[:2], near, D))
        return jnp.concatenate([own, e, gather(h, near_by)], axis=-1)

    def encode(p, h, e, near_by, mask, mask_e):
        m = message(p["node"], beside(h, e, near_by)) * mask_e[..., None]
        h = layer_norm(h + m.sum(-2) / 30, p["norm1"])
        h = layer_norm(h + feed(p["dense"], h), p["norm2"]) * mask[..., None]
        m = message(p["edge"], beside(h, e, near_by))
        return h, layer_norm(e + m, p["norm3"])

    def decode(p, h, context, mask):
        own = jnp.broadcast_to(h[:, :, None], (*h.shape[:2], near, D))
        m = message(p["node"], jnp.concatenate([own, context], axis=-1))
        h = layer_norm(h + m.sum(-2) / 30, p["norm1"])
        return layer_norm(h + feed(p["dense"], h), p["norm2"]) * mask[..., None]

    def apply(p, features, near_by, sequence, mask, order):
        mask_e = mask[..., None] * gather(mask, near_by)
        e = linear(p["W_e"], layer_norm(features @ p["edge_emb"], p["edge_norm"]))
        h = jnp.zeros((B, n, D))
        for q in p["encoder"]:
            h, e = encode(q, h, e, near_by, mask, mask_e)
        s = p["W_s"][sequence]
        before = gather(order, near_by) < order[..., None]
        now = before[..., None] * mask_e[..., None]
        nothing = jnp.concatenate([e, jnp.zeros_like(e), gather(h, near_by)], axis=-1)
        hidden = nothing * (1 - before[..., None]) * mask_e[..., None]
        for q in p["decoder"]:
            now_h = [e, gather(s, near_by), gather(h, near_by)]
            context = now * jnp.concatenate(now_h, axis=-1) + hidden
            h = decode(q, h, context, mask)
        return jax.nn.log_softmax(linear(p["W_out"], h))

    ln = {"scale": floats(D), "bias": floats(D)}

    def net(n):
        return {"W1": affine(n, D), "W2": affine(D, D), "W3": affine(D, D)}

    own = {"node": net(3 * D), "edge": net(3 * D), "norm3": ln}
    both = {"W_in": affine(D, 4 * D), "W_out": affine(4 * D, D)}
    two = {"norm1": ln, "norm2": ln, "dense": both}
    params = {
        "edge_emb": floats(edges, D), "edge_norm": ln, "W_e": affine(D, D),
        "encoder": [two | own] * layers,
        "W_s": floats(V, D), "decoder": [two | {"node": net(4 * D)}] * layers,
        "W_out": affine(D, V),
    }  # fmt: skip

    def net_truth(path, n, **end):
        return {
            **dense(f"{path}/W1", n, D, "w", "b", function="gelu"),
            **dense(f"{path}/W2", D, D, "w", "b", function="gelu"),
            **dense(f"{path}/W3", D, D, "w", "b", **end),
        }

    def feed_truth(residual):
        return {
            **dense("dense/W_in", D, 4 * D, "w", "b", function="gelu"),
            **dense("dense/W_out", 4 * D, D, "w", "b", residual=residual),
            **norm("norm1"), **norm("norm2"),
        }  # fmt: skip

    def scaled(path, residual):
        # A sum over neighbours, divided by a number.
        truth = net_truth(path, 3 * D, residual=residual, multiplier=ANY)
        truth[f"{path}/W3/b"] = bias(f"{path}/W3/w", multiplier=ANY)
        return truth

    encoder = {
        **scaled("node", (0, 4 * layers)), **feed_truth((1, 4 * layers)),
        **net_truth("edge", 3 * D), **norm("norm3"),
    }  # fmt: skip
    decoder = {**scaled("node", (4, 4 * layers)), **feed_truth((5, 4 * layers))}
    decoder["node/W1/w"] = kernel(4 * D, D, function="gelu")
    truth = {
        "edge_emb": kernel(edges, D), **norm("edge_norm"),
        **dense("W_e", D, D, "w", "b"),
        "W_s": embedding(D), **dense("W_out", D, V, "w", "b", head=True),
    }  # fmt: skip
    for i in range(layers):
        for name, own, first in (("encoder", encoder, 0), ("decoder", decoder, 4)):
            for path, use in own.items():
                # Nodes are written twice in a layer, edges once.
                if path == "node/W3/w":
                    use = kernel(D, D, residual=(first + 2 * i, 8), multiplier=ANY)
                if path == "dense/W_out/w":
                    use = kernel(4 * D, D, residual=(first + 2 * i + 1, 8))
                if path == "edge/W3/w":
                    use = kernel(D, D, residual=(i, layers))
                truth |= every(f"{name}/{i}/", 1, {path: use})
    inputs = (
        floats(B, n, near, edges), integers(B, n, near), integers(B, n), floats(B, n),
        integers(B, n),
    )  # fmt: skip
    return Model(apply, params, inputs, truth)


@model
def points_in_frames() -> Model:
    """Jumper et al. 2021 (AlphaFold's invariant points), Haiku: scores of distances.

    Weights are shared by all rounds; frames are given, and move by what is read.
    """
    import haiku as hk

    n, points, pairs, rounds = 5, 2, 8, 2
    flat = HEADS * points * 3

    def ipa(s, z, rotation, shift):
        def lin(k, name):
            return hk.Linear(k, name=name)(s)

        def globally(x):
            x = x.reshape(n, HEADS, points, 3)
            return jnp.einsum("nij,nhpj->nhpi", rotation, x) + shift[:, None, None]

        q = lin(INNER, "q_scalar").reshape(n, HEADS, SIZE)
        kv = lin(2 * INNER, "kv_scalar").reshape(n, HEADS, 2 * SIZE)
        k, v = jnp.split(kv, 2, axis=-1)
        qp, kp = globally(lin(flat, "q_point")), globally(lin(flat, "k_point"))
        vp = globally(lin(flat, "v_point"))
        weights = jax.nn.softplus(
            hk.get_parameter("trainable_point_weights", (HEADS,), init=jnp.ones)
        )
        a = jnp.einsum("ihc,jhc->hij", q, k) * (1 / (3 * SIZE)) ** 0.5
        apart = jnp.square(qp[:, None] - kp[None]).sum((-1, -2))
        a = a - 0.5 * (2 / (9 * 3 * points)) ** 0.5 * jnp.einsum(
            "ijh,h->hij", apart, weights
        )
        a = a + (1 / 3) ** 0.5 * hk.Linear(HEADS, name="attention_2d")(z).transpose(
            2, 0, 1
        )
        a = jax.nn.softmax(a, axis=-1)
        y = jnp.einsum("hij,jhc->ihc", a, v).reshape(n, -1)
        yp = jnp.einsum("hij,jhpc->ihpc", a, vp) - shift[:, None, None]
        yp = jnp.einsum("nji,nhpj->nhpi", rotation, yp)
        far = jnp.sqrt(jnp.square(yp).sum(-1) + 1e-8).reshape(n, -1)
        yz = jnp.einsum("hij,ijc->ihc", a, z).reshape(n, -1)
        y = jnp.concatenate([y, yp.reshape(n, -1), far, yz], axis=-1)
        return hk.Linear(D, name="output_projection")(y)

    def ln(x, name):
        return hk.LayerNorm(-1, True, True, name=name)(x)

    def fun(s, z, rotation, shift):
        s = ln(s, "single_layer_norm")
        z = ln(z, "pair_layer_norm")
        s = hk.Linear(D, name="initial_projection")(s)
        layers = hk.to_module(ipa)("ipa")
        attention_norm = hk.LayerNorm(-1, True, True, name="attention_layer_norm")
        transition = [hk.Linear(D, name=f"transition_{i}") for i in range(3)]
        transition_norm = hk.LayerNorm(-1, True, True, name="transition_layer_norm")
        update = hk.Linear(3, name="shift_update")
        for _ in range(rounds):
            s = attention_norm(s + layers(s, z, rotation, shift))
            h = jax.nn.relu(transition[0](s))
            s = transition_norm(s + transition[2](jax.nn.relu(transition[1](h))))
            shift = shift + jnp.einsum("nij,nj->ni", rotation, update(s))
        return shift, s

    wide = INNER + flat + HEADS * points + HEADS * pairs
    # Debatable: parts of an attention whose scores are sums of three.
    free = {"part": ANY, "sections": ANY, "multiplier": ANY, "function": ANY}

    def loose(path, a, b):
        return {
            f"ipa/{path}/w": [kernel(a, b, **free)] * rounds,
            f"ipa/{path}/b": [
                bias(f"ipa/{path}/w", part=ANY, sections=ANY, multiplier=ANY)
            ] * rounds,
        }  # fmt: skip

    def again(truth):
        return {path: [use] * rounds for path, use in truth.items()}

    def writes(path, a, first, part=None):
        return {
            f"{path}/w": [
                kernel(a, D, residual=(first + 2 * i, 2 * rounds), part=part)
                for i in range(rounds)
            ],
            f"{path}/b": [bias(f"{path}/w", part=part)] * rounds,
        }

    truth = {
        **normalized("single_layer_norm"), **normalized("pair_layer_norm"),
        **hk_linear("initial_projection", 9, D),
        **loose("q_scalar", D, INNER), **loose("kv_scalar", D, 2 * INNER),
        **loose("q_point", D, flat), **loose("k_point", D, flat),
        **loose("v_point", D, flat), **loose("attention_2d", pairs, HEADS),
        # A function of a leaf, which multiplies distances.
        "ipa/trainable_point_weights": either("unknown", "scale", "gate", "kernel"),
        # Debatable: what it reads are averages, and norms of averages.
        **writes("ipa/output_projection", wide, 0, ANY),
        **again(normalized("attention_layer_norm")),
        **again(hk_linear("transition_0", D, D, function="relu")),
        **again(hk_linear("transition_1", D, D, function="relu")),
        **writes("transition_2", D, 1),
        **again(normalized("transition_layer_norm")),
        # Debatable: it moves what is given.
        "shift_update/w": [kernel(D, 3, residual=ANY, head=ANY)] * rounds,
        "shift_update/b": [bias("shift_update/w")] * rounds,
    }  # fmt: skip
    truth["ipa/trainable_point_weights"] = [truth["ipa/trainable_point_weights"]] * 2
    inputs = [floats(n, 9), floats(n, n, pairs), floats(n, 3, 3), floats(n, 3)]
    return of_haiku(fun, inputs, truth)


@model
def sets_read_by_a_cell() -> Model:
    """Bresson and Laurent 2018 (GatedGCN), then Vinyals et al. 2016 (Set2Set).

    Gates of edges weigh messages; an LSTM asks the nodes for a few rounds.
    """
    nodes, links, graphs, layers, rounds = 9, 14, 3, 2, 3

    def batch_norm(x, p):
        x = (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-5)
        return x * p["scale"] + p["bias"]

    def conv(p, h, e, src, dst):
        sums = linear(p["D"], h)[dst] + linear(p["E"], h)[src] + linear(p["C"], e)
        sigma = jax.nn.sigmoid(sums)
        top = jax.ops.segment_sum(sigma * linear(p["B"], h)[src], dst, nodes)
        below_ = jax.ops.segment_sum(sigma, dst, nodes)
        new = linear(p["A"], h) + top / (below_ + 1e-6)
        h = h + jax.nn.relu(batch_norm(new, p["bn_h"]))
        return h, e + jax.nn.relu(batch_norm(sums, p["bn_e"]))

    def set2set(p, h, graph):
        state = jnp.zeros((graphs, D)), jnp.zeros((graphs, D))
        asked = jnp.zeros((graphs, 2 * D))
        for _ in range(rounds):
            old, c = state
            i, f, g, o = jnp.split(
                asked @ p["w_ih"] + p["b_ih"] + old @ p["w_hh"] + p["b_hh"], 4, axis=-1
            )
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            q = jax.nn.sigmoid(o) * jnp.tanh(c)
            state = q, c
            s = (h * q[graph]).sum(-1, keepdims=True)
            s = jnp.exp(s - jax.ops.segment_max(s, graph, graphs)[graph])
            a = s / (jax.ops.segment_sum(s, graph, graphs)[graph] + 1e-16)
            r = jax.ops.segment_sum(a * h, graph, graphs)
            asked = jnp.concatenate([q, r], axis=-1)
        return asked

    def apply(p, atoms, bonds, src, dst, graph):
        h, e = p["atoms"][atoms], p["bonds"][bonds]
        for q in p["layers"]:
            h, e = conv(q, h, e, src, dst)
        x = set2set(p["read"], h, graph)
        return linear(p["out_1"], jax.nn.relu(linear(p["out_0"], x)))

    bn = {"scale": floats(D), "bias": floats(D)}
    layer = {n: affine(D, D) for n in "ABCDE"} | {"bn_h": bn, "bn_e": bn}
    params = {
        "atoms": floats(V, D), "bonds": floats(4, D), "layers": [layer] * layers,
        "read": {
            "w_ih": floats(2 * D, 4 * D), "w_hh": floats(D, 4 * D),
            "b_ih": floats(4 * D), "b_hh": floats(4 * D),
        },
        "out_0": affine(2 * D, F), "out_1": affine(F, O),
    }  # fmt: skip
    # Debatable: sums that a gate and another stream take, each behind its function.
    free = {"part": ANY, "function": ANY, "residual": ANY, "multiplier": ANY}
    own = {**norm("bn_h"), **norm("bn_e")}
    for name in "ABCDE":
        own[f"{name}/w"] = kernel(D, D, **free)
        own[f"{name}/b"] = bias(
            ANY if name in "CDE" else f"{name}/w", part=ANY, multiplier=ANY
        )
    parts = ("input gate", "forget gate", "cell", "output gate")
    gates = cut(1, D, parts)
    read = {
        # The first round asks with zeros.
        "read/w_ih": kernel(2 * D, 4 * D, function=ANY, recurrent=ANY, sections=gates),
        "read/w_hh": kernel(D, 4 * D, function=ANY, recurrent=ANY, sections=gates),
        "read/b_ih": bias(ANY, sections=bias_cut(D, parts)),
        "read/b_hh": bias(ANY, sections=bias_cut(D, parts)),
    }
    truth = {
        "atoms": embedding(D), "bonds": embedding(D),
        **every("layers/{}/", layers, own),
        **{path: [use] * rounds for path, use in read.items()},
        **dense("out_0", 2 * D, F, "w", "b", function="relu"),
        **dense("out_1", F, O, "w", "b", head=True),
    }  # fmt: skip
    # The last layer's edges are read by nobody.
    last = f"layers/{layers - 1}/bn_e"
    truth |= {f"{last}/scale": [], f"{last}/bias": []}
    inputs = (
        integers(nodes), integers(links), integers(links), integers(links),
        integers(nodes),
    )  # fmt: skip
    return Model(apply, params, inputs, truth)
