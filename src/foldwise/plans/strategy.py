"""A search as one policy: where trials come from, how many train at a time, which stop, and what may be spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from foldwise.errors import percent
from foldwise.plans.budget import NO_LIMITS, Budget
from foldwise.plans.course import HALVED, SPENT, Course, cut_short
from foldwise.plans.halving import Halving
from foldwise.plans.policy import Decision, Policy
from foldwise.plans.samplers import Source
from foldwise.settings import Settings


@dataclass(frozen=True)
class Spending:
    """What was spent so far: members that were started, and epochs that they took."""

    members: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Account:
    """What became of a search: `tried` are trials without the baselines, some `halved`, some `unpaid`.

    `waiting` were never started. `epochs` were taken by members, of `full` had every trial trained to its end.
    """

    how: str = ""
    tried: int = 0
    halved: int = 0
    unpaid: int = 0
    waiting: int = 0
    epochs: int = 0
    full: int = 0

    @property
    def sentence(self) -> str:
        """Say it in one sentence; empty when every trial simply trained."""
        if not self.how:
            return ""
        of, plural = f"{self.tried} trial", "s" * (self.tried != 1)
        stopped = [(self.halved, "by halving"), (self.unpaid, "by the budget")]
        said = [f"{count} of {of}{plural} stopped early {by}" for count, by in stopped if count]
        parts = said or [f"{of}{plural}, none stopped early"]
        parts += [f"{self.waiting} more not started"] if self.waiting else []
        share = self.epochs / self.full if self.full else 1.0
        return f"{'; '.join(parts)}; {percent(share)} of the epochs of training all to the end"


@dataclass
class Strategy:
    """Starts trials as places become free, halves them, and keeps to a budget.

    The first `baselines` trials of the plan are none of its business: they are neither counted nor compared nor
    stopped. It remembers nothing itself: what it decides follows from its source and from the courses that it is shown.

    Args:
        source: gives the trials.
        members: how many members a trial has.
        baselines: how many trials of the plan are baselines.
        examples: settings that show what trials may be.
        places: how many trials train at a time; ∞ for all.
        halving: which trials stop because others are better.
        budget: what may be spent.
        sampler: how trials are drawn, to be told.
    """

    source: Source
    members: int
    baselines: int
    examples: Sequence[Settings]
    places: float = math.inf
    halving: Halving | None = None
    budget: Budget = NO_LIMITS
    sampler: str = "latin"

    @property
    def scalings(self) -> tuple[str, ...]:
        """Name the scalings that trials may have."""
        return tuple(sorted({s.scaling for s in self.examples}))

    def opening(self) -> list[Settings]:
        """Give the trials that start together with the baselines; asked for once, before any decision."""
        return self._start([], {}, Spending())

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Stop what is beaten, then what can no longer be paid for, and start what has a place and can be paid for."""
        mine = courses[self.baselines :]
        stop = self._beaten(mine)
        self._tell(mine, stop)
        going = [c for c in mine if not c.ended and c.trial not in stop]
        if seconds >= self.budget.seconds:
            return Decision(stop | {c.trial: _spent(c) for c in going})
        spent = Spending(len(mine) * self.members, sum(c.member_epochs for c in mine))
        stop |= self._unpaid(going, spent)
        return Decision(stop, self._start(mine, stop, spent))

    def _beaten(self, mine: Sequence[Course]) -> dict[int, str]:
        return {} if self.halving is None else self.halving.stops(mine)

    def _tell(self, mine: Sequence[Course], stop: Mapping[int, str]) -> None:
        """Tell the source of every trial that has ended, in the order of trials."""
        for course in mine:
            if course.ended or course.trial in stop:
                self.source.tell(course, course.trial in stop or cut_short(course.ended))

    def _unpaid(self, going: Sequence[Course], spent: Spending) -> dict[int, str]:
        """Say who stops because the next epoch cannot be paid for all: the worst."""
        left, unpaid = self.budget.epochs - spent.epochs, {}
        for course in sorted(going, key=lambda c: (c.best, c.trial)):
            if course.next_members > left:
                unpaid[course.trial] = _spent(course)
            else:
                left -= course.next_members
        return unpaid

    def _start(self, mine: Sequence[Course], stop: Mapping[int, str], spent: Spending) -> list[Settings]:
        """Take from the source as many trials as have a place and can be paid for.

        A trial starts when what is left pays for what it and those on their way are expected to take, so that trials
        end by themselves and not because the budget does. The very first one starts whatever it takes.
        """
        going = [c for c in mine if not c.ended and c.trial not in stop]
        left = self.budget.epochs - spent.epochs - sum(self._ahead(c) for c in going)
        free = min(self.places - len(going), _times(self.budget.members - spent.members, self.members))
        started: list[Settings] = []
        price = self.members * max((self._epochs(s) for s in self.examples), default=0.0)
        first = not mine
        while len(started) < min(free, self.source.left + len(started)):
            count = min(free - len(started), max(_times(left, price), first), self.source.left)
            if count < 1:
                break
            taken = self.source.take(int(count))
            if not taken:
                break
            started += taken
            left -= self.members * sum(map(self._epochs, taken))
            first = False
        return started

    def _epochs(self, settings: Settings, done: int = 0) -> float:
        if self.halving is None:
            return settings.epochs - done
        return self.halving.expected(settings.epochs, done)

    def _ahead(self, course: Course) -> float:
        members = course.next_members if course.scores else self.members
        return members * self._epochs(course.settings, max(0, course.epoch))

    # What is to be expected, and what became of it

    def to_come(self, courses: Sequence[Course]) -> float:
        """Count the trials that may still start."""
        started = len(courses[self.baselines :]) * self.members
        return min(self.source.left, _times(self.budget.members - started, self.members))

    def ahead(self, courses: Sequence[Course]) -> float:
        """Say how many epochs members are expected to take from now on, those of the baselines too."""
        mine = courses[self.baselines :]
        others = sum(
            self.members * (c.settings.epochs - max(0, c.epoch))
            for c in courses[: self.baselines]
            if not c.ended
        )
        running = sum(self._ahead(c) for c in mine if not c.ended)
        more = self.to_come(courses)
        wanted = running + (more * self.members * self._mean_epochs(self._epochs) if more else 0.0)
        return others + min(wanted, max(0.0, self.budget.epochs - sum(c.member_epochs for c in mine)))

    def _mean_epochs(self, epochs: Callable[[Settings], float]) -> float:
        return sum(map(epochs, self.examples)) / max(1, len(self.examples))

    @property
    def how(self) -> str:
        """Say how it searches."""
        parts = [self.sampler]
        if self.places < math.inf:
            parts.append(f"{int(self.places)} trials at a time")
        if self.halving is not None:
            parts.append(self.halving.said(max(s.epochs for s in self.examples)))
        return " · ".join([*parts, *self.budget.said])

    def account(self, courses: Sequence[Course]) -> Account:
        """Say what became of the search."""
        mine = courses[self.baselines :]
        waiting = self.source.left if self.source.left < math.inf else 0
        full = sum(c.settings.epochs for c in mine) + waiting * self._mean_epochs(lambda s: s.epochs)
        return Account(
            self.how,
            tried=len(mine),
            halved=sum(c.ended.startswith(HALVED) for c in mine),
            unpaid=sum(c.ended.startswith(SPENT) for c in mine),
            waiting=int(waiting),
            epochs=sum(c.member_epochs for c in mine),
            full=round(self.members * full),
        )


def strategy_of(policy: Policy) -> Strategy | None:
    """Give a policy that searches; None for one of another kind."""
    return policy if isinstance(policy, Strategy) else None


def _spent(course: Course) -> str:
    return f"{SPENT}at epoch {course.epoch}"


def _times(amount: float, price: float) -> float:
    """Say how often an amount pays a price."""
    return amount // price if price and amount < math.inf else math.inf
