"""Bases of initializers whose law is not one of a few parameters."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit.laws as laws
from jaxinit.initializers.base import Initializer


class FromShape(Initializer):
    """Tables: arrays that follow from their shape, made in float64 and rounded once."""

    draws: ClassVar[bool] = False
    entries_independent: ClassVar[bool] = False

    def table(self, shape: tuple[int, ...]) -> np.ndarray:
        """The array in float64, none of its axes empty."""
        raise NotImplementedError

    def entry_law(self, shape, dtype):
        return laws.Table(self, shape)

    def check_values(self, shape, dtype):
        """Tables are finite."""

    def sample(self, key, shape, dtype):
        return jnp.asarray(self.table(shape), dtype)


class FromUniform(Initializer):
    """Functions of a uniform number: the law is given by its quantile function."""

    def quantile(self, xp: Any, u: Any) -> Any:
        """The function, increasing on 0 < u < 1, of NumPy's arrays or of jax's."""
        raise NotImplementedError

    def formula(self) -> str:
        """The function, as a formula in u."""
        raise NotImplementedError

    def entry_law(self, shape, dtype):
        return laws.Quantile(self)

    def check_values(self, shape, dtype):
        limits = np.finfo(dtype)
        _refuse_flushed(self, float(limits.tiny), dtype)
        half = limits.eps / 2
        with np.errstate(all="ignore"):
            ends = self.quantile(np, np.array([half, 1 - half], dtype))
        if not np.isfinite(ends).all():
            raise ValueError(
                f"{self!r} makes entries that are not finite in {dtype}: they go from "
                f"{ends[0]} to {ends[1]}. Choose other settings, or a wider dtype."
            )

    def sample(self, key, shape, dtype):
        # jax draws multiples of eps from 0 on: half an eps more, and log(u) is finite
        u = jax.random.uniform(key, shape, dtype) + jnp.asarray(
            jnp.finfo(dtype).eps / 2, dtype
        )
        return self.quantile(jnp, u)


def _refuse_flushed(init: Initializer, least: float, dtype: np.dtype) -> None:
    """Raises where a setting is so small that XLA takes it for zero."""
    for field in dataclasses.fields(init):  # pyright: ignore - they all are
        value = getattr(init, field.name)
        if isinstance(value, float) and 0 < abs(value) < least:
            raise ValueError(
                f"{field.name} of {init!r} is zero in {dtype}: XLA takes what is below "
                f"{least:.3g} for zero. Choose a greater one, or a wider dtype."
            )
