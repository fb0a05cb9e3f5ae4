"""A stack on its way: members of one shape, what they have been through, and the best that they have been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from foldwise.engine.cohort import Cohort
from foldwise.engine.inside import Inside
from foldwise.engine.interface import Engine
from foldwise.engine.state import DIVERGED, FINISHED, RUNNING, STOPPED, Kept, concatenate, put
from foldwise.plans.course import Course
from foldwise.plans.plan import Member

Measure = Callable[[Tensor, Tensor], Float[Tensor, " members"]]
"""From outputs `[members, validation_rows, outputs]` in units of the targets, and the members' folds, to each
member's mean loss per validation row, by which epochs and trials are chosen; lower is better."""


AT_ONCE = 256  # members whose best is written down together, by way of a copy


@dataclass(frozen=True)
class Notes:
    """What is known of an epoch of some members, each its own.

    `others` has the learning rate, and the shares of steps that were clipped or skipped, where they could be.
    """

    places: list[int]
    epoch: Int64[np.ndarray, " places"]
    training_loss: Float[np.ndarray, " places"]
    validation_loss: Float[np.ndarray, " places"]
    score: Float[np.ndarray, " places"]
    others: dict[str, Float[np.ndarray, " places"]]


class Seen:
    """What members gave on their validation rows after an epoch, filled in part by part, also from several threads.

    Tensors are by `places`, in their order. `finite` tells whether every output was. Small parts are judged together
    at the end: each operation takes so long to start that one for a few members is no faster than one for many.
    """

    FEW = 4

    def __init__(self, cohort: Cohort, measure: Measure, places: list[int]) -> None:
        self.cohort, self.measure, self.places = cohort, measure, places
        self.at = {place: at for at, place in enumerate(places)}
        self.unseen = {*places}
        self.waiting: list[int] = []
        device, shape = cohort.rows.device, (len(places), cohort.validation[0].shape[1], cohort.outputs)
        self.outputs = torch.empty(shape, dtype=cohort.rows.dtype, device=device)
        self.finite = torch.zeros(len(places), dtype=torch.bool, device=device)
        self.scores, self.validation_losses = torch.zeros(2, len(places), dtype=torch.float64, device=device)

    def look(self, part: Sequence[int], outputs: Float[Tensor, "part validation_rows outputs"]) -> None:
        """Take the outputs of some of the members."""
        at = self.cohort.index([self.at[place] for place in part])
        self.outputs.index_copy_(0, at, outputs)
        if len(part) > self.FEW:
            self._judge(part, at, outputs)
        else:
            self.waiting += part
        self.unseen.difference_update(part)

    def finish(self) -> None:
        """Judge whoever has not been."""
        if self.waiting:
            at = self.cohort.index([self.at[place] for place in self.waiting])
            self._judge(self.waiting, at, self.outputs.index_select(0, at))

    def _judge(self, part: Sequence[int], at: Tensor, outputs: Tensor) -> None:
        folds = self.cohort.folds(part)
        self.finite[at] = torch.isfinite(outputs.flatten(1).abs().amax(1))
        self.scores[at] = self.measure(self.cohort.rows.unscaled(outputs, folds), folds)
        self.validation_losses[at] = self.cohort.validation_loss(outputs, part)


@dataclass
class Begun:
    """An epoch that a stack has begun: who takes it, which parts are left, and what the others gave."""

    places: list[int]
    left: list[list[int]]
    losses: Float[Tensor, " members"]  # of the whole stack; NaN where not known
    counted: dict[str, Float[Tensor, " places"]]  # steps that were clipped or skipped before it


class Stack:
    """Members that advance together, with the best of each and a note of every epoch.

    Members of a trial are always at the same epoch, except in an epoch that was broken off: `begun` remembers it, and
    the next call of `advance` goes on with it.
    """

    def __init__(self, engine: Engine, courses: Sequence[Course]) -> None:
        self.engine = engine
        self.courses: dict[int, Course] = {}
        self.places: dict[int, list[int]] = {}  # by trial
        self.notes: list[Notes] = []
        self.begun: Begun | None = None
        self.inside = Inside(engine.cohort)
        self.kept = self._start(0, courses)

    @property
    def cohort(self) -> Cohort:
        """Give the members and their state."""
        return self.engine.cohort

    @property
    def members(self) -> list[Member]:
        """List the members, by place."""
        return self.cohort.members

    @property
    def trials(self) -> list[int]:
        """List the trials whose members are here."""
        return sorted(self.courses)

    @property
    def running(self) -> list[int]:
        """List the places of members that are not through."""
        return [p for p, s in enumerate(self.cohort.state.status.tolist()) if s == RUNNING]

    def add(self, members: Sequence[Member], courses: Sequence[Course]) -> None:
        """Let the members of new trials join, between two epochs."""
        first = len(self.cohort)
        self.cohort.add(members)
        self.kept = concatenate([self.kept, self._start(first, courses)])

    def _start(self, first: int, courses: Sequence[Course]) -> Kept:
        cohort, state = self.cohort, self.cohort.state
        self.courses.update({course.trial: course for course in courses})
        for place in range(first, len(cohort)):
            self.places.setdefault(cohort.members[place].trial, []).append(place)
        self.inside.add(first)
        # a trial has a mean for each group of its folds
        number = {trial: n * self.inside.groups for n, trial in enumerate(self.places)}
        groups = self.inside.group
        self.mean_of = cohort.index([number[m.trial] + groups[m.fold] for m in cohort.members])
        self.rows_of = cohort.validation[1].sum(1)[cohort.folds(range(len(cohort)))]
        shape = (len(cohort) - first, cohort.validation[0].shape[1], cohort.outputs)
        return Kept(
            parameters=state.parameters[first:].clone(),
            buffers={name: b[first:].clone() for name, b in state.buffers.items()},
            outputs=torch.full(shape, torch.nan, dtype=cohort.rows.dtype, device=cohort.rows.device),
            epoch=torch.zeros_like(state.epoch[first:]),
        )

    def look(self, measure: Measure) -> None:
        """Look at members that have just started, before they learn."""
        new = [p for p in self.running if self.courses[self.members[p].trial].epoch < 0]
        if new:
            seen = Seen(self.cohort, measure, new)
            with self.engine.at_work():
                self.engine.validate(new, seen.look)
                self._note(seen, None, {})

    def advance(self, measure: Measure, learnt: Callable[[int], None]) -> None:
        """Train the next epoch of every running member, look at the validation rows, and keep what is best.

        `learnt` is told how many rows were learnt from, part by part, and may raise to break the epoch off.
        """
        with self.engine.at_work():
            self._advance(measure, learnt)

    def _advance(self, measure: Measure, learnt: Callable[[int], None]) -> None:
        begun = self.begun = self.begun or self._begin()
        seen = Seen(self.cohort, measure, begun.places)
        with closing(self.engine.advance(list(begun.left), seen.look)) as parts:
            for part, losses in parts:
                # a part may come in pieces, where memory ran out
                done = {*part}
                begun.left = [rest for own in begun.left if (rest := [p for p in own if p not in done])]
                begun.losses[part] = losses
                learnt(sum(self.cohort.lengths[p] for p in part))
        self.begun = None
        if seen.unseen:  # those who had done this epoch when it was broken off
            self.engine.validate([place for place in begun.places if place in seen.unseen], seen.look)
        self._note(seen, begun.losses[begun.places], begun.counted)

    def _begin(self) -> Begun:
        places, cohort = self.running, self.cohort
        unknown = torch.full((len(cohort),), torch.nan, dtype=torch.float64, device=cohort.rows.device)
        return Begun(places, self.engine.parts(places), unknown, cohort.counted(places))

    def _note(self, seen: Seen, losses: Tensor | None, counted: dict[str, Tensor]) -> None:
        """Note what was seen after an epoch (without losses: before the first); follow, keep and stop."""
        seen.finish()
        cohort, places, validation_losses = self.cohort, seen.places, seen.validation_losses
        others = {} if losses is None else self._others(places, counted)
        broken = ~seen.finite if losses is None else ~seen.finite | self._lost(losses, others)
        # a broken member has no score, though some metrics (accuracy) make a number of NaN
        scores = seen.scores.where(~broken, torch.nan)
        better = self._follow(places, scores, broken)
        if losses is not None:
            cohort.follow_curve(self._fold_mean(places, validation_losses)[cohort.index(places)], places)
        self._keep([p for p in places if self.members[p].trial in better], seen)
        self.inside.keep({self.members[p].trial: self.courses[self.members[p].trial] for p in places}, seen)
        self._stop(places, broken)
        self.notes.append(
            Notes(
                places,
                epoch=cohort.state.epoch[cohort.index(places)].cpu().numpy(),
                training_loss=np.full(len(places), np.nan) if losses is None else losses.cpu().numpy(),
                validation_loss=validation_losses.cpu().numpy(),
                score=scores.cpu().numpy(),
                others={name: values.cpu().numpy() for name, values in others.items()},
            )
        )

    def _others(self, places: list[int], before: dict[str, Tensor]) -> dict[str, Tensor]:
        steps, counted = self.cohort.steps(places), self.cohort.counted(places)
        shares = {name: (count - before[name]) / steps for name, count in counted.items()}
        return {**shares, "learning_rate": self.cohort.learning_rates(places)}

    def _lost(self, losses: Tensor, others: dict[str, Tensor]) -> Tensor:
        # no loss because every step overflowed in float16: the scale is lowered until one does not
        skipped = (
            others["skipped"] == 1 if "skipped" in others else torch.zeros_like(losses, dtype=torch.bool)
        )
        return ~torch.isfinite(losses) & ~skipped

    def _fold_mean(self, places: list[int], values: Float[Tensor, " places"]) -> Float[Tensor, " members"]:
        """Average over the folds and seeds of each trial, every row counting once; ∞ where a member broke or left.

        Given to each member of the stack; over the folds of its own group, where some lie inside others.
        """
        whole = torch.full_like(self.rows_of, torch.inf)
        whole[self.cohort.index(places)] = torch.where(torch.isfinite(values), values, torch.inf)
        means = len(self.places) * self.inside.groups
        total, weight = torch.zeros(2, means, dtype=torch.float64, device=values.device)
        total.index_add_(0, self.mean_of, whole * self.rows_of)
        return (total / weight.index_add_(0, self.mean_of, self.rows_of))[self.mean_of]

    def _follow(self, places: list[int], scores: Tensor, broken: Tensor) -> set[int]:
        """Note the scores in the courses; give the trials whose networks are to be kept."""
        means = self._fold_mean(places, scores).tolist()
        own = dict(zip(places, scores.tolist(), strict=True))
        lost = [p for p, b in zip(places, broken.tolist(), strict=True) if b]
        better = set()
        for trial in sorted({self.members[p].trial for p in places}):
            course, mine = self.courses[trial], self.places[trial]
            course.lose(
                self.inside.outer(self.members[p].fold) for p in lost if self.members[p].trial == trial
            )
            # Chosen on the mean over folds and seeds, never fold by fold: a fold's own best epoch fits its own rows.
            scored = [own.get(p, np.nan) for p in mine]
            inside = self.inside.means(mine, means, scored)
            if course.note(means[mine[0]], scored, inside) or course.epoch == 0:
                better.add(trial)
        return better

    def _keep(self, mine: list[int], seen: Seen) -> None:
        state = self.cohort.state
        for first in range(0, len(mine), AT_ONCE):
            some = mine[first : first + AT_ONCE]
            own, at = self.cohort.index(some), self.cohort.index([seen.at[p] for p in some])
            best = Kept(
                state.parameters.index_select(0, own),
                {name: buffer.index_select(0, own) for name, buffer in state.buffers.items()},
                seen.outputs.index_select(0, at),
                state.epoch.index_select(0, own),
            )
            put(self.kept, own, best)

    def _stop(self, places: list[int], broken: Tensor) -> None:
        """Stop members that broke, at once and alone; and those of trials that have ended."""
        status = self.cohort.state.status
        status[self.cohort.index(places)[broken]] = DIVERGED
        running = {self.members[p].trial for p in self.running}
        for trial in {self.members[p].trial for p in places}:
            course = self.courses[trial]
            if trial not in running:
                course.end("finished")
            if course.ended:
                last = course.epoch >= course.settings.epochs
                self._leave(trial, FINISHED if last else STOPPED)

    def stop(self, trial: int, why: str) -> None:
        """End a running trial, between two epochs."""
        self.courses[trial].end(why)
        self._leave(trial, STOPPED)

    def _leave(self, trial: int, how: int) -> None:
        status, own = self.cohort.state.status, self.cohort.index(self.places[trial])
        status[own] = torch.where(status[own] == RUNNING, how, status[own]).to(status.dtype)
