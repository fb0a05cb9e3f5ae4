"""How numbers stand in sentences, and variances of few values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from foldwise.judge.metrics import Metric
from foldwise.judge.verdict import decimals
from foldwise.store.answers import Point

MANY = 1e6  # half of so many degrees of freedom are as good as ∞


def spoken(value: float, low: float, high: float) -> str:
    """Write a value with its 95 % interval.

    >>> spoken(0.1283, 0.121, 0.136)
    '0.128 (95 % 0.121–0.136)'
    """
    low, high = min(low, high), max(low, high)
    d = decimals(value, low, high)
    return f"{value:,.{d}f} (95 % {low:,.{d}f}–{high:,.{d}f})"


def brief(value: float) -> str:
    """Write a number with three significant digits.

    >>> brief(0.12345), brief(1234.6), brief(0.0)
    ('0.123', '1,235', '0')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == 0 else f"{value:.3g}"


def moderated(
    variances: Float[np.ndarray, " values"], degrees: int
) -> tuple[Float[np.ndarray, " values"], float]:
    """Draw variances, each of few values, to what is usual among them; give them, and the degrees of freedom they have.

    True variances are taken to spread like s²·d/χ²(d), of which s² and d follow from mean and variance of the
    logarithms; then (d·s² + degrees·variance)/(d + degrees) has d + degrees of them. ∞ where they spread by chance
    alone. Smyth 2004, *Linear models and empirical Bayes methods for assessing differential expression*.

    Args:
        variances: those found; what is below 10⁻⁵ of the median counts as that.
        degrees: how many degrees of freedom each has, at least 1.

    >>> moderated(np.array([1.0, 3.0]), 2)
    (array([2., 2.]), inf)
    """
    some = variances[variances > 0]
    if len(some) < 2:
        return variances, float(degrees)
    raised = np.maximum(variances, 1e-5 * np.median(some))
    logs = np.log(raised) - special.digamma(degrees / 2) + math.log(degrees / 2)
    spread = float(logs.var(ddof=1)) - float(special.polygamma(1, degrees / 2))
    if spread <= special.polygamma(1, MANY):
        return np.full_like(variances, variances.mean()), math.inf
    half = optimize.brentq(lambda h: special.polygamma(1, h) - spread, 1e-6, MANY)
    usual = math.exp(logs.mean() + special.digamma(half) - math.log(half))
    return (2 * half * usual + degrees * raised) / (2 * half + degrees), 2 * half + degrees


def finished(metric: Metric, losses: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Turn mean losses into scores; one below 0, or a share above 1, which no mean can be, counts as that.

    NaN stays NaN.
    """
    most = 1.0 if metric.higher_is_better else math.inf
    return np.array([metric.finish(float(x)) for x in np.clip(losses, 0.0, most)])


def points(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray | None = None,
    high: Sequence[float] | np.ndarray | None = None,
) -> tuple[Point, ...]:
    """Lay out points of a picture, with the ends of their intervals where they have some."""
    ends = [(None, None)] * len(x) if low is None or high is None else list(zip(low, high, strict=True))
    return tuple(
        (float(a), float(b), None if c is None else float(c), None if d is None else float(d))
        for a, b, (c, d) in zip(x, y, ends, strict=True)
    )
