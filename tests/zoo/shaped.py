"""Plain functions: agents, and functions with learned shapes."""

import jax
import jax.numpy as jnp

from zoo.layers import affine, linear, scales
from zoo.truths import (
    ANY,
    Model,
    Use,
    bias,
    dense,
    embedding,
    floats,
    integers,
    kernel,
    model,
    norm,
    one_of,
    scale,
)
from zoo.truths import layer_norm as ln

B, N, H, A = 3, 6, 9, 4


@model
def noisy_values() -> Model:
    """Fortunato et al. 2018 (NoisyNet) with quantiles of Dabney et al. 2018 (IQN)."""
    quantiles, cosines = 5, 7

    def noisy(q, x, e_in, e_out):
        y = x @ q["mu"] + q["mu_b"]
        return y + ((x * e_in) @ q["sigma"]) * e_out + q["sigma_b"] * e_out

    def apply(p, obs, tau, e_in, e_out):
        h = jax.nn.relu(linear(p["torso"], obs))
        c = jnp.cos(jnp.pi * jnp.arange(1, cosines + 1) * tau[..., None])
        h = h[:, None] * jax.nn.relu(linear(p["cosine"], c))
        return noisy(p["out"], h, e_in, e_out).mean(1)

    out = {"mu": floats(H, A), "mu_b": floats(A), "sigma": floats(H, A)}
    params = {"torso": affine(N, H), "cosine": affine(cosines, H)}
    params["out"] = out | {"sigma_b": floats(A)}
    truth = {
        # Debatable: two factors with a ReLU each.
        **dense("torso", N, H, function="relu", part=ANY),
        **dense("cosine", cosines, H, function="relu", part=ANY),
        "out/mu": kernel(H, A, head=True),
        "out/mu_b": bias("out/mu"),
        "out/sigma": kernel(H, A, head=True),
        # Debatable: a number that noise multiplies, and that is added.
        "out/sigma_b": Use(one_of("bias", "scale"), (), 0, of=ANY),
    }
    inputs = (floats(B, N), floats(B, quantiles), floats(H), floats(A))
    return Model(apply, params, inputs, truth)


@model
def planning_model() -> Model:
    """Schrittwieser et al. 2020 (MuZero), small: a model unrolled over actions."""
    steps = 3

    def dyn(p, s, a):
        x = jnp.concatenate([s, jax.nn.one_hot(a, A)], -1)
        h = jax.nn.relu(ln(linear(p["d1"], x), p["dn"]))
        return jnp.tanh(s + linear(p["d2"], h)), linear(p["reward"], h)

    def apply(p, obs, actions):
        s = jnp.tanh(linear(p["repr"], obs))

        def step(s, a):
            s, r = dyn(p, s, a)
            return s, (linear(p["policy"], s), linear(p["value"], s), r)

        return jax.lax.scan(step, s, actions.T)[1]

    params = {
        "repr": affine(N, H),
        "d1": affine(H + A, 11),
        "dn": scales(11),
        "d2": affine(11, H),
        "reward": affine(11, 1),
        "policy": affine(H, A),
        "value": affine(H, 1),
    }
    truth = {
        **dense("repr", N, H, function="tanh"),
        # Its columns are the state's and the actions'.
        "d1/kernel": kernel(H + A, 11, recurrent=True, sections=ANY),
        "d1/bias": bias("d1/kernel"),
        **norm("dn"),
        # Debatable: a residual write over time.
        **dense("d2", 11, H, function=ANY, residual=ANY, recurrent=True),
        **dense("reward", 11, 1, head=True),
        **dense("policy", H, A, head=True),
        **dense("value", H, 1, head=True),
    }
    return Model(apply, params, (floats(B, N), integers(B, steps)), truth)


@model
def curious() -> Model:
    """Pathak et al. 2017 (ICM): one encoder, twice; actions from both of them."""

    def apply(p, s, a, s2):
        def phi(x):
            return jax.nn.elu(linear(p["phi2"], jax.nn.elu(linear(p["phi1"], x))))

        u, v = phi(s), phi(s2)
        guess = jnp.concatenate([u, v], -1) @ p["inverse"]["w1"] + p["inverse"]["b1"]
        logits = jax.nn.relu(guess) @ p["inverse"]["w2"]
        h = jnp.concatenate([u, jax.nn.one_hot(a, A)], axis=-1)
        ahead = jax.nn.relu(h @ p["forward"]["w1"]) @ p["forward"]["w2"]
        return logits, ((ahead - jax.lax.stop_gradient(v)) ** 2).sum(-1)

    params = {
        "phi1": affine(N, 10), "phi2": affine(10, H),
        "inverse": {"w1": floats(2 * H, 8), "b1": floats(8), "w2": floats(8, A)},
        "forward": {"w1": floats(H + A, 8), "w2": floats(8, H)},
    }  # fmt: skip
    truth = {
        "phi1/kernel": [kernel(N, 10, function="elu")] * 2,
        "phi1/bias": [bias("phi1/kernel")] * 2,
        "phi2/kernel": [kernel(10, H, function="elu")] * 2,
        "phi2/bias": [bias("phi2/kernel")] * 2,
        "inverse/w1": kernel(2 * H, 8, function="relu"),
        "inverse/b1": bias("inverse/w1"),
        "inverse/w2": kernel(8, A, head=True),
        "forward/w1": kernel(H + A, 8, function="relu"),
        # Debatable: the square of a difference.
        "forward/w2": kernel(8, H, head=True, function=ANY),
    }
    return Model(apply, params, (floats(B, N), integers(B), floats(B, N)), truth)


@model
def polynomials_on_edges() -> Model:
    """Chebyshev KAN: powers of a bounded input, by one kernel."""
    degree = 4

    def apply(p, x):
        for c in p["coefficients"]:
            t = jnp.arccos(jnp.clip(jnp.tanh(x), -0.999, 0.999))
            t = jnp.cos(t[..., None] * jnp.arange(degree))
            x = jnp.einsum("bid,iod->bo", t, c)
        return x

    params = {"coefficients": [floats(N, H, degree), floats(H, A, degree)]}
    truth = {
        # Debatable: the tanh is only the first of what is done to its output.
        "coefficients/0": kernel(N * degree, H, (0, 2), 1, ANY),
        "coefficients/1": kernel(H * degree, A, (0, 2), 1, head=True),
    }
    return Model(apply, params, (floats(B, N),), truth)


@model
def wavelets_of_places() -> Model:
    """Saragadam et al. 2023 (WIRE): a sine under a bell; then a learned frequency."""

    def apply(p, x):
        for q in p["hidden"]:
            a, b = linear(q["freq"], x), linear(q["scale"], x)
            x = jnp.cos(10 * a) * jnp.exp(-((5 * b) ** 2))
        h = jnp.sin(p["omega"] * linear(p["last"], x))
        return h @ p["out"]

    q0 = {"freq": affine(2, H), "scale": affine(2, H)}
    q1 = {"freq": affine(H, H), "scale": affine(H, H)}
    params = {"hidden": [q0, q1], "omega": floats(), "last": affine(H, H)}
    params["out"] = floats(H, 3)
    # Debatable: whether 10 a is a kernel of 10, or a function.
    loose = {"function": ANY, "multiplier": ANY, "part": ANY}
    truth = {
        "omega": scale(()),
        "last/kernel": kernel(H, H, function=ANY, multiplier=ANY),
        "last/bias": bias("last/kernel", multiplier=ANY),
        "out": kernel(H, 3, head=True),
    }
    for i, n in enumerate((2, H)):
        for name in ("freq", "scale"):
            path = f"hidden/{i}/{name}"
            truth[f"{path}/kernel"] = kernel(n, H, **loose)
            truth[f"{path}/bias"] = bias(f"{path}/kernel", multiplier=ANY, part=ANY)
    return Model(apply, params, (floats(B, 2),), truth)


@model
def distances_of_shapes() -> Model:
    """Park et al. 2019 (DeepSDF): a code beside the place, given again midway."""
    code = 5

    def apply(p, shape, x):
        z = jnp.concatenate([p["codes"][shape], x], axis=-1)
        h = z
        for i, q in enumerate(p["layers"]):
            if i == 2:
                h = jnp.concatenate([h, z], -1)
            h = jax.nn.relu(ln(linear(q, h), p["norms"][i]))
        return jnp.tanh(h @ p["out"])[:, 0]

    z = code + 3
    sizes = [(z, H), (H, 7), (7 + z, H)]
    params = {
        "codes": floats(11, code), "layers": [affine(*s) for s in sizes],
        "norms": [scales(o) for _, o in sizes], "out": floats(H, 1),
    }  # fmt: skip
    truth = {"codes": embedding(code), "out": kernel(H, 1, function="tanh", head=True)}
    for i, (a, b) in enumerate(sizes):
        truth |= {**dense(f"layers/{i}", a, b), **norm(f"norms/{i}")}
    return Model(apply, params, (integers(B), floats(B, 3)), truth)


@model
def waves_that_are_learned() -> Model:
    """Tancik et al. 2020, with frequencies as a leaf; slopes of Jagtap et al. 2020."""

    def apply(p, x):
        w = 2 * jnp.pi * (x @ p["freqs"])
        h = jnp.concatenate([jnp.sin(w), jnp.cos(w)], axis=-1)
        for q in p["layers"]:
            h = jnp.tanh(5 * q["a"] * linear(q, h))
        return linear(p["out"], h)

    layers = [affine(2 * H, 8) | {"a": floats()}, affine(8, 8) | {"a": floats()}]
    params = {"freqs": floats(2, H), "layers": layers, "out": affine(8, 1)}
    truth = {
        # Debatable: a sine and a cosine of one product.
        "freqs": kernel(2, H, function=ANY, multiplier=ANY),
        **dense("out", 8, 1, head=True),
    }
    for i, n in enumerate((2 * H, 8)):
        # Debatable: a slope lies between the kernel and its function.
        truth |= {
            f"layers/{i}/kernel": kernel(n, 8, function=ANY, multiplier=ANY),
            f"layers/{i}/bias": bias(f"layers/{i}/kernel", multiplier=ANY),
            f"layers/{i}/a": scale((), multiplier=5.0),
        }
    return Model(apply, params, (floats(B, 2),), truth)


@model
def pieces_and_pairs() -> Model:
    """Goodfellow et al. 2013 (maxout), then Shang et al. 2016 (CReLU)."""
    pieces = 3

    def apply(p, x):
        z = jnp.einsum("bi,iko->bko", x, p["w"]) + p["b"]
        h = z.max(1)
        u = h @ p["u"]
        u = jnp.concatenate([jax.nn.relu(u), jax.nn.relu(-u)], axis=-1)
        return u @ p["v"] + p["c"]

    params = {"w": floats(N, pieces, H), "b": floats(pieces, H), "u": floats(H, 5)}
    params |= {"v": floats(10, A), "c": floats(A)}
    truth = {
        # Debatable: pieces are features, until the greatest is taken.
        "w": kernel(N, pieces * H, 0, (1, 2), ANY),
        "b": bias("w", (0, 1)),
        # Debatable: a ReLU of both signs.
        "u": kernel(H, 5, function=ANY, multiplier=one_of(1.0, -1.0)),
        "v": kernel(10, A, head=True),
        "c": bias("v"),
    }
    return Model(apply, params, (floats(B, N),), truth)
