"""Faults and controls in a training loop written by hand, under `foldwise.watch`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    StepLR,
)

import foldwise
from benchmarks.faults import nets
from benchmarks.faults.case import Case, Outcome, Task

EPOCHS, BATCH, RATE, WIDTH = 30, 32, 0.003, 32


@dataclass
class Turn:
    """What a turn of the loop works with."""

    net: nn.Module
    optimizer: Optimizer
    loss: Callable[[Tensor, Tensor], Tensor]
    number: int = 0
    kept: dict[str, Any] = field(default_factory=dict)  # what a turn hands on to the next


@dataclass(frozen=True)
class Loop:
    """A loop: how network, optimizer, loss and schedule are made, a turn with one batch, a validation."""

    net: Callable[[int, int], nn.Module]
    optimizer: Callable[[nn.Module], Optimizer]
    turn: Callable[[Turn, Tensor, Tensor], None]
    validate: Callable[[nn.Module, Tensor], None]
    loss: Callable[[Tensor, Tensor], Tensor] | None = None  # None: the one of the task
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None  # given the batches of an epoch
    per_batch: bool = False  # whether the schedule steps for each batch
    afterwards: Callable[[nn.Module], nn.Module] | None = (
        None  # what is done to the network once the optimizer is made
    )
    tell: bool = True  # whether watch is told the optimizer and the loss
    scaled: bool = True  # whether inputs are
    scored: Callable[[nn.Module], nn.Module] = nn.Module.eval  # the mode in which it is used in the end


def mlp(features: int, outputs: int, *between: nn.Module) -> nn.Module:
    """Make a network of two hidden layers."""
    return nn.Sequential(
        nn.Linear(features, WIDTH),
        nn.ReLU(),
        *between,
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, outputs),
    )


def modal(features: int, outputs: int) -> nn.Module:
    """Make a network for which training and evaluation differ."""
    return nn.Sequential(
        nn.Linear(features, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.3), nn.Linear(WIDTH, outputs),
    )  # fmt: skip


def adam(net: nn.Module) -> Optimizer:
    """Make the usual optimizer."""
    return torch.optim.Adam(net.parameters(), RATE)


def turn(own: Turn, x: Tensor, y: Tensor) -> None:
    """Learn from a batch."""
    own.optimizer.zero_grad()
    own.loss(own.net(x), y).backward()
    own.optimizer.step()


def validate(net: nn.Module, x: Tensor) -> None:
    """Run the network on rows that it does not learn from, in evaluation mode and without gradients."""
    net.eval()
    with torch.no_grad():
        net(x)
    net.train()


USUAL: dict[str, Any] = {"net": mlp, "optimizer": adam, "turn": turn, "validate": validate}


_witness: ContextVar[Callable[[Turn], None] | None] = ContextVar("witness", default=None)


@contextmanager
def witnessed(see: Callable[[Turn], None]) -> Iterator[None]:
    """Show what loops work with before their first turn and after each, for instance to draw it."""
    token = _witness.set(see)
    try:
        yield
    finally:
        _witness.reset(token)


def looped(task: Task, seed: int, **changes: Any) -> Outcome:
    """Train with a loop in which something is changed, and score the network on the clean rows: accuracy, or R²."""
    how = Loop(**{**USUAL, **changes})
    (x, y), (clean, truth) = encoded(task, scaled=how.scaled)
    outputs = 1 if task.kind == "regression" else int(y.max()) + 1
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = how.net(x.shape[1], outputs)
    optimizer = how.optimizer(net)
    if how.afterwards:
        net = how.afterwards(net)
    schedule = how.schedule(optimizer, -(-len(x) // BATCH)) if how.schedule else None
    own = Turn(net, optimizer, how.loss or (F.mse_loss if task.kind == "regression" else F.cross_entropy))
    told: tuple[Any, ...] = (optimizer, own.loss) if how.tell else ()
    see = _witness.get() or (lambda own: None)
    with foldwise.watch(net, *told) as watch:
        see(own)
        for _ in range(EPOCHS):
            order = torch.randperm(len(x))
            for rows in order.split(BATCH):
                own.number += 1
                how.turn(own, x[rows], y[rows])
                see(own)
                if schedule and how.per_batch:
                    schedule.step()
            if schedule and not how.per_batch:
                schedule.step()
            how.validate(net, clean[:200])
    findings = watch.findings
    return Outcome(findings, score(how.scored(net), clean, truth), (findings[0].step or 0) if findings else 0)


@torch.no_grad()
def score(net: nn.Module, x: Tensor, truth: Tensor) -> float:
    """Score a network: accuracy where it has several outputs, otherwise R²."""
    said = net(x).float()
    if not torch.isfinite(said).all():
        return -np.inf
    if said.shape[1] > 1:
        return float((said.argmax(1) == truth).double().mean())
    return float(1 - (said - truth.float().reshape(-1, 1)).square().mean() / truth.float().var())


def encoded(task: Task, *, scaled: bool = True) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Turn the rows of a task into inputs and targets, scaled by what the rows to learn from have, or not inputs."""
    both = pl.concat([task.train, task.test])
    features = both.drop(task.target).to_dummies(
        [c for c, t in both.schema.items() if t == pl.String and c != task.target]
    )
    x = features.cast(pl.Float64).fill_null(0).to_numpy()
    rows = task.train.height
    if scaled:
        x = np.clip((x - x[:rows].mean(0)) / np.maximum(x[:rows].std(0), 1e-9), -20, 20)
    if task.kind == "regression":
        y = both[task.target].to_numpy().astype(np.float64)[:, None]
        targets = torch.tensor((y - y[:rows].mean()) / y[:rows].std()).float()
    else:
        targets = torch.tensor(np.unique(both[task.target].to_numpy(), return_inverse=True)[1]).long()
    inputs = torch.tensor(x).float()
    return (inputs[:rows], targets[:rows]), (inputs[rows:], targets[rows:])


def plain(task: Task, seed: int) -> Outcome:
    """Train as it should be done."""
    return looped(task, seed)


@functools.cache  # so that cases that share a healthy twin can share its runs
def loop(**changes: Any) -> Callable[[Task, int], Outcome]:
    """Make what a case runs: the loop with changes."""
    return lambda task, seed: looped(task, seed, **changes)


REGRESSION, CLASSES = ("abalone", "california"), ("spambase", "phoneme", "digits")


# Turns in which something is wrong


def never_zeroed(own: Turn, x: Tensor, y: Tensor) -> None:
    own.loss(own.net(x), y).backward()
    own.optimizer.step()


def detached(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    own.loss(own.net(x).detach().requires_grad_(), y).backward()
    own.optimizer.step()


def as_number(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    torch.tensor(own.loss(own.net(x), y).item(), requires_grad=True).backward()
    own.optimizer.step()


def no_step(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    own.loss(own.net(x), y).backward()


def rare_step(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    own.loss(own.net(x), y).backward()
    if own.number % 16 == 0:
        own.optimizer.step()


def zeroed_before_step(own: Turn, x: Tensor, y: Tensor) -> None:
    own.loss(own.net(x), y).backward()
    own.optimizer.zero_grad()
    own.optimizer.step()


def two_steps(own: Turn, x: Tensor, y: Tensor) -> None:
    turn(own, x, y)
    own.optimizer.step()


def rare_backward(own: Turn, x: Tensor, y: Tensor) -> None:
    loss = own.loss(own.net(x), y)
    if own.number % 8 == 1:
        own.optimizer.zero_grad()
        loss.backward()
    own.optimizer.step()


def evaluating(own: Turn, x: Tensor, y: Tensor) -> None:
    own.net.eval()
    turn(own, x, y)


def never_back(net: nn.Module, x: Tensor) -> None:
    net.eval()
    with torch.no_grad():
        net(x)


def still_training(net: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        net(x)


# Networks in which something is wrong


class Halved(nn.Module):
    """A network whose first part is run in a way that is given."""

    def __init__(self, features: int, outputs: int, first: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4), nn.Tanh())
        self.head = nn.Linear(4, outputs)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(self.body, x))


def in_the_dark(body: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return body(x)


def cut_off(body: nn.Module, x: Tensor) -> Tensor:
    return body(x).detach()


class Listed(nn.Module):
    """A network whose hidden layers are in a Python list, where nobody finds them."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.hidden = [nn.Linear(features, WIDTH), nn.Linear(WIDTH, 4)]
        self.last = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(x).tanh()
        return self.last(x)


def all_equal(features: int, outputs: int) -> nn.Module:
    net = mlp(features, outputs)
    for p in net.parameters():
        nn.init.constant_(p, 0.1)
    return net


def linear_only(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, outputs))


def narrow(features: int, outputs: int) -> nn.Module:
    """Make a network whose last layer alone can do little."""
    return Halved(features, outputs, nn.Module.__call__)


def ending_in(last: nn.Module) -> Callable[[int, int], nn.Module]:
    return lambda features, outputs: nn.Sequential(*mlp(features, outputs), last)


def flattened(prediction: Tensor, y: Tensor) -> Tensor:
    """Compare (rows, 1) with (rows): every prediction with every target."""
    return F.mse_loss(prediction, y.reshape(-1))


def on_numbers(prediction: Tensor, y: Tensor) -> Tensor:
    """Take class numbers for quantities: the first output is to be the number of the class."""
    return F.mse_loss(prediction[:, 0], y.float())


# What is right although it looks odd


def accumulating(own: Turn, x: Tensor, y: Tensor) -> None:
    (own.loss(own.net(x), y) / 4).backward()
    if own.number % 4 == 0:
        own.optimizer.step()
        own.optimizer.zero_grad()


def with_closure(own: Turn, x: Tensor, y: Tensor) -> None:
    def closure() -> float:
        own.optimizer.zero_grad()
        loss = own.loss(own.net(x), y)
        loss.backward()
        return float(loss)

    own.optimizer.step(closure)  # type: ignore[arg-type]


def half(own: Turn, x: Tensor, y: Tensor) -> None:
    scaler = own.kept.setdefault("scaler", torch.amp.GradScaler("cpu"))
    own.optimizer.zero_grad()
    with torch.autocast("cpu", torch.float16):
        out = own.net(x)
    scaler.scale(own.loss(out.float(), y)).backward()
    scaler.step(own.optimizer)
    scaler.update()


def brain(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = own.net(x)
    own.loss(out.float(), y).backward()
    own.optimizer.step()


def clipped(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad(set_to_none=False)
    own.loss(own.net(x), y).backward()
    nn.utils.clip_grad_norm_(own.net.parameters(), 1.0)
    own.optimizer.step()


def clipped_short(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    own.loss(own.net(x), y).backward()
    nn.utils.clip_grad_norm_(own.net.parameters(), 1e-4)
    own.optimizer.step()


def clipped_often(own: Turn, x: Tensor, y: Tensor) -> None:
    own.optimizer.zero_grad()
    own.loss(own.net(x), y).backward()
    nn.utils.clip_grad_norm_(own.net.parameters(), 0.05)
    own.optimizer.step()


def old_zero(own: Turn, x: Tensor, y: Tensor) -> None:
    for p in own.net.parameters():
        if p.grad is not None:
            p.grad.data.zero_()
    own.loss(own.net(x), y).backward()
    own.optimizer.step()


def twice_run(own: Turn, x: Tensor, y: Tensor) -> None:
    """Run the network on noisy copies, too, as consistency training does."""
    own.optimizer.zero_grad()
    with torch.no_grad():
        own.net(x)
    out, other = own.net(x), own.net(x + 0.05 * torch.randn_like(x))
    (own.loss(out, y) + 0.1 * (out - other).square().mean()).backward()
    own.optimizer.step()


def by_hand(own: Turn, x: Tensor, y: Tensor) -> None:
    own.loss(own.net(x), y).backward()
    with torch.no_grad():
        for p in own.net.parameters():
            assert p.grad is not None
            p -= 0.05 * p.grad
            p.grad = None


class Headed(nn.Module):
    """A network with a second head that nothing uses, or whose outputs nothing uses."""

    def __init__(self, features: int, outputs: int, run: bool) -> None:
        super().__init__()
        self.net, self.other, self.run = mlp(features, outputs), nn.Linear(features, 3), run

    def forward(self, x: Tensor) -> Tensor:
        if self.run:
            self.other(x)
        return self.net(x)


class Embedded(nn.Module):
    """A network with an embedding of a rare category: most rows of it get no gradient."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.table, self.net = nn.Embedding(200, 4), mlp(features + 4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        category = (x[:, 0] * 1000).long().remainder(1000).clamp(max=199)
        return self.net(torch.cat([x, self.table(category)], 1))


def frozen_body(features: int, outputs: int) -> nn.Module:
    net = mlp(features, outputs)
    net[0].requires_grad_(False)  # type: ignore[index]
    return net


def frozen_modal(features: int, outputs: int) -> nn.Module:
    """Keep batch normalization in evaluation mode, as one does in fine-tuning."""
    net = modal(features, outputs)
    train = net.train

    def kept(mode: bool = True) -> nn.Module:
        train(mode)
        for m in net.modules():
            if isinstance(m, nn.BatchNorm1d):
                m.training = False
        return net

    net.train = kept  # type: ignore[method-assign]
    return net.train()


def smoothed(prediction: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(
        prediction, y, label_smoothing=0.1, weight=torch.linspace(0.5, 2, prediction.shape[1])
    )


def twice_log(prediction: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.log_softmax(prediction, 1), y)


def of_shares(prediction: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(prediction, torch.sigmoid(y))


def of_quantities(prediction: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(prediction, (y + 2).clamp_min(0))


def of_probabilities(prediction: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(prediction.clamp_min(1e-9).log(), y)


def brier(prediction: Tensor, y: Tensor) -> Tensor:
    return (F.one_hot(y, prediction.shape[1]) - prediction).square().sum(1).mean()


def of_groups(net: nn.Module) -> Optimizer:
    groups = [
        {"params": [p for p in net.parameters() if p.ndim == d], "weight_decay": w}
        for d, w in ((2, 1e-3), (1, 0))
    ]
    return torch.optim.AdamW(groups, RATE)


def halves(net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return (item for item in net.named_parameters() if item[0].startswith("head"))


def warm_cosine(optimizer: Optimizer, batches: int) -> LRScheduler:
    steps = EPOCHS * batches
    return LambdaLR(optimizer, lambda s: min(1, (s + 1) / 50) * (1 + np.cos(np.pi * min(1, s / steps))) / 2)


def step_per_epoch(optimizer: Optimizer, batches: int) -> LRScheduler:
    return StepLR(optimizer, EPOCHS // 3, 0.1)


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")  # type: ignore[return-value]


def fault(
    name: str, causes: str | tuple[str, ...], tasks: tuple[str, ...] = (), usual: Any = None, **changes: Any
) -> Case:
    """Make a case of a changed loop; `usual` are changes that its healthy twin has as well."""
    shared = usual or {}
    accepted = (causes,) if isinstance(causes, str) else causes
    return Case(name, accepted, loop(**{**shared, **changes}), loop(**shared), tasks)


def sgd(rate: float) -> Callable[[nn.Module], Optimizer]:
    return lambda net: torch.optim.SGD(net.parameters(), rate, momentum=0.9)


def of_head(net: nn.Module) -> Optimizer:
    return torch.optim.Adam([p for _, p in halves(net)], RATE)


MODAL, NARROW, SGD = {"net": modal}, {"net": narrow}, {"optimizer": sgd(0.03)}

FAULTS: list[Case] = [
    fault("gradients never zeroed", "gradients-not-zeroed", turn=never_zeroed),
    fault("gradients never zeroed, SGD", "gradients-not-zeroed", turn=never_zeroed, usual=SGD),
    fault("outputs detached before the loss", "detached-loss", turn=detached),
    fault("loss as a number before backward", "detached-loss", turn=as_number),
    fault("no step", "missing-step", turn=no_step),
    fault("step for one batch of 16, gradients emptied for each", "missing-step", turn=rare_step),
    fault("gradients emptied before the step", "cleared-gradients", turn=zeroed_before_step),
    fault("two steps for each batch", "double-step", turn=two_steps),
    fault("two steps for each batch, SGD at the edge", "double-step", turn=two_steps, usual={"optimizer": sgd(0.1)}),
    fault("backward for one batch of 8, a step for each", "step-without-backward", turn=rare_backward),
    fault("step schedule stepped for each batch", "schedule-per-batch", schedule=step_per_epoch, per_batch=True),
    fault(
        "exponential decay for each batch", "schedule-per-batch", per_batch=True,
        schedule=lambda optimizer, batches: ExponentialLR(optimizer, 0.9),
    ),
    fault("evaluation mode from the first validation on", "eval-in-training", validate=never_back, usual=MODAL),
    fault("evaluation mode all the time", "eval-in-training", turn=evaluating, usual=MODAL),
    fault(
        "training mode in validation and use", "train-in-evaluation", validate=still_training,
        scored=nn.Module.train, usual=MODAL,
    ),
    fault("body under no_grad", "part-without-gradient", net=lambda f, o: Halved(f, o, in_the_dark), usual=NARROW),
    fault("body detached", "part-without-gradient", net=lambda f, o: Halved(f, o, cut_off), usual=NARROW),
    fault("optimizer holds the head only", "unheld-parameters", optimizer=of_head, usual=NARROW),
    fault("network copied after the optimizer was made", "stale-parameters", afterwards=copy.deepcopy),
    fault(
        "body made anew after the optimizer", "stale-parameters", usual=NARROW,
        afterwards=lambda net: (setattr(net, "body", copy.deepcopy(net.body)), net)[1],
    ),
    fault(
        "layers in a Python list", ("unregistered-layers", "unheld-parameters"),
        net=Listed, usual=NARROW,
    ),
    fault("no activation", ("no-activation",), net=linear_only),
    fault("all weights equal", ("equal-weights",), net=all_equal),
    fault(
        "rate times 100", ("rate-too-high", "dead-units", "exploding-gradients"),
        optimizer=lambda net: torch.optim.Adam(net.parameters(), 100 * RATE),
    ),
    fault(
        "probabilities given to cross-entropy", ("probabilities-as-scores",),
        CLASSES, net=ending_in(nn.Softmax(1)),
    ),
    fault("(rows, 1) against (rows)", ("broadcast-loss",), REGRESSION, loss=flattened),
    fault(
        "sum instead of mean",
        ("loss-sum", "rate-too-high"),
        REGRESSION, loss=lambda o, y: F.mse_loss(o, y, reduction="sum"), usual=SGD,
    ),
    fault(
        "sign flipped", ("loss-sign",), REGRESSION,
        loss=lambda o, y: -F.mse_loss(o, y),
    ),
    fault("squared error on class numbers", ("wrong-loss",), ("digits",), loss=on_numbers),
]  # fmt: skip

FAULTS += [
    fault(
        "rate ÷ 1000", "rate-too-low",
        optimizer=lambda net: torch.optim.Adam(net.parameters(), RATE / 1000),
    ),
    fault("rate ÷ 1000, SGD", "rate-too-low", optimizer=sgd(0.03 / 1000), usual=SGD),
    fault(
        "weight decay dominates", "decay-dominates",
        optimizer=lambda net: torch.optim.Adam(net.parameters(), RATE, weight_decay=1.0),
    ),
    fault(
        "decoupled weight decay dominates", "decay-dominates",
        optimizer=lambda net: torch.optim.AdamW(net.parameters(), RATE, weight_decay=30.0),
        usual={"optimizer": lambda net: torch.optim.AdamW(net.parameters(), RATE)},
    ),
    fault(
        "cosine for each batch", "schedule-per-batch", per_batch=True,
        schedule=lambda optimizer, batches: CosineAnnealingLR(optimizer, EPOCHS),
    ),
    fault(
        "rate gone after a third", "schedule-ends-early", per_batch=True,
        schedule=lambda optimizer, batches: LambdaLR(optimizer, lambda s: 1 if s < 10 * batches else 1e-4),
        usual={"optimizer": lambda net: torch.optim.Adam(net.parameters(), RATE / 10)},
    ),
    fault(
        "Adam's ε at 1", "epsilon-dominates",
        optimizer=lambda net: torch.optim.Adam(net.parameters(), RATE, eps=1.0),
    ),
    fault("clip norm 1e-4", "clipped-always", turn=clipped_short, usual=SGD),
    fault("softmax over the rows", "mixed-rows", net=nets.Gated, usual={"net": lambda f, o: nets.Gated(f, o, -1)}),
    fault("reshape that mixes rows", "mixed-rows", net=nets.Reshaped),
    fault(
        "attention over the rows", "mixed-rows",
        net=lambda f, o: nets.Tokens(f, o, batch_first=False), usual={"net": nets.Tokens},
    ),
    fault("sigmoid before squared errors", "unreachable-targets", REGRESSION, net=nets.sigmoid_end),
    fault("ReLU before squared errors", "unreachable-targets", REGRESSION, net=nets.relu_end),
    fault("tanh before squared errors", "unreachable-targets", REGRESSION, net=ending_in(nn.Tanh())),
]  # fmt: skip

ODD: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout and batch normalization": {"net": modal},
    "told nothing": {"tell": False},
    "frozen body": {"net": frozen_body},
    "frozen body, held all the same": {"net": frozen_body, "optimizer": adam},
    "unused head": {"net": lambda f, o: Headed(f, o, False)},
    "head that is run for nothing": {"net": lambda f, o: Headed(f, o, True)},
    "gradient accumulation": {"turn": accumulating},
    "warm-up and cosine to 0": {"schedule": warm_cosine, "per_batch": True},
    "cosine for each epoch": {"schedule": lambda optimizer, batches: CosineAnnealingLR(optimizer, EPOCHS)},
    "steps for each third": {"schedule": step_per_epoch},
    "smoothing and class weights": {"loss": smoothed, "tasks": CLASSES},
    "log-softmax twice": {"loss": twice_log, "tasks": CLASSES},
    "float16 with a gradient scaler": {"turn": half},
    "bfloat16": {"turn": brain},
    "clipping, gradients set to 0": {"turn": clipped},
    "gradients set to 0 through .data": {"turn": old_zero},
    "two passes and one without gradients": {"turn": twice_run},
    "two passes, dropout": {"turn": twice_run, "net": lambda f, o: mlp(f, o, nn.Dropout(0.2))},
    "rare categories": {"net": Embedded},
    "batch normalization kept in evaluation mode": {"net": frozen_modal},
    "closure": {"turn": with_closure},
    "parameter groups": {"optimizer": of_groups},
    "steps by hand": {"turn": by_hand, "tell": False},
    "compiled": {"afterwards": compiled},
    "softmax over units": {"net": lambda f, o: nets.Gated(f, o, -1)},
    "attention within a row": {"net": nets.Tokens},
    "normalization of rows": {"net": lambda f, o: mlp(f, o, nn.LayerNorm(WIDTH))},
    "batch normalization without running statistics": {
        "net": lambda f, o: mlp(f, o, nn.BatchNorm1d(WIDTH, track_running_stats=False))
    },
    "sigmoid for shares": {"net": nets.sigmoid_end, "loss": of_shares, "tasks": REGRESSION},
    "ReLU for quantities": {"net": nets.relu_end, "loss": of_quantities, "tasks": REGRESSION},
    "softmax and the logarithm of it": {"net": ending_in(nn.Softmax(1)), "loss": of_probabilities, "tasks": CLASSES},
    "softmax and Brier's score": {"net": ending_in(nn.Softmax(1)), "loss": brier, "tasks": CLASSES},
    "ReLU before cross-entropy": {"net": nets.relu_end, "tasks": CLASSES},
    "rate ÷ 10": {"optimizer": lambda net: torch.optim.Adam(net.parameters(), RATE / 10)},
    "mild decoupled weight decay": {
        "optimizer": lambda net: torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.1)
    },
    "exponential decay for each epoch": {"schedule": lambda optimizer, batches: ExponentialLR(optimizer, 0.85)},
    "rate gone in the last third": {
        "per_batch": True,
        "schedule": lambda optimizer, batches: LambdaLR(optimizer, lambda s: 1 if s < 20 * batches else 1e-4),
    },
    "cycles of two epochs": {
        "per_batch": True,
        "schedule": lambda optimizer, batches: CyclicLR(optimizer, RATE / 10, RATE, batches, cycle_momentum=False),
    },
    "cosine with warm restarts": {
        "per_batch": True,
        "schedule": lambda optimizer, batches: CosineAnnealingWarmRestarts(optimizer, 6 * batches),
    },
    "SGD": {"optimizer": sgd(0.03)},
    "SGD, clipped often": {"turn": clipped_often, "optimizer": sgd(0.03)},
    "ε of 1e-3": {"optimizer": lambda net: torch.optim.Adam(net.parameters(), RATE, eps=1e-3)},
    "gradient accumulation with a schedule": {"turn": accumulating, "schedule": step_per_epoch},
}  # fmt: skip

CONTROLS: list[Case] = [
    Case(name, (), loop(**{k: v for k, v in changes.items() if k != "tasks"}), tasks=changes.get("tasks", ()))
    for name, changes in ODD.items()
]
