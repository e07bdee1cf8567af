"""Agents, and what is handed on: flows, slots, rollouts, expectiles."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import gru, of_linen
from zoo.layers import rotary
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
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
    rms_norm,
    scale,
    unused,
)

B, T, D, F, HEADS, SIZE, V, O = 2, 6, 12, 15, 3, 4, 19, 5  # noqa: E741
INNER = HEADS * SIZE


@model
def actions_beside_words() -> Model:
    """Black et al. 2024 (pi0): words and noisy actions have weights of their own.

    They attend to each other at once; actions flow, and a loss is in it.
    """
    layers, robot, horizon, wide = 2, 5, 4, 9

    def attend(p, streams, mask):
        parts = []
        for name, x in streams.items():
            h = rms_norm(x, 1 + p[name]["pre_norm"])
            q = jnp.einsum("btd,ndh->btnh", h, p[name]["q"])
            k, v = jnp.einsum("btd,cdh->cbth", h, p[name]["kv"])
            parts.append((q, k, v))
        q, k, v = (jnp.concatenate(y, axis=1) for y in zip(*parts, strict=True))
        q, k = rotary(q) * SIZE**-0.5, rotary(k)
        s = jnp.where(mask[:, None], jnp.einsum("btnh,bsh->bnts", q, k), -2e38)
        y = jnp.einsum("bnts,bsh->btnh", jax.nn.softmax(s, axis=-1), v)
        new, start = {}, 0
        for name, x in streams.items():
            own = y[:, start : start + x.shape[1]]
            new[name] = x + jnp.einsum("btnh,nhd->btd", own, p[name]["o"])
            start += x.shape[1]
        return new

    def feed(p, x):
        h = rms_norm(x, 1 + p["ffw_norm"])
        gate, up = jnp.einsum("btd,cdf->cbtf", h, p["gating"])
        return x + (jax.nn.gelu(gate) * up) @ p["linear"]

    def sines(t):
        angles = t[:, None] / 4e-3 ** (jnp.arange(wide) / wide)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    def apply(p, ids, state, actions, noise, t):
        noisy = t[:, None, None] * noise + (1 - t[:, None, None]) * actions
        x = p["embed"][ids] * D**0.5
        s = state @ p["state_proj"]["w"] + p["state_proj"]["b"]
        a = noisy @ p["action_in"]["w"] + p["action_in"]["b"]
        time = jnp.repeat(sines(t)[:, None], horizon, axis=1)
        a = jnp.concatenate([a, time], axis=-1)
        a = jax.nn.swish(a @ p["time_in"]["w"] + p["time_in"]["b"])
        a = a @ p["time_out"]["w"] + p["time_out"]["b"]
        streams = {"words": x, "moves": jnp.concatenate([s[:, None], a], axis=1)}
        turn = jnp.cumsum(jnp.array([0] * T + [1, 1] + [0] * (horizon - 1)))
        mask = jnp.broadcast_to(turn[None, None] <= turn[None, :, None], (B, 11, 11))
        for q in p["layers"]:
            streams = attend(q, streams, mask)
            streams = {n: feed(q[n], x) for n, x in streams.items()}
        h = rms_norm(streams["moves"][:, -horizon:], 1 + p["final_norm"])
        v = h @ p["action_out"]["w"] + p["action_out"]["b"]
        return jnp.square(v - (noise - actions)).mean(-1)

    def affine(a, b):
        return {"w": floats(a, b), "b": floats(b)}

    def expert(d, f):
        return {
            "pre_norm": floats(d), "q": floats(HEADS, d, SIZE),
            "kv": floats(2, d, SIZE),
            "o": floats(HEADS, SIZE, d), "ffw_norm": floats(d),
            "gating": floats(2, d, f), "linear": floats(f, d),
        }  # fmt: skip

    params = {
        "embed": floats(V, D), "state_proj": affine(7, wide),
        "action_in": affine(robot, wide), "time_in": affine(3 * wide, wide),
        "time_out": affine(wide, wide),
        "layers": [{"words": expert(D, F), "moves": expert(wide, 10)}] * layers,
        "final_norm": floats(wide), "action_out": affine(wide, robot),
    }  # fmt: skip
    pair = [(0, ((i, i + 1),), n, "identity") for i, n in enumerate(("key", "value"))]
    glu = [(0, ((0, 1),), "gate", "gelu"), (0, ((1, 2),), "up", "identity")]

    def expert_truth(d, f):
        total = 2 * layers
        return {
            "pre_norm": scale(offset=1.0), "ffw_norm": scale(offset=1.0),
            "q": kernel(d, INNER, 1, (0, 2), part="query", multiplier=SIZE**-0.5),
            "kv": kernel(d, 2 * SIZE, 1, (0, 2), sections=pair),
            "o": kernel(
                INNER, d, (0, 1), 2, part="attention output", residual=(0, total)
            ),
            "gating": kernel(d, 2 * f, 1, (0, 2), function=ANY, sections=glu),
            "linear": kernel(f, d, residual=(1, total)),
        }  # fmt: skip

    truth = {
        "embed": embedding(D, multiplier=D**0.5),
        **dense("state_proj", 7, wide, "w", "b"),
        **dense("action_in", robot, wide, "w", "b"),
        **dense("time_in", 3 * wide, wide, "w", "b", function="silu"),
        **dense("time_out", wide, wide, "w", "b"),
        **every("layers/{}/words/", layers, expert_truth(D, F)),
        **every("layers/{}/moves/", layers, expert_truth(wide, 10)),
        "final_norm": scale(offset=1.0),
        # Debatable: its square is in the loss.
        **dense("action_out", wide, robot, "w", "b", head=True, function=ANY),
    }
    # Of the last layer only keys and values of words are read.
    for name in ("o", "ffw_norm", "gating", "linear"):
        truth[f"layers/{layers - 1}/words/{name}"] = unused()
    for name in ("o", "linear"):
        path = f"layers/0/words/{name}"
        truth[path] = kernel(
            *((INNER, D, (0, 1), 2) if name == "o" else (F, D)),
            residual=(int(name == "linear"), 2),
            part="attention output" if name == "o" else None,
        )
    inputs = (
        integers(B, T), floats(B, 7), floats(B, horizon, robot),
        floats(B, horizon, robot), floats(B),
    )  # fmt: skip
    return Model(apply, params, inputs, truth)


@model
def slots_and_capacities() -> Model:
    """Puigcerver et al. 2024 (Soft MoE), then Riquelme et al. 2021 (V-MoE): two layers.

    The first mixes tokens into slots; the second hands few tokens to each expert by
    dispatch and combine tensors.
    """
    experts, slots, tokens, capacity = 3, 2, 8, 4

    def unit(x, axis):
        return x * jax.lax.rsqrt(jnp.square(x).sum(axis, keepdims=True) + 1e-6)

    def mlp(p, x):
        h = jnp.einsum("becd,edf->becf", x, p["w1"]) + p["b1"][:, None]
        h = jax.nn.gelu(h)
        return jnp.einsum("becf,efd->becd", h, p["w2"]) + p["b2"][:, None]

    def soft(p, x):
        phi = p["scale"] * unit(p["phi"], 0)
        logits = jnp.einsum("btd,des->btes", unit(x, -1), phi)
        dispatch = jax.nn.softmax(logits, axis=1)
        combine = jax.nn.softmax(logits.reshape(B, tokens, -1), axis=-1)
        y = mlp(p["experts"], jnp.einsum("btes,btd->besd", dispatch, x))
        return jnp.einsum("btes,besd->btd", combine.reshape(logits.shape), y)

    def sparse(p, x):
        gates = jax.nn.softmax(jnp.einsum("btd,de->bte", x, p["router"]), axis=-1)
        best, chosen = jax.lax.top_k(gates, 1)
        one = jax.nn.one_hot(chosen[..., 0], experts)
        place = jnp.cumsum(one, axis=1) * one - 1
        dispatch = jax.nn.one_hot(place.astype(jnp.int32), capacity) * one[..., None]
        combine = dispatch * best[..., None]
        y = mlp(p["experts"], jnp.einsum("btec,btd->becd", dispatch, x))
        loss = (gates.mean(1) * one.mean(1)).sum(-1) * experts
        return jnp.einsum("btec,becd->btd", combine, y), loss

    def apply(p, x):
        x = x @ p["embed"]["w"] + p["embed"]["b"]
        x = x + soft(p["soft"], layer_norm(x, p["norm_1"]))
        y, loss = sparse(p["sparse"], layer_norm(x, p["norm_2"]))
        x = layer_norm(x + y, p["norm_3"]).mean(1)
        return x @ p["head"]["w"] + p["head"]["b"], loss

    ln = {"scale": floats(D), "bias": floats(D)}
    own = {
        "w1": floats(experts, D, F), "b1": floats(experts, F),
        "w2": floats(experts, F, D), "b2": floats(experts, D),
    }  # fmt: skip
    params = {
        "embed": {"w": floats(7, D), "b": floats(D)}, "norm_1": ln,
        "soft": {"scale": floats(), "phi": floats(D, experts, slots), "experts": own},
        "norm_2": ln,
        "sparse": {"router": floats(D, experts), "experts": own},
        "norm_3": ln, "head": {"w": floats(D, O), "b": floats(O)},
    }  # fmt: skip

    def experts_truth(residual):
        return {
            "experts/w1": kernel(D, F, 1, 2, "gelu", batch_axis=0),
            "experts/b1": bias("experts/w1", 1, batch_axis=0),
            "experts/w2": kernel(
                F, D, 1, 2, batch_axis=0, residual=residual, multiplier=ANY
            ),
            "experts/b2": bias("experts/w2", 1, batch_axis=0, multiplier=ANY),
        }

    truth = {
        **dense("embed", 7, D, "w", "b"), **norm("norm_1"), **norm("norm_2"),
        # Divided by its length.
        "soft/scale": either("scale", "gate", "unknown"),
        "soft/phi": either("kernel", "unknown"),
        **below("soft/", experts_truth((0, 2))),
        "sparse/router": kernel(D, experts, function=ANY, part="router"),
        **below("sparse/", experts_truth((1, 2))),
        **norm("norm_3"), **dense("head", D, O, "w", "b", head=True),
    }  # fmt: skip
    return Model(apply, params, (floats(B, tokens, 7),), truth)


@model
def resets_within_rollouts() -> Model:
    """Lu et al. 2022 (PureJaxRL), Linen: PPO with a GRU that episodes' ends reset.

    The clipped loss and the value's are in it, as is the entropy.
    """
    import functools

    from flax import linen as nn

    actions, seen = 4, 7

    class ScannedRNN(nn.Module):
        @functools.partial(
            nn.scan,
            variable_broadcast="params",
            in_axes=0,
            out_axes=0,
            split_rngs={"params": False},
        )
        @nn.compact
        def __call__(self, carry, x):
            ins, resets = x
            carry = jnp.where(resets[:, None], jnp.zeros_like(carry), carry)
            return nn.GRUCell(features=D, name="cell")(carry, ins)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, hidden, obs, dones, action, old, advantage, target):
            x = nn.relu(nn.Dense(D, name="embedding")(obs))
            hidden, x = ScannedRNN(name="rnn")(hidden, (x, dones))
            h = nn.relu(nn.Dense(F, name="actor_0")(x))
            logits = nn.Dense(actions, name="actor_1")(h)
            h = nn.relu(nn.Dense(F, name="critic_0")(x))
            value = jnp.squeeze(nn.Dense(1, name="critic_1")(h), axis=-1)
            log_p = jax.nn.log_softmax(logits)
            own = jnp.take_along_axis(log_p, action[..., None], axis=-1)[..., 0]
            ratio = jnp.exp(own - old)
            gae = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped = jnp.clip(ratio, 0.8, 1.2) * gae
            actor_loss = -jnp.minimum(ratio * gae, clipped).mean()
            value_loss = 0.5 * jnp.square(value - target).mean()
            entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
            return actor_loss + 0.5 * value_loss - 0.01 * entropy

    truth = {
        **dense("embedding", seen, D, function="relu"),
        **gru("rnn/cell", D, D),
        **dense("actor_0", D, F, function="relu"),
        **dense("actor_1", F, actions, head=True),
        **dense("critic_0", D, F, function="relu"),
        # Debatable: its square is in the loss.
        **dense("critic_1", F, 1, head=True, function=ANY),
    }
    inputs = [
        floats(B, D), floats(T, B, seen), jax.ShapeDtypeStruct((T, B), bool),
        integers(T, B), floats(T, B), floats(T, B), floats(T, B),
    ]  # fmt: skip
    return of_linen(Net(), inputs, truth)


@model
def expectiles_of_values() -> Model:
    """Kostrikov et al. 2021 (IQL): losses of a value, two critics and an actor at once.

    Critics are mapped over a first axis; actions are weighed by exponentials.
    """
    seen, moves = 7, 3

    def mlp(p, x):
        for i in range(2):
            x = jax.nn.relu(x @ p[f"w{i}"] + p[f"b{i}"])
        return x @ p["w2"] + p["b2"]

    def apply(p, s, a, r, done, s_next):
        q = jax.vmap(mlp, in_axes=(0, None))(p["q"], jnp.concatenate([s, a], axis=-1))
        q = q[..., 0]
        v = mlp(p["v"], s)[..., 0]
        apart = jax.lax.stop_gradient(q.min(0)) - v
        weight = jnp.where(apart > 0, 0.7, 0.3)
        v_loss = (weight * jnp.square(apart)).mean()
        target = (
            r + 0.99 * (1 - done) * jax.lax.stop_gradient(mlp(p["v"], s_next))[..., 0]
        )
        q_loss = jnp.square(q - target).sum(0).mean()
        mean = jnp.tanh(mlp(p["actor"], s))
        std = jnp.exp(jnp.clip(p["log_std"], -5.0, 2.0))
        log_p = -0.5 * jnp.square((a - mean) / std) - jnp.log(std)
        weight = jnp.minimum(jnp.exp(3.0 * jax.lax.stop_gradient(apart)), 100.0)
        return v_loss, q_loss, -(weight * log_p.sum(-1)).mean()

    def net(n, out, *lead):
        sizes = ((n, F), (F, D), (D, out))
        weights = {f"w{i}": floats(*lead, a, b) for i, (a, b) in enumerate(sizes)}
        return weights | {f"b{i}": floats(*lead, b) for i, (_, b) in enumerate(sizes)}

    params = {
        "q": net(seen + moves, 1, 2), "v": net(seen, 1), "actor": net(seen, moves),
        "log_std": floats(moves),
    }  # fmt: skip

    def net_truth(path, n, out, times=1, **last):
        truth = {}
        for i, (a, b) in enumerate(((n, F), (F, D), (D, out))):
            own = last if i == 2 else {"function": "relu"}
            truth[f"{path}/w{i}"] = [kernel(a, b, **own)] * times
            truth[f"{path}/b{i}"] = [bias(f"{path}/w{i}", 0 if b > 1 else ())] * times
        return truth

    truth = {
        **net_truth("v", seen, 1, 2, head=True, function=ANY),
        **net_truth("actor", seen, moves, head=True, function="tanh"),
        # Debatable: the logarithm of a deviation that no kernel makes.
        "log_std": [either("unknown", "scale", "bias")] * 2,
    }
    for i, (a, b) in enumerate(((seen + moves, F), (F, D), (D, 1))):
        own = {"head": True} if i == 2 else {"function": "relu"}
        truth[f"q/w{i}"] = kernel(a, b, 1, 2, batch_axis=0, **own)
        truth[f"q/b{i}"] = bias(f"q/w{i}", 1 if b > 1 else (), batch_axis=0)
    inputs = (floats(B, seen), floats(B, moves), floats(B), floats(B), floats(B, seen))
    return Model(apply, params, inputs, truth)
