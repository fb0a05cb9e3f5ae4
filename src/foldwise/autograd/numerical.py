"""Derivatives from differences of outputs, each with a bound on its own error.

References: C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software 4 (1982);
J. J. Moré, S. M. Wild, Estimating computational noise, SIAM Journal on Scientific Computing 33 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Along = Callable[[float], Float[np.ndarray, " outputs"]]
"""The outputs at a distance along a direction."""

ROWS = 6  # steps of one table, each half of the one before
FIRST = 1e-2  # the first step, as a part of what the direction's entries usually are
TRIES = 4  # tables, each with steps that start 2⁶ times smaller, until one converges
WANTED = 1e-10  # relative error at which no smaller steps are tried
SAFETY = 10  # estimated errors are taken this many times


@dataclass(frozen=True)
class Difference:
    """A derivative, how far it may be off, and the step with which it was found."""

    value: float
    error: float
    step: float


def central(along: Along, size: float, eps: float) -> Difference:
    """Take central differences (f(h) − f(−h)) / 2h, extrapolated to h = 0 as Ridders does.

    The step is halved, and the table of extrapolations gives both the value and its error. Outputs are subtracted one
    by one before they are summed, so that rounding in those that do not change costs nothing.

    >>> found = central(lambda t: np.array([math.exp(t)]), 1.0, 2.2e-16)
    >>> abs(found.value - 1) < found.error < 1e-9
    True
    """
    here, step = along(0.0), FIRST * size
    rounding = eps * float(np.abs(here)[(along(step) != here) | (along(-step) != here)].sum())
    best = Difference(math.nan, math.inf, math.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        for _ in range(TRIES):
            found = _table(lambda h: float((along(h) - along(-h)).sum()) / (2 * h), step, rounding)
            worse = found.error > best.error
            best = best if worse else found
            if worse or best.error <= WANTED * abs(best.value):  # smaller steps only round more
                break
            step /= 2**ROWS
    least = SAFETY * eps * float(np.abs(here).sum()) / size  # what rounding may do to the other ways
    return Difference(best.value, max(best.error, least), best.step)


def one_sided(along: Along, size: float, eps: float) -> tuple[Difference, Difference]:
    """Bracket the derivative at a kink: the smallest and largest that subgradients of all outputs can sum to.

    Left and right derivative are found for each output alone; the sum of the smaller ones and that of the larger ones
    are the ends.
    """
    here = along(0.0)
    left = _extrapolated(lambda h: (here - along(-h)) / h, 1e-4 * size)
    right = _extrapolated(lambda h: (along(h) - here) / h, 1e-4 * size)
    rounding = 100 * eps * float(np.abs(here).sum()) / (1e-4 * size)
    error = float(left[1].sum() + right[1].sum()) + rounding
    sides = np.stack([left[0], right[0]])
    if not np.isfinite(sides).all():  # outside of where the function is defined on one side
        sides = np.where(np.isfinite(sides), sides, sides[::-1])
    low, high = sides.min(0).sum(), sides.max(0).sum()
    return Difference(float(low), error, 1e-4 * size), Difference(float(high), error, 1e-4 * size)


def noise(along: Along, size: float) -> float:
    """Estimate by how much the outputs' sum jitters from rounding inside the function (Moré, Wild 2011).

    Differences of order k of a smooth function at close points vanish; what is left is the jitter, times the square
    root of (2k)! / (k!)².
    """
    steps = 8
    values = np.array([along(k * 1e-9 * size).sum() for k in range(steps)])
    found = []
    for order in range(1, 6):
        values = np.diff(values)
        scale = math.factorial(order) ** 2 / math.factorial(2 * order)
        found.append(math.sqrt(scale * float(np.mean(values**2))))
    return max(found[2:])


def _table(quotient: Callable[[float], float], step: float, rounding: float) -> Difference:
    """Extrapolate central quotients at halved steps, whose error has only even powers of the step, to step 0."""
    best = Difference(math.nan, math.inf, step)
    last: list[float] = []
    for row in range(ROWS):
        now = [quotient(step)]
        for column in range(row):
            now.append(now[column] + (now[column] - last[column]) / (4.0 ** (column + 1) - 1))
            change = max(abs(now[-1] - now[-2]), abs(now[-1] - last[column]))
            error = SAFETY * max(change, rounding / step)
            if error < best.error:
                best = Difference(now[-1], error, step)
        if best.error <= WANTED * abs(best.value):
            break
        last = now
        step /= 2
    return best


def _extrapolated(
    quotient: Callable[[float], Float[np.ndarray, " outputs"]], step: float
) -> tuple[Float[np.ndarray, " outputs"], Float[np.ndarray, " outputs"]]:
    """Extrapolate one-sided quotients of every output, and give by how much the last extrapolation changed each."""
    with np.errstate(invalid="ignore", over="ignore"):
        one, two, three = (quotient(step / 2**k) for k in range(3))
        first, second = 2 * two - one, 2 * three - two
        value = second + (second - first) / 3
        return value, np.nan_to_num(np.abs(value - second), nan=0.0, posinf=0.0)
