"""What torch draws and makes, from golden/torch.json, and how probable that is."""

import json
import math
from pathlib import Path

import numpy as np
from scipy import stats

from jaxinit.laws import Law
from jaxinit.stats import Measured, score_measured

NUMBERS = json.loads((Path(__file__).parent / "golden/torch.json").read_text())


def array(entry: dict) -> np.ndarray:
    """The float32 array that the entry describes."""
    x = np.full(entry["shape"], entry["most"], np.float32)
    for place, value in zip(entry["places"], entry["values"], strict=True):
        x[tuple(place)] = value
    return x


def probability(entry: dict, law: Law) -> float:
    """P-value of order statistics and moments of draws, given their law.

    The probability below the k-th least of n draws has the beta law of k and n - k + 1:
    least, greatest and all between are compared, each to both sides, and the mean and
    variance. Of all the least p-value counts, times the number of comparisons.
    """
    size, moments = math.prod(entry["shape"]), law.moments()
    values, ranks = np.array(entry["values"]), np.array(entry["ranks"])
    if not moments.variance:
        return float((values == np.float32(moments.mean)).all())
    shapes = ranks, size - ranks + 1
    below = stats.beta.cdf(law.cdf(values), *shapes)
    above = stats.beta.sf(law.cdf(np.nextafter(values, -np.inf)), *shapes)
    ends = values[0], values[-1]
    measured = Measured(size, entry["mean"], entry["variance"], *ends, 0, 0)
    of_orders = 2 * values.size * min(below.min(), above.min())
    return float(
        min(1.0, 2 * of_orders, 2 * score_measured(measured, moments, np.float32).p)
    )
