"""EfficientNet-B0 to B7 in Flax NNX, a small one of which is trained on digits.

    python -m examples.efficientnet --picture efficientnet.png
    python -m examples.efficientnet --count b0
    python -m jaxinit init examples.efficientnet:b0

Blocks widen, convolve each channel by itself, weigh the channels by their means
(squeeze and excitation) and narrow again. `schemes.vision()` draws every convolution
from N(0, 2 / fan_out), as the authors' program does: for a convolution of each channel
by itself, fan_out is the window alone. That program draws the head from a uniform law;
here it is N(0, 0.01).

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(2019).
"""

import functools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import jaxinit.nnx
from examples import training
from jaxinit import schemes


class Stage(NamedTuple):
    """Like blocks in a row; the first has the stride."""

    expand: int
    window: int
    stride: int
    features: int
    blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


def rounded(features: float) -> int:
    """The nearest multiple of 8, and not less than 90 percent."""
    nearest = max(8, int(features + 4) // 8 * 8)
    return nearest + 8 * (nearest < 0.9 * features)


class Convolution(nnx.Module):
    """Convolution without bias, batch norm and, unless told otherwise, SiLU."""

    def __init__(
        self, inputs, outputs, window=1, stride=1, *, groups=1, act=True, rngs
    ):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (window, window),
            strides=stride,
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, epsilon=1e-3, rngs=rngs)
        self.act = act

    def __call__(self, x):
        x = self.norm(self.conv(x))
        return nnx.silu(x) if self.act else x


class Excitation(nnx.Module):
    """Channels times a number from 0 to 1, which depends on the means of all."""

    def __init__(self, channels: int, squeezed: int, *, rngs):
        self.reduce = nnx.Linear(channels, squeezed, rngs=rngs)
        self.widen = nnx.Linear(squeezed, channels, rngs=rngs)

    def __call__(self, x):
        means = jnp.mean(x, axis=(1, 2), keepdims=True)
        return x * nnx.sigmoid(self.widen(nnx.silu(self.reduce(means))))


class Block(nnx.Module):
    """An inverted bottleneck, beside a shortcut if it keeps its shape.

    In training a sample loses the block, and has the shortcut alone, with a chance of
    `drop`.
    """

    def __init__(self, inputs: int, stage: Stage, drop: float, *, rngs: nnx.Rngs):
        wide, window, outputs = inputs * stage.expand, stage.window, stage.features
        unit = functools.partial(Convolution, rngs=rngs)
        self.expand = unit(inputs, wide) if stage.expand > 1 else None
        self.depthwise = unit(wide, wide, window, stage.stride, groups=wide)
        self.excite = Excitation(wide, max(1, inputs // 4), rngs=rngs)
        self.project = unit(wide, outputs, act=False)
        self.drop = nnx.Dropout(drop, broadcast_dims=(1, 2, 3), rngs=rngs)

    def __call__(self, x):
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.excite(self.depthwise(y)))
        return x + self.drop(y) if x.shape == y.shape else y


def blocks_of(inputs: int, stages: Sequence[Stage], width: float, depth: float, rngs):
    """The blocks of a scaled network, from those of B0."""
    scaled = [
        stage._replace(
            features=rounded(stage.features * width),
            blocks=math.ceil(stage.blocks * depth),
        )
        for stage in stages
    ]
    rows = [
        stage._replace(stride=stage.stride if i == 0 else 1)
        for stage in scaled
        for i in range(stage.blocks)
    ]
    blocks = []
    for i, row in enumerate(rows):
        blocks.append(Block(inputs, row, 0.2 * i / len(rows), rngs=rngs))
        inputs = row.features
    return nnx.List(blocks)


class EfficientNet(nnx.Module):
    """Images (batch, height, width, channels) to logits (batch, classes)."""

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        dropout: float = 0.2,
        *,
        stages: Sequence[Stage] = STAGES,
        channels: int = 3,
        classes: int = 1000,
        stride: int = 2,
        rngs: nnx.Rngs,
    ):
        stem, top = rounded(32 * width), rounded(1280 * width)
        self.stem = Convolution(channels, stem, 3, stride, rngs=rngs)
        self.blocks = blocks_of(stem, stages, width, depth, rngs)
        last = rounded(stages[-1].features * width)
        self.top = Convolution(last, top, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(top, classes, rngs=rngs)

    def __call__(self, images):
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(jnp.mean(self.top(x), axis=(1, 2))))


SIZES = {  # width, depth, dropout
    "b0": (1.0, 1.0, 0.2),
    "b1": (1.0, 1.1, 0.2),
    "b2": (1.1, 1.2, 0.3),
    "b3": (1.2, 1.4, 0.3),
    "b4": (1.4, 1.8, 0.4),
    "b5": (1.6, 2.2, 0.4),
    "b6": (1.8, 2.6, 0.5),
    "b7": (2.0, 3.1, 0.5),
}
PUBLISHED = {
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
}


def efficientnet(size: str, rngs: nnx.Rngs) -> EfficientNet:
    """EfficientNet of a published size, such as "b0"."""
    return EfficientNet(*SIZES[size], rngs=rngs)


b0, b1, b2, b3, b4, b5, b6, b7 = (functools.partial(efficientnet, x) for x in SIZES)


def small(rngs: nnx.Rngs) -> EfficientNet:
    """The first two stages at a quarter of their width, for images of 8 by 8."""
    settings = {"stages": STAGES[:2], "channels": 1, "classes": 10, "stride": 1}
    return EfficientNet(0.25, 1.0, rngs=rngs, **settings)


def published(size: str) -> str:
    """A line with the number of parameters of a published size."""
    init = jaxinit.nnx.collections(functools.partial(efficientnet, size))
    return training.published(
        f"EfficientNet-{size.upper()}",
        lambda key: init(key)["params"],
        PUBLISHED[size],
    )


def learn(create, steps: int, key) -> training.Learned:
    """Trains a model on digits, from the scheme."""
    scheme, x = schemes.vision(), jnp.zeros((2, 8, 8, 1))
    model = jaxinit.nnx.create(create, key, scheme=scheme, inputs=[x])
    training.checked(nnx.state(model, nnx.Param), scheme, jaxinit.nnx.roles(model, x))
    calls = training.nnx_calls(model)
    return training.on_digits(*calls, steps=steps, key=key)


def main(arguments: Sequence[str] = ()) -> None:
    """Trains a small EfficientNet on digits, and prints what came out."""
    given = training.options(arguments, __doc__, steps=100, sizes=list(PUBLISHED))
    if given.count:
        print(published(given.count))
        return
    learned = learn(small, given.steps, jax.random.key(given.seed))
    print(f"EfficientNet on digits: {learned}")
    if given.picture:
        training.curves(given.picture, {"EfficientNet on digits": learned.losses})


if __name__ == "__main__":
    main(sys.argv[1:])
