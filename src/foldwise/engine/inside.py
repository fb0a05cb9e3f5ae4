"""Folds inside others: their means, and what outer members gave when the folds inside theirs were at their best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from foldwise.engine.cohort import Cohort
from foldwise.engine.state import Kept, concatenate, put
from foldwise.plans.course import Course

if TYPE_CHECKING:
    from foldwise.engine.stack import Seen


class Inside:
    """Follows a stack. Where no fold lies inside another there is one group, and nothing to do.

    For each outer member, `kept` holds outputs on its validation rows at the epoch that is best inside its fold, which
    need not be the one that its trial keeps; weights are not kept a second time.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.group: list[int] = cohort.rows.folds.groups.tolist()
        self.groups = max(self.group) + 1
        self.at: dict[int, int] = {}  # from the place of an outer member to that among those kept
        self.kept: Kept | None = None

    def add(self, first: int) -> None:
        """Let members join that stand from a place on."""
        if self.groups == 1:
            return
        cohort, state = self.cohort, self.cohort.state
        own = [p for p in range(first, len(cohort)) if not self.group[cohort.members[p].fold]]
        self.at |= {place: len(self.at) + n for n, place in enumerate(own)}
        shape = (len(own), cohort.validation[0].shape[1], cohort.outputs)
        new = Kept(
            parameters=state.parameters.new_zeros(len(own), 0),
            buffers={},
            outputs=torch.full(shape, torch.nan, dtype=cohort.rows.dtype, device=cohort.rows.device),
            epoch=state.epoch.new_zeros(len(own)),
        )
        self.kept = new if self.kept is None else concatenate([self.kept, new])

    def outer(self, fold: int) -> int:
        """Give the outer fold in which a fold lies, or the fold itself; users know of no others."""
        return self.group[fold] - 1 if self.group[fold] else fold

    def means(self, mine: Sequence[int], means: Sequence[float], scores: Sequence[float]) -> list[float]:
        """Pick the mean inside each outer fold from those given to the members of a trial, who have `scores`.

        ∞ where a member of the outer fold itself broke: a network that cannot be trained is no choice.
        """
        inside = [math.inf] * (self.groups - 1)
        folds = [self.cohort.members[p].fold for p in mine]
        for place, fold in zip(mine, folds, strict=True):
            if group := self.group[fold]:
                inside[group - 1] = means[place]
        for fold, score in zip(folds, scores, strict=True):
            if inside and not self.group[fold] and math.isnan(score):
                inside[fold] = math.inf
        return inside

    def keep(self, courses: Mapping[int, Course], seen: Seen) -> None:
        """Keep what outer members gave inside whose folds this epoch is the best so far."""
        if self.kept is None:
            return
        better = {trial: {*course.better_inside} for trial, course in courses.items()}
        members = self.cohort.members
        mine = [p for p in seen.places if p in self.at and members[p].fold in better[members[p].trial]]
        if not mine:
            return
        own, index = self.cohort.index([self.at[p] for p in mine]), self.cohort.index
        part = Kept(
            parameters=self.kept.parameters[own],
            buffers={},
            outputs=seen.outputs.index_select(0, index([seen.at[p] for p in mine])),
            epoch=self.cohort.state.epoch.index_select(0, index(mine)),
        )
        put(self.kept, own, part)

    def fits(self, courses: Mapping[int, Course]) -> bool:
        """Tell whether what is kept is of the epochs that the courses say."""
        if self.kept is None:
            return True
        epochs, members = self.kept.epoch.tolist(), self.cohort.members
        best = {trial: course.best_inside for trial, course in courses.items()}
        return all(epochs[at] == best[members[p].trial][members[p].fold] for p, at in self.at.items())
