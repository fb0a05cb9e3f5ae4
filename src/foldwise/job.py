"""A plan made ready to train, and what is collected from it: rows on the device, stacks, scores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.data.prepare import Preparation, TargetScale, learn_preparation, learn_target_scale
from foldwise.data.table import Table
from foldwise.data.target import Task
from foldwise.data.variants import Variants
from foldwise.data.weights import score_weights, training_weights
from foldwise.engine.cohort import Cohort
from foldwise.engine.field import Field
from foldwise.engine.interface import Engine, choose_engine, why_not_resident
from foldwise.engine.links import Link
from foldwise.engine.loop import PlanSummary, Progress, Standing, train
from foldwise.engine.losses import Loss, OwnLoss, losses_for, outputs_by_loss
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.predict import Models
from foldwise.engine.rows import Constants, Rows, place_rows
from foldwise.engine.stack import Notes, Stack
from foldwise.judge.metrics import Metric, natural, probabilities
from foldwise.judge.verdict import TrialRecord, row_losses, trial_names
from foldwise.nets.build import Net
from foldwise.plans.ask import Searched
from foldwise.plans.plan import Member, Plan
from foldwise.plans.policy import TO_THE_END, Policy
from foldwise.plans.strategy import Account, Strategy, strategy_of
from foldwise.settings import Settings

NOTED = ("learning_rate", "clipped", "skipped")


@dataclass
class Job:
    """Everything between a plan and its results."""

    table: Table
    asked: Plan
    folds: Folds
    metric: Metric
    net: Net | None
    device: torch.device
    dtype: torch.dtype
    chunk: int | None = None
    loss: OwnLoss | None = None
    links: Sequence[Link] = ()
    engine: str = "auto"
    policy: Policy = TO_THE_END
    searched: Searched | None = None
    _named: tuple[Plan, list[str]] | None = None
    compile: str = "auto"
    variants: Variants | None = None  # what some folds learn that others do not; questions ask for it

    @property
    def plan(self) -> Plan:
        """Give the plan, with the trials that joined."""
        return self.field.plan

    @cached_property
    def outer(self) -> Folds:
        """Give the folds that lie inside no other: all of them, unless validation is nested."""
        return self.folds.outer

    @property
    def caveat(self) -> str:
        """Say what the intervals do not know about these rows."""
        if self.table.groups is not None:
            return "Rows of one group are alike, which the interval does not know: the truth is less certain."
        if self.table.time is not None:
            return "Rows near in time are alike, which the interval does not know: the truth is less certain."
        return ""

    @cached_property
    def training_weights(self) -> np.ndarray | None:
        """Say what each row counts in the training of each fold, `[folds, rows]`; None when all count 1."""
        table, train, classes = self.table, self.folds.train, self.table.weighting.classes
        if self.variants is not None:
            return self.variants.training_weights(table.weights, train, classes)
        return training_weights(table.weights, table.targets, train, classes)

    @cached_property
    def score_weights(self) -> np.ndarray | None:
        """Say what each row counts in scores of outer folds, `[rows]`; None when all count alike."""
        return self._score_weights(0)

    @cached_property
    def score_weights_by_fold(self) -> np.ndarray | None:
        """Say what each row counts in the scores of each fold, `[rows]` or `[folds, rows]`; None: all count alike.

        Classes that are balanced are so among the rows scored inside each outer fold: balanced over all rows, the
        choice made inside would know how many rows of each class it is going to be scored on. Targets that have
        versions have class weights of their own.
        """
        if self.variants is not None:
            scored = np.asarray(self.outer.validation.any(axis=0))
            return self.variants.score_weights(self.table.weights, scored, self.table.weighting.classes)
        groups = self.folds.groups
        if self.table.weighting.classes != "balanced" or not groups.any():
            return self.score_weights
        own = [self._score_weights(group) for group in range(groups.max() + 1)]
        if all(weights is None for weights in own):
            return None
        alike = np.ones(len(self.table.features))
        return np.stack([alike if weights is None else weights for weights in own])[groups]

    def _score_weights(self, group: int) -> np.ndarray | None:
        table, scored = self.table, np.asarray(self.folds.validation[self.folds.groups == group].any(axis=0))
        return score_weights(table.weights, table.targets, scored, table.weighting.classes)

    @property
    def weighted(self) -> str:
        """Say how rows are weighted; empty when they are not."""
        return self.table.weighting.sentence(self.task)

    @property
    def task(self) -> Task:
        """Tell what is learnt."""
        return self.table.task

    def rows_for(self, loss: str) -> Rows:
        """Place the rows for networks of one loss; features and constants are shared with those of the others."""
        if not self._rows:
            scalings = sorted({*(s.scaling for s in self.asked.trials), *self.policy.scalings})
            table = self.table
            self._rows[loss] = place_rows(
                table.features,
                self.losses[loss].shaped(self._targets),
                self.folds,
                {s: self._preparation(s) for s in scalings},
                self._target_scale() if self.task.kind == "regression" else None,
                device=self.device,
                dtype=self.dtype,
                weights=self.training_weights,
                sample_weights=table.weights,
                score_weights=self.score_weights_by_fold,
                target_start=None if self.variants is None else self.variants.target_start,
            )
        if loss not in self._rows:
            shared = next(iter(self._rows.values()))
            self._rows[loss] = shared.with_targets(self.losses[loss].shaped(self._targets))
        return self._rows[loss]

    @property
    def _targets(self) -> np.ndarray:
        """Give the targets; where they have versions, those one after another."""
        return self.table.targets if self.variants is None else self.variants.joined

    def _target_start(self, fold: int) -> int:
        starts = None if self.variants is None else self.variants.target_start
        return 0 if starts is None else int(starts[fold])

    def _preparation(self, scaling: str) -> Preparation:
        table, train = self.table, self.folds.train
        if self.variants is not None:
            return self.variants.preparation(table.features, train, table.numbers, scaling, table.weights)
        return learn_preparation(table.features, train, table.numbers, scaling, table.weights)

    def _target_scale(self) -> TargetScale:
        if self.variants is not None:
            return self.variants.target_scale(self.folds.train, self.table.weights)
        return learn_target_scale(self.table.targets, self.folds.train, self.table.weights)

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        return {}

    def nursery(self, loss: str) -> Nursery:
        """Make what makes networks."""
        return Nursery(self.rows_for(loss), outputs_by_loss(self.task), self.net)

    @cached_property
    def losses(self) -> dict[str, Loss]:
        """Give all losses by name, with the user's own."""
        return losses_for(self.task, self.loss)

    @cached_property
    def field(self) -> Field:
        """Build the stacks, ready at step 0."""
        return Field(self.asked, self._engine, self.orders, self.measure)

    @cached_property
    def orders(self) -> RowOrders:
        """Make the row orders that all stacks share."""
        return RowOrders(self.folds, self.device)

    @property
    def stacks(self) -> list[Stack]:
        """List the stacks."""
        return self.field.stacks

    def _engine(self, members: list[Member]) -> Engine:
        return choose_engine(self._cohort(members), self.chunk, self.engine, self.compile)

    def _cohort(self, members: list[Member]) -> Cohort:
        name = members[0].settings.loss
        return Cohort(members, self.nursery(name), self.orders, self.losses[name], self.links)

    def summary(self, wait: Callable[[str], None] = lambda why: None) -> PlanSummary:
        """Say what will be trained, at most; time is estimated from a few steps on copies.

        `wait` is told when that takes long, because an engine is compiled.
        """
        engines = [stack.engine for stack in self.stacks]
        sizes = [engine.cohort.layout.size for engine in engines]
        notes = [self.weighted] if self.weighted else []
        notes += cautions([*self.plan.trials, *(self.search.examples if self.search else ())], self.metric)
        notes += dict.fromkeys(e.why for e in engines if e.how == "one by one")
        if self.engine == "auto" and self.chunk is None and self.device.type == "cpu":
            reasons = [why_not_resident(e.cohort) for e in engines if e.how == "stacked"]
            notes += dict.fromkeys(f"trained by the stacked engine, which is slower: {r}" for r in reasons)
        trials, bound = len(self.plan.trials), ""
        if self.search is not None:
            to_come = self.search.to_come(self.field.courses)
            trials += int(to_come) if to_come < math.inf else 0
            bound = "at first" if to_come == math.inf else "at most" if to_come else ""
        return PlanSummary(
            rows=len(self.table.features),
            features=self.table.features.shape[1],
            sealed=0 if self.table.sealed is None else len(self.table.sealed),
            trials=trials,
            folds=len(self.outer),
            seeds=len(self.plan.seeds),
            members=trials * len(self.folds) * len(self.plan.seeds),
            epochs=max(s.epochs for s in [*self.plan.trials, *(self.search.examples if self.search else ())]),
            engine=f"{' and '.join(sorted({e.how for e in engines}))} on {self.device}",
            stacks=len(engines),
            seconds=self._seconds(patiently(lambda: sum(e.seconds() for e in engines), wait)),
            bytes=sum(e.bytes() for e in engines) + self.table.features.nbytes,
            parameters=(min(sizes), max(sizes)),
            notes=tuple(notes),
            search="" if self.search is None else self.search.how,
            bound=bound,
            nested=len(self.folds) - len(self.outer),
        )

    @property
    def search(self) -> Strategy | None:
        """Give the policy, when it searches."""
        return strategy_of(self.policy)

    def _seconds(self, all_to_the_end: float) -> float:
        """Estimate the time from that of the trials which start first, if each trained to its end."""
        if self.search is None:
            return all_to_the_end
        epochs = sum(s.epochs for s in self.plan.trials) * len(self.folds) * len(self.plan.seeds)
        ahead = self.search.ahead(self.field.courses)
        if ahead == math.inf:
            return self.search.budget.seconds
        return min(all_to_the_end * ahead / max(1, epochs), self.search.budget.seconds)

    def rehearse(self) -> None:
        """Build networks of every kind that trials may have which start later, so that none is refused on the way."""

        def kind(s: Settings) -> tuple[object, ...]:
            return s.shape(), s.initialization, tuple((block, name) for block, name, _ in s.blocks)

        known = {kind(s) for s in self.plan.trials}
        if self.search is None:
            return
        for trial, settings in enumerate(self.search.examples, start=self.search.baselines):
            if kind(settings) not in known:
                known.add(kind(settings))
                self._cohort(
                    [Member(trial, fold, self.plan.seeds[0], settings) for fold in range(len(self.folds))]
                )

    @property
    def _names(self) -> list[str]:
        """Name the trials, anew only when some have joined: it takes a while, and this is asked after each round."""
        if self._named is None or self._named[0] is not self.plan:
            self._named = self.plan, trial_names(self.plan.trials)
        return self._named[1]

    def train(
        self,
        watch: Callable[[Progress], None],
        each_epoch: Callable[[], None] = lambda: None,
        each_part: Callable[[], None] = lambda: None,
    ) -> bool:
        """Train everything; False when the user interrupted it, after which another call goes on.

        `each_epoch` is called after each round, in which every running trial has done an epoch; `each_part` more
        often, whenever some members have.
        """

        def standing() -> Standing | None:
            each_epoch()
            self._look_ahead()
            best = min(self.field.courses, key=lambda course: course.best)
            if not math.isfinite(best.best):
                return None
            return Standing(
                self._names[best.trial],
                self.metric.label,
                self.metric.finish(best.best),
                best.spread(best.best_epoch, self.metric.finish, self._outer_members),
            )

        def watching(now: Progress) -> None:
            watch(self._with_those_to_come(now))

        return train(self.field, self.policy, standing, watching, each_part)

    @cached_property
    def _outer_members(self) -> list[int] | None:
        """List which of a trial's members have outer folds; None when all have."""
        if self.folds.group is None:
            return None
        return np.flatnonzero(np.tile(self.folds.group, len(self.plan.seeds)) == 0).tolist()

    def _look_ahead(self) -> None:
        """Count on what trials will take which have not started, and not on that of trials which will stop."""
        self._expected: tuple[float, int] | None = None
        if self.search is not None and self.field.running:
            rows = self.folds.train.sum() / len(self.folds)
            ahead, to_come = (f(self.field.courses) for f in (self.search.ahead, self.search.to_come))
            more = int(to_come) * self.search.members if to_come < math.inf else 0
            self._expected = self.field.rows_done() + ahead * rows, more

    def _with_those_to_come(self, now: Progress) -> Progress:
        if self._expected is None or self.search is None:
            return now
        total, more = self._expected
        if total == math.inf:
            total = now.rows_total
        if now.seconds > 0:
            total = min(total, now.rows_done * max(1.0, self.search.budget.seconds / now.seconds))
        return replace(now, rows_total=max(round(total), now.rows_done), members=now.members + more)

    def measure(self, outputs: Tensor, folds: Tensor) -> Tensor:
        """Average the metric's loss over each member's validation rows."""
        cohort = self.stacks[0].cohort
        rows = cohort.rows.in_version(cohort.validation[0][folds], folds)
        return cohort.mean_over_rows(self.metric.per_row(outputs, self.targets[rows], self.task), folds)

    @cached_property
    def targets(self) -> Tensor:
        """Give the targets on the device, in units of their own; where they have versions, one after another."""
        return torch.tensor(self._targets, device=self.device)

    def records(self, live: bool = False) -> list[TrialRecord]:
        """Collect, trial by trial, the losses of its kept epoch; `live` while training goes on."""
        records: dict[int, TrialRecord] = {}
        for stack in self.stacks:
            outputs = self._kept_outputs(stack)
            for trial in stack.trials:
                records[trial] = self._record(stack, trial, outputs, live)
        return [records[t] for t in range(len(self.plan.trials))]

    @staticmethod
    def _kept_outputs(stack: Stack) -> Tensor:
        folds = stack.cohort.folds(range(len(stack.members)))
        return stack.cohort.rows.unscaled(stack.kept.outputs, folds)

    def _record(self, stack: Stack, trial: int, outputs: Tensor, live: bool) -> TrialRecord:
        course, rows = stack.courses[trial], self.outer.validation_rows
        members = [stack.members[p] for p in stack.places[trial]]
        losses = {}
        for p, m in zip(stack.places[trial], members, strict=True):
            if m.fold >= len(rows):
                continue
            own = torch.from_numpy(rows[m.fold]).to(self.device)
            targets = self.targets[self._target_start(m.fold) + own]
            each = self.metric.per_row(outputs[p, : len(own)], targets, self.task)
            losses[m.seed, m.fold] = each.double().cpu().numpy()
        per_row, per_fold = row_losses(len(self.table.features), losses, rows, self.score_weights)
        epoch = course.kept_epoch
        if epoch == 0 and course.settings.epochs:
            per_row = np.where(np.isnan(per_row), np.nan, np.inf)  # rows of no fold stay without a loss
            per_fold = np.full_like(per_fold, np.inf)
        so_far = f"{'in' if live else 'stopped at'} epoch {max(0, course.epoch)}"
        first = 1 if course.settings.epochs else 0
        return TrialRecord(
            per_row, per_fold, epoch, course.ended or course.diverged or so_far,
            parameters=stack.cohort.layout.size,
            curve=self._by_seed(members, course.scores[first:]).mean(axis=1),
            kept=max(0, epoch - first),
            members=self._by_seed(members, course.scores[epoch : epoch + 1])[0],
        )  # fmt: skip

    def _by_seed(self, members: Sequence[Member], scores: Sequence[Sequence[float]]) -> np.ndarray:
        """Lay out the mean losses of a trial's outer members at some epochs: `[epochs, seeds, folds]`."""
        laid = np.full((len(scores), len(self.plan.seeds), len(self.outer)), np.nan)
        for column, m in enumerate(members):
            if m.fold < len(self.outer):
                laid[:, self.plan.seeds.index(m.seed), m.fold] = [own[column] for own in scores]
        return laid

    def history(self) -> pl.DataFrame:
        """Lay out every member's curves: one row per member and epoch.

        Beside the losses and the score it has the learning rate at the epoch's end, and the shares of its steps
        that were clipped or skipped, null where they could not be. With nested folds, `inner` counts the folds inside
        the outer fold `fold` from 1, and is null for the outer members themselves.
        """
        notes = [(stack, own) for stack in self.stacks for own in stack.notes]
        members = [stack.members[p] for stack, own in notes for p in own.places]
        finish = self.metric.finish
        return pl.DataFrame(
            {
                **member_columns(members),
                **self._nested_columns(members),
                "epoch": np.concatenate([own.epoch for _, own in notes]),
                "training_loss": np.concatenate([own.training_loss for _, own in notes]),
                "validation_loss": np.concatenate([own.validation_loss for _, own in notes]),
                "score": [
                    finish(x) if math.isfinite(x) else None for _, own in notes for x in own.score.tolist()
                ],
                **{name: pl.Series(_noted(name, [own for _, own in notes])).fill_nan(None) for name in NOTED},
            },
            schema_overrides={"score": pl.Float64, "epoch": pl.Int64},
        )

    def _nested_columns(self, members: Sequence[Member]) -> dict[str, pl.Series]:
        """Name inner members as users see them: their outer fold, and which of the folds inside it."""
        if self.folds.group is None:
            return {}
        group, number = self.folds.group, np.arange(len(self.folds))
        first = np.searchsorted(group, group)  # groups rise
        fold = np.where(group == 0, number, group - 1)
        which = [m.fold for m in members]
        inner = np.where(group == 0, 0, number - first + 1)[which]
        return {
            "fold": pl.Series(fold[which] + 1),
            "inner": pl.Series([n or None for n in inner.tolist()], dtype=pl.Int64),
        }

    def overflowing(self) -> list[str]:
        """Name the trials of which some member skipped every step of its last epoch, because float16 overflowed."""
        stuck = set()
        for stack in self.stacks:
            for own in stack.notes:
                skipped = own.others.get("skipped", np.zeros(len(own.places)))
                for at in np.flatnonzero(skipped == 1):
                    trial = stack.members[own.places[at]].trial
                    if own.epoch[at] == stack.courses[trial].epoch:
                        stuck.add(trial + 1)
        return [
            f"trial {t} learned nothing in the end: every step overflowed in float16" for t in sorted(stuck)
        ]

    def predictions(self) -> pl.DataFrame:
        """Lay out the out-of-fold predictions of every member: one row per member and validation row."""
        rows = self.outer.validation_rows
        lengths = np.array([len(own) for own in rows])
        parts = []
        for stack in self.stacks:
            outputs = self._kept_outputs(stack)
            shown = natural if self.task.kind == "regression" else probabilities
            places = self._outer_places(stack)
            values = shown(outputs[places], self.task).cpu().numpy()
            members = [stack.members[p] for p in places]
            counts = lengths[[m.fold for m in members]]
            own = np.arange(values.shape[1]) < counts[:, None]  # the others only fill up
            ids = {n: np.repeat(v, counts) for n, v in member_columns(members).items()}
            row = self.table.row[np.concatenate([rows[m.fold] for m in members])]
            parts.append(pl.DataFrame({**ids, "row": row, **named_outputs(values[own], self.task)}))
        return pl.concat(parts)

    def account(self) -> Account:
        """Say what became of the search."""
        return Account() if self.search is None else self.search.account(self.field.courses)

    def models(self) -> list[Models]:
        """Hand over the kept weights of the outer members; those inside their folds have done their service."""
        models = []
        for stack in self.stacks:
            places = self._outer_places(stack)
            parameters, buffers = stack.kept.parameters, stack.kept.buffers
            if len(places) < len(stack.members):
                parameters, buffers = parameters[places], {n: b[places] for n, b in buffers.items()}
            members = [stack.members[p] for p in places]
            models.append(Models(members, parameters.cpu(), {n: b.cpu() for n, b in buffers.items()}))
        return models

    def _outer_places(self, stack: Stack) -> list[int]:
        return [p for p, m in enumerate(stack.members) if m.fold < len(self.outer)]

    def outer_constants(self) -> tuple[Constants, tuple[Tensor, Tensor] | None]:
        """Give what the outer folds learnt to prepare rows, and the shifts and scales of their targets."""
        rows, own = self.stacks[0].cohort.rows, len(self.outer)
        every = torch.arange(len(rows.scalings) * len(self.folds), device=self.device)
        of_outer = every[every % len(self.folds) < own]
        scale = rows.target_units()
        return (
            rows.constants.to("cpu").picked(of_outer.cpu()),
            None if scale is None else (scale[0][:own], scale[1][:own]),
        )


def _noted(name: str, notes: Sequence[Notes]) -> np.ndarray:
    return np.concatenate([own.others.get(name, np.full(len(own.places), np.nan)) for own in notes])


PATIENCE = 2.0  # seconds after which a user wonders what is going on


def patiently(work: Callable[[], float], wait: Callable[[str], None]) -> float:
    """Do something, and say why when it takes long; it is the first use of an engine on a machine that does."""
    said = threading.Timer(PATIENCE, wait, ["compiling for this processor; once, about half a minute"])
    said.start()
    try:
        return work()
    finally:
        said.cancel()


def cautions(trials: Sequence[Settings], metric: Metric) -> list[str]:
    """Say what must be known of results that some settings lead to."""
    said = []
    shares = sorted({s.quantile for s in trials if s.loss == "quantile" and s.quantile != 0.5})
    if shares and not metric.name.startswith("quantile"):
        said.append(
            f"trials that learn a quantile are compared by {metric.label}, which wants means: "
            f"metric quantile:{shares[0]:g} compares by what they learn"
        )
    if any(s.loss in ("hinge", "binary_hinge") for s in trials):
        said.append("hinge scores are no probabilities: those shown are their softmax, and not calibrated")
    if any(s.schedule == "plateau" for s in trials):
        said.append("schedule plateau looks at validation rows: scores of its trials are a little too good")
    return said


def member_columns(members: list[Member]) -> dict[str, list[int]]:
    """Name members as users see them: trials and folds from 1, seeds as they are."""
    return {
        "trial": [m.trial + 1 for m in members],
        "seed": [m.seed for m in members],
        "fold": [m.fold + 1 for m in members],
    }


def named_outputs(values: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """Name the columns of predictions `[rows, outputs]`: `prediction`, or a probability per class or label."""
    if task.kind == "regression":
        names = ["prediction"] if len(task.targets) == 1 else [f"prediction of {t}" for t in task.targets]
    elif task.kind == "multilabel":
        names = [f"probability of {t}" for t in task.targets]
    else:
        names = [f"probability of {c}" for c in task.classes[0]]
    return {name: values[:, i] for i, name in enumerate(names)}
