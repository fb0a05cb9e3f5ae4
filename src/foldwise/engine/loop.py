"""The loop: all stacks advance epoch by epoch, and each trial keeps its best epoch."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldwise.engine.interface import Engine
from foldwise.engine.state import DIVERGED, FINISHED, RUNNING, Kept
from foldwise.plans.plan import Member

Measure = Callable[[Tensor, Tensor], Float[Tensor, " members"]]
"""From outputs `[members, validation_rows, outputs]` in units of the targets, and the members' folds, to each
member's mean loss per validation row, by which epochs and trials are chosen; lower is better."""


@dataclass(frozen=True)
class PlanSummary:
    """What is about to be trained, and what it will take."""

    rows: int
    features: int
    sealed: int
    trials: int
    folds: int
    seeds: int
    members: int
    epochs: int
    engine: str
    stacks: int
    seconds: float
    bytes: int
    parameters: tuple[int, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """The best trial so far: its mean score and the deviation over its members."""

    trial: str
    metric: str
    mean: float
    spread: float


@dataclass(frozen=True)
class Progress:
    """How far the study is; `rows_done` and `rows_total` count rows learnt from, with repetition."""

    members: int
    members_done: int
    epoch: int
    epochs: int
    rows_done: int
    rows_total: int
    seconds: float
    best: Standing | None


@dataclass
class Stack:
    """Members that advance together, what they have been through, and the best that they have been.

    Histories are lists over epochs 0 (untrained), 1, …; entries `[members]` are NaN after a member's last epoch.
    `noted` holds what else is known of an epoch: the learning rate, and the shares of its steps that were clipped
    or skipped, where they could be.
    """

    members: list[Member]
    engine: Engine
    kept: Kept = field(init=False)
    training_loss: list[Float[np.ndarray, " members"]] = field(default_factory=list)
    validation_loss: list[Float[np.ndarray, " members"]] = field(default_factory=list)
    score: list[Float[np.ndarray, " members"]] = field(default_factory=list)
    noted: list[dict[str, Float[np.ndarray, " members"]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        device = self.engine.state.step.device
        self.folds = torch.tensor([m.fold for m in self.members], device=device)
        trials = sorted({m.trial for m in self.members})
        self.trials = trials
        self.trial_of = torch.tensor([trials.index(m.trial) for m in self.members], device=device)
        self.best = torch.full((len(trials),), torch.inf, dtype=torch.float64, device=device)
        self.rows_of = self.engine.validation[1].sum(1)[self.folds]

    @property
    def epochs(self) -> int:
        """Give the last epoch of any member."""
        return max(m.settings.epochs for m in self.members)

    def spread(self, trial: int, finish: Callable[[float], float]) -> float:
        """Give the deviation of a trial's score over its members at the kept epoch; NaN for a single member."""
        places = [p for p, m in enumerate(self.members) if m.trial == trial]
        last = [finish(float(self.score[int(self.kept.epoch[p])][p])) for p in places]
        return float(np.std(last, ddof=1)) if len(last) > 1 else float("nan")

    def take_turn(self, epoch: int, measure: Measure, done: Callable[[int], None]) -> None:
        """Train one epoch (none when `epoch` is 0), look at the validation rows, and keep what is best."""
        engine = self.engine
        before = engine.counted()
        losses = engine.advance(epoch, done) if epoch else torch.full_like(self.rows_of, torch.nan)
        self.noted.append(self._notes(epoch, before))
        outputs = engine.validate(epoch)
        scores = measure(engine.rows.unscaled(outputs, self.folds), self.folds)
        # a broken or finished member has no score, though some metrics (accuracy) make a number of NaN
        scores = scores.where(torch.isfinite(outputs).flatten(1).all(1), torch.nan)
        self._note_status(epoch, losses, outputs, self.noted[-1])
        # a member that diverged stays among its companions, whose results may not depend on it, but counts no more
        scores = torch.where(self.engine.state.status == DIVERGED, torch.nan, scores)
        self._keep(epoch, outputs, scores)
        validation_losses = engine.validation_loss(outputs)
        if epoch:
            engine.follow_curve(self._fold_mean(validation_losses)[self.trial_of])
        self.training_loss.append(losses.cpu().numpy())
        self.validation_loss.append(validation_losses.cpu().numpy())
        self.score.append(scores.cpu().numpy())

    def _notes(self, epoch: int, before: dict[str, Tensor]) -> dict[str, Float[np.ndarray, " members"]]:
        if epoch == 0:
            return {}
        steps, counted = self.engine.steps(epoch), self.engine.counted()
        notes = {name: (count - before[name]) / steps for name, count in counted.items()}
        notes["learning_rate"] = self.engine.learning_rates(epoch)
        return {name: values.cpu().numpy() for name, values in notes.items()}

    def _fold_mean(self, values: Float[Tensor, " members"]) -> Float[Tensor, " trials"]:
        """Average over the folds and seeds of each trial, every row counting once; ∞ where a member broke."""
        weighted = torch.where(torch.isfinite(values), values, torch.inf) * self.rows_of
        weight = torch.zeros_like(self.best).index_add_(0, self.trial_of, self.rows_of)
        return torch.zeros_like(self.best).index_add_(0, self.trial_of, weighted) / weight

    def _note_status(
        self, epoch: int, losses: Tensor, outputs: Tensor, noted: dict[str, Float[np.ndarray, " members"]]
    ) -> None:
        last = torch.tensor([m.settings.epochs == epoch for m in self.members], device=losses.device)
        turn = torch.tensor([m.settings.epochs >= epoch for m in self.members], device=losses.device)
        broken = turn & ~torch.isfinite(outputs).flatten(1).all(1)
        if epoch:
            # no loss because every step overflowed in float16: the scale is lowered until one does not
            skipped = torch.tensor(
                noted.get("skipped", np.zeros(len(self.members))) == 1, device=losses.device
            )
            broken |= turn & ~torch.isfinite(losses) & ~skipped
        status = self.engine.state.status
        status[last & (status == RUNNING)] = FINISHED
        status[broken] = DIVERGED

    def _keep(self, epoch: int, outputs: Tensor, scores: Float[Tensor, " members"]) -> None:
        # Chosen on the mean over folds and seeds, never fold by fold: a fold's own best epoch fits its own rows.
        mean = self._fold_mean(scores)
        if epoch == 0:
            state = self.engine.state
            self.kept = Kept(
                parameters=state.parameters.clone(),
                buffers={name: b.clone() for name, b in state.buffers.items()},
                outputs=outputs.clone(),
                epoch=torch.zeros_like(state.step),
            )
            # an untrained network is no candidate, except where nothing is to be trained
            trained = {m.trial for m in self.members if m.settings.epochs}
            untrained = torch.tensor([t not in trained for t in self.trials], device=mean.device)
            self.best = torch.where(untrained, mean, self.best)
            return
        better = mean < self.best
        self.best = torch.where(better, mean, self.best)
        mine = better[self.trial_of].nonzero().squeeze(1)
        state, kept = self.engine.state, self.kept
        kept.parameters[mine] = state.parameters[mine]
        for name, buffer in state.buffers.items():
            kept.buffers[name][mine] = buffer[mine]
        kept.outputs[mine] = outputs[mine]
        kept.epoch[mine] = epoch


def train(
    stacks: list[Stack],
    measure: Measure,
    standing: Callable[[list[Stack]], Standing | None],
    watch: Callable[[Progress], None],
) -> bool:
    """Train all stacks to their last epoch; False when the user interrupted it.

    After an interrupt every trial still has the best of the epochs that it finished.
    """
    with Interrupt() as interrupt:
        clock = Clock(stacks, watch, interrupt)
        try:
            for epoch in range(clock.epochs + 1):
                for stack in stacks:
                    if epoch <= stack.epochs:
                        stack.take_turn(epoch, measure, clock.learnt)
                clock.finished(epoch, standing(stacks))
        except Interrupted:
            return False
    return True


class Interrupted(Exception):
    """The user wants the training to end."""


class Interrupt:
    """Turns Ctrl-C into a flag that is looked at between chunks, so that no record is left half written.

    A second Ctrl-C ends the program as usual. Outside the main thread signals cannot be caught, and are not.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self.before)


class Clock:
    """Counts what is done and tells the watcher, which can only look."""

    def __init__(self, stacks: list[Stack], watch: Callable[[Progress], None], interrupt: Interrupt) -> None:
        self.started = time.perf_counter()
        self.watch = watch
        self.interrupt = interrupt
        self.last_epochs = [m.settings.epochs for s in stacks for m in s.members]
        self.epochs = max(self.last_epochs)
        self.rows_total = sum(
            m.settings.epochs * n for s in stacks for m, n in zip(s.members, s.engine.lengths, strict=True)
        )
        self.rows_done = 0
        self.epoch = 0
        self.best: Standing | None = None

    def learnt(self, rows: int) -> None:
        """Count rows learnt from, and report."""
        self.rows_done += rows
        self.report()
        if self.interrupt.asked:
            raise Interrupted

    def finished(self, epoch: int, best: Standing | None) -> None:
        """Note a whole epoch of all stacks, and report."""
        self.epoch, self.best = epoch, best
        self.report()

    def report(self) -> None:
        """Tell the watcher how far it is."""
        self.watch(
            Progress(
                members=len(self.last_epochs),
                members_done=sum(e <= self.epoch for e in self.last_epochs),
                epoch=self.epoch,
                epochs=self.epochs,
                rows_done=self.rows_done,
                rows_total=self.rows_total,
                seconds=time.perf_counter() - self.started,
                best=self.best,
            )
        )
