"""Generative adversarial networks."""

from jaxinit._tree.rules import Rules
from jaxinit.initializers.basic import normal, ones, zeros
from jaxinit.initializers.wrappers import scaled
from jaxinit.schemes._arguments import Deviation, GanKernel, Share
from jaxinit.schemes.building import by_fan, complete, everywhere, scheme
from jaxinit.schemes.parts import CONVOLUTION, KERNEL, SCALE, Part

_MAPPING = Part("kernel of the mapping network", "kernel", inside="mapping")
_STYLE_BIAS = Part("bias of a style", "bias", "affine style to_style modulation")
_LEARNED_INPUT = Part("learned input", "array", "const constant learned_input")
_NOISE = Part("strength of the noise", "array", "noise noise_strength noise_weight")


@scheme
def dcgan(stddev: Deviation = 0.02) -> Rules:
    """DCGAN, generator and discriminator.

    - kernel and embedding: `N(0, stddev**2)`
    - norm scale: `N(1, stddev**2)`, as in the authors' program; the paper does not say
    - bias 0

    Radford et al., "Unsupervised representation learning with deep convolutional
    generative adversarial networks" (2016).

    Args:
        stddev: standard deviation, zero or greater.

    Returns:
        The rules.

    Raises:
        ValueError: if `stddev` is negative or not finite.

    >>> dcgan().name
    'scheme dcgan'
    """
    return _dcgan(stddev)


@scheme
def gan_generator() -> Rules:
    """Generators of convolutions: the rules of `dcgan`.

    Returns:
        The rules.

    >>> gan_generator().name
    'scheme gan_generator'
    """
    return _dcgan(0.02)


def _dcgan(stddev: float) -> Rules:
    kernels = {CONVOLUTION: normal(stddev), **everywhere(normal(stddev))}
    rules = {SCALE: normal(stddev, mean=1.0), **kernels}
    return complete(rules, [CONVOLUTION])


@scheme
def gan_discriminator(kernel: GanKernel = "he") -> Rules:
    """Discriminators of convolutions with leaky rectifiers of slope 0.2.

    - kernel: He normal for that slope, `N(0, 2 / (1.04 fan_in))`, or Glorot normal
    - norm scale 1, bias 0

    He et al., "Delving deep into rectifiers" (2015); Glorot and Bengio, "Understanding
    the difficulty of training deep feedforward neural networks" (2010).

    Args:
        kernel: "he" or "glorot".

    Returns:
        The rules.

    Raises:
        ValueError: if `kernel` is neither.

    >>> gan_discriminator().name
    'scheme gan_discriminator'
    """
    he = by_fan(2 / (1 + 0.2**2), "fan_in", "normal")
    init = he if kernel == "he" else by_fan(1.0, "fan_avg", "normal")
    return complete({CONVOLUTION: init, KERNEL: init}, [CONVOLUTION])


@scheme
def stylegan(mapping_rate: Share = 0.01) -> Rules:
    """StyleGAN, generator and discriminator, for weights that are scaled at run time.

    - kernel: `N(0, 1)`; the forward pass multiplies it by `sqrt(2 / fan_in)`, in
      StyleGAN2 by `1 / sqrt(fan_in)`
    - kernel of the mapping network: `N(0, 1 / mapping_rate**2)`; the forward pass
      multiplies it by `mapping_rate` too
    - bias of a style 1, other biases 0; strength of the noise 0; learned input
      `N(0, 1)`, as in StyleGAN2

    Karras et al., "A style-based generator architecture" (2019) and "Analyzing and
    improving the image quality of StyleGAN" (2020).

    Args:
        mapping_rate: learning rate of the mapping network, relative to the other
            layers; greater than zero.

    Returns:
        The rules.

    Raises:
        ValueError: if `mapping_rate` is not positive.

    >>> stylegan().name
    'scheme stylegan'
    """
    unit = normal(1.0)
    rules = {
        _MAPPING: scaled(unit, 1 / mapping_rate),
        _STYLE_BIAS: ones,
        _LEARNED_INPUT: unit,
        _NOISE: zeros,
        CONVOLUTION: unit,
        KERNEL: unit,
    }
    return complete(rules, [CONVOLUTION])
