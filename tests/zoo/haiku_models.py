"""Haiku: parameters below names of modules that have "/" and "~" in them."""

import jax
import jax.numpy as jnp

from zoo.flax_layers import window
from zoo.truths import (
    ANY,
    Model,
    below,
    bias,
    bias_cut,
    convolution,
    cut,
    dense,
    embedding,
    floats,
    gate,
    integers,
    kernel,
    model,
    norm,
    one_of,
    position,
    scale,
    stacked,
)

BATCH, LENGTH, WIDTH, HIDDEN, OUTPUTS = 2, 5, 12, 15, 4


def of_haiku(fun, inputs, truth) -> Model:
    """The function `fun` transformed; its state is zero, and is not returned."""
    import haiku as hk

    transformed = hk.transform_with_state(fun)
    key = jax.random.key(0)
    params, state = jax.eval_shape(transformed.init, key, *inputs)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)

    def apply(params, *inputs):
        return transformed.apply(params, state, None, *inputs)[0]

    return Model(apply, params, tuple(inputs), truth)


def linear(path, fan_in, fan_out, **rest):
    return dense(path, fan_in, fan_out, weight="w", offset="b", **rest)


def normalized(path):
    return norm(path, offset="offset")


@model
def perceptron() -> Model:
    """hk.nets.MLP, whose last layer is activated, and a linear output."""
    import haiku as hk

    def fun(x):
        x = hk.nets.MLP([11, 13], activation=jnp.tanh, activate_final=True)(x)
        return hk.Linear(OUTPUTS, name="first")(hk.LayerNorm(-1, True, True)(x))

    truth = {
        **linear("mlp/~/linear_0", 7, 11, function="tanh"),
        **linear("mlp/~/linear_1", 11, 13, function="tanh"),
        **normalized("layer_norm"),
        **linear("first", 13, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(BATCH, 7)], truth)


@model
def preactivated_resnet() -> Model:
    """hk.nets.ResNet, version 2, in training; three groups begin with a projection."""
    import haiku as hk

    def fun(x):
        net = hk.nets.ResNet(
            blocks_per_group=(2, 1, 1, 1),
            num_classes=OUTPUTS,
            resnet_v2=True,
            bottleneck=False,
            channels_per_group=(6, 7, 8, 9),
            use_projection=(False, True, True, True),
            initial_conv_config={"output_channels": 6, "kernel_shape": 3},
            strides=(1, 2, 1, 1),
        )
        return net(x, is_training=True)

    def batch_norm(path):
        return {f"{path}/scale": scale(3), f"{path}/offset": bias(None, 3)}

    def block(path, index, inputs, outputs, projected=True):
        truth = {
            **batch_norm(f"{path}/batchnorm_0"),
            f"{path}/conv_0/w": convolution(inputs * 9, outputs * 9),
            **batch_norm(f"{path}/batchnorm_1"),
            f"{path}/conv_1/w": convolution(
                outputs * 9, outputs * 9, residual=(index, 5)
            ),
        }
        if projected:
            # Debatable: it projects what was normed and activated, not the stream.
            truth[f"{path}/shortcut_conv/w"] = convolution(inputs, outputs)
        return truth

    truth = {
        "initial_conv/w": convolution(3 * 9, 6 * 9),
        **block("block_group_0/~/block_0/~", 0, 6, 6, projected=False),
        **block("block_group_0/~/block_1/~", 1, 6, 6, projected=False),
        **block("block_group_1/~/block_0/~", 2, 6, 7),
        **block("block_group_2/~/block_0/~", 3, 7, 8),
        **block("block_group_3/~/block_0/~", 4, 8, 9),
        **batch_norm("final_batchnorm"),
        **linear("logits", 9, OUTPUTS, head=True),
    }
    truth = below("res_net/~/", truth)
    return of_haiku(fun, [floats(BATCH, 16, 16, 3)], truth)


@model
def transformer_stack() -> Model:
    """hk.MultiHeadAttention, which scales scores, in a stack of layers."""
    import haiku as hk

    heads, size, values, layers = 3, 7, 5, 2

    def layer(x):
        h = hk.LayerNorm(-1, True, True, name="ln_1")(x)
        attend = hk.MultiHeadAttention(
            heads,
            size,
            w_init=hk.initializers.VarianceScaling(),
            value_size=values,
            model_size=WIDTH,
            name="attend",
        )
        x = x + attend(h, h, h)
        h = jax.nn.gelu(hk.Linear(HIDDEN, name="up")(x))
        return x + hk.Linear(WIDTH, name="down")(h)

    def fun(tokens):
        x = hk.Embed(17, WIDTH)(tokens)
        zeros = hk.initializers.Constant(0)
        x += hk.get_parameter("positions", [LENGTH, WIDTH], init=zeros)
        x = hk.experimental.layer_stack(layers)(layer)(x)
        return hk.Linear(OUTPUTS)(x)

    inner = heads * size
    single = {
        **normalized("ln_1"),
        **linear("attend/query", WIDTH, inner, part="query"),
        **linear("attend/key", WIDTH, inner, part="key"),
        **linear("attend/value", WIDTH, heads * values, part="value"),
        **linear(
            "attend/linear",
            heads * values,
            WIDTH,
            residual=(0, 2 * layers),
            part="attention output",
        ),
        **linear("up", WIDTH, HIDDEN, function="gelu"),
        **linear("down", HIDDEN, WIDTH, residual=(1, 2 * layers)),
    }
    truth = {
        "embed/embeddings": embedding(WIDTH),
        "~/positions": position(),
        **below("__layer_stack_no_per_layer/", stacked(single)),
        **linear("linear", WIDTH, OUTPUTS, head=True),
    }
    return of_haiku(fun, [integers(BATCH, LENGTH)], truth)


@model
def lstm() -> Model:
    """hk.LSTM: one layer for [x, h], with gates i, g, f, o; then a vanilla cell."""
    import haiku as hk

    state, second = 10, 8
    rows = 7 + state

    def fun(x):
        core = hk.DeepRNN([hk.LSTM(state), hk.VanillaRNN(second)])
        x, _ = hk.dynamic_unroll(core, x, core.initial_state(BATCH))
        return hk.Linear(OUTPUTS)(x)

    parts = ("input gate", "cell", "forget gate", "output gate")
    rows_cut = [
        (0, ((0, 7),), "input", ANY),
        (0, ((7, rows),), "recurrent", ANY),
    ]
    truth = {
        "lstm/linear/w": kernel(
            rows,
            4 * state,
            function=ANY,
            recurrent=True,
            sections=rows_cut + cut(1, state, parts),
        ),
        "lstm/linear/b": bias("lstm/linear/w", sections=bias_cut(state, parts)),
        **linear("vanilla_rnn/linear", state, second, function="relu"),
        **linear(
            "vanilla_rnn/linear_1", second, second, function="relu", recurrent=True
        ),
        **linear("linear", second, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(LENGTH, BATCH, 7)], truth)


@model
def gru() -> Model:
    """hk.GRU: the kernel of the state is cut in two before it is used."""
    import haiku as hk

    state = 10

    def fun(x):
        core = hk.GRU(state)
        x, _ = hk.dynamic_unroll(core, x, core.initial_state(BATCH))
        return hk.Linear(OUTPUTS)(x[-1])

    parts = ("update gate", "reset gate", "candidate")
    both = ["gru/w_h", "gru/w_i"]
    truth = {
        "gru/w_i": kernel(7, 3 * state, function=ANY, sections=cut(1, state, parts)),
        # Of the whole leaf, each use has its slice, and the fans of the slice.
        "gru/w_h": [
            kernel(
                state,
                2 * state,
                function="sigmoid",
                recurrent=True,
                sections=cut(1, state, parts)[:2],
            ),
            kernel(
                state,
                state,
                function="tanh",
                recurrent=True,
                part="candidate",
                sections=cut(1, state, parts)[2:],
            ),
        ],
        "gru/b": [
            bias(both, sections=bias_cut(state, parts)[:2]),
            bias(both, part="candidate", sections=bias_cut(state, parts)[2:]),
        ],
        **linear("linear", state, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(LENGTH, BATCH, 7)], truth)


@model
def up_and_down() -> Model:
    """hk.Conv2DTranspose stores (outputs, inputs); depthwise with two outputs each."""
    import haiku as hk

    def fun(x):
        x = jax.nn.relu(hk.Conv2DTranspose(6, (3, 2), stride=(2, 3))(x))
        x = jax.nn.silu(hk.DepthwiseConv2D(2, (3, 4))(x))
        x = hk.Conv2D(10, (1, 3), stride=2, with_bias=False)(x)
        x = jax.nn.softplus(hk.GroupNorm(2)(x))
        x = hk.avg_pool(x, (2, 2, 1), (2, 2, 1), "VALID")
        return hk.Linear(OUTPUTS)(hk.Flatten()(x))

    truth = {
        "conv2_d_transpose/w": convolution(
            3 * 6 / 6, 6 * 6, in_axis=3, out_axis=2, function="relu", transposed=True
        ),
        "conv2_d_transpose/b": bias("conv2_d_transpose/w"),
        "depthwise_conv2_d/w": convolution(12, 2 * 12, function="silu", groups=6),
        "depthwise_conv2_d/b": bias("depthwise_conv2_d/w"),
        "conv2_d/w": convolution(12 * 3, 10 * 3),
        **normalized("group_norm"),
        # 4 x 4 pixels become 8 x 12, then 4 x 6, then 2 x 3.
        **linear("linear", 2 * 3 * 10, OUTPUTS, head=True),
    }
    return of_haiku(fun, [floats(BATCH, 4, 4, 3)], truth)


@model
def impala() -> Model:
    """Haiku: Espeholt et al. 2018: residual windows, then an LSTM with resets."""
    import haiku as hk

    state, actions = 10, 4

    def torso(x):
        for i, size in enumerate((4, 6)):
            x = hk.Conv2D(size, 3, name=f"stage_{i}")(x)
            x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
            for j in range(2):
                h = hk.Conv2D(size, 3, name=f"conv_{i}_{j}_0")(jax.nn.relu(x))
                x = x + hk.Conv2D(size, 3, name=f"conv_{i}_{j}_1")(jax.nn.relu(h))
        return jax.nn.relu(hk.Linear(WIDTH, name="torso")(hk.Flatten()(jax.nn.relu(x))))

    def net(frames, reward, reset):
        x = hk.BatchApply(torso)(frames)
        x = jnp.concatenate([x, jnp.clip(reward, -1, 1)[..., None]], axis=-1)
        core = hk.ResetCore(hk.LSTM(state))
        x, _ = hk.dynamic_unroll(core, (x, reset), core.initial_state(BATCH))
        policy = hk.BatchApply(hk.Linear(actions, name="policy"))(x)
        return policy, jnp.squeeze(hk.BatchApply(hk.Linear(1, name="value"))(x), -1)

    def conv(name, fan_in, fan_out, **rest):
        return window(name, 9 * fan_in, 9 * fan_out, ("w", "b"), **rest)

    order = ("input gate", "cell", "forget gate", "output gate")
    rows = WIDTH + 1 + state
    truth = {}
    for i, (fan_in, size) in enumerate(((3, 4), (4, 6))):
        # Debatable: the second stage's first window reads, and makes, a stream.
        truth |= conv(f"stage_{i}", fan_in, size, function=one_of("identity", "relu"))
        for j in range(2):
            truth |= conv(f"conv_{i}_{j}_0", size, size, function="relu")
            truth |= conv(f"conv_{i}_{j}_1", size, size, residual=ANY)
    linear = {"weight": "w", "offset": "b"}
    lstm = "lstm/linear"
    truth |= {
        **dense("torso", 4 * 6, WIDTH, function="relu", **linear),
        f"{lstm}/w": kernel(
            rows,
            4 * state,
            function=ANY,
            recurrent=True,
            sections=[
                (0, ((0, WIDTH + 1),), "input", ANY),
                (0, ((WIDTH + 1, rows),), "recurrent", ANY),
                *cut(1, state, order),
            ],
        ),
        f"{lstm}/b": bias(f"{lstm}/w", sections=bias_cut(state, order)),
        **dense("policy", state, actions, head=True, **linear),
        **dense("value", state, 1, head=True, **linear),
    }
    time = 3
    inputs = [floats(time, BATCH, 8, 8, 3), floats(time, BATCH), floats(time, BATCH)]
    return of_haiku(net, inputs, truth)


@model
def normalizer_free() -> Model:
    """Haiku: Brock et al. 2021: scaled activations, skip gains, depthwise windows."""
    import haiku as hk

    gamma = 1.7015

    def block(x, i):
        h = jax.nn.gelu(x) * gamma * 0.9
        h = hk.Conv2D(WIDTH, 1, name=f"in_{i}")(h)
        h = hk.DepthwiseConv2D(1, 3, name=f"deep_{i}")(jax.nn.gelu(h) * gamma)
        s = jnp.mean(h, axis=[1, 2])
        s = hk.Linear(4, name=f"squeeze_{i}")(s)
        s = jax.nn.sigmoid(hk.Linear(WIDTH, name=f"excite_{i}")(jax.nn.relu(s)))
        gain = hk.get_parameter(f"gain_{i}", (), init=jnp.zeros)
        return x + h * 2.0 * s[:, None, None] * 0.2 * gain

    def net(x):
        x = hk.Conv2D(WIDTH, 4, stride=4, padding="VALID", name="stem")(x)
        for i in range(2):
            x = block(x, i)
        return hk.Linear(5, with_bias=False, name="fc")(jnp.mean(x, axis=[1, 2]))

    names, linear = ("w", "b"), {"weight": "w", "offset": "b"}
    truth = {
        **window("stem", 48, 16 * WIDTH, names),
        "fc/w": kernel(WIDTH, 5, head=True),
    }
    for i in range(2):
        truth |= {
            **window(f"in_{i}", WIDTH, WIDTH, names, function="gelu"),
            # Debatable: which constants behind the squeeze are the window's own.
            f"deep_{i}/w": convolution(
                9, 9, groups=WIDTH, residual=(i, 2), multiplier=ANY, part=ANY
            ),
            f"deep_{i}/b": bias(f"deep_{i}/w", multiplier=ANY, part=ANY),
            **dense(f"squeeze_{i}", WIDTH, 4, function="relu", **linear),
            f"excite_{i}/w": kernel(
                4, WIDTH, function="sigmoid", part="gate", residual=ANY
            ),
            f"excite_{i}/b": bias(f"excite_{i}/w", part="gate"),
            f"~/gain_{i}": gate((), multiplier=ANY),
        }
    return of_haiku(net, [floats(BATCH, 16, 16, 3)], truth)
