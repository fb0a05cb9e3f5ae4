"""What checks see: data, plan, the trial that is examined, and what was measured. A check takes what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from foldwise.checks.layers import called
from foldwise.checks.look import Look, undisturbed
from foldwise.checks.sample import Sample
from foldwise.data.folds import Folds
from foldwise.data.table import Table
from foldwise.judge.metrics import Metric
from foldwise.settings import Settings

if TYPE_CHECKING:
    from foldwise.checks.loop import Loop


@dataclass(frozen=True)
class Network:
    """A copy of the network as it starts, and a batch of rows that it learns from: checks may run it as they like.

    `loss` maps outputs and targets to one value per row, and is None where it is not known. `loss_name` is that of
    the settings (`cross_entropy`, `squared_error` …), of a torch function in a loop of the user's own
    (`cross_entropy`, `mse_loss` …), or empty. `weights` are those of the rows, None: all equal. `end` is what a loop of
    the user's own applies to outputs: the module here ends with it, while looks show outputs without it.
    """

    module: nn.Module
    inputs: Tensor
    targets: Tensor | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    loss_name: str = ""
    weights: Tensor | None = None
    end: Callable[[Tensor], Tensor] | None = None

    def ended(self, outputs: Tensor) -> Tensor:
        """Apply the end to outputs of a look, if there is one."""
        return outputs if self.end is None else self.end(outputs)


@dataclass(frozen=True)
class Curve:
    """What a trial went through: means over its members for each epoch, from epoch 1 on; NaN where not known.

    `start` is the validation loss before the first step. Losses are those that are minimized, in units in which
    targets are learned; scores are in units of the metric. `steps` are those of an epoch, `kept` the epoch that the
    trial kept, counted from 1; `diverged` tells whether a member did. `rate`, `clipped` and `skipped` are the learning
    rate, and the shares of steps that were clipped or skipped. `fold_scores` are those of each fold at the kept epoch.

    In a loop of the user's own only the training loss and the rate are known, from some of the batches: `noise` is the
    standard error that this leaves in a point. Points are stretches of steps where `epochs` is false; the first has
    `left` steps more than the others.
    """

    training: Float[np.ndarray, " epochs"]
    validation: Float[np.ndarray, " epochs"]
    score: Float[np.ndarray, " epochs"]
    by_fold: Float[np.ndarray, "epochs folds"]  # validation losses
    start: float
    rate: Float[np.ndarray, " epochs"]
    clipped: Float[np.ndarray, " epochs"]
    skipped: Float[np.ndarray, " epochs"]
    steps: int
    kept: int
    diverged: bool = False
    fold_scores: tuple[float, ...] = ()
    noise: float = 0.0
    epochs: bool = True
    left: int = 0

    def end(self, point: int) -> int:
        """Give how many steps had been taken at the end of a point of the curve, counted from 1."""
        return self.left + point * self.steps

    def named(self, point: int) -> str:
        """Say which point of the curve is meant, counted from 1: an epoch, or steps."""
        if self.epochs:
            return f"epoch {point}"
        return f"steps {self.end(point - 1) + 1 if point > 1 else 1} to {self.end(point)}"


@dataclass(frozen=True)
class Breakdown:
    """Where a member's training broke, found by training it again.

    `step` counts the steps taken before the batch in which something was no number; `what` it was: `outputs`,
    `gradients`, `weights` or `loss`, and of which layer (`where`, empty for the loss). `gradients` are the norms of
    the gradients of the batches before, the earliest first; `moved` is how far the weights were from their start by
    then, over their size.
    """

    step: int
    epoch: int
    fold: int
    what: str
    where: str
    gradients: Float[np.ndarray, " steps"]
    moved: float

    @property
    def growth(self) -> float:
        """Tell how many times the gradient grew over the last 20 steps; NaN where fewer than 2 are known."""
        last = self.gradients[-21:]
        last = last[np.isfinite(last) & (last > 0)]
        return float(last.max() / last[0]) if len(last) > 1 else float("nan")


@dataclass(frozen=True)
class OutOfFold:
    """What the examined trial says of validated rows: numbers, or probabilities of classes; and the truth.

    `row` are places in the table, in which targets, groups and features are found.
    """

    row: Int[np.ndarray, " rows"]
    said: Float[np.ndarray, "rows outputs"]
    truth: np.ndarray
    losses: Float[np.ndarray, " rows"]


@dataclass(frozen=True)
class Sight:
    """Everything that may be looked at; what is not there is None or empty.

    Args:
        table: the development rows, encoded, with column plan, targets and task.
        folds: how they are divided.
        metric: what scores are.
        settings: those of the trial that is examined; None in a loop of the user's own.
        trial: its number, from 1.
        network: its network at the start.
        looks: what was measured of one member of it, in order of time; the first is the start.
        curve: what it went through.
        others: curves of other trials, by role: `constant` and `linear`.
        out_of_fold: what it says of rows that it did not learn from.
        breakdown: where the examined trial broke, when it diverged and breaks again.
        diverged: numbers of trials of the study that diverged.
        trials: how many trials were searched.
        corrected: whether probabilities of new rows are corrected, or come from another trial than the examined one.
        optimism: by how much the winner's score is too good for having been chosen, in units of the metric, and the
            width of its interval; None when it was not chosen.
        loop: what was seen of a loop of the user's own.
    """

    table: Table | None = None
    folds: Folds | None = None
    metric: Metric | None = None
    settings: Settings | None = None
    trial: int | None = None
    network: Network | None = None
    looks: tuple[Look, ...] = ()
    curve: Curve | None = None
    others: Mapping[str, Curve] = field(default_factory=dict)
    out_of_fold: OutOfFold | None = None
    breakdown: Breakdown | None = None
    diverged: tuple[int, ...] = ()
    trials: int = 1
    corrected: bool = False
    optimism: tuple[float, float] | None = None
    loop: Loop | None = None

    @property
    def start(self) -> Look | None:
        """Give what was measured before the first step."""
        return self.looks[0] if self.looks and self.looks[0].step == 0 else None

    @property
    def about(self) -> tuple[int, ...]:
        """Give the number of the examined trial as findings want it."""
        return () if self.trial is None else (self.trial,)

    def called(self, name: str) -> str:
        """Call a layer of the network in a sentence: `layer 2 (Linear 32→10)` where its name is a bare number."""
        return called(name, None if self.network is None else self.network.module)

    def all_called(self, names: Iterable[str]) -> list[str]:
        """Call layers in a sentence."""
        return [self.called(name) for name in names]

    def random(self) -> np.random.Generator:
        """Give a source of chance that is the same at every examination."""
        return np.random.default_rng(0)

    @cached_property
    def sample(self) -> Sample | None:
        """Give some rows as simple models see them, made once for all checks; None without a table."""
        return None if self.table is None else Sample.of(self.table, self.random())

    def some_rows(self, most: int) -> Int[np.ndarray, " rows"]:
        """Draw at most so many rows of the table, in order, so that a check does not take long."""
        assert self.table is not None
        rows = len(self.table.features)
        if rows <= most:
            return np.arange(rows)
        return np.sort(self.random().choice(rows, most, replace=False))


def run(module: nn.Module, inputs: Tensor, *, training: bool = False) -> Tensor:
    """Run a network and leave no trace: no gradient; its buffers, mode and the state of chance as before."""
    with undisturbed(module), torch.no_grad():
        module.train(training)
        out: Tensor = module(inputs)
        return out.detach().clone()
