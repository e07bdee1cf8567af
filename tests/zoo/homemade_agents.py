"""Agents by hand: noise, atoms, twins with targets, priors that nobody trains."""

import jax
import jax.numpy as jnp

from zoo.equinox_models import linear as eqx_linear
from zoo.equinox_models import of_equinox
from zoo.flax_layers import of_linen, window
from zoo.truths import (
    ANY,
    Model,
    bias,
    convolution,
    dense,
    either,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    scale,
    unknown,
)

B = 4


@model
def atoms_with_noise() -> Model:
    """Hessel et al. 2018 (Rainbow), small: noisy layers, a duel of atoms, one key.

    Kernels get factorized noise; what is returned is the mean of each action.
    """
    obs, hidden, actions, atoms = 7, 12, 3, 5
    support = jnp.linspace(-2.0, 2.0, atoms)

    def noise(key, n):
        e = jax.random.normal(key, (n,))
        return jnp.sign(e) * jnp.sqrt(jnp.abs(e))

    def noisy(p, x, key):
        k1, k2 = jax.random.split(key)
        n_in, n_out = p["mu_w"].shape
        e_in, e_out = noise(k1, n_in), noise(k2, n_out)
        w = p["mu_w"] + p["sigma_w"] * jnp.outer(e_in, e_out)
        return x @ w + p["mu_b"] + p["sigma_b"] * e_out

    def apply(p, x, key):
        keys = jax.random.split(key, 4)
        h = jax.nn.relu(x @ p["torso"]["w"] + p["torso"]["b"])
        v = noisy(p["v2"], jax.nn.relu(noisy(p["v1"], h, keys[0])), keys[1])
        a = noisy(p["a2"], jax.nn.relu(noisy(p["a1"], h, keys[2])), keys[3])
        a = a.reshape(-1, actions, atoms)
        logits = v[:, None] + a - a.mean(axis=1, keepdims=True)
        return jnp.sum(jax.nn.softmax(logits, axis=-1) * support, axis=-1)

    sizes = {"v1": (hidden, 9), "v2": (9, atoms), "a1": (hidden, 11)}
    sizes["a2"] = (11, actions * atoms)
    params = {"torso": {"w": floats(obs, hidden), "b": floats(hidden)}}
    truth = dense("torso", obs, hidden, "w", "b", function="relu")
    for name, (a, b) in sizes.items():
        params[name] = {"mu_w": floats(a, b), "sigma_w": floats(a, b)}
        params[name] |= {"mu_b": floats(b), "sigma_b": floats(b)}
        truth |= {
            # What meets activations is a sum with noise: no kernel that is known.
            f"{name}/mu_w": unknown(),
            f"{name}/sigma_w": unknown(),
            f"{name}/mu_b": bias(ANY),
            # Debatable: a number that noise multiplies, and that is added.
            f"{name}/sigma_b": either("bias", "scale", "unknown"),
        }
    raw = jax.ShapeDtypeStruct((2,), jnp.uint32)
    return Model(apply, params, (floats(B, obs), raw), truth)


@model
def twins_with_targets() -> Model:
    """Fujimoto et al. 2018 (TD3) as a loss: critics by vmap, targets are leaves too."""
    obs, act, hidden = 7, 3, 11

    def actor(p, s):
        h = jax.nn.relu(s @ p["l1"]["w"] + p["l1"]["b"])
        return jnp.tanh(h @ p["l2"]["w"] + p["l2"]["b"])

    def critic(p, s, a):
        h = jnp.concatenate([s, a], -1) @ p["l1"]["w"] + p["l1"]["b"]
        return (jax.nn.elu(h) @ p["l2"]["w"] + p["l2"]["b"])[..., 0]

    twins = jax.vmap(critic, in_axes=(0, None, None))

    def apply(p, s, a, r, s_, noise):
        a_ = jnp.clip(actor(p["target"]["actor"], s_) + noise, -1, 1)
        y = r + 0.99 * twins(p["target"]["critics"], s_, a_).min(axis=0)
        y = jax.lax.stop_gradient(y)
        q = twins(p["critics"], s, a)
        return jnp.square(q - y).mean(), -twins(p["critics"], s, actor(p["actor"], s))[
            0
        ]

    def layer(a, b, *lead):
        return {"w": floats(*lead, a, b), "b": floats(*lead, b)}

    actor_ = {"l1": layer(obs, hidden), "l2": layer(hidden, act)}
    critics = {"l1": layer(obs + act, 9, 2), "l2": layer(9, 1, 2)}
    params = {"actor": actor_, "critics": critics}
    params["target"] = {"actor": actor_, "critics": critics}
    own = {"batch_axis": 0}
    # Debatable: ends of the model, whose squares or least are taken.
    last = {"function": ANY, "head": ANY, "multiplier": ANY, "residual": ANY}

    def actors(path):
        return {
            **dense(f"{path}/l1", obs, hidden, "w", "b", function="relu"),
            **dense(f"{path}/l2", hidden, act, "w", "b", function="tanh"),
        }

    def critics_(path, times):
        one = {
            "l1/w": kernel(obs + act, 9, 1, 2, "elu", **own),
            "l1/b": bias(f"{path}/l1/w", 1, **own),
            "l2/w": kernel(9, 1, 1, 2, **{**last, **own}),
            "l2/b": bias(f"{path}/l2/w", (), multiplier=ANY, **own),
        }
        return {f"{path}/{name}": [use] * times for name, use in one.items()}

    truth = {
        **actors("actor"),
        **actors("target/actor"),
        **critics_("critics", 2),
        **critics_("target/critics", 1),
    }
    inputs = (floats(B, obs), floats(B, act), floats(B), floats(B, obs), floats(B, act))
    return Model(apply, params, inputs, truth)


@model
def pixels_and_points() -> Model:
    """PPO, Linen: one trunk for frames and numbers, a mask of actions, two losses."""
    from flax import linen as nn

    actions = 5

    class Net(nn.Module):
        @nn.compact
        def __call__(self, frames, numbers, legal, action, gain, returns):
            x = frames.astype(jnp.float32) / 255.0
            x = nn.relu(nn.Conv(6, (4, 4), (2, 2), padding="VALID", name="conv1")(x))
            x = nn.relu(nn.Conv(8, (3, 3), padding="VALID", name="conv2")(x))
            x = jnp.concatenate([x.reshape(x.shape[0], -1), numbers], axis=-1)
            x = nn.tanh(nn.LayerNorm(name="ln")(nn.Dense(13, name="fc")(x)))
            logits = nn.Dense(actions, name="pi")(x)
            logits = jnp.where(legal, logits, -1e8)
            log_pi = nn.log_softmax(logits)
            chosen = jnp.take_along_axis(log_pi, action[:, None], axis=1)[:, 0]
            entropy = -(jnp.exp(log_pi) * log_pi).sum(-1)
            value = nn.Dense(1, name="v")(x).squeeze(-1)
            loss = -(chosen * gain) + 0.5 * (returns - value) ** 2 - 0.01 * entropy
            return loss.mean(), value

    flat = 3 * 2 * 8 + 3
    truth = {
        **window("conv1", 48, 96, function="relu"),
        **window("conv2", 54, 72, function="relu"),
        **dense("fc", flat, 13),
        **norm("ln"),
        "pi/kernel": kernel(13, actions, head=True),
        "pi/bias": bias("pi/kernel"),
        # Debatable: it is returned, and a square of its distance.
        "v/kernel": kernel(13, 1, function=ANY, multiplier=ANY, head=True),
        "v/bias": bias("v/kernel", (), multiplier=ANY),
    }
    legal = jax.ShapeDtypeStruct((B, actions), bool)
    inputs = [
        integers(B, 12, 10, 3),
        floats(B, 3),
        legal,
        integers(B),
        floats(B),
        floats(B),
    ]
    return of_linen(Net(), inputs, truth)


@model
def members_with_priors() -> Model:
    """Osband et al. 2018: an ensemble by vmap; each adds a prior, never trained."""
    members, obs, hidden, actions = 5, 6, 11, 3

    def mlp(p, x):
        for w, b in p["hidden"]:
            x = jax.nn.relu(jnp.dot(x, w) + b)
        return jnp.dot(x, p["out"])

    def member(p, prior, x):
        return mlp(p, x) + 3.0 * jax.lax.stop_gradient(mlp(prior, x))

    def apply(p, x, z):
        q = jax.vmap(member, in_axes=(0, 0, None))(p["nets"], p["priors"], x)
        spread = q.std(axis=0)
        return jnp.einsum("mba,bm->ba", q, jax.nn.one_hot(z, members)), spread

    net = {
        "hidden": [
            (floats(members, obs, hidden), floats(members, hidden)),
            (floats(members, hidden, 9), floats(members, 9)),
        ],
        "out": floats(members, 9, actions),
    }
    own = {"batch_axis": 0}
    truth = {}
    for name, factor in (("nets", 1.0), ("priors", 3.0)):
        truth |= {
            f"{name}/hidden/0/0": kernel(obs, hidden, 1, 2, "relu", **own),
            f"{name}/hidden/0/1": bias(f"{name}/hidden/0/0", 1, **own),
            f"{name}/hidden/1/0": kernel(hidden, 9, 1, 2, "relu", **own),
            f"{name}/hidden/1/1": bias(f"{name}/hidden/1/0", 1, **own),
            # Debatable: members are chosen by a product with one-hot vectors.
            f"{name}/out": kernel(
                9, actions, 1, 2, function=ANY, head=ANY, multiplier=factor, **own
            ),
        }
    return Model(
        apply, {"nets": net, "priors": net}, (floats(B, obs), integers(B)), truth
    )


@model
def moves_of_a_board() -> Model:
    """Silver et al. 2017 (AlphaZero), Equinox: a tower, moves, and a value's tanh."""
    import equinox as eqx

    c, side, moves = 6, 4, 17

    class Res(eqx.Module):
        conv1: eqx.nn.Conv2d
        norm1: eqx.nn.GroupNorm
        conv2: eqx.nn.Conv2d
        norm2: eqx.nn.GroupNorm

        def __init__(self, key):
            def make(key):
                return eqx.nn.Conv2d(c, c, 3, padding=1, use_bias=False, key=key)

            self.conv1, self.conv2 = map(make, jax.random.split(key))
            self.norm1, self.norm2 = eqx.nn.GroupNorm(2, c), eqx.nn.GroupNorm(2, c)

        def __call__(self, x):
            h = jax.nn.relu(self.norm1(self.conv1(x)))
            return jax.nn.relu(x + self.norm2(self.conv2(h)))

    class Net(eqx.Module):
        stem: eqx.nn.Conv2d
        tower: list
        policy: eqx.nn.Conv2d
        moves: eqx.nn.Linear
        value: eqx.nn.Conv2d
        hidden: eqx.nn.Linear
        score: eqx.nn.Linear

        def __init__(self, key):
            self.stem = eqx.nn.Conv2d(3, c, 3, padding=1, key=key)
            self.tower = [Res(k) for k in jax.random.split(key, 2)]
            self.policy = eqx.nn.Conv2d(c, 2, 1, key=key)
            self.moves = eqx.nn.Linear(2 * side * side, moves, key=key)
            self.value = eqx.nn.Conv2d(c, 1, 1, key=key)
            self.hidden = eqx.nn.Linear(side * side, 9, key=key)
            self.score = eqx.nn.Linear(9, "scalar", key=key)

        def __call__(self, board):
            x = jax.nn.relu(self.stem(board))
            for block in self.tower:
                x = block(x)
            pi = self.moves(jax.nn.relu(self.policy(x)).ravel())
            v = jax.nn.relu(self.value(x)).ravel()
            v = jnp.tanh(self.score(jax.nn.relu(self.hidden(v))))
            return jax.nn.softmax(pi), v

    axes = {"spatial_axis": (2, 3), "in_axis": 1, "out_axis": 0}

    truth = {
        "stem/weight": convolution(27, 9 * c, function="relu", **axes),
        "stem/bias": bias("stem/weight"),
        "policy/weight": convolution(c, 2, function="relu", **axes),
        "policy/bias": bias("policy/weight"),
        **eqx_linear("moves", 2 * side * side, moves, head=True),
        "value/weight": convolution(c, 1, function="relu", **axes),
        "value/bias": bias("value/weight", ()),
        **eqx_linear("hidden", side * side, 9, function="relu"),
        "score/weight": kernel(9, 1, 1, 0, function="tanh", head=True),
        "score/bias": bias("score/weight", ()),
    }
    for i in range(2):
        path = f"tower/{i}"
        truth |= {
            f"{path}/conv1/weight": convolution(9 * c, 9 * c, **axes),
            **norm(f"{path}/norm1", "weight"),
            f"{path}/conv2/weight": convolution(9 * c, 9 * c, residual=(i, 2), **axes),
            **norm(f"{path}/norm2", "weight"),
        }
    return of_equinox(Net, [floats(B, 3, side, side)], truth)


@model
def returns_that_are_asked_for() -> Model:
    """Chen et al. 2021 (decision transformer), small: three tokens of each step.

    Rows of times are added to all three; causal scores, one block, a tanh of actions.
    """
    obs, act, d, f, t, heads, longest = 7, 3, 12, 15, 4, 2, 9
    long = 3 * t

    def ln(x, p):
        x = x - jnp.mean(x, -1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5) * p[0] + p[1]

    def apply(p, wanted, states, actions, times):
        at = p["time"][times]
        tokens = [
            wanted[..., None] * p["return"]["w"][0] + p["return"]["b"] + at,
            states @ p["state"]["w"] + p["state"]["b"] + at,
            actions @ p["action"]["w"] + p["action"]["b"] + at,
        ]
        x = ln(jnp.stack(tokens, axis=2).reshape(B, long, d), p["ln_in"])
        h = ln(x, p["ln1"])
        qkv = (h @ p["c_attn"]).reshape(B, long, heads, 3, d // heads)
        q, k, v = qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (d // heads) ** 0.5
        s = jnp.where(jnp.tri(long, dtype=bool), s, -1e10)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(s), v).reshape(B, long, d)
        x = x + y @ p["c_proj"]
        x = x + jax.nn.gelu(ln(x, p["ln2"]) @ p["up"]) @ p["down"]
        x = ln(x, p["ln_f"]).reshape(B, t, 3, d)
        return jnp.tanh(x[:, :, 1] @ p["out"]["w"] + p["out"]["b"])

    def pair(a, b):
        return {"w": floats(a, b), "b": floats(b)}

    size = d // heads
    params = {
        "time": floats(longest, d), "return": pair(1, d), "state": pair(obs, d),
        "action": pair(act, d), "c_attn": floats(d, 3 * d), "c_proj": floats(d, d),
        "up": floats(d, f), "down": floats(f, d), "out": pair(d, act),
        **{n: (floats(d), floats(d)) for n in ("ln_in", "ln1", "ln2", "ln_f")},
    }  # fmt: skip
    # Query, key and value of each head lie side by side.
    thirds = [
        (1, tuple(((3 * j + i) * size, (3 * j + i + 1) * size) for j in range(heads)),
         part, "identity")
        for i, part in enumerate(("query", "key", "value"))
    ]  # fmt: skip
    truth = {
        # Times are given: they are looked up, once for all three.
        "time": embedding(d),
        # Debatable: a kernel of one input, as a product.
        "return/w": either("kernel", "scale", "unknown"),
        "return/b": bias(ANY),
        # Debatable: the sum with rows, before a norm, may be a stream.
        **dense("state", obs, d, "w", "b", residual=ANY),
        **dense("action", act, d, "w", "b", residual=ANY),
        **{
            f"{n}/{i}": [scale(), bias(None)][i]
            for n in ("ln_in", "ln1", "ln2", "ln_f")
            for i in range(2)
        },
        "c_attn": kernel(d, 3 * d, sections=thirds),
        "c_proj": kernel(d, d, part="attention output", residual=(0, 2)),
        "up": kernel(d, f, function="gelu"),
        "down": kernel(f, d, residual=(1, 2)),
        **dense("out", d, act, "w", "b", function="tanh", head=True),
    }
    inputs = (floats(B, t), floats(B, t, obs), floats(B, t, act), integers(B, t))
    return Model(apply, params, inputs, truth)
