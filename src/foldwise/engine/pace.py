"""How members go through their rows: into which batches an epoch is cut, and which of them make one step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from foldwise.settings import Settings


@dataclass(frozen=True)
class Pace:
    """The batches of a stack, by epoch (counted from 1) and number of training rows.

    A batch size that grows (Smith et al. 2018) does so at the beginning of an epoch. `accumulation` batches make
    one step. A last batch of a single row joins the one before: one row alone is a noisy step, and normalization
    over a batch has no variance there.

    >>> pace = Pace(batch_size=4, growth=2, growth_every=1, accumulation=2)
    >>> pace.steps(13, epoch=1), pace.steps(13, epoch=2)
    ([(4, 4), (5,)], [(8, 5)])
    """

    batch_size: int
    growth: float = 1.0
    growth_every: int = 1
    accumulation: int = 1

    @classmethod
    def of(cls, s: Settings) -> Pace:
        """Read the pace from settings."""
        return cls(s.batch_size, s.batch_growth, s.batch_growth_every, s.accumulation)

    def size(self, epoch: int) -> int:
        """Give the rows of a whole batch."""
        times = (epoch - 1) // self.growth_every
        # a growing size soon holds all rows; the bound only keeps the number finite
        if times * math.log2(self.growth) > 40:
            return self.batch_size << 40
        return int(
            self.batch_size * self.growth**times * (1 + 1e-9)
        )  # 100 · 1.15 is 115, though not in binary

    def steps(self, rows: int, epoch: int) -> list[tuple[int, ...]]:
        """List the steps of an epoch, each with the rows of its batches."""
        size = self.size(epoch)
        batches = [size] * (rows // size) + [rows % size] * (rows % size > 0)
        if size > 1 and len(batches) > 1 and batches[-1] == 1:
            batches[-2:] = [size + 1]
        each = self.accumulation
        return [tuple(batches[first : first + each]) for first in range(0, len(batches), each)]

    def count(self, rows: int, epoch: int) -> tuple[int, int]:
        """Count the steps and the batches of an epoch."""
        size = self.size(epoch)
        joins = size > 1 and rows > size and rows % size == 1
        batches = math.ceil(rows / size) - joins
        return math.ceil(batches / self.accumulation), batches

    def before(self, rows: int, epoch: int) -> tuple[int, int]:
        """Count the steps and the batches before an epoch."""
        if self.growth == 1:
            steps, batches = self.count(rows, 1)
            return steps * (epoch - 1), batches * (epoch - 1)
        counts = [self.count(rows, e) for e in range(1, epoch)]
        return sum(c[0] for c in counts), sum(c[1] for c in counts)

    def total_steps(self, rows: int, epochs: int) -> int:
        """Count the steps of a whole training."""
        return self.before(rows, epochs + 1)[0]


def stretched(s: Settings, longer: float) -> Settings:
    """Give settings `longer` times the epochs, and let what counts in epochs happen after as many steps as before.

    For epochs of so much fewer steps; what has no effect stays as it is.

    >>> made = stretched(Settings(schedule="step", decay_every=10, epochs=30), 0.5)
    >>> made.epochs, made.decay_every
    (15, 5)
    """
    least = {"epochs": 0, "early_stopping": 0, "patience": 0, "decay_every": 1, "batch_growth_every": 1}
    changed: dict[str, float] = {n: max(low, round(getattr(s, n) * longer)) for n, low in least.items()}
    changed["decay_per_epoch"] = s.decay_per_epoch ** (1 / longer)
    has_effect = s.effective()
    return s.model_copy(update={name: value for name, value in changed.items() if name in has_effect})


def starts(sizes: tuple[int, ...], first: int) -> Iterator[tuple[int, int]]:
    """Give where each batch of a step begins and ends among an epoch's rows."""
    for size in sizes:
        yield first, first + size
        first += size
