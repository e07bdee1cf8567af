"""Transformers: small kernels, smaller where they write to the residual stream."""

import math
from dataclasses import dataclass

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal, truncated_normal, zeros
from jaxinit.schemes._arguments import Deviation, Found
from jaxinit.schemes.building import (
    around_blocks,
    by_depth,
    depth,
    everywhere,
    fan_in,
    narrower,
    scheme,
    stream_width,
    times,
    transformer,
)
from jaxinit.schemes.parts import (
    MLP_IN,
    POSITION,
)


@scheme
def gpt2(layers: Found = None, stddev: Deviation = 0.02) -> Rules:
    """GPT-2: all kernels and embeddings `N(0, stddev**2)`, residual ones narrower.

    - kernel and embedding: `N(0, stddev**2)`
    - attention and feed-forward output: `N(0, stddev**2 / (2 layers))`
    - position embedding: `N(0, (stddev / 2)**2)`, as in OpenAI's program
    - norm scale 1, bias 0

    Radford et al., "Language models are unsupervised multitask learners" (2019).

    Args:
        layers: number of blocks, at least 1; None counts the kernels that write to the
            residual stream in the computation, for a plan with roles.
        stddev: standard deviation, zero or greater.

    Returns:
        The rules.

    Raises:
        ValueError: if a setting is out of range.

    >>> gpt2(layers=12).name
    'scheme gpt2'
    """
    others = {POSITION: normal(stddev / 2), **everywhere(normal(stddev))}
    return transformer(narrower(stddev, layers), others)


@scheme
def bert(stddev: Deviation = 0.02) -> Rules:
    """BERT: `N(0, stddev**2)` cut at two sigmas and not widened, everywhere.

    - kernel, embedding, position: truncated, standard deviation `0.8796 stddev`
    - norm scale 1, bias 0

    Devlin et al., "BERT: pre-training of deep bidirectional transformers" (2018). The
    version in Hugging Face's library does not truncate.

    Args:
        stddev: standard deviation before truncation, zero or greater.

    Returns:
        The rules.

    Raises:
        ValueError: if `stddev` is negative or not finite.

    >>> bert().name
    'scheme bert'
    """
    cut = truncated_normal(stddev)
    others = {POSITION: cut, **everywhere(cut)}
    return transformer(cut, others)


@scheme
def vit(layers: Found = None, stddev: Deviation = 0.02) -> Rules:
    """Vision transformers, as in DeiT, residual kernels narrower by depth as in BEiT.

    - kernel, position, class token: `N(0, stddev**2)`, cut at the values -2 and 2, as
      in timm, so that next to nothing is cut
    - attention and feed-forward output of layer `l` (from 0): divided by
      `sqrt(2 (l + 1))`
    - patch embedding: LeCun normal; head: 0
    - norm scale 1, bias 0

    Dosovitskiy et al., "An image is worth 16x16 words" (2021), for the head and, by
    their program, patches; Touvron et al., "Training data-efficient image transformers"
    (2021); Bao et al., "BEiT" (2022), for the division only: its program cuts at one
    sigma.

    Args:
        layers: number of blocks, at least 1; None takes what the computation tells,
            for a plan with roles.
        stddev: standard deviation before truncation, zero or greater.

    Returns:
        The rules.

    Raises:
        ValueError: if a setting is out of range.

    >>> vit(layers=12).name
    'scheme vit'
    """
    cut = truncated_normal(stddev, low=-2.0, high=2.0) if stddev else zeros
    out = times(cut, by_depth(layers))
    # MLP_OUT comes first, so that an `fc` of a feed-forward is not taken for a head.
    return transformer(out, {MLP_IN: cut, **around_blocks(cut)})


@scheme
def small_init(width: Found = None) -> Rules:
    """Every kernel and embedding `N(0, 2 / (5 width))`.

    - norm scale 1, bias 0

    Nguyen and Salazar, "Transformers without tears" (2019), use this for the kernels of
    attention. It is the variance of Glorot normal for a feed-forward from `width` to
    `4 width`, `2 / (width + 4 width)`. Black et al., "GPT-NeoX-20B" (2022), use it for
    all others too.

    Args:
        width: width of the residual stream, at least 1; None takes that of the
            computation, for a plan with roles.

    Returns:
        The rules.

    Raises:
        ValueError: if `width` is out of range.

    >>> small_init(width=768).name
    'scheme small_init'
    """
    small = _small(width)
    return transformer(small, {POSITION: small, **everywhere(small)})


@dataclass(frozen=True)
class _small:  # noqa: N801 - used, and therefore spelled, as a function
    """The distribution `N(0, 2 / (5 width))`."""

    width: int | None

    def __call__(self, leaf: Leaf) -> Initializer:
        return normal(math.sqrt(2 / (5 * stream_width(leaf, self.width))))


@scheme
def wang(layers: Found = None, width: Found = None) -> Rules:
    """`small_init`, with narrower kernels where they write to the residual stream.

    - kernel and embedding: `N(0, 2 / (5 width))`
    - attention and feed-forward output: standard deviation `2 / (layers sqrt(width))`
    - norm scale 1, bias 0

    Black et al., "GPT-NeoX-20B" (2022), after Wang and Komatsuzaki's GPT-J (2021).

    Args:
        layers: number of blocks, at least 1; None takes what the computation tells,
            for a plan with roles.
        width: width of the residual stream, at least 1; None takes that of the
            computation, for a plan with roles.

    Returns:
        The rules.

    Raises:
        ValueError: if a setting is out of range.

    >>> wang(layers=12, width=768).name
    'scheme wang'
    """
    small = _small(width)
    others = {POSITION: small, **everywhere(small)}
    return transformer(_wang_out(layers, width), others)


@dataclass(frozen=True)
class _wang_out:  # noqa: N801 - as above
    """The distribution of standard deviation `2 / (layers sqrt(width))`."""

    layers: int | None
    width: int | None

    def __call__(self, leaf: Leaf) -> Initializer:
        layers = depth(leaf, self.layers)
        return normal(2 / (layers * math.sqrt(stream_width(leaf, self.width))))


@scheme
def mitchell(layers: Found = None, width: Found = None) -> Rules:
    """OLMo: by fan in, narrower with depth, cut at three sigmas and not widened.

    - kernel: `1 / sqrt(fan_in)`; embedding: `1 / sqrt(width)`
    - attention and feed-forward output of layer `l` (from 0):
      `1 / sqrt(2 fan_in (l + 1))`
    - norm scale 1, bias 0

    These are standard deviations before the cut, which lowers them by 1.3 %. Groeneveld
    et al., "OLMo: accelerating the science of language models" (2024).

    Args:
        layers: number of blocks, at least 1; None takes what the computation tells,
            for a plan with roles.
        width: width of the residual stream, at least 1; None takes that of the
            computation, for a plan with roles.

    Returns:
        The rules.

    Raises:
        ValueError: if a setting is out of range.

    >>> mitchell(layers=32, width=4096).name
    'scheme mitchell'
    """
    embedding = _cut_by_width(width)
    out = times(_cut_by_fan, by_depth(layers))
    others = {POSITION: embedding, **everywhere(_cut_by_fan, embedding)}
    return transformer(out, others)


def _cut_by_fan(leaf: Leaf) -> Initializer:
    return _cut_at_three(1 / math.sqrt(fan_in(leaf)))


@dataclass(frozen=True)
class _cut_by_width:  # noqa: N801 - as above
    """The distribution of standard deviation `1 / sqrt(width)`, cut at three sigmas."""

    width: int | None

    def __call__(self, leaf: Leaf) -> Initializer:
        return _cut_at_three(1 / math.sqrt(stream_width(leaf, self.width)))


def _cut_at_three(stddev: float) -> Initializer:
    return truncated_normal(stddev, lower=-3.0, upper=3.0)
