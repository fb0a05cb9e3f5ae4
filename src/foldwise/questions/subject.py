"""What a question is about, the job that trains for it, and what is collected from that job."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldwise.data.folds import Folds, make_folds
from foldwise.data.table import Table, open_again
from foldwise.data.variants import Variants
from foldwise.engine.links import Link
from foldwise.engine.loop import Progress
from foldwise.engine.losses import OwnLoss
from foldwise.engine.stack import Stack
from foldwise.errors import NetworkError, PlanError, SettingsError, did_you_mean
from foldwise.job import Job
from foldwise.judge.metrics import METRICS, Metric
from foldwise.nets.build import Net
from foldwise.plans.plan import Member, Plan
from foldwise.plans.policy import TO_THE_END, Policy
from foldwise.questions import QUESTIONS
from foldwise.recall import frame_again
from foldwise.settings import Settings
from foldwise.store.answers import Answer
from foldwise.terminal import duration

if TYPE_CHECKING:
    from foldwise.study import Study

Watch = Callable[[Progress], None]
AT_RANDOM = ("cross-validation", "leave-one-out")  # of these folds, others may be drawn


@dataclass(frozen=True)
class Subject:
    """One trial of a study: its rows, settings and folds; `epoch` is the one that it kept."""

    table: Table
    settings: Settings
    epoch: int
    name: str
    folds: Folds
    seed: int
    metric: Metric
    net: Net | None
    loss: OwnLoss | None
    links: tuple[Link, ...]
    device: torch.device
    dtype: torch.dtype
    ranked: tuple[Settings, ...] = ()  # the settings of all trials, best first
    watch: Watch = lambda now: None
    tell: Callable[[str], None] = lambda what: None

    @property
    def rows(self) -> int:
        """Count the rows."""
        return len(self.table.features)

    @property
    def classes(self) -> np.ndarray | None:
        """Give the class number of each row; None where targets are no classes."""
        task = self.table.task
        return self.table.targets if task.kind in ("binary", "multiclass") and not task.soft else None

    @property
    def fine(self) -> Metric:
        """Give a metric that moves with every small change: cross-entropy where the study counts right answers."""
        return METRICS["log_loss"] if self.metric.name == "accuracy" else self.metric

    def seeds(self, count: int) -> tuple[int, ...]:
        """Give the first seeds, from that of the study on."""
        return tuple(range(self.seed, self.seed + count))

    def random(self, purpose: int) -> np.random.Generator:
        """Give a source of chance that follows from the seed of the study."""
        return np.random.default_rng([self.seed, purpose])

    def weights_of(self, targets: np.ndarray, scored: np.ndarray) -> Float[np.ndarray, " rows"]:
        """Say what each row counts in a score, with the classes of some targets."""
        found = self.table.score_weights(scored, targets)
        return np.ones(self.rows) if found is None else found

    @property
    def parts(self) -> tuple[float, float]:
        """Give how many rows a fold learns from and is scored on, on average and by weight."""
        weights, folds = self.table.weights, self.folds
        return float((folds.train @ weights).mean()), float((folds.validation @ weights).mean())

    def train(
        self,
        question: str,
        trials: Sequence[Settings],
        folds: Folds,
        *,
        seeds: Sequence[int],
        folds_of: Sequence[Sequence[int]] = (),
        variants: Variants | None = None,
        metric: Metric | None = None,
        policy: Policy = TO_THE_END,
        table: Table | None = None,
        about: str = "",
    ) -> Job:
        """Train a plan over the rows; `folds_of` lists the folds of each trial, where not all have all.

        `about` is told before, where the plan is one of several, with the time that it takes if nothing ends early.
        Raises KeyboardInterrupt when the user stops it: half an answer would mislead.
        """
        own = tuple(tuple(map(int, each)) for each in folds_of)
        job = Job(
            table or self.table,
            Plan(question, tuple(trials), len(folds), tuple(seeds), own),
            folds,
            metric or self.metric,
            self.net,
            self.device,
            self.dtype,
            loss=self.loss,
            links=self.links,
            policy=policy,
            variants=variants,
        )
        if about:
            self.tell(f"{about}; at most about {duration(job.summary(self.tell).seconds)}")
        if not job.train(self.watch):
            raise KeyboardInterrupt
        return job


def subject_of(
    study: Study,
    trial: int | None,
    data: Any,
    device: torch.device,
    watch: Watch,
    tell: Callable[[str], None] = lambda what: None,
) -> Subject:
    """Take a trial (the winner when None) of a study, and read its rows again, as `replay` does."""
    number = study.results[0].number if trial is None else trial
    result = next((r for r in study.results if r.number == number), None)
    if result is None:
        raise PlanError(f"there is no trial {number}.", hint=f"trials are numbered 1 to {len(study.results)}")
    if result.settings.network == "custom" and study.net is None:
        raise NetworkError("this study used a network of your own.", hint="foldwise.load(folder, net=MyNet)")
    table = open_again(
        frame_again(study.source, study.task.targets, data),
        study.source,
        row=study.row,
        sealed_row=None,
        task=study.task,
        columns=study.columns,
        weighting=study.weighting,
        weights=study.weights,
        sealed_weights=None,
    )
    models = next(m for m in study.models if m.of_trial(number - 1))
    return Subject(
        table, result.settings, result.epoch, result.name, study.folds, study.plan.seeds[0], study.metric,
        study.net, study.loss, study.links, device, models.parameters.dtype,
        tuple(r.settings for r in study.results), watch, tell,
    )  # fmt: skip


def ask(question: str, subject: Subject, options: Mapping[str, Any]) -> Answer:
    """Ask a question by name; `options` are the arguments of its function `answer`.

    Raises SettingsError for a question or an option that does not exist.
    """
    if question not in QUESTIONS:
        hint = did_you_mean(question, QUESTIONS) or f"one of {', '.join(QUESTIONS)}"
        raise SettingsError(f"there is no question `{question}`.", hint=hint)
    function = importlib.import_module(f"foldwise.questions.{question}").answer
    known = options_of(function)
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            raise SettingsError(f"`{question}` has no option `{name}`.", hint=hint)
    found: Answer = function(subject, **options)
    return found


def options_of(function: Callable[..., Any]) -> list[str]:
    """Name the options of a question."""
    return [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]


def few_folds(subject: Subject, most: int = 10) -> Folds:
    """Give the folds of the study, or five where it has so many that each would be trained too often.

    Five are drawn anew where those of the study were drawn at random; where time, a column or a splitter made them,
    rows must not be divided otherwise, and five of its own are taken, evenly from first to last.
    """
    if len(subject.folds) <= most:
        return subject.folds
    table, folds = subject.table, subject.folds
    given = table.time is not None or table.fold_numbers is not None
    if given or not any(kind in folds.how for kind in AT_RANDOM):
        some = np.linspace(0, len(folds) - 1, 5).round().astype(int)
        return Folds(folds.train[some], folds.validation[some], f"5 of {folds.how}")
    return make_folds(
        subject.rows, 5, classes=subject.classes, class_names=table.task.classes[0] if table.task.classes else (),
        groups=table.groups, seed=subject.seed,
    )  # fmt: skip


def refuse_constant(subject: Subject) -> None:
    """Refuse a question about learning that a constant has no answer to."""
    if not subject.settings.epochs:
        raise PlanError(
            f"{subject.name} does not learn in steps, so that there is nothing to ask.",
            hint="ask about a trial that is trained, such as --trial 2",
        )


def count(name: str, value: Any, least: int = 1) -> int:
    """Check a number of things."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise PlanError(f"`{name}` must be a whole number of at least {least}; got {value!r}.")
    return int(value)


@dataclass(frozen=True)
class Seen:
    """What a member said of the validation rows of its fold, in units of the targets, and how wrong it was."""

    member: Member
    rows: Int[np.ndarray, " rows"]
    outputs: Float[Tensor, "rows outputs"]
    losses: Float[np.ndarray, " rows"]


def seen(job: Job, metric: Metric) -> Iterator[Seen]:
    """Give what the members of a job say as they are now, at the last epoch that they trained.

    Raises PlanError for one that diverged: its silence would be taken for an answer.
    """
    rows = job.folds.validation_rows
    for stack in job.stacks:
        every = stack.cohort.rows.unscaled(
            _outputs(stack), stack.cohort.folds(range(len(stack.members)))
        ).cpu()
        for place, member in enumerate(stack.members):
            own = rows[member.fold]
            outputs = every[place, : len(own)]
            if not torch.isfinite(outputs).all():
                raise diverged(member)
            losses = metric.per_row(outputs, torch.tensor(targets_of(job, member.fold)[own]), job.task)
            yield Seen(member, own, outputs, losses.double().numpy())


def _outputs(stack: Stack) -> Float[Tensor, "members validation_rows outputs"]:
    found: dict[int, Tensor] = {}

    def look(part: Sequence[int], outputs: Tensor) -> None:
        found.update(zip(part, outputs.clone(), strict=True))

    places = range(len(stack.members))
    with stack.engine.at_work():
        stack.engine.validate(places, look)
    return torch.stack([found[place] for place in places])


def targets_of(job: Job, fold: int) -> np.ndarray:
    """Give the targets that a fold learns."""
    return job.table.targets if job.variants is None else job.variants.targets_of(fold)


def diverged(member: Member) -> PlanError:
    """Say that a question has no answer because a member diverged."""
    return PlanError(
        f"with seed {member.seed}, a member diverged, so that there is no answer.",
        hint="ask about another trial, or settings with a smaller learning rate",
    )


def kept_losses(job: Job) -> pl.DataFrame:
    """Give each member's mean loss per validation row at the epoch that its trial kept: trial, seed, fold, loss.

    Numbers count from 0. Raises PlanError when a trial has no such epoch, because its members diverged.
    """
    lines = []
    for stack in job.stacks:
        for trial, places in stack.places.items():
            course = stack.courses[trial]
            losses = course.scores[course.best_epoch]
            if not np.isfinite(losses).all() or not np.isfinite(course.best):
                raise diverged(stack.members[places[0]])
            for place, loss in zip(places, losses, strict=True):
                m = stack.members[place]
                lines.append((trial, m.seed, m.fold, loss))
    return pl.DataFrame(lines, schema=["trial", "seed", "fold", "loss"], orient="row").sort(
        "trial", "seed", "fold"
    )


def kept_epochs(job: Job) -> list[int]:
    """Give the epoch that each trial kept."""
    return [course.best_epoch for course in job.field.courses]


def undisturbed(settings: Settings, **values: Any) -> Settings:
    """Give settings with other values and no early end; what has no effect then is allowed."""
    return settings.model_copy(update={"early_stopping": 0, **values})


def weight_norms(job: Job) -> dict[tuple[int, int, int], float]:
    """Give the length of all weights of each member after its last epoch, by (trial, seed, fold)."""
    norms: dict[tuple[int, int, int], float] = {}
    for stack in job.stacks:
        lengths = stack.cohort.state.parameters.double().norm(dim=1).tolist()
        norms |= {(m.trial, m.seed, m.fold): x for m, x in zip(stack.members, lengths, strict=True)}
    return norms


def with_even_rows(table: Table) -> Table:
    """Give a table in which every row counts alike."""
    return replace(
        table,
        weights=np.ones(len(table.features)),
        weighting=replace(table.weighting, column=None, given=False, classes=None),
    )
