"""Attention whose products start near the identity: kernels that are drawn jointly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._tree.leaf import Leaf
from jaxinit._tree.rules import Rules, keyed
from jaxinit.initializers.basic import truncated_normal
from jaxinit.schemes._arguments import Found, Pair
from jaxinit.schemes.building import around_blocks, scheme, transformer
from jaxinit.schemes.parts import (
    FUSED,
    KEY,
    MLP_IN,
    MLP_OUT,
    QUERY,
    VALUE,
    outputs_first,
)


@scheme
def mimetic(
    heads: Found = None,
    query_key: Pair = (0.7, 0.7),
    value_out: Pair = (0.4, -0.4),
) -> Rules:
    """Self-attention that starts as trained vision transformers end up.

    With entries of `Z` from `N(0, 1 / width)`, drawn anew for each product:

    - query and key: `W_q W_k.T` of each head is the best approximation, of the rank of
      the head, to `0.7 Z + 0.7 I`
    - value and attention output: `W_v W_o = 0.4 Z - 0.4 I`
    - other kernels, position, class token: `N(0, 0.02**2)` cut at two sigmas, not
      widened; patch embedding LeCun normal; head 0; norm scale 1, bias 0

    Both factors of a product get the square roots of its singular values. They are
    separate leaves, drawn with the key of the attention around them, so that each
    computes the same product: this takes one decomposition of a width by width matrix
    for each head, in queries and again in keys. Kernels may be fused, `(width, 3
    width)`. There is no formula for the moments of their entries, so that
    `jaxinit.testing.assert_moments` refuses them.

    Trockman and Kolter, "Mimetic initialization of self-attention layers" (2023), who
    also start positions from sinusoids: `Rules({"**/pos_embedding":
    jaxinit.sinusoidal()}) | mimetic(heads=12)`.

    Args:
        heads: number of heads, at least 1; None takes the axis of heads of kernels with
            three axes, as in Flax's attention.
        query_key: factors of `Z` and `I` in the product of queries and keys.
        value_out: factors of `Z` and `I` in the product of values and output.

    Returns:
        The rules.

    Raises:
        ValueError: if `heads` is out of range or the factors are not two finite
            numbers; in a plan, if an attention does not have `heads` heads that are
            together as wide as its input, or its number of heads is not known.

    >>> mimetic(heads=12).name
    'scheme mimetic'
    """
    first = _Product(0, query_key[0], query_key[1], heads or 1)  # 1 until it is found
    second = _Product(1, value_out[0], value_out[1], 1)
    query, key = _Factor(first, "left"), _Factor(first, "right")
    value, out = _Factor(second, "left"), _Factor(second, "right")

    def drawn(*factors: _Factor) -> _together:
        return _together(factors, heads)

    cut = truncated_normal(0.02)
    rules = {
        QUERY: drawn(query),
        KEY: drawn(key),
        VALUE: drawn(value),
        FUSED: drawn(query, key, value),
        MLP_OUT: cut,
        MLP_IN: cut,
        **around_blocks(cut),
    }
    return transformer(drawn(out), rules)


@dataclass(frozen=True)
class _Product:
    """`noise Z + identity I` for each of some heads, and its two factors."""

    number: int  # among those that are drawn with one key
    noise: float
    identity: float
    heads: int

    def factor(self, key: jax.Array, width: int, side: str, dtype: Any) -> jax.Array:
        """The `width` columns of one factor, head after head."""

        def of_head(key):
            key, key_of_signs = jax.random.split(key)
            noise = jax.random.normal(key, (width, width), dtype) / math.sqrt(width)
            product = self.noise * noise + self.identity * jnp.eye(width, dtype=dtype)
            left, values, right = jnp.linalg.svd(product)
            # Singular vectors are unique up to signs. Random signs replace the ones of
            # the library, the same in both factors.
            own = jnp.where(jnp.sum(left, axis=0) < 0, -1, 1)
            signs = own * jax.random.rademacher(key_of_signs, (width,), dtype)
            vectors = left if side == "left" else right.T
            return (vectors * signs * jnp.sqrt(values))[:, : width // self.heads]

        keys = jax.random.split(jax.random.fold_in(key, self.number), self.heads)
        return jnp.concatenate(jax.lax.map(of_head, keys), axis=1)


@dataclass(frozen=True)
class _Factor:
    product: _Product
    side: str

    def of_heads(self, heads: int) -> "_Factor":
        """The same with so many products, if it has one for each head."""
        if self.product.number:
            return self
        return replace(self, product=replace(self.product, heads=heads))


@dataclass(frozen=True)
class _Kernel:
    """Factors side by side, in the layout of a kernel."""

    factors: tuple[_Factor, ...]
    width: int
    transposed: bool

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = jnp.float32):
        wide = jnp.promote_types(dtype, jnp.float32)
        drawn = [x.product.factor(key, self.width, x.side, wide) for x in self.factors]
        kernel = jnp.concatenate(drawn, axis=1)
        kernel = kernel.T if self.transposed else kernel
        return kernel.reshape(shape).astype(dtype)

    def __repr__(self):
        products = (x.product for x in self.factors)
        laws = (f"{x.noise:g} Z {x.identity:+g} I" for x in products)
        return f"factor of {', '.join(dict.fromkeys(laws))}"


@dataclass(frozen=True)
class _together:  # noqa: N801 - used, and therefore spelled, as a function
    """A kernel of an attention, drawn with the key that all kernels of it share."""

    factors: tuple[_Factor, ...]
    heads: int | None

    def __call__(self, leaf: Leaf) -> keyed:
        factors = self.factors
        is_out = any(x.product.number == 1 and x.side == "right" for x in factors)
        ends_wide = is_out != outputs_first(leaf)
        width = leaf.shape[-1] if ends_wide else leaf.shape[0]
        fits = math.prod(leaf.shape) == width * width * len(factors)
        heads = self.heads
        if len(leaf.shape) == 3:  # (width, heads, size) or (heads, size, width)
            found = leaf.shape[0 if is_out else 1]
            heads = found if heads is None else heads
            fits &= len(factors) == 1 and found == heads
        if heads is None and not is_out:
            raise ValueError(
                f"shape {leaf.shape} does not tell the number of heads: give heads= to "
                "the scheme"
            )
        heads = heads or 1  # the product of value and output is one, of any heads
        factors = tuple(x.of_heads(heads) for x in factors)
        if not fits or width % heads:
            raise ValueError(
                f"shape {leaf.shape} is not of heads={heads} that are together as wide "
                "as the input"
            )
        around = "/".join(leaf.path.split("/")[:-2])
        return keyed(_Kernel(factors, width, ends_wide), f"{around}/mimetic")
