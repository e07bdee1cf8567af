"""Truths of Flax's layers, whose parameters Linen and NNX name alike."""

from zoo.truths import ANY, Model, bias, convolution, kernel

GATES = {
    "i": {"part": "input gate", "function": "sigmoid"},
    "f": {"part": "forget gate", "function": "sigmoid"},
    "g": {"part": "cell", "function": "tanh"},
    "o": {"part": "output gate", "function": "sigmoid"},
}


def of_linen(module, inputs, truth, keys=(), **options) -> Model:
    """`module` with its collection "params"; others are zeros, and return unread.

    Its random streams `keys` begin at constants.
    """
    import jax
    import jax.numpy as jnp

    def init():
        return module.init(rngs | {"params": key}, *map(zeros, inputs), **options)

    def zeros(like):
        return jnp.zeros(like.shape, like.dtype)

    key = jax.random.key(0)
    rngs = dict.fromkeys(keys, key)
    variables = dict(jax.eval_shape(init))
    params = variables.pop("params")
    others = {name: jax.tree.map(zeros, tree) for name, tree in variables.items()}

    def apply(params, *inputs):
        y = module.apply({"params": params, **others}, *inputs, **options, **mutable)
        return y[0] if mutable else y

    mutable = {"mutable": [*others]} if others else {}
    if keys:
        options["rngs"] = rngs
    return Model(apply, params, tuple(inputs), truth)


def attention(path, inputs, heads, size, residual, scaled, memory=None) -> dict:
    """Kernels (D, H, K) and (H, K, D) with biases.

    Args:
      path: Of the layer.
      inputs: Features of the queries' input, and of the output.
      heads: Number of heads.
      size: Features of a head.
      residual: Of the output's kernel.
      scaled: Whether queries are divided by sqrt(size), rather than scores.
      memory: Features of what is attended to, if not `inputs`.
    """
    inner = heads * size
    sources = {"query": inputs, "key": memory or inputs, "value": memory or inputs}
    factors = {"query": size**-0.5} if scaled else {}
    truth = {}
    for part, source in sources.items():
        factor = factors.get(part, 1.0)
        truth[f"{path}/{part}/kernel"] = kernel(
            source, inner, 0, (1, 2), part=part, multiplier=factor
        )
        truth[f"{path}/{part}/bias"] = bias(
            f"{path}/{part}/kernel",
            (0, 1),
            part=part,
            multiplier=1.0 if factor == 1.0 else ANY,
        )
    part = "attention output"
    out = kernel(inner, inputs, (0, 1), 2, residual=residual, part=part)
    truth[f"{path}/out/kernel"] = out
    truth[f"{path}/out/bias"] = bias(f"{path}/out/kernel", part=part)
    return truth


def window(path, fan_in, fan_out, names=("kernel", "bias"), **rest) -> dict:
    """A convolution of images and its bias."""
    weight, offset = (f"{path}/{name}" for name in names)
    return {weight: convolution(fan_in, fan_out, **rest), offset: bias(weight)}


def lstm(path, inputs, state) -> dict:
    """LSTMCell and OptimizedLSTMCell of Linen: the biases are the recurrent layers'."""
    truth = {}
    for gate, own in GATES.items():
        truth[f"{path}/i{gate}/kernel"] = kernel(inputs, state, **own)
        truth[f"{path}/h{gate}/kernel"] = kernel(state, state, recurrent=True, **own)
        truth[f"{path}/h{gate}/bias"] = bias(f"{path}/h{gate}/kernel", part=own["part"])
    return truth


def gru(path, inputs, state) -> dict:
    """GRUCell of Linen: the candidate's part of the state is reset after its kernel."""
    parts = {"r": "reset gate", "z": "update gate", "n": "candidate"}
    truth = {}
    for gate, part in parts.items():
        function = "tanh" if gate == "n" else "sigmoid"
        # The product with the reset gate follows before the tanh.
        recurrent = "identity" if gate == "n" else "sigmoid"
        truth[f"{path}/i{gate}/kernel"] = kernel(
            inputs, state, part=part, function=function
        )
        truth[f"{path}/i{gate}/bias"] = bias(f"{path}/i{gate}/kernel", part=part)
        truth[f"{path}/h{gate}/kernel"] = kernel(
            state, state, part=part, function=recurrent, recurrent=True
        )
    truth[f"{path}/hn/bias"] = bias(f"{path}/hn/kernel", part="candidate")
    return truth
