"""Where a training broke: a member that diverged is trained once more, alone, and watched."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foldwise.checks.look import Recorder
from foldwise.checks.sight import Breakdown
from foldwise.engine.stack import Stack
from foldwise.engine.state import DIVERGED
from foldwise.job import Job
from foldwise.plans.plan import Member
from foldwise.reference import Alone, Epoch, Own, prepare_fold, train_alone
from foldwise.settings import Settings

SECONDS = 3.0  # that may be spent on training members again
TRIED = 2  # members
BEFORE = 2  # steps before the one that broke in which layers are measured


class _Broke(Exception):
    """Ends the training that is watched."""


def broken_down(job: Job, stack: Stack, trial: int, seconds: float = SECONDS) -> Breakdown | None:
    """Train a diverged member of a trial again, and find the step and the layer in which it broke.

    None where no member diverged, or it does not break again within the time. The first pass only finds the step; in
    the second the layers are measured, from shortly before it.
    """
    places = [p for p in stack.places[trial] if int(stack.cohort.state.status[p]) == DIVERGED]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one small network: threads would only wait for each other
    try:
        # whether it breaks may hang on rounding, where weights are thrown about: another member may then
        found = (
            _again(job, stack.members[p], int(stack.cohort.state.epoch[p]), seconds / TRIED)
            for p in places[:TRIED]
        )
        return next((own for own in found if own is not None), None)
    finally:
        torch.set_num_threads(threads)


def _again(job: Job, member: Member, epochs: int, seconds: float) -> Breakdown | None:
    """Train a member up to the epoch after that in which it diverged."""
    loss, settings = member.settings.loss, member.settings
    start = job.nursery(loss).start(member).cpu()
    # the schedule `plateau` is taken not to have lowered the rate of a training that broke: a curve that always falls
    curve = [-float(epoch) for epoch in range(settings.epochs)]
    data, own = _data(job, member), Own(job.losses[loss].form, job.loss, job.links, curve)
    first = _Watch(copy.deepcopy(start), settings, seconds)
    _train(member, first, data, own, epochs + 1)
    if first.broke is None:
        return None
    second = _Watch(start, settings, math.inf, measured_from=first.broke - BEFORE)
    _train(member, second, data, own, epochs + 1)
    return second.breakdown(member)


def _data(job: Job, member: Member) -> Alone:
    """Prepare the rows of a member's fold, as training does."""
    table, loss, fold = job.table, job.losses[member.settings.loss], member.fold
    weights = job.training_weights
    return prepare_fold(
        table.features,
        loss.shaped(table.targets),
        job.folds.train[fold],
        job.folds.validation[fold],
        table.numbers,
        member.settings.scaling,
        job.task.kind == "regression",
        job.dtype,
        table.weights,
        None if weights is None else weights[fold],
    )


def _train(member: Member, watch: _Watch, data: Alone, own: Own, epochs: int) -> None:
    watch.attach()
    try:
        for epoch in itertools.islice(train_alone(member, watch.module, data, own), epochs):
            watch.passed(epoch)
    except _Broke:
        pass
    finally:
        watch.detach()


class _Watch:
    """Looks at the weights before each batch, at the outputs and gradients of it, until something is no number."""

    def __init__(
        self, module: nn.Module, settings: Settings, seconds: float, measured_from: int | None = None
    ) -> None:
        self.module, self.settings = module, settings
        self.seconds, self.measured_from = seconds, measured_from
        self.until: float | None = None  # from the first batch on: torch takes seconds to load its optimizers
        self.recorder = Recorder(module)
        self.start = [p.detach().clone() for p in module.parameters()]
        self.epoch, self.batches, self.moved = 1, 0, math.nan
        self.broke: int | None = None
        self.what, self.where = "", ""
        self.squares: dict[int, Tensor] = {}
        self.norms: list[float] = []
        self.handles: list[Any] = []

    def attach(self) -> None:
        self.handles = [
            self.module.register_forward_pre_hook(self._begin),
            self.module.register_forward_hook(self._seen),
            *(
                p.register_hook(self._gradient(i))
                for i, p in enumerate(self.module.parameters())
                if p.requires_grad
            ),
        ]

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.recorder.detach()

    def passed(self, epoch: Epoch) -> None:
        """Look at the weights after an epoch too, and at the loss: large outputs have squares that are infinite."""
        self._close()
        self._look_at_weights()
        if not math.isfinite(epoch.training_loss) or not bool(torch.isfinite(epoch.outputs.square()).all()):
            self._break("loss", "")
        self.epoch = epoch.number + 1

    def breakdown(self, member: Member) -> Breakdown:
        step = (self.broke or 0) // self.settings.accumulation
        return Breakdown(
            step, self.epoch, member.fold + 1, self.what, self.where, np.array(self.norms), self.moved
        )

    def _begin(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        if not module.training:
            return
        self._close()
        self._look_at_weights()
        self.until = self.until or time.monotonic() + self.seconds
        if time.monotonic() > self.until:
            raise _Broke
        if self.measured_from is not None and self.batches >= self.measured_from:
            self.recorder.detach()
            self.recorder.clear()
            self.recorder.attach()

    def _seen(self, module: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        if module.training and not bool(torch.isfinite(out).all()):
            self._break("outputs", self._first_layer())

    def _gradient(self, place: int) -> Callable[[Tensor], None]:
        def note(gradient: Tensor) -> None:
            self.squares[place] = gradient.detach().double().square().sum()

        return note

    def _close(self) -> None:
        """End a batch: its gradients are all there."""
        if not self.squares:
            return
        norm = float(torch.stack(list(self.squares.values())).sum().sqrt())
        broken = [i for i, square in self.squares.items() if not math.isfinite(float(square))]
        self.squares = {}
        if broken and self.settings.precision != "float16":  # there a step that overflows is skipped
            names = [name for name, _ in self.module.named_parameters()]
            self._break("gradients", self._first_layer() or names[broken[-1]])
        self.norms.append(norm)
        self.batches += 1

    def _look_at_weights(self) -> None:
        far, named = [], list(self.module.named_parameters())
        for (name, p), first in zip(named, self.start, strict=True):
            now = p.detach().double()
            if not bool(torch.isfinite(now).all()):
                self._break("weights", name)
            size = float(first.double().norm())
            if now.ndim >= 2 and size:
                far.append(float((now - first).norm()) / size)
        self.moved = max(far, default=math.nan)

    def _first_layer(self) -> str:
        if not self.recorder.met:
            return ""
        look = self.recorder.look(0, None, math.nan, {})
        return look.first_not_finite or ""

    def _break(self, what: str, where: str) -> None:
        self.broke, self.what, self.where = self.batches, what, where
        raise _Broke
