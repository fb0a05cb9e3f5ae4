"""Copies of one member of each trial at some epochs, to be looked at when training is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from foldwise.engine.stack import Stack

MOST_BYTES = 64 * 2**20  # of copies; before there are more every other epoch is let go


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
    """Copies, after rounds 1, 2, 3, 5, 8, 13, …, of the first member of every trial that is running.

    A copy costs what it takes to move the weights once, so training is neither slowed nor changed.
    """

    def __init__(self) -> None:
        self.pictures: dict[int, list[Picture]] = {}  # by trial, in order of epochs
        self.bytes = 0
        self.sparse = 1

    def refresh(self, stacks: Sequence[Stack]) -> None:
        """Copy whoever is at an epoch that is wanted, after a round, as far as there is room."""
        for stack in stacks:
            state = stack.cohort.state
            each = state.parameters[0].nbytes + sum(b[0].nbytes for b in state.buffers.values())
            due = self._due(stack)
            if (
                len(due) * each > MOST_BYTES
            ):  # never room for all of them: they are seen at the start and the end
                continue
            while due and self.bytes + len(due) * each > MOST_BYTES:
                self._thin()
                due = self._due(stack)
            self._copy(stack, due)

    def _due(self, stack: Stack) -> list[int]:
        trials = [t for t, course in stack.courses.items() if not course.ended and wanted(course.epoch)]
        trials = [t for t in trials if self._number(stack.courses[t].epoch) % self.sparse == 0]
        if not trials:
            return []
        # in an epoch that was broken off a member may be ahead of its trial
        epochs = stack.cohort.state.epoch.tolist()
        return [t for t in trials if epochs[stack.places[t][0]] == stack.courses[t].epoch]

    def finish(self, stack: Stack, trial: int) -> None:
        """Copy a trial (from 0) as it ended."""
        self._copy(stack, [trial])

    def of(self, trial: int) -> list[Picture]:
        """Give the pictures of a trial (from 0), by epoch."""
        return self.pictures.get(trial, [])

    def thinned_as_before(self) -> None:
        """Go on as an album that was stored: the first epoch that it has tells which ones it lets go."""
        self.sparse = (
            min((self._number(p.epoch) for mine in self.pictures.values() for p in mine), default=1) or 1
        )

    def _copy(self, stack: Stack, trials: list[int]) -> None:
        if not trials:
            return
        state = stack.cohort.state
        places = stack.cohort.index([stack.places[trial][0] for trial in trials])
        epochs, steps = state.epoch[places].tolist(), state.step[places].tolist()
        parameters = state.parameters.index_select(0, places).cpu()
        buffers = {name: b.index_select(0, places).cpu() for name, b in state.buffers.items()}
        for at, trial in enumerate(trials):
            if not any(known.epoch == epochs[at] for known in self.of(trial)):
                own = {name: b[at].clone() for name, b in buffers.items()}
                self.add(trial, Picture(epochs[at], steps[at], parameters[at].clone(), own))

    def add(self, trial: int, picture: Picture) -> None:
        """Take in a picture of a trial (from 0), later than those that are there."""
        self.pictures.setdefault(trial, []).append(picture)
        self.bytes += picture.bytes

    @staticmethod
    def _number(epoch: int) -> int:
        return WANTED.index(epoch) + 1 if epoch in WANTED else 0

    def _thin(self) -> None:
        self.sparse *= 2
        for trial, mine in self.pictures.items():
            self.pictures[trial] = [p for p in mine if self._number(p.epoch) % self.sparse == 0]
        self.bytes = sum(p.bytes for mine in self.pictures.values() for p in mine)


def _growing() -> tuple[int, ...]:
    found = [1, 2]
    while found[-1] < 10**6:
        found.append(found[-1] + found[-2])
    return tuple(found)


WANTED = _growing()


def wanted(epoch: int) -> bool:
    """Tell whether an epoch is copied: often at first, when most happens.

    >>> [epoch for epoch in range(40) if wanted(epoch)]
    [1, 2, 3, 5, 8, 13, 21, 34]
    """
    return epoch in WANTED
