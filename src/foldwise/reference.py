"""One member trained alone, by a plain PyTorch loop: the oracle that every engine must agree with.

It shares with the engines what defines a member (its start, row orders, random draws) and what a fold learns to
prepare its rows. Optimizers, schedules, losses, penalties, clipping and the forward pass are those of torch, one batch
at a time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import lr_scheduler

from foldwise.data.prepare import apply_preparation, learn_preparation, learn_target_scale
from foldwise.engine.dropout import KeyedDropout, begin_pass
from foldwise.engine.links import Link, Now
from foldwise.engine.losses import Form, OwnLoss
from foldwise.engine.noise import input_noise, mix_partners, mix_shares, noise_keys, other_labels
from foldwise.engine.orders import epoch_order
from foldwise.engine.random import key
from foldwise.engine.schedules import When
from foldwise.engine.shares import shares_of
from foldwise.engine.state import Layout
from foldwise.errors import SettingsError
from foldwise.plans.plan import Member
from foldwise.settings import Settings

Trained = list[tuple[str, nn.Parameter]]


@dataclass(frozen=True)
class Alone:
    """The data of one fold: prepared rows, targets as they are learnt, and which rows to learn from and score on.

    `weights` are those of training, 1 in the mean over the training rows, and `weight` that mean; None: all are 1.
    """

    features: Float[Tensor, "rows features"]
    targets: Tensor
    train: Bool[np.ndarray, " rows"]
    validation: Bool[np.ndarray, " rows"]
    weights: Float[Tensor, " rows"] | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Own:
    """What of a study is not in its settings: the user's own loss and links, and what the plateau schedule saw.

    `form` is that of the targets, `curve` the fold-mean validation losses of the member's trial, from epoch 1 on.
    """

    form: Form = "numbers"
    loss: OwnLoss | None = None
    links: Sequence[Link] = ()
    curve: Sequence[float] = ()


@dataclass(frozen=True)
class Epoch:
    """What one epoch left: the mean training loss and the outputs on the validation rows."""

    number: int
    training_loss: float
    outputs: Float[Tensor, "validation_rows outputs"]


def prepare_fold(
    features: Float[np.ndarray, "rows features"],
    targets: np.ndarray,
    train: Bool[np.ndarray, " rows"],
    validation: Bool[np.ndarray, " rows"],
    numbers: Bool[np.ndarray, " features"],
    scaling: str,
    regression: bool,
    dtype: torch.dtype,
    sample_weights: Float[np.ndarray, " rows"] | None = None,
    training_weights: Float[np.ndarray, " rows"] | None = None,
) -> Alone:
    """Learn one fold's preparation from its training rows, and apply it to all rows.

    `sample_weights` count in the preparation; `training_weights`, which count classes too, in the loss.
    """
    preparation = learn_preparation(features, train[None], numbers, scaling, sample_weights)
    if regression:
        scale = learn_target_scale(targets, train[None], sample_weights)
        targets = (targets - scale.shift[0]) / scale.scale[0]
    x, y = torch.from_numpy(apply_preparation(preparation, 0, features)).to(dtype), torch.tensor(targets)
    y = y.to(dtype) if y.is_floating_point() else y
    if training_weights is None:
        return Alone(x, y, train, validation)
    mean = float(training_weights[train].mean())
    return Alone(x, y, train, validation, torch.tensor(training_weights / mean).to(dtype), mean)


def train_alone(member: Member, module: nn.Module, data: Alone, own: Own) -> Iterator[Epoch]:
    """Train a module in place, from its start, and give each epoch as it ends."""
    s = member.settings
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = optimizer_of(s, trained)
    cuts = [batches_of(s, int(data.train.sum()), epoch) for epoch in range(1, s.epochs + 1)]
    schedules = Schedules(s, optimizer, sum(math.ceil(len(cut) / s.accumulation) for cut in cuts), own.curve)
    scaler = torch.amp.GradScaler("cpu", init_scale=s.loss_scale, enabled=s.precision == "float16")
    links = OwnLinks(s, own.links, module, schedules)
    targets = data.targets
    if s.label_noise:
        noise = other_labels(member.seed, targets, own.form, outputs_of(module, data).shape[1])
        amount = torch.tensor(s.label_noise, dtype=torch.float64)
        targets = noise.instead(targets, torch.arange(len(targets)), amount)
    seen = 0
    for epoch, cut in enumerate(cuts, start=1):
        module.train()
        order = epoch_order(len(data.train), member.seed, epoch)
        order = order[torch.from_numpy(data.train)[order]]
        total, rows, first = 0.0, 0, 0
        for start in range(0, len(cut), s.accumulation):
            sizes = cut[start : start + s.accumulation]
            optimizer.zero_grad()
            losses = []
            for size in sizes:
                batch = order[first : first + size]
                loss = loss_of_batch(member, module, data, targets, batch, seen, own)
                share = size / sum(sizes) if s.reduction == "mean" else size * data.weight
                scaler.scale(loss * share).backward()
                losses.append(loss.item() * size)
                first, seen = first + size, seen + 1
            if s.l1 or s.l2 or s.blocks:
                scaler.scale(penalty(s, trained)).backward()
            scaler.unscale_(optimizer)
            overflow = scaler.is_enabled() and not has_finite_gradients(trained)
            freeze(s, trained)
            clip(s, trained)
            if not overflow:
                links.change_gradients(epoch)
            with _default_dtype(
                trained[0][1].dtype
            ):  # torch keeps what NAdam counts in the default number type
                scaler.step(optimizer)
            scaler.update()
            if not overflow:
                limit_weights(s, trained)
                links.change_weights(epoch)
                total, rows = total + sum(losses), rows + sum(sizes)
            links.after_step(overflow)
            schedules.after_step()
        schedules.after_epoch(epoch)
        yield Epoch(epoch, total / rows if rows else math.nan, outputs_of(module, data))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# Batches


def batches_of(s: Settings, rows: int, epoch: int) -> list[int]:
    """Cut the rows of an epoch into batches; one row that is left over joins the last of them."""
    size, times = float(s.batch_size), (epoch - 1) // s.batch_growth_every
    for _ in range(times if s.batch_growth > 1 else 0):
        size = min(size * s.batch_growth, 2.0**40)
    return cut_into(rows, int(size + 1e-9 * size))


def cut_into(rows: int, size: int) -> list[int]:
    """Cut rows into batches of a size."""
    cut = [len(part) for part in torch.arange(rows).split(size)]
    if size > 1 and len(cut) > 1 and cut[-1] == 1:
        cut = [*cut[:-2], cut[-2] + 1]
    return cut


def loss_of_batch(
    member: Member, module: nn.Module, data: Alone, targets: Tensor, batch: Tensor, seen: int, own: Own
) -> Tensor:
    """Compute the mean loss of a batch, the `seen`-th of the training."""
    s, seed, number = member.settings, torch.tensor([member.seed]), torch.tensor([seen])
    layers = [m for m in module.modules() if isinstance(m, KeyedDropout)]
    for place, layer in enumerate(layers):
        layer.key = key(torch.tensor(member.seed), "dropout", place, seen)
    begin_pass(module)
    x, rows = data.features[batch], loss_of(s, own)
    weights = torch.ones(len(batch), dtype=x.dtype) if data.weights is None else data.weights[batch]
    if s.input_noise:
        x = x + s.input_noise * input_noise(noise_keys(seed, number), *x.shape)[0].to(x.dtype)
    if not s.mixup:
        outputs = evaluated(s, module, x)
        return (rows(outputs, targets[batch]) * weights).mean()
    share = float(mix_shares(seed, number, torch.tensor([s.mixup], dtype=torch.float64)))
    other = mix_partners(seed, number, len(batch))[0]
    outputs = evaluated(s, module, share * x + (1 - share) * x[other])
    first, second = (
        rows(outputs, targets[batch]) * weights,
        rows(outputs, targets[batch][other]) * weights[other],
    )
    return (share * first + (1 - share) * second).mean()


def evaluated(s: Settings, module: nn.Module, x: Tensor) -> Tensor:
    """Apply the module in the precision of the settings."""
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    with nullcontext() if s.precision == "full" else torch.autocast("cpu", half[s.precision]):
        return module(x).to(x.dtype)


@torch.no_grad()
def outputs_of(module: nn.Module, data: Alone) -> Float[Tensor, "validation_rows outputs"]:
    """Evaluate on the validation rows."""
    module.eval()
    outputs = module(data.features[torch.from_numpy(data.validation)])
    return outputs.clone()  # a network may give a view of its weights, which training goes on to change


# The loss


def loss_of(s: Settings, own: Own) -> Callable[[Tensor, Tensor], Tensor]:
    """Find torch's function for a loss; it gives one value per row."""
    match s.loss:
        case "squared_error":
            return lambda o, t: F.mse_loss(o, t, reduction="none").mean(1)
        case "half_squared_error":
            return lambda o, t: F.mse_loss(o, t, reduction="none").mean(1) / 2
        case "absolute_error":
            return lambda o, t: F.l1_loss(o, t, reduction="none").mean(1)
        case "huber":
            return lambda o, t: F.huber_loss(o, t, reduction="none", delta=s.huber_delta).mean(1)
        case "quantile":
            return lambda o, t: (s.quantile * F.relu(t - o) + (1 - s.quantile) * F.relu(o - t)).mean(1)
        case "cross_entropy":
            return lambda o, t: F.cross_entropy(o, t, reduction="none", label_smoothing=s.label_smoothing)
        case "binary_cross_entropy":
            smooth = s.label_smoothing
            return lambda o, t: F.binary_cross_entropy_with_logits(
                o, t * (1 - smooth) + smooth / 2, reduction="none"
            ).mean(1)
        case "hinge":
            return lambda o, t: hinge(s.margin + o - o[torch.arange(len(t)), t][:, None], t)
        case "binary_hinge":
            return lambda o, t: (s.margin - torch.where(t > 0.5, o, -o)).clamp(min=0).mean(1)
        case "custom":
            if own.loss is None:
                raise SettingsError("loss `custom` needs your own function.", hint="loss=my_loss")
            return own.loss


def hinge(over: Tensor, targets: Tensor) -> Tensor:
    """Add up what scores are over their limit, but for the right class; the slope at the limit is 1.

    `F.multi_margin_loss` has slope 0 there, with which a perceptron of zeros would never move.
    """
    others = F.one_hot(targets, over.shape[1]) == 0
    return (over.clamp(min=0) * others).sum(1)


def penalty(s: Settings, trained: Trained) -> Tensor:
    """Add up the L1 and L2 penalties on all parameters that have them."""
    parts = [p.sum() * 0 for _, p in trained]
    for name, p in trained:
        if _is_regularized(s, p):
            parts.append(_own(s, name, "l1", s.l1) * p.abs().sum())
            parts.append(_own(s, name, "l2", s.l2) / 2 * p.square().sum())
    return torch.stack(parts).sum()


def _is_regularized(s: Settings, p: nn.Parameter) -> bool:
    return s.regularized == "all" or p.ndim >= 2


def _own(s: Settings, name: str, setting: str, usual: float) -> float:
    """Find what a parameter's innermost block has of its own."""
    mine = [(b, v) for b, own, v in s.blocks if own == setting and f"{name}.".startswith(f"{b}.")]
    return max(mine, key=lambda found: len(found[0]))[1] if mine else usual


# The step


def optimizer_of(s: Settings, trained: Trained) -> torch.optim.Optimizer:
    """Make torch's optimizer, with a group for each rate and weight decay."""
    parts: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in trained:
        own_rate = s.learning_rate * _own(s, name, "rate_factor", 1.0)
        decay = _own(s, name, "weight_decay", s.weight_decay) if _is_regularized(s, p) else 0.0
        parts.setdefault((own_rate, decay), []).append(p)
    groups = [{"params": own, "lr": r, "weight_decay": decay} for (r, decay), own in parts.items()]
    betas, rate, eps = (s.beta1, s.beta2), s.learning_rate, s.epsilon
    match s.optimizer:
        case "sgd":
            return torch.optim.SGD(
                groups, lr=rate, momentum=s.momentum, dampening=s.dampening, nesterov=s.nesterov
            )
        case "rmsprop":
            return torch.optim.RMSprop(
                groups, lr=rate, alpha=s.alpha, eps=eps, momentum=s.momentum, centered=s.centered
            )
        case "adagrad":
            return torch.optim.Adagrad(
                groups,
                lr=rate,
                lr_decay=s.rate_decay,
                initial_accumulator_value=s.initial_accumulator,
                eps=eps,
            )
        case "adam":
            return torch.optim.Adam(groups, lr=rate, betas=betas, eps=eps)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps)
        case "nadam":
            return torch.optim.NAdam(groups, lr=rate, betas=betas, eps=eps, momentum_decay=s.momentum_decay)


def has_finite_gradients(trained: Trained) -> bool:
    """Tell whether no gradient has an overflow."""
    return all(bool(torch.isfinite(p.grad).all()) for _, p in trained if p.grad is not None)


def freeze(s: Settings, trained: Trained) -> None:
    """Take the gradients of frozen blocks away: torch leaves such parameters as they are."""
    for name, p in trained:
        if _own(s, name, "frozen", 0.0):
            p.grad = None


def clip(s: Settings, trained: Trained) -> None:
    """Clip the norm of all gradients as one vector."""
    if s.clip_norm:
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], s.clip_norm)


@torch.no_grad()
def limit_weights(s: Settings, trained: Trained) -> None:
    """Scale weights down whose sum of squares is over the limit, block by block."""
    free = [(n, p) for n, p in trained if _is_regularized(s, p) and not _own(s, n, "frozen", 0.0)]
    limits = {block: limit for block, setting, limit in s.blocks if setting == "weight_limit"}
    inside = {b: [p for n, p in free if f"{n}.".startswith(f"{b}.")] for b in limits}
    named = {id(p) for parts in inside.values() for p in parts}
    rest = [p for _, p in free if id(p) not in named]
    for parts, limit in [*((inside[b], limits[b]) for b in limits), (rest, s.weight_limit)]:
        squares = sum((float(p.square().sum()) for p in parts), 0.0)
        if limit and squares > limit:
            for p in parts:
                p.mul_(math.sqrt(limit / squares))


class Schedules:
    """Torch's schedulers for a member: some step once per step, some once per epoch."""

    def __init__(
        self, s: Settings, optimizer: torch.optim.Optimizer, steps: int, curve: Sequence[float] = ()
    ) -> None:
        self.steps, self.curve = steps, curve
        self.by_step: list[lr_scheduler.LRScheduler] = []
        self.by_epoch: list[lr_scheduler.LRScheduler] = []
        self.plateau: list[lr_scheduler.ReduceLROnPlateau] = []
        self.plateau_factor = 1.0
        warmup = round(s.warmup * steps)
        rising = [lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, max(1, warmup - 1))] if warmup else []
        match s.schedule:
            case "cosine":
                falling = lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, steps - warmup))
                both = lr_scheduler.SequentialLR(optimizer, [*rising, falling], [warmup] * len(rising))
                self.by_step = [both] if rising else [falling]
                return
            case "one_cycle":
                self.by_step = [
                    lr_scheduler.OneCycleLR(
                        optimizer,
                        [group["lr"] for group in optimizer.param_groups],
                        total_steps=max(1, steps),
                        pct_start=s.peak_at,
                        cycle_momentum=False,
                        div_factor=s.start_divisor,
                        final_div_factor=s.end_divisor,
                    )
                ]
                return
            case "step":
                self.by_epoch = [lr_scheduler.StepLR(optimizer, s.decay_every, s.decay_factor)]
            case "exponential":
                self.by_epoch = [lr_scheduler.ExponentialLR(optimizer, s.decay_per_epoch)]
            case "plateau":
                self.plateau = [
                    lr_scheduler.ReduceLROnPlateau(
                        optimizer, factor=s.decay_factor, patience=s.patience, threshold=s.threshold, eps=0
                    )
                ]
        self.by_step = list(rising)

    def after_step(self) -> None:
        """Go on by a step."""
        with warnings.catch_warnings():
            # a first step that overflowed is skipped, and torch wonders where it is
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for schedule in self.by_step:
                schedule.step()

    def after_epoch(self, epoch: int) -> None:
        """Go on by an epoch."""
        for schedule in self.by_epoch:
            schedule.step()
        for watching in self.plateau:
            group = watching.optimizer.param_groups[0]
            before = group["lr"]
            watching.step(self.curve[epoch - 1])
            self.plateau_factor *= group["lr"] / before if before else 1.0


class OwnLinks:
    """The user's own links, applied to one member: its gradients, or weights, as one line."""

    def __init__(self, s: Settings, links: Sequence[Link], module: nn.Module, schedules: Schedules) -> None:
        self.s, self.links, self.schedules = s, links, schedules
        self.layout = Layout.of(module)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.steps, self.updates = 0, 0
        like = self._line([p.data for p in self.parameters])
        self.remembered = {name: torch.zeros_like(like) for link in links for name in link.moments}
        for link in links:
            for name, value in link.scalars.items():
                self.remembered[name] = torch.full((1, 1), value, dtype=torch.float64)

    def change_gradients(self, epoch: int) -> None:
        """Apply the links that come before the optimizer."""
        if any(link.stage == "gradient" for link in self.links):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            self._write(gradients, self._applied(self._line(gradients), "gradient", epoch))

    @torch.no_grad()
    def change_weights(self, epoch: int) -> None:
        """Apply the links that come after the step."""
        weights = [p.data for p in self.parameters]
        self._write(weights, self._applied(self._line(weights), "weights", epoch))

    def after_step(self, skipped: bool) -> None:
        """Go on by a step."""
        self.steps, self.updates = self.steps + 1, self.updates + (not skipped)

    def _applied(self, line: Tensor, stage: str, epoch: int) -> Tensor:
        now = self._now(epoch)
        for link in self.links:
            if link.stage == stage:
                line = link.apply(line, self.remembered, now)
        return line

    def _now(self, epoch: int) -> Now:
        parameters = self._line([p.data for p in self.parameters])
        chosen = {**{n: v for link in self.links for n, v in link.knobs.items()}, **dict(self.s.knobs)}
        numbers = {n: v for n, v in self.s.model_dump().items() if isinstance(v, int | float)} | chosen
        exact = {n: torch.tensor([float(v)], dtype=torch.float64) for n, v in numbers.items()}
        return Now(
            parameters=parameters,
            layout=self.layout,
            settings={n: v.unsqueeze(1).to(parameters) for n, v in exact.items()},
            shares=shares_of([self.s], self.layout, parameters.dtype, parameters.device),
            when=When(
                torch.tensor([self.steps]),
                torch.tensor([self.schedules.steps]),
                torch.tensor([epoch - 1]),
                exact,
                torch.tensor([self.schedules.plateau_factor], dtype=torch.float64),
            ),
            scheduled={self.s.schedule: torch.tensor([True])},
            updates=torch.tensor([float(self.updates)], dtype=torch.float64),
        )

    @staticmethod
    def _line(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.detach().flatten() for part in parts]).unsqueeze(0)

    def _write(self, parts: Sequence[Tensor], line: Tensor) -> None:
        for part, new in zip(parts, line[0].split([p.numel() for p in parts]), strict=True):
            part.copy_(new.view_as(part))
