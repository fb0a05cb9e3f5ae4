"""A plan made ready to train: rows on the device, stacks, a policy; and what is said of it before and meanwhile."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.data.prepare import Preparation, TargetScale, learn_preparation, learn_target_scale
from foldwise.data.table import Table
from foldwise.data.target import Task
from foldwise.data.variants import Variants
from foldwise.data.weights import training_weights
from foldwise.engine.cohort import Cohort
from foldwise.engine.field import Field
from foldwise.engine.interface import Engine, choose_engine, why_not_resident
from foldwise.engine.links import Link
from foldwise.engine.loop import PlanSummary, Progress, Standing, train
from foldwise.engine.losses import Loss, OwnLoss, losses_for, outputs_by_loss
from foldwise.engine.members import Nursery
from foldwise.engine.orders import RowOrders
from foldwise.engine.rows import Rows, place_rows
from foldwise.engine.stack import Stack
from foldwise.judge.metrics import Metric
from foldwise.judge.verdict import trial_names
from foldwise.nets.build import Net
from foldwise.plans.ask import Searched
from foldwise.plans.plan import Member, Plan
from foldwise.plans.policy import TO_THE_END, Policy
from foldwise.plans.strategy import Account, Strategy, strategy_of
from foldwise.settings import Settings


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
        return self.table.score_weights(self.folds.validation[self.folds.groups == group].any(axis=0))

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

    def target_start(self, fold: int) -> int:
        """Tell where the targets of a fold begin among `targets`: 0, unless these have versions."""
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

    def account(self) -> Account:
        """Say what became of the search."""
        return Account() if self.search is None else self.search.account(self.field.courses)


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
