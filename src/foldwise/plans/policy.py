"""Who decides, while training goes on, which trials stop and which start; numbers only.

A policy that is made anew comes to where another one was by being asked the same again. That takes a note of each
question, which is short because curves only grow:

    notes.append(note_of(courses, seconds))   # at each round, beside policy.decide(courses, seconds)
    decisions = replay(fresh, notes, courses)  # later, with the courses as they were saved

So a policy must follow from how it was made and from what it was asked: no clock, no random number beyond its seed.
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
class Note:
    """What a policy was asked after a round: how far each trial was, whether it had ended, how long it took."""

    epochs: tuple[int, ...]
    ended: tuple[str, ...]
    seconds: float


def note_of(courses: Sequence[Course], seconds: float) -> Note:
    """Note a question to a policy."""
    return Note(tuple(c.epoch for c in courses), tuple(c.ended for c in courses), seconds)


def replay(policy: Policy, notes: Sequence[Note], courses: Sequence[Course]) -> list[Decision]:
    """Bring a fresh policy to where another one was, and give what it decides on the way.

    `courses` are as they were after the last note, or later.
    """
    return [
        policy.decide(
            [c.at(e, ended) for c, e, ended in zip(courses, note.epochs, note.ended, strict=False)],
            note.seconds,
        )
        for note in notes
    ]
