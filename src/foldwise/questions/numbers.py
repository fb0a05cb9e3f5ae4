"""How numbers stand in sentences, and intervals of means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from foldwise.judge.metrics import Metric
from foldwise.judge.verdict import decimals
from foldwise.store.answers import Point


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


def mean_interval(values: Float[np.ndarray, " values"]) -> tuple[float, float, float]:
    """Give a mean and its 95 % interval by Student's t; the mean three times for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    reach = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return mean, mean - float(reach), mean + float(reach)


def finished(metric: Metric, losses: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """Turn mean losses into scores; one below 0, or a share above 1, which no mean can be, counts as that."""
    most = 1.0 if metric.higher_is_better else math.inf
    return np.array([metric.finish(min(most, max(0.0, float(x)))) for x in losses])


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
