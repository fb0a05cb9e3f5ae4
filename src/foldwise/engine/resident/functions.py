"""Functions of one number, written so that a loop over them becomes vector operations in float32.

In float64 they are those of the C library, to the last bits. In float32 they are polynomials that err by two units in
the last place at most, erf by eight (Cephes, S. Moshier; erf: the rational function of Eigen and XLA).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from foldwise.engine.resident.tiles import intrinsic

LOWEST = -87.3  # e to this is the smallest normal float32
OPTIONS: Any = {"error_model": "numpy"}


@intrinsic
def _float_of_bits(context, whole):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def exp_below(x: Any) -> Any:
    """Compute eˣ for x ≤ 0."""
    raise NotImplementedError


def erf(x: Any) -> Any:
    """Compute the error function."""
    raise NotImplementedError


def tanh(x: Any) -> Any:
    """Compute the hyperbolic tangent."""
    raise NotImplementedError


def sigmoid(x: Any) -> Any:
    """Compute 1/(1 + e⁻ˣ)."""
    raise NotImplementedError


@overload(exp_below, jit_options=OPTIONS)
def _exp_below(x: Any) -> Any:
    f = np.float32
    if x != types.float32:

        def double(x: Any) -> Any:
            return math.exp(x)

        return double

    def single(x: Any) -> Any:
        y = x if x > f(LOWEST) else f(LOWEST)
        n = np.floor(y * f(1.44269504088896341) + f(0.5))
        r = y - n * f(0.693359375) + n * f(2.12194440e-4)
        p = f(1.9875691500e-4) * r + f(1.3981999507e-3)
        p = p * r + f(8.3334519073e-3)
        p = p * r + f(4.1665795894e-2)
        p = p * r + f(1.6666665459e-1)
        p = p * r + f(5.0000001201e-1)
        p = p * r * r + r + f(1)
        power = _float_of_bits(np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23)))
        result = p * power if x > f(LOWEST) else f(0)
        return result if x == x else x

    return single


@overload(tanh, jit_options=OPTIONS)
def _tanh(x: Any) -> Any:
    f = np.float32
    if x != types.float32:

        def double(x: Any) -> Any:
            return math.tanh(x)

        return double

    def single(x: Any) -> Any:
        z = x * x
        p = f(-5.70498872745e-3) * z + f(2.06390887954e-2)
        p = p * z + f(-5.37397155531e-2)
        p = p * z + f(1.33314422036e-1)
        p = p * z + f(-3.33332819422e-1)
        near = p * z * x + x
        e = exp_below(f(-2) * abs(x))
        far = (f(1) - e) / (f(1) + e)
        far = far if x > f(0) else -far
        return near if z < f(0.390625) else far

    return single


@overload(erf, jit_options=OPTIONS)
def _erf(x: Any) -> Any:
    f = np.float32
    if x != types.float32:

        def double(x: Any) -> Any:
            return math.erf(x)

        return double

    def single(x: Any) -> Any:
        y = f(4) if x > f(4) else x
        y = f(-4) if y < f(-4) else y
        z = y * y
        p = f(-2.72614225801306e-10) * z + f(2.77068142495902e-08)
        p = p * z + f(-2.10102402082508e-06)
        p = p * z + f(-5.69250639462346e-05)
        p = p * z + f(-7.34990630326855e-04)
        p = p * z + f(-2.95459980854025e-03)
        p = p * z + f(-1.60960333262415e-02)
        q = f(-1.45660718464996e-05) * z + f(-2.13374055278905e-04)
        q = q * z + f(-1.68282697438203e-03)
        q = q * z + f(-7.37332916720468e-03)
        q = q * z + f(-1.42647390514189e-02)
        return y * p / q

    return single


@overload(sigmoid, jit_options=OPTIONS)
def _sigmoid(x: Any) -> Any:
    one = np.float32(1) if x == types.float32 else np.float64(1)

    def either(x: Any) -> Any:
        e = exp_below(-abs(x))
        return (one if x >= 0 else e) / (one + e)

    return either
