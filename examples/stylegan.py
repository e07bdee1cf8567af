"""StyleGAN in Flax NNX, trained on handwritten digits.

    python examples/stylegan.py --picture stylegan.png
    python -m jaxinit init examples.stylegan:generator

Weights are N(0, 1) and multiplied at run time by the deviation that He's law asks for,
so that Adam changes all of them at one pace: `jaxinit.unit_scaled` has both. The
mapping network learns a hundred times slower: its weights are a hundred times as wide,
and multiplied by as much less. `jaxinit.schemes.stylegan` draws all of it.

Karras et al., "A style-based generator architecture for generative adversarial
networks" (2019). The noise on each layer, the growth from coarse to fine images and the
penalty of gradients are the paper's; styles are not mixed, and the learned input starts
from N(0, 1), as in its successor.
"""

import functools
import itertools
import math
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.lax import stop_gradient

import jaxinit
from examples import gan, running, training
from jaxinit import schemes
from jaxinit.nnx import collections

leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
HE, LINEAR = math.sqrt(2), 1.0  # gains


class Scaled(nnx.Module):
    """A kernel of standard deviation 1 / rate that is scaled as it is read."""

    def __init__(self, shape, gain: float, rate: float, *, rngs: nnx.Rngs):
        law = jaxinit.variance_scaling(gain**2, "fan_in", "normal")
        init = jaxinit.unit_scaled(law)
        self.multiplier = rate * init.multiplier(shape)
        self.kernel = nnx.Param(jaxinit.scaled(init, 1 / rate)(rngs.params(), shape))

    def scaled(self):
        return self.multiplier * self.kernel[...]


class Dense(Scaled):
    """Vectors to vectors, with a bias."""

    def __init__(self, inputs, outputs, gain=HE, rate=1.0, *, rngs: nnx.Rngs):
        super().__init__((inputs, outputs), gain, rate, rngs=rngs)
        self.rate = rate
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        return x @ self.scaled() + self.rate * self.bias[...]


class Conv(Scaled):
    """Images to images of the same size, with a bias."""

    def __init__(self, inputs, outputs, size=3, gain=HE, *, rngs: nnx.Rngs):
        super().__init__((size, size, inputs, outputs), gain, 1.0, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        y = jax.lax.conv_general_dilated(
            x, self.scaled(), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + self.bias[...]


def doubled(x):
    """Images twice as high and wide."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def halved(x):
    """Images half as high and wide, each pixel the mean of four."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def blurred(x):
    """Images seen through a binomial filter of 3 by 3."""
    for axis in (1, 2):
        pads = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        padded, n = jnp.pad(x, pads), x.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(3)]
        x = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return x


def normalized(x, axes):
    """`x` with a second moment of one over some axes."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axes, keepdims=True) + 1e-8)


class Mapping(nnx.Module):
    """Latents (batch, n) to vectors (batch, n) that styles are made of."""

    def __init__(self, width: int, depth: int = 8, *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [Dense(width, width, rate=0.01, rngs=rngs) for _ in range(depth)]
        )

    def __call__(self, x):
        x = normalized(x, -1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x


class Styled(nnx.Module):
    """What follows a convolution: noise, a rectifier, a norm and a style."""

    def __init__(self, width: int, features: int, *, rngs: nnx.Rngs):
        self.noise = nnx.Param(jnp.zeros(features))
        self.style = Dense(width, features, LINEAR, rngs=rngs)
        self.shift = Dense(width, features, LINEAR, rngs=rngs)

    def __call__(self, x, w, key):
        noise = jax.random.normal(key, (*x.shape[:3], 1))
        x = leaky(x + noise * self.noise[...])
        x = x - jnp.mean(x, (1, 2), keepdims=True)
        x = normalized(x, (1, 2))
        style, shift = self.style(w)[:, None, None], self.shift(w)[:, None, None]
        return x * style + shift


class Block(nnx.Module):
    """Twice the size: two convolutions, each with noise and style."""

    def __init__(self, width: int, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, outputs, rngs=rngs)
        self.styled1 = Styled(width, outputs, rngs=rngs)
        self.conv2 = Conv(outputs, outputs, rngs=rngs)
        self.styled2 = Styled(width, outputs, rngs=rngs)

    def __call__(self, x, w, keys):
        x = self.styled1(blurred(self.conv1(doubled(x))), w, keys[0])
        return self.styled2(self.conv2(x), w, keys[1])


class First(nnx.Module):
    """4 by 4: the learned input, and a convolution."""

    def __init__(self, width: int, features: int, *, rngs: nnx.Rngs):
        self.const = nnx.Param(jax.random.normal(rngs.params(), (4, 4, features)))
        self.bias = nnx.Param(jnp.zeros(features))
        self.styled1 = Styled(width, features, rngs=rngs)
        self.conv2 = Conv(features, features, rngs=rngs)
        self.styled2 = Styled(width, features, rngs=rngs)

    def __call__(self, w, keys):
        x = jnp.broadcast_to(self.const[...], (len(w), *self.const.shape))
        x = self.styled1(x + self.bias[...], w, keys[0])
        return self.styled2(self.conv2(x), w, keys[1])


def features(size: int, base: int, most: int) -> int:
    """Channels of images of a size: half as many for twice the size."""
    return min(2 * base // size, most)


class Generator(nnx.Module):
    """Latents (batch, n) to images (batch, size, size, channels).

    Args:
        size: of the images, a power of two, at least 8.
        width: of latents and styles; and the most features of a layer.
        base: features times size, where they are fewer.
        channels: of the images.
        rngs: of the parameters.
    """

    def __init__(self, size=1024, width=512, base=8192, channels=3, *, rngs: nnx.Rngs):
        sizes = [2**i for i in range(2, size.bit_length())]
        widths = [features(x, base, width) for x in sizes]
        self.mapping = Mapping(width, rngs=rngs)
        self.first = First(width, widths[0], rngs=rngs)
        self.blocks = nnx.List(
            [Block(width, x, y, rngs=rngs) for x, y in itertools.pairwise(widths)]
        )
        self.to_rgb = nnx.List(
            [Conv(x, channels, 1, LINEAR, rngs=rngs) for x in widths]
        )

    def __call__(self, latents, key, fade):
        """Images, of which a share `fade` comes from the coarser layers."""
        w = self.mapping(latents)
        keys = jax.random.split(key, (len(self.to_rgb), 2))
        x = self.first(w, keys[0])
        images = self.to_rgb[0](x)
        for i, block in enumerate(self.blocks, 1):
            x = block(x, w, keys[i])
            images = (1 - fade) * self.to_rgb[i](x) + fade * doubled(images)
        return images


class Shrinking(nnx.Module):
    """Half the size: two convolutions."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, inputs, rngs=rngs)
        self.conv2 = Conv(inputs, outputs, rngs=rngs)

    def __call__(self, x):
        x = leaky(self.conv1(x))
        return leaky(halved(self.conv2(blurred(x))))


def with_deviation(x, group: int = 4):
    """`x` with the mean deviation in groups of images, as one more channel."""
    batch, height, width, channels = x.shape
    y = x.reshape(group, batch // group, height, width, channels)
    deviation = jnp.sqrt(jnp.mean((y - y.mean(0)) ** 2, 0) + 1e-8).mean((1, 2, 3))
    tiled = jnp.tile(deviation, group)[:, None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(tiled, (*x.shape[:3], 1))], -1)


class Discriminator(nnx.Module):
    """Images (batch, size, size, channels) to logits (batch,) that they are real.

    The arguments are those of `Generator`; the batch must be a multiple of 4.
    """

    def __init__(self, size=1024, width=512, base=8192, channels=3, *, rngs: nnx.Rngs):
        sizes = [2**i for i in range(2, size.bit_length())][::-1]
        widths = [features(x, base, width) for x in sizes]
        self.from_rgb = nnx.List([Conv(channels, x, 1, rngs=rngs) for x in widths])
        self.blocks = nnx.List(
            [Shrinking(x, y, rngs=rngs) for x, y in itertools.pairwise(widths)]
        )
        self.conv = Conv(widths[-1] + 1, widths[-1], rngs=rngs)
        self.dense = Dense(16 * widths[-1], widths[-1], rngs=rngs)
        self.logit = Dense(widths[-1], 1, LINEAR, rngs=rngs)

    def __call__(self, images, fade):
        """Logits, for which a share `fade` of coarser features comes from images."""
        x = leaky(self.from_rgb[0](images))
        for i, block in enumerate(self.blocks, 1):
            images = halved(images)
            x = (1 - fade) * block(x) + fade * leaky(self.from_rgb[i](images))
        x = leaky(self.conv(with_deviation(x)))
        x = leaky(self.dense(x.reshape(len(x), -1)))
        return self.logit(x)[:, 0]


def generator(rngs: nnx.Rngs) -> Generator:
    """The generator of 1024 by 1024 images: 26,219,627 parameters."""
    return Generator(rngs=rngs)


def discriminator(rngs: nnx.Rngs) -> Discriminator:
    """The discriminator of 1024 by 1024 images: 23,087,249 parameters."""
    return Discriminator(rngs=rngs)


SIZES = {
    "generator": (generator, 26_219_627),
    "discriminator": (discriminator, 23_087_249),
}


def counted(name: str) -> str:
    """A line with the number of parameters of a published size, none of them drawn."""
    init, expected = SIZES[name]
    shapes = jax.eval_shape(collections(init), jax.random.key(0))["params"]
    return training.published(f"StyleGAN {name}", shapes, expected)


WIDTH, PENALTY = 32, 10.0
SMALL = {"size": 8, "width": WIDTH, "base": 128, "channels": 1}


def small_generator(rngs: nnx.Rngs) -> Generator:
    return Generator(**SMALL, rngs=rngs)


def small_discriminator(rngs: nnx.Rngs) -> Discriminator:
    return Discriminator(**SMALL, rngs=rngs)


def start(seed: int):
    """Graphs and parameters of both networks."""
    image = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    latents = jax.ShapeDtypeStruct((4, WIDTH), jnp.float32)
    fade = jax.ShapeDtypeStruct((), jnp.float32)
    begin = functools.partial(running.nnx_start, scheme=schemes.stylegan())
    made = begin(small_generator, latents, jax.random.key(0), fade, seed=seed)
    told = begin(small_discriminator, image, fade, seed=seed + 1)
    (first, x), (second, y) = nnx.split(made), nnx.split(told)
    return (first, second), (x, y)


def adversarial(graphs, steps: int):
    """The loss of both networks, for `training.train`.

    State is the number of the step, and a running mean of the generator's parameters.
    Within the first half of the steps the finer layers take over from the coarser ones.
    """

    def loss(params, state, real, key):
        step, average = state
        fade = jnp.maximum(0.0, 1 - 2 * step / steps)
        to_draw, to_add = jax.random.split(key)
        latents = jax.random.normal(to_draw, (len(real), WIDTH))
        made = nnx.merge(graphs[0], params[0])(latents, to_add, fade)
        told = nnx.merge(graphs[1], params[1])
        judge = nnx.merge(graphs[1], stop_gradient(params[1]))

        logits, pull = jax.vjp(lambda x: told(x, fade), real)
        (slopes,) = pull(jnp.ones_like(logits))
        penalty = PENALTY / 2 * jnp.mean(jnp.sum(slopes**2, (1, 2, 3)))
        both = gan.discriminator_loss(logits, told(stop_gradient(made), fade))
        both += gan.generator_loss(judge(made, fade))
        mean = jax.tree.map(lambda x, y: 0.98 * x + 0.02 * y, average, params[0])
        return both + penalty, (step + 1, stop_gradient(mean))

    return loss


@functools.partial(jax.jit, static_argnums=0)
def samples(graph, params, key):
    """512 images of a generator."""
    latents = jax.random.normal(key, (512, WIDTH))
    return nnx.merge(graph, params)(latents, key, 0.0)


def main(arguments: Sequence[str] = ()) -> None:
    """Trains, and prints what came out."""
    given = training.options(arguments, __doc__, steps=200, sizes=tuple(SIZES))
    if given.count:
        print(counted(given.count))
        return
    began = time.perf_counter()
    graphs, params = start(given.seed)
    real, key = gan.digits(), jax.random.key(2)
    before = samples(graphs[0], params[0], key)
    trained = gan.train(
        adversarial(graphs, given.steps),
        params,
        (jnp.float32(0), params[0]),
        gan.rows_of(real, 16),
        steps=given.steps,
        optimizer=optax.adamw(4e-3, b1=0.0, b2=0.99, weight_decay=0.0),
    )
    made = samples(graphs[0], trained.state[1], key)
    images = before, made, real
    gan.report(given, params, schemes.stylegan(), trained.losses, *images, began=began)


if __name__ == "__main__":
    main(sys.argv[1:])
