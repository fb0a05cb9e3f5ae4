"""How numbers are written in the page, and which of many are drawn."""

from __future__ import annotations

import math
import random
from typing import Any


def decimals(value: float | None, low: float | None = None, high: float | None = None) -> int:
    """Count the decimals worth showing: three significant digits, or as many as half the interval supports.

    >>> decimals(0.1283, 0.121, 0.136), decimals(53211.4, 52000, 54500), decimals(4.5), decimals(None)
    (3, 0, 2, 3)
    """
    if not value:
        return 3
    wanted = 2 - math.floor(math.log10(abs(value)))
    if low is not None and high is not None and high > low:
        wanted = max(wanted, math.ceil(-math.log10((high - low) / 2)))
    return min(6, max(0, wanted))


def number(value: float | None, digits: int) -> str:
    """Write a number with thousands separated and a true minus sign; a dash when it is unknown.

    >>> number(53211.4, 0), number(-0.1283, 3), number(None, 3), number(2.5e9, 3)
    ('53,211', '−0.128', '–', '2.50e9')
    """
    if value is None:
        return "–"
    text = (
        f"{value:.2e}".replace("e+0", "e").replace("e+", "e") if abs(value) >= 1e7 else f"{value:,.{digits}f}"
    )
    return text.replace("-", "−")


def significant(value: Any) -> str:
    """Write a number with three significant digits, anything else as it is.

    >>> significant(0.69314), significant("n/a"), significant(None)
    ('0.693', 'n/a', '–')
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value, decimals(value))
    return "–" if value is None else str(value)


def short(value: float | None, digits: int = 6) -> float | None:
    """Keep as many digits as a screen can show: a third of the bytes.

    >>> short(0.123456789), short(3.0), short(None)
    (0.123457, 3, None)
    """
    if value is None:
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def drawn_at_random(count: int, most: int) -> list[int]:
    """Choose which of `count` rows are drawn: all, or `most` of them, the same ones every time.

    At random rather than every n-th, because tables often have a period (24 hours) that n could hit.

    >>> drawn_at_random(3, 5), len(drawn_at_random(100, 5))
    ([0, 1, 2], 5)
    """
    return list(range(count)) if count <= most else sorted(random.Random(0).sample(range(count), most))
