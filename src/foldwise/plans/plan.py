"""A plan: the members that answer one question."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from foldwise.settings import Settings


@dataclass(frozen=True)
class Member:
    """One network to train. `trial`, `fold` and `seed` are numbers from 0; `fold` counts through all repeats."""

    trial: int
    fold: int
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Plan:
    """Trials (one settings value each), each trained on every fold with every seed."""

    question: str
    trials: tuple[Settings, ...]
    folds: int
    seeds: tuple[int, ...]

    def members(self) -> list[Member]:
        """List all members: trials first, then seeds, then folds."""
        return [
            Member(trial, fold, seed, settings)
            for trial, settings in enumerate(self.trials)
            for seed in self.seeds
            for fold in range(self.folds)
        ]

    def stacks(self) -> list[list[Member]]:
        """Group the members that can advance together; those of one trial always can."""
        groups: dict[tuple[object, ...], list[Member]] = defaultdict(list)
        for member in self.members():
            groups[member.settings.shape()].append(member)
        # those that train longest come first, so that the ones still training are always neighbors
        return [sorted(members, key=lambda m: -m.settings.epochs) for members in groups.values()]
