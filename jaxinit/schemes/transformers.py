"""Transformers: small kernels, smaller where they write to the residual stream."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.basic import normal, truncated_normal, zeros
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.initializers.settings import Distribution
from jaxinit.initializers.wrappers import scaled
from jaxinit.schemes._arguments import CountOrNone, Deviation, Found
from jaxinit.schemes.building import (
    Factor,
    Rule,
    agreed,
    around_blocks,
    by_depth,
    by_fan,
    by_width,
    everywhere,
    fan_in,
    narrower,
    refuse,
    scheme,
    side_by_side,
    stream_totals,
    stream_width,
    times,
    transformer,
    writers,
)
from jaxinit.schemes.parts import (
    EMBEDDING,
    FUSED,
    KERNEL,
    MLP_IN,
    POSITION,
    SCALE,
    VALUE,
    Part,
    axes,
    stack,
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
        layers: number of blocks, at least 1; None counts the kernels that write to the
            residual stream in the computation, for a plan with roles.
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
        layers: number of blocks, at least 1; None counts the kernels that write to the
            residual stream in the computation, for a plan with roles.
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
        layers = writers(leaf, self.layers) / 2
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
        layers: number of blocks, at least 1; None counts the kernels that write to the
            residual stream in the computation, for a plan with roles.
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


@scheme
def deepnorm(encoder_layers: CountOrNone = 0, decoder_layers: CountOrNone = 0) -> Rules:
    """DeepNorm: Glorot normal, times `beta` in kernels that write to the stream.

    - value, attention output, feed-forward: Glorot normal times `beta`
    - query, key, other kernels: Glorot normal
    - embedding `N(0, 1 / width)`; norm scale 1, bias 0

    With `L` layers of one stack `beta = (8 L)**(-1/4)`, and the model's residual is
    `norm(alpha x + f(x))`, `alpha = (2 L)**(1/4)`. With both stacks, of `N` and `M`
    layers: `beta = 0.87 (N**4 M)**(-1/16)`, `alpha = 0.81 (N**4 M)**(1/16)` in the
    encoder, `beta = (12 M)**(-1/4)`, `alpha = (3 M)**(1/4)` in the decoder. The paper
    leaves embeddings open.

    Wang et al., "DeepNet: scaling transformers to 1,000 layers" (2022).

    Args:
        encoder_layers: number of blocks in the encoder; of all blocks, if there is no
            decoder. If both are 0, a plan with roles counts the kernels that write to
            the one residual stream of the computation. The first path segment with one
            of the two words decides, such as `encoder`, `TransformerEncoder_0` or
            `decoder_blocks_3`.
        decoder_layers: number of blocks in the decoder; of all blocks, if there is no
            encoder.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative.

    >>> deepnorm(decoder_layers=24).name
    'scheme deepnorm'
    """
    n, m = encoder_layers, decoder_layers
    if not n or not m:
        return _rescaled(_one_stack(n or m or None, _deepnorm))
    beta = _by_stack(0.87 * (n**4 * m) ** (-1 / 16), (12 * m) ** -0.25)
    return _rescaled(beta)


def _deepnorm(layers: int) -> float:
    return (8 * layers) ** -0.25


@scheme
def sub_ln(encoder_layers: CountOrNone = 0, decoder_layers: CountOrNone = 0) -> Rules:
    """Magneto: Glorot normal, times `gamma` in kernels that write to the stream.

    - value, attention output, feed-forward: Glorot normal times `gamma`
    - query, key, other kernels: Glorot normal
    - embedding `N(0, 1 / width)`; norm scale 1, bias 0

    With `L` layers of one stack `gamma = sqrt(log(2 L))`. With both, of `N` and `M`:
    `sqrt(log(3 M) log(2 N) / 3)` in the encoder, `sqrt(log(3 M))` in the decoder. The
    model has a second norm within each sublayer. The paper leaves embeddings open.

    Wang et al., "Foundation transformers" (2022).

    Args:
        encoder_layers: as in `deepnorm`.
        decoder_layers: as in `deepnorm`.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative.

    >>> sub_ln(decoder_layers=24).name
    'scheme sub_ln'
    """
    n, m = encoder_layers, decoder_layers
    if not n or not m:
        return _rescaled(_one_stack(n or m or None, _magneto))
    decoder = math.sqrt(math.log(3 * m))
    return _rescaled(_by_stack(decoder * math.sqrt(math.log(2 * n) / 3), decoder))


def _magneto(layers: int) -> float:
    return math.sqrt(math.log(2 * layers))


@scheme
def t_fixup(encoder_layers: CountOrNone = 0, decoder_layers: CountOrNone = 0) -> Rules:
    """T-Fixup: Glorot uniform, narrower by depth, for transformers without norms.

    - value, attention output, feed-forward: Glorot uniform times `0.67 N**(-1/4)` in an
      encoder of `N` layers, `(9 M)**(-1/4)` in a decoder of `M`
    - query, key, other kernels: Glorot uniform
    - embedding: `N(0, 1 / width)` times `(9 M)**(-1/4)`, or, without a decoder, times
      `(9 N)**(-1/4)`
    - bias 0; the scale of a norm is refused

    The paper's program also multiplies values by `sqrt(2)`, because its library draws
    them that much narrower than Glorot uniform. Huang et al., "Improving transformer
    optimization through better initialization" (2020).

    Args:
        encoder_layers: as in `deepnorm`.
        decoder_layers: as in `deepnorm`.

    Returns:
        The rules.

    Raises:
        ValueError: if a number is negative, or both are zero.

    >>> t_fixup(encoder_layers=6, decoder_layers=6).name
    'scheme t_fixup'
    """
    n, m = _at_least_one(encoder_layers, decoder_layers)
    encoder, decoder = 0.67 * max(n, 1) ** -0.25, (9 * max(m, 1)) ** -0.25
    own = _by_stack(encoder, decoder)
    factor = own if n and m else _by_stack(encoder if n else decoder)
    no_norm = refuse("it is the scale of a norm: T-Fixup is for models without norms")
    embedding_factor = (9 * (m or n)) ** -0.25
    return _rescaled(factor, "uniform", {SCALE: no_norm}, embedding_factor)


def _at_least_one(encoder_layers: int, decoder_layers: int) -> tuple[int, int]:
    if not encoder_layers and not decoder_layers:
        raise ValueError(
            "encoder_layers and decoder_layers are both 0: give the number of blocks, "
            "such as decoder_layers=12."
        )
    return encoder_layers, decoder_layers


@dataclass(frozen=True)
class _one_stack:  # noqa: N801 - used, and therefore spelled, as a function
    """A factor by the number of layers of a model of one stack, given or found."""

    layers: int | None
    factor: Callable[[int], float]

    def __call__(self, leaf: Leaf) -> float:
        totals = stream_totals(leaf)
        is_one = len(totals) == 1 and totals[0] is not None and totals[0] % 2 == 0
        if self.layers is None and not is_one:
            raise ValueError(
                "the number of layers is not known: it takes the roles of a model of "
                "one residual stream, two kernels a layer write to it, and the writers "
                f"of each stream are {totals}; give encoder_layers= or decoder_layers="
            )
        found = totals[0] // 2 if is_one and totals[0] else None
        return self.factor(agreed("layers", self.layers, found))


@dataclass(frozen=True)
class _by_stack:  # noqa: N801 - used, and therefore spelled, as a function
    """A factor by stack, which the path tells; a single factor needs no such path."""

    encoder: float
    decoder: float | None = None

    def __call__(self, leaf: Leaf) -> float:
        if self.decoder is None:
            return self.encoder
        factors = {"encoder": self.encoder, "decoder": self.decoder}
        name = stack(leaf)
        if name is None:
            raise ValueError(
                "its path has neither encoder nor decoder as a segment or a word of one"
            )
        return factors[name]


def _rescaled(
    factor: Factor,
    law: Distribution = "normal",
    others: Mapping[Part, Rule] | None = None,
    embedding_factor: float = 1.0,
) -> Rules:
    """Glorot, times a factor in values and in kernels that write to the stream."""
    glorot = by_fan(1.0, "fan_avg", law)
    changed = times(glorot, factor)
    embedding = by_width(embedding_factor)
    rules = {
        VALUE: changed,
        FUSED: _fused(law, factor),
        MLP_IN: changed,
        **(others or {}),
        POSITION: embedding,
        EMBEDDING: embedding,
        KERNEL: glorot,
    }
    return transformer(changed, rules)


@dataclass(frozen=True)
class _fused:  # noqa: N801 - as above
    """Query, key and value side by side; only the value is changed.

    With roles, the value has been drawn by its own rule.
    """

    law: Distribution
    factor: Factor

    def __call__(self, leaf: Leaf) -> Initializer:
        if leaf.role is not None:
            return by_fan(1.0, "fan_avg", self.law)(leaf)
        plain = variance_scaling(1.0, "fan_avg", self.law, **axes(leaf))
        changed = scaled(plain, self.factor(leaf))
        return side_by_side(leaf, [plain, plain, changed], 3)
