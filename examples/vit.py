"""The Vision Transformer in Flax NNX, a small one of which is trained on digits.

    python -m examples.vit --picture vit.png
    python -m examples.vit --count b16
    python -m jaxinit init examples.vit:b16

`schemes.vit()` draws it: N(0, 0.02) for attention, feed-forward, positions and class
token, narrower where block l writes to the residual stream, by sqrt(2 (l + 1)); LeCun's
law for the patches; and a head of zeros, so that all classes are equally likely at
first. It counts the blocks by itself, in what the model computes.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale" (2021).
"""

import functools
import math
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

import jaxinit.nnx
from examples import training
from jaxinit import schemes


class Block(nnx.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, width: int, heads: int, hidden: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.fc1 = nnx.Linear(width, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x))))


class ViT(nnx.Module):
    """Square images (batch, side, side, channels) to logits (batch, classes)."""

    def __init__(
        self,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        *,
        side: int = 224,
        channels: int = 3,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ):
        window = (patch, patch)
        self.patches = nnx.Conv(channels, width, window, strides=window, rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        length = (side // patch) ** 2 + 1
        self.pos_embedding = nnx.Param(jnp.zeros((1, length, width)))
        self.blocks = nnx.List(
            [Block(width, heads, hidden, rngs=rngs) for _ in range(depth)]
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, images):
        x = self.patches(images)
        x = x.reshape(len(x), -1, x.shape[-1])
        cls = jnp.broadcast_to(self.cls[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([cls, x], axis=1) + self.pos_embedding[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


SIZES = {  # patch, width, depth, heads, hidden
    "ti16": (16, 192, 12, 3, 768),
    "s16": (16, 384, 12, 6, 1536),
    "b16": (16, 768, 12, 12, 3072),
    "b32": (32, 768, 12, 12, 3072),
    "l16": (16, 1024, 24, 16, 4096),
    "l32": (32, 1024, 24, 16, 4096),
    "h14": (14, 1280, 32, 16, 5120),
}
PUBLISHED = {  # at 224 by 224; ti and s are those of Touvron et al. (2021)
    "ti16": 5_717_416,
    "s16": 22_050_664,
    "b16": 86_567_656,
    "b32": 88_224_232,
    "l16": 304_326_632,
    "l32": 306_535_400,
    "h14": 632_045_800,
}


def vit(size: str, rngs: nnx.Rngs) -> ViT:
    """A vision transformer of a published size, such as "b16"."""
    return ViT(*SIZES[size], rngs=rngs)


ti16, s16, b16, b32, l16, l32, h14 = (functools.partial(vit, size) for size in SIZES)


def small(rngs: nnx.Rngs) -> ViT:
    """Three blocks of width 32 for images of 8 by 8, in patches of 2 by 2."""
    return ViT(2, 32, 3, 4, 64, side=8, channels=1, classes=10, rngs=rngs)


# The deviation of 0.02 is for a width of 768; this one has the same share of the width.
SMALL_SCHEME = schemes.vit(stddev=0.02 * math.sqrt(768 / 32))


def published(size: str) -> str:
    """A line with the number of parameters of a published size."""
    init = jaxinit.nnx.collections(functools.partial(vit, size))
    name = f"ViT-{size[:-2].title()}/{size[-2:]}"
    return training.published(name, lambda key: init(key)["params"], PUBLISHED[size])


def learn(create, steps: int, key) -> training.Learned:
    """Trains a model on digits, from the scheme."""
    scheme, x = SMALL_SCHEME, jnp.zeros((2, 8, 8, 1))
    model = jaxinit.nnx.create(create, key, scheme=scheme, inputs=[x])
    training.checked(nnx.state(model, nnx.Param), scheme, jaxinit.nnx.roles(model, x))
    calls = training.nnx_calls(model)
    return training.on_digits(*calls, steps=steps, key=key)


def main(arguments: Sequence[str] = ()) -> None:
    """Trains a small transformer on digits, and prints what came out."""
    given = training.options(arguments, __doc__, steps=200, sizes=list(PUBLISHED))
    if given.count:
        print(published(given.count))
        return
    learned = learn(small, given.steps, jax.random.key(given.seed))
    print(f"Vision transformer on digits: {learned}")
    if given.picture:
        training.curves(given.picture, {"ViT on digits": learned.losses})


if __name__ == "__main__":
    main(sys.argv[1:])
