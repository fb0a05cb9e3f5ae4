"""How far a trial is, how good it was at each epoch, and why it ended; numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from foldwise.plans.plan import Keep
from foldwise.settings import Settings


@dataclass
class Course:
    """One trial on its way, with a clock of its own; lists are over epochs 0 (untrained), 1, …

    Scores are means of the metric's loss, such that lower is better. `curve` is the mean over all folds and seeds,
    every row counting once; ∞ from the epoch on at which a member diverged. `scores` has each member's own, NaN for
    one that diverged. `keep` says which epoch is kept: the best, or the last one at which no member has diverged.
    `lost` are the folds (from 0) in which one did. `ended` says why the trial ended; it is empty while the trial runs.

    Where folds lie inside others, `curve` is of the outer ones, and `inside` has the means inside each outer fold; ∞
    from the epoch on at which a member inside it, or one of the outer fold itself, diverged. Then the trial stops
    early when all of its curves have waited long enough, and each has its best epoch no later than it would if it
    were the only one: nothing depends on the rows of another curve.

    >>> course = Course(trial=0, settings=Settings(epochs=2))
    >>> [course.note(mean, (mean,)) for mean in (9.0, 0.5, 0.7)]
    [False, True, False]
    >>> course.epoch, course.best_epoch, course.ended
    (2, 1, 'finished')
    """

    trial: int
    settings: Settings
    curve: list[float] = field(default_factory=list)
    scores: list[tuple[float, ...]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    ended: str = ""
    inside: list[tuple[float, ...]] = field(default_factory=list)
    keep: Keep = "best"

    @property
    def epoch(self) -> int:
        """Count the epochs done; −1 before the untrained trial was looked at."""
        return len(self.curve) - 1

    @property
    def best_epoch(self) -> int:
        """Give the first epoch of the best score; 0 as long as there is none.

        An untrained network is no candidate, except where nothing is to be trained.
        """
        return self.best_until(self.epoch)

    @property
    def kept_epoch(self) -> int:
        """Give the epoch that is kept; 0 as long as there is none, and when a member diverged before the last.

        >>> course = Course(trial=0, settings=Settings(epochs=2), keep="last")
        >>> [course.note(mean, (mean,)) for mean in (9.0, 0.5, 0.7)], course.kept_epoch
        ([False, True, True], 2)
        """
        if self.keep == "best":
            return self.best_epoch
        return self.epoch if self.epoch >= self._first and self.curve[-1] < math.inf else 0

    @property
    def best(self) -> float:
        """Give the best score so far; ∞ as long as there is none."""
        return min(self._own()[self._first :], default=math.inf)

    @property
    def considered(self) -> int:
        """Count the epochs, from 0 on, among which the best one is sought: it may have gone on for folds inside."""
        return len(self._own())

    def best_until(self, epoch: int) -> int:
        """Give the epoch that was the best one when the trial was at `epoch`; 0 when there was none."""
        return self._best_epoch(self._own()[: epoch + 1])

    @property
    def inner_curves(self) -> list[list[float]]:
        """Give, for each outer fold, the curve inside it as far as its best epoch is sought."""
        return [self._considered(curve) for curve in map(list, zip(*self.inside, strict=True))]

    @property
    def best_inside(self) -> list[int]:
        """Give the best epoch inside each outer fold; 0 as long as there is none."""
        return [self._best_epoch(curve) for curve in self.inner_curves]

    @property
    def better_inside(self) -> list[int]:
        """List the outer folds inside which the present epoch is the best so far."""
        curves = self.inner_curves
        now = [fold for fold, curve in enumerate(curves) if self._best_epoch(curve) == self.epoch]
        return [fold for fold in now if curves[fold][self.epoch] < math.inf]

    @property
    def _first(self) -> int:
        return 1 if self.settings.epochs else 0

    def _best_epoch(self, curve: list[float]) -> int:
        trained = curve[self._first :]
        best = min(trained, default=math.inf)
        return self._first + trained.index(best) if best < math.inf else 0

    def _own(self) -> list[float]:
        return self._considered(self.curve) if self.inside else self.curve

    def _considered(self, curve: list[float]) -> list[float]:
        """Give a curve up to the epoch at which it has waited long enough: others of the trial may go on."""
        best, at = math.inf, 0
        for epoch, score in enumerate(curve if self.settings.early_stopping else ()):
            if epoch >= self._first and score < best:
                best, at = score, epoch
            if self._waited(epoch, at):
                return curve[: epoch + 1]
        return curve

    def _waited(self, epoch: int, best_epoch: int) -> bool:
        return 0 < self.settings.early_stopping <= epoch - best_epoch

    @property
    def member_epochs(self) -> int:
        """Count the epochs that its members took, each by itself; one that diverged took no more."""
        if not self.lost:
            return len(self.scores[0]) * self.epoch if self.scores else 0
        return sum(sum(not math.isnan(score) for score in scores) for scores in self.scores[:-1])

    @property
    def next_members(self) -> int:
        """Count the members that take the next epoch, if the trial goes on."""
        return sum(not math.isnan(score) for score in self.scores[-1]) if self.scores else 0

    def spread(
        self, epoch: int, finish: Callable[[float], float] = float, members: Sequence[int] | None = None
    ) -> float:
        """Give the deviation over the members at an epoch, of their scores or what `finish` makes of them.

        `members` are some of them, by their places among the scores. NaN for a single member.
        """
        scores = self.scores[epoch]
        own = [finish(score) for score in (scores if members is None else [scores[m] for m in members])]
        return float(np.std(own, ddof=1)) if len(own) > 1 else math.nan

    def note(self, mean: float, scores: Iterable[float], inside: Sequence[float] = ()) -> bool:
        """Note the scores of an epoch; tell whether it is to be kept. May end the trial."""
        self.curve.append(math.inf if math.isnan(mean) else mean)
        self.scores.append(tuple(scores))
        if inside:
            self.inside.append(tuple(math.inf if math.isnan(own) else own for own in inside))
        kept = self.best < math.inf and self.kept_epoch == self.epoch
        s = self.settings
        if self.epoch >= s.epochs:
            self.end("finished")
        elif all(self._waited(self.epoch, best) for best in (self.best_epoch, *self.best_inside)):
            waited = f"{s.early_stopping} epoch{'s' * (s.early_stopping > 1)}"
            self.end(f"stopped early at epoch {self.epoch}: no better fold mean for {waited}")
        return kept

    def lose(self, folds: Iterable[int]) -> None:
        """Note the folds in which a member diverged."""
        self.lost = sorted({*self.lost, *folds})

    @property
    def diverged(self) -> str:
        """Say in which folds members diverged; empty when none did."""
        plural = "s" * (len(self.lost) > 1)
        return f"diverged: fold{plural} {', '.join(str(fold + 1) for fold in self.lost)}" if self.lost else ""

    def end(self, why: str) -> None:
        """End the trial; that members diverged says more than how it went on without them."""
        self.ended = self.diverged or why


HALVED, SPENT = "halving: ", "budget spent "
"""How it begins when a trial ended not by its own curve: because others were better, or nothing was left."""


def cut_short(ended: str) -> bool:
    """Tell whether a trial was stopped before it was through, for no fault of its own."""
    return ended.startswith((HALVED, SPENT))
