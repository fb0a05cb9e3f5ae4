"""A plan: the members that answer one question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from foldwise.settings import Settings

Keep = Literal["best", "last"]


@dataclass(frozen=True)
class Member:
    """One network to train. `trial`, `fold` and `seed` are numbers from 0; `fold` counts through all repeats."""

    trial: int
    fold: int
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Plan:
    """Trials (one settings value each), each trained on every fold with every seed.

    Where trials have folds of their own, `folds_of` lists them, trial by trial.
    `keep` says which epoch a trial keeps: that of its best fold-mean score, or the last, whatever its score: where
    no rows are set apart to choose by.
    """

    question: str
    trials: tuple[Settings, ...]
    folds: int
    seeds: tuple[int, ...]
    folds_of: tuple[tuple[int, ...], ...] = ()
    keep: Keep = "best"

    def grown(self, trials: Sequence[Settings]) -> Plan:
        """Give the plan with further trials after its own, which keep their numbers."""
        return replace(self, trials=(*self.trials, *trials))

    def members(self, first: int = 0) -> list[Member]:
        """List the members of all trials from one on: trials first, then seeds, then folds."""
        return [
            Member(trial, fold, seed, self.trials[trial])
            for trial in range(first, len(self.trials))
            for seed in self.seeds
            for fold in (self.folds_of[trial] if self.folds_of else range(self.folds))
        ]

    def stacks(self, first: int = 0) -> list[list[Member]]:
        """Group the members of trials from one on that can advance together; those of one trial always can."""
        groups: dict[tuple[object, ...], list[Member]] = defaultdict(list)
        for member in self.members(first):
            groups[member.settings.shape()].append(member)
        # those that train longest come first, so that chunks stay what they are when those at the end are through
        return [sorted(members, key=lambda m: -m.settings.epochs) for members in groups.values()]
