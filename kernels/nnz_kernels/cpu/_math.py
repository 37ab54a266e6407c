"""Exponential, error function and activations, so that a loop over them vectorises.

Numba would call the C library once for every element. All are inlined into the loops of
other files of this package.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._runtime import SERIAL

_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0.0, 0.5, 1.0, 2.0))
_SIX = np.float32(6.0)
_SQRT_HALF = np.float32(0.7071067811865476)
_GELU_A, _GELU_B = np.float32(0.7978845608028654), np.float32(0.044715)

#: Kinds of ``_activate``.
GELU, GELU_TANH, SILU, HARD_SWISH = range(4)
#: Kinds by their names in the op table.
KINDS = {"gelu": GELU, "gelu_tanh": GELU_TANH, "silu": SILU, "hard_swish": HARD_SWISH}
#: The kind that stands for none.
NO_ACTIVATION = -1

# exp: x = k log 2 + r, |r| <= log(2) / 2, log 2 in two parts (Cody and Waite, 1980);
# beyond the limits float32 has only 0 and infinity.
_EXP_LO, _EXP_HI = np.float32(-104.0), np.float32(89.0)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HI, _LN2_LO = np.float32(0.693359375), np.float32(-2.12194440e-4)
_E2, _E3, _E4, _E5, _E6, _E7 = (
    np.float32(1 / n) for n in (2, 6, 24, 120, 720, 5040)
)  # fmt: skip

# erf(x) = x P(x^2) / Q(x^2) up to 3.92, where it rounds to 1; least-squares fit with
# weights raised where the error was largest; off by 5e-7 at most in float32.
_ERF_END = np.float32(3.92)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(v)
    for v in (
        1.128379181, 1.847004413e-01, 5.427851851e-02, 3.832383692e-03,
        3.803825627e-04, 4.718126728e-06, -1.333761963e-08,
    )
)  # fmt: skip
_Q1, _Q2, _Q3, _Q4, _Q5 = (
    np.float32(v)
    for v in (
        4.970200329e-01, 1.137755221e-01, 1.543099621e-02, 1.305045152e-03,
        6.342207083e-05,
    )
)  # fmt: skip


def activation_kind(name: str | None) -> int:
    """Return the number of an activation by its name in the op table."""
    return NO_ACTIVATION if name is None else KINDS[name]


#: Flags of a loop whose sums keep their order: the two parts of log 2 must not be
#: joined. A division by zero gives infinity; with Python's model each one is a branch,
#: and nothing vectorises.
EXACT: dict[str, Any] = {
    **SERIAL,
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
}


def _type_from_bits(typingctx: Any, bits: Any) -> tuple[Any, Any]:
    """Type a call of ``_from_bits``."""

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), write


def _type_to_bits(typingctx: Any, value: Any) -> tuple[Any, Any]:
    """Type a call of ``_to_bits``."""

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), write


#: Returns the float32 that has the bits of an int32, and the other way round.
_from_bits: Any = intrinsic(_type_from_bits)
_to_bits: Any = intrinsic(_type_to_bits)


@numba.njit(inline="always", **EXACT)
def _exp(x):  # type: ignore[no-untyped-def]
    c = _EXP_LO if x < _EXP_LO else x
    c = _EXP_HI if c > _EXP_HI else c
    t = c * _LOG2_E
    t = t if t == t else _ZERO  # NaN has no integer part; it comes back through r
    k = np.int32(t + (_HALF if t >= _ZERO else -_HALF))
    whole = np.float32(k)
    r = (c - whole * _LN2_HI) - whole * _LN2_LO
    p = _E6 + r * _E7
    p = _E4 + r * (_E5 + r * p)
    p = _E2 + r * (_E3 + r * p)
    p = _ONE + r * (_ONE + r * p)
    half = k >> np.int32(1)
    low = _from_bits(np.int32((half + np.int32(127)) << np.int32(23)))
    high = _from_bits(np.int32((k - half + np.int32(127)) << np.int32(23)))
    return p * low * high


@numba.njit(inline="always", **EXACT)
def _erf(x):  # type: ignore[no-untyped-def]
    c = -_ERF_END if x < -_ERF_END else x
    c = _ERF_END if c > _ERF_END else c
    z = c * c
    p = _P4 + z * (_P5 + z * _P6)
    p = _P0 + z * (_P1 + z * (_P2 + z * (_P3 + z * p)))
    q = _ONE + z * (_Q1 + z * (_Q2 + z * (_Q3 + z * (_Q4 + z * _Q5))))
    v = c * p / q
    # Exactly one beyond the end: gelu multiplies what is left by x.
    v = _ONE if x >= _ERF_END else v
    return -_ONE if x <= -_ERF_END else v


@numba.njit(inline="always", **EXACT)
def _unit(x):  # type: ignore[no-untyped-def]
    x = _ZERO if x < _ZERO else x
    return _ONE if x > _ONE else x


@numba.njit(inline="always", **EXACT)
def _gelu(x):  # type: ignore[no-untyped-def]
    return _HALF * x * (_ONE + _erf(x * _SQRT_HALF))


@numba.njit(inline="always", **EXACT)
def _gelu_tanh(x):  # type: ignore[no-untyped-def]
    u = _GELU_A * (x + _GELU_B * x * x * x)
    return x / (_ONE + _exp(-_TWO * u))


@numba.njit(inline="always", **EXACT)
def _silu(x):  # type: ignore[no-untyped-def]
    return x / (_ONE + _exp(-x))


@numba.njit(inline="always", **EXACT)
def _hard_swish(x):  # type: ignore[no-untyped-def]
    return x * _unit(x / _SIX + _HALF)


@numba.njit(inline="always", **EXACT)
def _activate(kind, y, start, stop):  # type: ignore[no-untyped-def]
    """Apply an activation to a run of floats, in place."""
    if kind == GELU:
        for p in range(start, stop):
            y[np.uint64(p)] = _gelu(y[np.uint64(p)])
    elif kind == GELU_TANH:
        for p in range(start, stop):
            y[np.uint64(p)] = _gelu_tanh(y[np.uint64(p)])
    elif kind == SILU:
        for p in range(start, stop):
            y[np.uint64(p)] = _silu(y[np.uint64(p)])
    elif kind == HARD_SWISH:
        for p in range(start, stop):
            y[np.uint64(p)] = _hard_swish(y[np.uint64(p)])
