"""Copies of one member of each trial at some epochs, to be looked at when training is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from foldwise.engine.stack import Stack
from foldwise.engine.state import take

MOST_BYTES = 64 * 2**20  # of copies; beyond it every other epoch is let go


@dataclass(frozen=True)
class Picture:
    """A member after some epochs: its clock, weights and buffers."""

    epoch: int
    step: int
    parameters: Tensor
    buffers: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """Say how much memory it takes."""
        return self.parameters.nbytes + sum(b.nbytes for b in self.buffers.values())


class Album:
    """Copies, after rounds 0, 1, 2, 3, 5, 8, 13, …, of the first member of every trial that is running.

    A copy costs what it takes to move the weights once, so training is neither slowed nor changed.
    """

    def __init__(self) -> None:
        self.pictures: dict[int, list[Picture]] = {}  # by trial, in order of epochs
        self.bytes = 0
        self.sparse = 1

    def refresh(self, stacks: Sequence[Stack]) -> None:
        """Copy whoever is at an epoch that is wanted, after a round."""
        for stack in stacks:
            trials = [t for t, course in stack.courses.items() if not course.ended and wanted(course.epoch)]
            self._copy(stack, [t for t in trials if self._number(stack.courses[t].epoch) % self.sparse == 0])
        if self.bytes > MOST_BYTES:
            self._thin()

    def finish(self, stacks: Sequence[Stack]) -> None:
        """Copy every trial as it ended."""
        for stack in stacks:
            self._copy(stack, list(stack.courses))

    def of(self, trial: int) -> list[Picture]:
        """Give the pictures of a trial (from 0), by epoch."""
        return self.pictures.get(trial, [])

    def _copy(self, stack: Stack, trials: list[int]) -> None:
        if not trials:
            return
        places = [stack.places[trial][0] for trial in trials]
        part = take(stack.cohort.state, stack.cohort.index(places))
        epochs, steps = part.epoch.tolist(), part.step.tolist()
        for at, trial in enumerate(trials):
            if any(known.epoch == epochs[at] for known in self.of(trial)):
                continue
            buffers = {name: b[at].cpu() for name, b in part.buffers.items()}
            self.add(trial, Picture(epochs[at], steps[at], part.parameters[at].cpu(), buffers))

    def add(self, trial: int, picture: Picture) -> None:
        """Take in a picture of a trial (from 0), later than those that are there."""
        self.pictures.setdefault(trial, []).append(picture)
        self.bytes += picture.bytes

    @staticmethod
    def _number(epoch: int) -> int:
        return WANTED.index(epoch) if epoch in WANTED else 0

    def _thin(self) -> None:
        self.sparse *= 2
        for trial, mine in self.pictures.items():
            self.pictures[trial] = [
                mine[0],
                *(p for p in mine[1:] if self._number(p.epoch) % self.sparse == 0),
            ]
        self.bytes = sum(p.bytes for mine in self.pictures.values() for p in mine)


def _growing() -> tuple[int, ...]:
    found = [0, 1, 2]
    while found[-1] < 10**6:
        found.append(found[-1] + found[-2])
    return tuple(found)


WANTED = _growing()


def wanted(epoch: int) -> bool:
    """Tell whether an epoch is copied: often at first, when most happens.

    >>> [epoch for epoch in range(40) if wanted(epoch)]
    [0, 1, 2, 3, 5, 8, 13, 21, 34]
    """
    return epoch in WANTED
