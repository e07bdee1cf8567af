"""Layers that several files of models share: their shapes, their functions, truths."""

import jax
import jax.numpy as jnp

from zoo.truths import convolution, floats, scale, shift, statistic


def affine(fan_in, fan_out):
    return {"kernel": floats(fan_in, fan_out), "bias": floats(fan_out)}


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def scales(size):
    """Of a norm, and its shifts."""
    return {"scale": floats(size), "bias": floats(size)}


NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x, w, stride=1, groups=1, padding="SAME", dilation=1, layout=NHWC):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=layout,
        feature_group_count=groups,
    )


def grow(x):
    """Twice as many rows and columns, each twice."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def normed(x, axes=(1, 2)):
    """Without scale and shift, over rows and columns."""
    m = x.mean(axes, keepdims=True)
    return (x - m) / jnp.sqrt(((x - m) ** 2).mean(axes, keepdims=True) + 1e-5)


def over_time(step, start, x):
    """The last state and all outputs; `x` has the batch first."""
    last, ys = jax.lax.scan(step, start, jnp.moveaxis(x, 1, 0))
    return last, jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), ys)


def over_window(x, w):
    """A causal convolution of every channel; `w` is (window, 1, channels)."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=(1,),
        padding=[(w.shape[0] - 1, 0)],
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=x.shape[-1],
    )


def depthwise(channels, window=4, **rest):
    """The truth of the kernel of `over_window`."""
    return convolution(
        window,
        window,
        spatial_axis=0,
        in_axis=1,
        out_axis=2,
        groups=channels,
        **rest,
    )


def batch_normed(size):
    return {name: floats(size) for name in ("gamma", "beta", "mean", "var")}


def batch_norm(x, p):
    """With running statistics, as in inference."""
    inverse = jax.lax.rsqrt(p["var"] + 1e-3) * p["gamma"]
    return x * inverse + (p["beta"] - p["mean"] * inverse)


def plain_batch_norm(x, p):
    return (x - p["mean"]) / jnp.sqrt(p["var"] + 1e-5) * p["gamma"] + p["beta"]


def norm_truth(path):
    return {
        f"{path}/gamma": scale(),
        f"{path}/beta": shift(),
        f"{path}/mean": statistic(),
        f"{path}/var": statistic(),
    }


def rotary(x):
    """Halves turned against each other; positions are axis 1, features the last."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * 0.1 ** jnp.arange(half)
    angles = angles.reshape(x.shape[1], *[1] * (x.ndim - 3), half)
    a, b = jnp.split(x, 2, axis=-1)
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def causal(scores):
    length = scores.shape[-1]
    seen = jnp.arange(length)[:, None] >= jnp.arange(length)[None]
    return jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)


def seen_before(scores):
    """A causal softmax as additive masks."""
    t = scores.shape[-1]
    mask = jnp.triu(jnp.full((t, t), -jnp.inf), k=1)
    return jax.nn.softmax(scores + mask, axis=-1)
