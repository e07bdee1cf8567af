"""ResNet-18 to ResNet-152 in Flax Linen, initialised for training from scratch.

    python -m examples.resnet --picture resnet.png
    python -m examples.resnet --count resnet50
    python -m jaxinit init examples.resnet:resnet50

Convolutions are He normal in fan-out mode, N(0, 2 / fan_out) and not truncated. The
last BatchNorm of every residual block starts with scale zero, so that each block is
the identity at first; the classifier is N(0, 0.01) with bias zero. The stride of a
bottleneck is in its 3x3 convolution (version 1.5). That is `schemes.zero_gamma()`, by
which a small one is initialised here and trained on digits.

He et al., "Delving Deep into Rectifiers" (2015) and "Deep Residual Learning for Image
Recognition" (2016); Goyal et al., "Accurate, Large Minibatch SGD" (2017) for the zero
scale and the classifier.
"""

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxinit.linen
from examples import training
from jaxinit import normal, ones, schemes, variance_scaling, zeros

he_fan_out = variance_scaling(2.0, "fan_out", "normal")


def conv(features: int, size: int, name: str, stride: int = 1) -> nn.Conv:
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=he_fan_out,
        name=name,
    )


def norm(name: str, train: bool, scale_init=ones) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=scale_init,
        bias_init=zeros,
        name=name,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    features: int
    stride: int = 1
    expansion = 1

    @nn.compact
    def __call__(self, x, train: bool = False):
        y = conv(self.features, 3, "conv1", self.stride)(x)
        y = nn.relu(norm("bn1", train)(y))
        y = conv(self.features, 3, "conv2")(y)
        y = norm("bn2", train, scale_init=zeros)(y)
        return nn.relu(y + shortcut(x, y.shape, self.stride, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, four times as wide outside."""

    features: int
    stride: int = 1
    expansion = 4

    @nn.compact
    def __call__(self, x, train: bool = False):
        y = nn.relu(norm("bn1", train)(conv(self.features, 1, "conv1")(x)))
        y = conv(self.features, 3, "conv2", self.stride)(y)
        y = nn.relu(norm("bn2", train)(y))
        y = conv(self.expansion * self.features, 1, "conv3")(y)
        y = norm("bn3", train, scale_init=zeros)(y)
        return nn.relu(y + shortcut(x, y.shape, self.stride, train))


def shortcut(x, shape: Sequence[int], stride: int, train: bool):
    """`x`, projected where the block changes its shape."""
    if x.shape == tuple(shape):
        return x
    x = conv(shape[-1], 1, "proj_conv", stride)(x)
    return norm("proj_bn", train)(x)


class ResNet(nn.Module):
    """Images (batch, height, width, channels) to logits (batch, classes).

    Small images are not shrunk before the first block: `shrink=False`, as the paper's
    networks for CIFAR-10 do.
    """

    stages: Sequence[int] = (3, 4, 6, 3)
    block: type[nn.Module] = Bottleneck
    classes: int = 1000
    width: int = 64
    shrink: bool = True

    @nn.compact
    def __call__(self, images, train: bool = False):
        size, stride = (7, 2) if self.shrink else (3, 1)
        x = conv(self.width, size, "conv1", stride)(images)
        x = nn.relu(norm("bn1", train)(x))
        if self.shrink:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, depth in enumerate(self.stages):
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                features = self.width * 2**i
                name = f"layer{i + 1}_{j}"
                x = self.block(features, stride, name=name)(x, train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(
            self.classes, kernel_init=normal(0.01), bias_init=zeros, name="fc"
        )(x)


RESNET18 = ResNet((2, 2, 2, 2), BasicBlock)
RESNET34 = ResNet((3, 4, 6, 3), BasicBlock)
RESNET50 = ResNet((3, 4, 6, 3), Bottleneck)
RESNET101 = ResNet((3, 4, 23, 3), Bottleneck)
RESNET152 = ResNet((3, 8, 36, 3), Bottleneck)


def init(model: ResNet, key: jax.Array):
    """The variables of `model`: parameters drawn from `key`, and running moments."""
    return model.init(key, jnp.zeros((1, 64, 64, 3)))


def resnet18(key):
    """Variables of ResNet-18: 11,689,512 parameters."""
    return init(RESNET18, key)


def resnet34(key):
    """Variables of ResNet-34: 21,797,672 parameters."""
    return init(RESNET34, key)


def resnet50(key):
    """Variables of ResNet-50: 25,557,032 parameters."""
    return init(RESNET50, key)


def resnet101(key):
    """Variables of ResNet-101: 44,549,160 parameters."""
    return init(RESNET101, key)


def resnet152(key):
    """Variables of ResNet-152: 60,192,808 parameters."""
    return init(RESNET152, key)


SMALL = ResNet((1, 1, 1), BasicBlock, classes=10, width=8, shrink=False)
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def published(name: str) -> str:
    """A line with the number of parameters of a published size."""
    init = globals()[name]
    return training.published(name, lambda key: init(key)["params"], PUBLISHED[name])


def learn(model: ResNet, steps: int, key) -> training.Learned:
    """Trains a model on digits, from the scheme."""
    scheme, x = schemes.zero_gamma(), jnp.zeros((2, 8, 8, 1))
    variables = jaxinit.linen.init(model, key, x, scheme=scheme)
    params = variables.pop("params")
    training.checked(params, scheme, jaxinit.linen.roles(model, x))
    calls = training.linen_calls(model, train=True)
    return training.on_digits(*calls, params, variables, steps=steps, key=key)


def main(arguments: Sequence[str] = ()) -> None:
    """Trains a small ResNet on digits, and prints what came out."""
    given = training.options(arguments, __doc__, steps=120, sizes=list(PUBLISHED))
    if given.count:
        print(published(given.count))
        return
    learned = learn(SMALL, given.steps, jax.random.key(given.seed))
    print(f"ResNet on digits: {learned}")
    if given.picture:
        training.curves(given.picture, {"ResNet on digits": learned.losses})


if __name__ == "__main__":
    main(sys.argv[1:])
