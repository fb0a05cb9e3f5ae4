"""What is measured before a cohort trains: how many members go together, and whether compiling repays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_MEASURING = 0.02  # of the estimated time may go into choosing a chunk
ROUNDS, TRIES = 2, 2
BETTER = 0.97  # timings waver: less than this share of the time is needed to leave what was planned
PRICE = 30.0  # seconds that compiling a step takes, at most as measured on two cores (6–25 s)
SAVED = 0.1  # share of the time that a compiled step saves; measured: 0 for chains, 0.15 through vmap
SAVED_ON_CUDA = 0.4  # where starting operations is most of the time of small networks


@dataclass(frozen=True)
class Pace:
    """How long a step of a chunk takes, and for how many rows of how many members."""

    seconds: float
    members: int
    rows: int

    @property
    def per_row(self) -> float:
        """Give the seconds for one row of one member."""
        return self.seconds / (self.members * self.rows)


def best_chunk(
    planned: int, most: int, rows_ahead: float, measure: Callable[[int, int], Pace], workers: int = 1
) -> tuple[int, Pace, str]:
    """Choose how many members go together, of half, once and twice the number planned, and one by one.

    `measure(chunk, tries)` takes steps on copies. A short job is not measured: what it costs must be repaid. Gives the
    number, its pace, and why.
    """
    first = measure(planned, 2)
    total = first.per_row * rows_ahead / workers
    others = [c for c in dict.fromkeys((planned // 2, planned * 2, 1)) if 1 <= c <= most and c != planned]
    price = sum(ROUNDS * TRIES * first.seconds * max(1.0, chunk / planned) for chunk in (planned, *others))
    if not others or 2 * price > MOST_MEASURING * total:
        return planned, first, f"{planned} at once, by the size of the cache: a short job is not measured"
    # by turns, so that a machine that is busy for a while does not decide
    turns = [(chunk, measure(chunk, TRIES)) for _ in range(ROUNDS) for chunk in (planned, *others)]
    paces = {c: min((p for o, p in turns if o == c), key=lambda p: p.per_row) for c in (planned, *others)}
    best = min(paces, key=lambda chunk: paces[chunk].per_row)
    if paces[best].per_row > BETTER * paces[planned].per_row:
        best = planned
    times = ", ".join(
        f"{chunk}: {pace.per_row * pace.rows * 1e6:.0f} µs" for chunk, pace in sorted(paces.items())
    )
    return best, paces[best], f"{best} at once, measured per member and step ({times})"


def may_repay(seconds: float, cuda: bool) -> bool:
    """Tell whether a training is so long that compiling its step can be expected to repay.

    >>> may_repay(60, cuda=False), may_repay(3600, cuda=False)
    (False, True)
    """
    return seconds * (SAVED_ON_CUDA if cuda else SAVED) > 2 * PRICE
