"""Who decides, while training goes on, which trials stop and which start; numbers only.

A policy that is made anew comes to where another one was by being asked the same again (see `retrace`). So it must
follow from how it was made and from what it was asked: no clock, no random number beyond its seed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from foldwise.plans.course import Course
from foldwise.settings import Settings


@dataclass(frozen=True)
class Decision:
    """Which running trials stop, by number, and why; and what is tried from now on."""

    stop: Mapping[int, str] = field(default_factory=dict)
    start: Sequence[Settings] = ()


class Policy(Protocol):
    """Is asked after each round, in which every running trial has done one epoch.

    The trials of the plan are there from the beginning. Training ends when none is running and none is started.
    """

    @property
    def scalings(self) -> Collection[str]:
        """Name the scalings that trials it starts may have: what they need of the rows is learned beforehand."""

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Look at all trials so far, by number, those that have ended too, and decide; must not change them.

        `seconds` is how long training took up to now.
        """


@dataclass(frozen=True)
class ToTheEnd:
    """Lets every trial of the plan run to its end, and starts no other."""

    scalings: Collection[str] = ()

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Change nothing."""
        return Decision()


TO_THE_END = ToTheEnd()


@dataclass(frozen=True)
class StopAt:
    """Lets every trial of the plan run to an epoch, which need not be the last that its schedule counts on."""

    epoch: int
    scalings: Collection[str] = ()

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Stop the trials that are there."""
        return Decision({c.trial: f"stopped at epoch {c.epoch}" for c in courses if c.epoch >= self.epoch})


def effective(decision: Decision, courses: Sequence[Course]) -> Decision:
    """Leave out of a decision the trials that have ended without it."""
    stop = {trial: why for trial, why in decision.stop.items() if not courses[trial].ended}
    return Decision(stop, tuple(decision.start))
