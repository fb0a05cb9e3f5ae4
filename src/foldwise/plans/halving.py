"""Successive halving: at some epochs the worse trials stop, so that the better ones are trained further."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldwise.errors import PlanError
from foldwise.plans.course import HALVED, Course

RUNGS = 3
"""How many rungs the longest trials have at least, when their epochs allow it."""


@dataclass(frozen=True)
class Halving:
    """Lets the best 1 in `by` trials go on at the epochs `first`, `first`·`by`, `first`·`by`² …: the rungs.

    A trial has the rungs at which no more than 1/`by` of its epochs are done: later, little is left to be saved.

    Successive halving of Jamieson & Talwalkar 2016, *Non-stochastic best arm identification and hyperparameter
    optimization*. Trials that come to a rung later are compared with all that were there before them, as in the
    asynchronous form of Li et al. 2020, *A system for massively parallel hyperparameter tuning*; so a trial that is
    stopped is never taken up again.

    >>> Halving.over(3, epochs=60).rungs(60), Halving.over(3, epochs=60).rungs(6)
    ([2, 6, 18], [2])
    """

    by: int
    first: int

    @staticmethod
    def over(by: int, epochs: int) -> Halving:
        """Place the first rung so that trials of so many epochs pass three, when their epochs allow it."""
        return Halving(by, max(1, epochs // by**RUNGS))

    def rungs(self, epochs: int) -> list[int]:
        """List the epochs at which a trial of so many epochs may be stopped."""
        rungs, rung = [], self.first
        while rung * self.by <= epochs:
            rungs.append(rung)
            rung *= self.by
        return rungs

    def expected(self, epochs: int, done: int = 0) -> float:
        """Give how many of its epochs after the first `done` a trial takes, if one of `by` goes on at each rung."""
        total, share, at = 0.0, 1.0, done
        for end in [*(rung for rung in self.rungs(epochs) if rung > done), epochs]:
            total += share * (end - at)
            share, at = share / self.by, end
        return total

    def stops(self, courses: Sequence[Course]) -> dict[int, str]:
        """Say which of the running trials that have just come to a rung stop there, and why.

        The best ⌈n/`by`⌉ of the n trials that ever came to the rung go on. So does a trial that cannot be told apart
        from the last of these, as long as no more than twice the places are taken.
        """
        stops: dict[int, str] = {}
        for rung in sorted({c.epoch for c in courses if self._has_come(c)}):
            ranked = sorted((c for c in courses if c.epoch >= rung), key=lambda c: (_score(c, rung), c.trial))
            places = math.ceil(len(ranked) / self.by)
            last = ranked[places - 1]
            for place, course in enumerate(ranked[places:], start=places + 1):
                if course.epoch != rung or not self._has_come(course):
                    continue
                if place > 2 * places or not alike(_own_scores(course, rung), _own_scores(last, rung)):
                    stops[course.trial] = f"{HALVED}{ordinal(place)} of {len(ranked)} at epoch {rung}"
        return stops

    def _has_come(self, course: Course) -> bool:
        return not course.ended and course.epoch in self.rungs(course.settings.epochs)

    def said(self, epochs: int) -> str:
        """Say what is done with trials of so many epochs."""
        share = "half" if self.by == 2 else f"1 in {self.by}"
        return f"halving: the best {share} goes on at epochs {', '.join(map(str, self.rungs(epochs)))}"


def read_halving(given: object, longest: int, trials: float) -> Halving:
    """Make a halving of what the user gave, for so many trials of at most so many epochs."""
    if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 2:
        raise PlanError(
            f"`halving` must be a whole number of at least 2; got {given!r}.",
            hint="halving=3 (--halving 3) lets the best third go on",
        )
    halving = Halving.over(int(given), longest)
    if trials < 2 or not halving.rungs(longest):
        lacking = (
            f"no trial has more than {longest} epochs" if trials > 1 else "fewer than two trials are searched"
        )
        raise PlanError(
            f"`halving` has no effect: {lacking}.",
            hint=f"leave it out, or search over several trials of at least {given} epochs",
        )
    return halving


def _score(course: Course, rung: int) -> float:
    best = course.best_until(rung)
    return course.curve[best] if best or not course.settings.epochs else math.inf


def _own_scores(course: Course, rung: int) -> tuple[float, ...]:
    return course.scores[course.best_until(rung)]


def alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether the scores of members of equal folds and seeds differ by less than their standard error.

    Never for a single member, nor where one diverged.

    >>> alike((1.0, 2.0, 3.0), (1.2, 1.9, 3.0)), alike((1.0, 2.0, 3.0), (1.3, 2.2, 3.2))
    (True, False)
    """
    differences = np.subtract(one, other)
    if len(differences) < 2 or not np.isfinite(differences).all():
        return False
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return bool(abs(differences.mean()) < error)


def ordinal(number: int) -> str:
    """Write a place.

    >>> ordinal(1), ordinal(12), ordinal(23)
    ('1st', '12th', '23rd')
    """
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 % 10 != 1 else "th"
    return f"{number}{ending}"
