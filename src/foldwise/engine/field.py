"""All stacks of a study, and the course of each trial; trials join while others are on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foldwise.engine.album import Album
from foldwise.engine.interface import Engine
from foldwise.engine.orders import RowOrders
from foldwise.engine.stack import Measure, Stack
from foldwise.plans.course import Course
from foldwise.plans.plan import Member, Plan
from foldwise.plans.policy import Decision, effective
from foldwise.settings import Settings


class Field:
    """Owns the stacks. `courses` are the trials by number; `plan` has grown by those that joined.

    Args:
        plan: what is trained from the beginning.
        engine: makes the engine of a new stack from its first members.
        orders: the row orders that all stacks share.
        measure: scores members on their validation rows.
    """

    def __init__(
        self, plan: Plan, engine: Callable[[list[Member]], Engine], orders: RowOrders, measure: Measure
    ) -> None:
        self.engine, self.orders, self.measure = engine, orders, measure
        self.plan = plan
        self.stacks: list[Stack] = []
        self.courses: list[Course] = []
        self.waiting: list[Stack] = []  # whose epoch of the present round is still to come, or broken off
        # what was done after a round, by its number, where anything was; and how long training had taken by then
        self.decided: dict[int, Decision] = {}
        self.gone: list[float] = []
        self.seconds = 0.0  # of training so far
        self.album: Album | None = None  # what is looked at when training is over
        self.blind = False  # because copies for the album failed
        self._join(0)

    def start(self, trials: Sequence[Settings]) -> None:
        """Let trials join, between two rounds; they need not have the shape of others."""
        first = len(self.plan.trials)
        self.plan = self.plan.grown(trials)
        self._join(first)

    def _join(self, first: int) -> None:
        new = [
            Course(trial, s, keep=self.plan.keep)
            for trial, s in enumerate(self.plan.trials)
            if trial >= first
        ]
        self.courses += new
        stacks = {stack.members[0].settings.shape(): stack for stack in self.stacks}
        for members in self.plan.stacks(first):
            courses = [self.courses[trial] for trial in sorted({m.trial for m in members})]
            if (stack := stacks.get(members[0].settings.shape())) is not None:
                stack.add(members, courses)
            else:
                self.stacks.append(Stack(self.engine(members), courses))

    def follow(self, decision: Decision, seconds: float = 0.0) -> None:
        """Stop and start what was decided after a round, when training had taken so long."""
        self.gone.append(seconds)
        done = effective(decision, self.courses)
        if done != Decision():
            self.decided[len(self.gone)] = done
        for trial, why in done.stop.items():
            next(stack for stack in self.stacks if trial in stack.courses).stop(trial, why)
        if done.start:
            self.start(done.start)

    @property
    def running(self) -> list[Course]:
        """List the trials that have not ended."""
        return [course for course in self.courses if not course.ended]

    def remember(self) -> Album:
        """Give the album, a new one when there is none: from then on it is stored with all the rest."""
        self.album = self.album or Album()
        return self.album

    def look(self) -> None:
        """Look at trials that have just started, before they learn."""
        for stack in self.stacks:
            stack.look(self.measure)

    def round(self, learnt: Callable[[int], None]) -> None:
        """Let every running trial take its next epoch.

        `learnt` is told how many rows were learnt from, and may raise to break the round off; called again, it goes
        on where it was broken off, as if it had not been.
        """
        if not self.waiting:
            self.waiting = [stack for stack in self.stacks if stack.running]
            self.orders.keep({course.epoch + 1 for course in self.running})
        while self.waiting:
            self.waiting[0].advance(self.measure, learnt)
            self.waiting.pop(0)

    # How far it is

    def rows_done(self) -> int:
        """Count the rows learnt from, with repetition."""
        cohorts = [stack.cohort for stack in self.stacks]
        pairs = [pair for c in cohorts for pair in zip(c.state.epoch.tolist(), c.lengths, strict=True)]
        return sum(epoch * rows for epoch, rows in pairs)

    def rows_ahead(self) -> int:
        """Count the rows that running members have yet to learn from, if none stops early."""
        return sum(stack.cohort.rows_ahead(stack.running) for stack in self.stacks)

    def members(self) -> int:
        """Count all members."""
        return sum(len(stack.members) for stack in self.stacks)

    def members_running(self) -> int:
        """Count the members that are not through."""
        return sum(len(stack.running) for stack in self.stacks)
