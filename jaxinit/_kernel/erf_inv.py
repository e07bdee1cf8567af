"""The inverse error function of XLA's CPU backend, in operations that vectorise widely.

The values are XLA's, bit for bit: every operation below is one that XLA performs, in an
order that keeps the roundings. What is left out cannot matter to a number in (-1, 1):
the guards of a general logarithm. Written in plain arithmetic the whole transform can
be compiled for the widest vectors of the machine, which a call to XLA's logarithm
prevents.

The rational approximation of erf_inv is from Giles, "Approximating the erfinv function"
(2010); the logarithm's polynomials are those of Cephes (Moshier, 1989).
"""

import platform

import jax
import numpy as np
from jax import lax

# jax versions on which all 2**23 values of a uniform draw were compared (tests do so).
_CHECKED = ((0, 10), (0, 13))


def _floats(words: str) -> tuple[np.float32, ...]:
    return tuple(np.uint32(int(word, 16)).view(np.float32) for word in words.split())


_CENTRE = _floats(
    "32F16588 34B84B36 B66C7357 B6935AC1 396532DB BAA45408 BB88E4EF 3E7C8F63 3FC02E2F"
)
_TAIL = _floats(
    "B951F09B 38D3B56B 3AB0DC72 BB70BDE7 3BBC127B BBF9C5D7 3C1AA57E 3F8036DB 40354F7E"
)
_LOG = (
    _floats("3D9021BB BDEBD1B8 3DEF251A"),
    _floats("BDFE5D4F 3E11E9BF BE2AAE50"),
    _floats("3E4CCEAC BE7FFFFC 3EAAAAAA"),
)
_LOG1P_NUMERATOR = _floats(
    "383DE04A 3EFF40C5 40D284FA 41EF4B9C 4273CC76 426473AD 41A05101"
)
_LOG1P_DENOMINATOR = _floats(
    "3F800000 417101AD 42A6185B 435DC32D 439A8CA3 43586D8A 42707982"
)
_LN2_HIGH, _LN2_LOW, _SQRT_HALF, _LOG1P_RADIUS = _floats(
    "3F318000 B95E8083 3F3504F3 3ED413CD"
)


# Written in functions of lax, not in operators, which take twice the time to trace.


def _polynomial(x, coefficients):
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = lax.add(lax.mul(value, x), coefficient)
    return value


def _log(x):
    """Natural logarithm of normal positive float32 numbers."""
    one = np.float32(1)
    bits = lax.bitcast_convert_type(x, np.uint32)
    exponent = lax.shift_right_logical(bits, np.uint32(23))
    exponent = lax.sub(lax.bitcast_convert_type(exponent, np.int32), np.int32(127))
    exponent = lax.add(lax.convert_element_type(exponent, np.float32), one)
    mantissa = lax.bitwise_and(bits, np.uint32(0x007FFFFF))
    mantissa = lax.bitwise_or(mantissa, np.uint32(0x3F000000))
    mantissa = lax.bitcast_convert_type(mantissa, np.float32)
    small = lax.lt(mantissa, _SQRT_HALF)
    zero = lax.full_like(x, 0)
    exponent = lax.sub(exponent, lax.select(small, lax.full_like(x, 1), zero))
    z = lax.add(lax.sub(mantissa, one), lax.select(small, mantissa, zero))
    z2 = lax.mul(z, z)
    z3 = lax.mul(z2, z)
    y = _polynomial(z3, [_polynomial(z, coefficients) for coefficients in _LOG])
    y = lax.add(lax.mul(y, z3), lax.mul(exponent, _LN2_LOW))
    y = lax.add(lax.sub(z, lax.mul(z2, np.float32(0.5))), y)
    return lax.add(y, lax.mul(exponent, _LN2_HIGH))


def _minus_log1p_of_minus(y):
    """`-log(1 - y)` for `y` in [0, 1)."""
    x = lax.neg(y)
    numerator = _polynomial(x, _LOG1P_NUMERATOR)
    ratio = lax.div(numerator, _polynomial(x, _LOG1P_DENOMINATOR))
    y2 = lax.mul(y, y)
    # All terms positive: LLVM then fuses y2/2 into the addition, as it does in XLA's.
    rest = lax.add(lax.mul(y2, np.float32(0.5)), lax.mul(lax.mul(y, y2), ratio))
    far = lax.neg(_log(lax.add(x, np.float32(1))))
    return lax.select(lax.lt(y, _LOG1P_RADIUS), lax.add(y, rest), far)


def _erf_inv_cpu(u):
    w = _minus_log1p_of_minus(lax.mul(u, u))
    centre = lax.lt(w, np.float32(5))
    tail = lax.sub(lax.sqrt(w), np.float32(3))
    t = lax.select(centre, lax.sub(w, np.float32(2.5)), tail)
    coefficients = [
        lax.select(centre, lax.full_like(u, inner), lax.full_like(u, outer))
        for inner, outer in zip(_CENTRE, _TAIL, strict=True)
    ]
    size = lax.abs(u)
    infinite, nan = (lax.mul(u, np.float32(x)) for x in (np.inf, np.nan))
    edge = lax.select(lax.eq(size, np.float32(1)), infinite, nan)
    value = lax.mul(_polynomial(t, coefficients), u)
    return lax.select(lax.lt(size, np.float32(1)), value, edge)


def erf_inv(u: jax.Array) -> jax.Array:
    """`lax.erf_inv`, bit for bit, faster for float32 on x86 CPUs.

    Args:
        u: floating-point array.

    Returns:
        Array of the shape and dtype of `u`; infinite at -1 and 1, NaN beyond.
    """
    if u.dtype != np.float32 or not _CHECKED[0] <= jax.__version_info__ < _CHECKED[1]:
        return lax.erf_inv(u)
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return lax.erf_inv(u)
    return jaxinit_erf_inv(u)


@jax.jit
def jaxinit_erf_inv(u: jax.Array) -> jax.Array:
    """The same for float32; a call of its own, so that it is traced once a shape."""
    return lax.platform_dependent(u, cpu=_erf_inv_cpu, default=lax.erf_inv)
