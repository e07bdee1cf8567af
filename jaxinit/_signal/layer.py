"""The record of one layer."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayerSignal:
    """What one layer returned, and the gradient with respect to it.

    Units are the last axis, samples all axes before it. Gradients are those of the
    loss. Numbers are NaN where they are not defined.

    Attributes:
        name: path of the layer; with "input", what went into the layer where no other
            layer returned it, such as the output of an activation function.
        kind: class or function of the layer, or "input".
        shape: shape of its output.
        mean: mean of all entries.
        std: standard deviation of all entries.
        low: smallest entry.
        high: greatest entry.
        ratio: `std` over `std` of the layer before; NaN for the first.
        zero: share of entries that are zero.
        dead: share of units that are zero on the whole batch.
        saturated: share of entries within 0.05 of a bound, where all entries lie in
            [-1, 1], as for tanh, or in [0, 1], as for a sigmoid; else 0.
        rank: effective rank of the activations: the participation ratio
            `(sum of l)**2 / sum of l**2` of the eigenvalues `l` of the covariance of
            the units, over at most 512 samples. Litwin-Kumar et al., "Optimal degrees
            of synaptic connectivity" (2017).
        correlation: mean correlation over pairs of units that vary; 1 if all units vary
            alike, near 0 if they are independent.
        identical: whether all units are equal, and all their gradients too, so that
            training cannot tell them apart. If all are zero, this is true only if
            constant weights make them so and no weight of the model learns.
        flat: whether each weight of this layer has equal entries, as if drawn by zeros
            or a constant.
        kernel: shape of the largest of its weights, those with two or more axes; ()
            if it has none.
        kernel_mean: mean of those weights.
        kernel_std: their standard deviation.
        bias_low: smallest entry of its parameters with fewer axes.
        border: for a convolution, the root mean square of its outputs at the borders of
            the spatial axes, over the root mean square of all its outputs.
        gradient_mean: mean of the gradient with respect to the output.
        gradient_std: its standard deviation.
        parameter_gradient_mean: mean of the gradient with respect to the parameters of
            this layer, but not those of layers inside it; NaN if it has none.
        parameter_gradient_std: its standard deviation.
        nonfinite: number of entries that are NaN or infinite.
        gradient_nonfinite: the same for the gradient.
        counts: histogram of the entries that are not zero, in bins of equal width from
            `low` to `high`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    std: float
    low: float
    high: float
    ratio: float
    zero: float
    dead: float
    saturated: float
    rank: float
    correlation: float
    identical: bool
    flat: bool
    kernel: tuple[int, ...]
    kernel_mean: float
    kernel_std: float
    bias_low: float
    border: float
    gradient_mean: float
    gradient_std: float
    parameter_gradient_mean: float
    parameter_gradient_std: float
    nonfinite: int
    gradient_nonfinite: int
    counts: tuple[int, ...] = field(repr=False)
