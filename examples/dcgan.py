"""DCGAN in Flax Linen, trained on handwritten digits.

    python examples/dcgan.py --picture dcgan.png
    python -m jaxinit init examples.dcgan:generator

Both networks start by `jaxinit.schemes.dcgan`: kernels N(0, 0.02), norm scales
N(1, 0.02).

Radford et al., "Unsupervised representation learning with deep convolutional generative
adversarial networks" (2016).
"""

import functools
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.lax import stop_gradient

import jaxinit.linen
from examples import gan, running, training
from jaxinit import schemes

leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)


def norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)


class Generator(nn.Module):
    """Latents (batch, n) to images (batch, size, size, channels), from -1 to 1.

    Attributes:
        size: a power of two, at least 8.
        features: of the last hidden layer; each layer before has twice as many.
        channels: of the images.
    """

    size: int = 64
    features: int = 64
    channels: int = 3

    @nn.compact
    def __call__(self, latents, train: bool = False):
        x = latents[:, None, None, :]
        hidden = (self.size // 8).bit_length()
        for i in range(hidden):
            features = self.features * 2 ** (hidden - 1 - i)
            stride, padding = (2, "SAME") if i else (1, "VALID")
            x = self.up(features, stride, padding, f"up_{i}")(x)
            x = nn.relu(norm(train, f"norm_{i}")(x))
        return jnp.tanh(self.up(self.channels, 2, "SAME", "image")(x))

    def up(self, features, stride, padding, name):
        return nn.ConvTranspose(
            features,
            (4, 4),
            strides=(stride, stride),
            padding=padding,
            use_bias=False,
            name=name,
        )


class Discriminator(nn.Module):
    """Images (batch, size, size, channels) to logits (batch,) that they are real."""

    size: int = 64
    features: int = 64

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = images
        for i in range((self.size // 8).bit_length()):
            x = self.down(self.features * 2**i, f"down_{i}")(x)
            x = leaky(norm(train, f"norm_{i}")(x) if i else x)
        conv = nn.Conv(1, (4, 4), padding="VALID", use_bias=False, name="logit")
        return conv(x)[:, 0, 0, 0]

    def down(self, features, name):
        return nn.Conv(
            features, (4, 4), strides=2, padding=1, use_bias=False, name=name
        )


LATENTS = 100
GENERATOR, DISCRIMINATOR = Generator(), Discriminator()
SMALL = Generator(8, 32, channels=1), Discriminator(8, 32)


def variables(model: nn.Module, key: jax.Array, *shape: int):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jaxinit.linen.init(model, key, x, scheme=schemes.dcgan())


def generator(key):
    """Variables of the generator of 64 by 64 images: 3,576,704 parameters."""
    return variables(GENERATOR, key, 2, LATENTS)


def discriminator(key):
    """Variables of the discriminator of 64 by 64 images: 2,765,568 parameters."""
    return variables(DISCRIMINATOR, key, 2, 64, 64, 3)


SIZES = {
    "generator": (generator, 3_576_704),
    "discriminator": (discriminator, 2_765_568),
}


def counted(name: str) -> str:
    """A line with the number of parameters of a published size, none of them drawn."""
    init, expected = SIZES[name]
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    return training.published(f"DCGAN {name}", shapes, expected)


def applied(i: int, params, stats, x):
    """Outputs of the generator (0) or discriminator (1) in training, and moments."""
    out, changed = SMALL[i].apply(
        {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
    )
    return out, changed.get("batch_stats", {})


def loss(params, stats, real, key):
    """Of both networks: each has gradients of its own loss alone."""
    made, first = applied(
        0, params[0], stats[0], jax.random.normal(key, (len(real), LATENTS))
    )
    told, second = applied(1, params[1], stats[1], real)
    caught, second = applied(1, params[1], second, stop_gradient(made))
    passed, _ = applied(1, stop_gradient(params[1]), second, made)
    both = gan.discriminator_loss(told, caught) + gan.generator_loss(passed)
    return both, (first, second)


@jax.jit
def samples(params, stats, key):
    """512 images of the generator."""
    variables = {"params": params[0], "batch_stats": stats[0]}
    return SMALL[0].apply(variables, jax.random.normal(key, (512, LATENTS)))


def start(seed: int):
    """Parameters and running moments of both networks."""
    shapes = (2, LATENTS), (2, 8, 8, 1)
    both = [
        running.linen_start(
            model,
            jax.ShapeDtypeStruct(shape, jnp.float32),
            scheme=schemes.dcgan(),
            seed=seed + i,
        )
        for i, (model, shape) in enumerate(zip(SMALL, shapes, strict=True))
    ]
    return tuple(x["params"] for x in both), tuple(
        x.get("batch_stats", {}) for x in both
    )


def main(arguments: Sequence[str] = ()) -> None:
    """Trains, and prints what came out."""
    given = training.options(arguments, __doc__, steps=400, sizes=tuple(SIZES))
    if given.count:
        print(counted(given.count))
        return
    began = time.perf_counter()
    params, stats = start(given.seed)
    real = gan.digits()
    before = samples(params, stats, jax.random.key(2))
    trained = gan.train(
        loss,
        params,
        stats,
        gan.rows_of(real, 64),
        steps=given.steps,
        optimizer=optax.adamw(1e-3, b1=0.5, weight_decay=1e-4),
    )
    made = samples(trained.params, trained.state, jax.random.key(2))
    images = before, made, real
    gan.report(given, params, schemes.dcgan(), trained.losses, *images, began=began)


if __name__ == "__main__":
    main(sys.argv[1:])
