"""What training minimizes: functions of outputs and targets that give one value per row.

They work on the last axis and leave the axes before it alone, so one function serves a network alone
(`[batch, outputs]`), a stack (`[members, batch, outputs]`) and evaluation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from foldwise.data.target import Task
from foldwise.errors import SettingsError

PerRow = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
OwnLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss of the user's own: outputs `[batch, outputs]` and targets `[batch, …]` to one value per row `[batch]`."""

Form = Literal["numbers", "classes", "labels"]
"""What targets a loss takes: numbers `[rows, targets]`; class numbers `[rows]` (or shares `[rows, classes]`) with
one output per class; or 0 and 1 as numbers `[rows, labels]` with one output per label."""


KNOBS = ("huber_delta", "quantile", "margin", "label_smoothing")
"""Settings, each member's own, that losses read."""


@dataclass(frozen=True)
class Loss:
    """A loss: its value per row, the targets that it takes, and the constant outputs that minimize it.

    `prior` takes targets of training rows, their weights (None: all equal) and the number of outputs.
    """

    per_row: PerRow
    form: Form
    prior: Callable[[Tensor, Tensor | None, int], Tensor]

    def outputs(self, task: Task) -> int:
        """Count a network's outputs: a binary target has one, or two where each class has a score."""
        return 2 if self.form == "classes" and task.kind == "binary" else task.outputs

    def shaped(self, targets: np.ndarray) -> np.ndarray:
        """Give targets of a table the form that this loss takes."""
        if self.form == "labels" and targets.ndim == 1:
            return targets.astype(np.float64)[:, None]
        return targets


# Numbers


def squared_error(
    outputs: Float[Tensor, "*axes outputs"],
    targets: Float[Tensor, "*axes outputs"],
    knobs: Mapping[str, Tensor],
) -> Float[Tensor, "*axes"]:
    """Compute (output − target)², averaged over the outputs of a row."""
    return (outputs - targets).square().mean(-1)


def half_squared_error(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute ½(output − target)², averaged over the outputs of a row."""
    return squared_error(outputs, targets, knobs) / 2


def absolute_error(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute |output − target|, averaged over the outputs of a row."""
    return (outputs - targets).abs().mean(-1)


def huber(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute ½e² where |e| ≤ δ and δ(|e| − δ/2) elsewhere, averaged over the outputs of a row (Huber 1964)."""
    delta = knobs["huber_delta"].unsqueeze(-1)
    error = (outputs - targets).abs()
    return torch.where(error <= delta, error.square() / 2, delta * (error - delta / 2)).mean(-1)


def quantile(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute max(τe, (τ−1)e) for e = target − output, averaged over a row's outputs (Koenker & Bassett 1978)."""
    share = knobs["quantile"].unsqueeze(-1)
    error = targets - outputs
    return torch.maximum(share * error, (share - 1) * error).mean(-1)


# Classes


def cross_entropy(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute −Σ q log softmax(outputs) in nats, from raw scores.

    `targets` are class numbers `[...]` or probabilities `[..., classes]`; with smoothing ε they become
    q = (1−ε)·target + ε/C (Szegedy et al. 2016).
    """
    logs = _log_softmax(outputs)
    if targets.is_floating_point():
        right = (targets * logs).sum(-1)
    else:
        right = logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    smoothing = knobs.get("label_smoothing")
    return -right if smoothing is None else -((1 - smoothing) * right + smoothing * logs.mean(-1))


def _log_softmax(outputs: Tensor) -> Tensor:
    # On a CPU the kernel for the last axis handles the classes of each row by themselves; where they are fewer than
    # a vector register holds, it is several times faster to turn them around and run along the rows (100 members, 32
    # rows, 10 classes, with the gradient: 770 → 130 µs). How many members there are must not decide: another way
    # has other last bits.
    if outputs.device.type != "cpu" or outputs.ndim < 3 or outputs.shape[-1] >= 16:
        return F.log_softmax(outputs, dim=-1)
    return F.log_softmax(outputs.mT.contiguous(), dim=-2).mT


def binary_cross_entropy(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute log(1+eˣ) − x·q from one raw score x per label, averaged over the labels of a row.

    `targets` are 0 and 1, `[..., labels]`; with smoothing ε, q = (1−ε)·target + ε/2.
    """
    smoothing = knobs.get("label_smoothing")
    if smoothing is not None:
        targets = targets * (1 - smoothing.unsqueeze(-1)) + smoothing.unsqueeze(-1) / 2
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(-1)


def hinge(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute Σⱼ max(0, sⱼ − s_y + margin) over the classes j ≠ y (Weston & Watkins 1999).

    Equal scores give (C − 1)·margin.
    """
    right = outputs.gather(-1, targets.unsqueeze(-1))
    over = (outputs - right + knobs["margin"].unsqueeze(-1)).clamp_min(0)
    return over.scatter(-1, targets.unsqueeze(-1), 0).sum(-1)


def binary_hinge(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    """Compute max(0, margin − y·s) from one score s per label and y = ±1, averaged over the labels of a row.

    `targets` are 0 and 1. With margin 0 it is the perceptron's criterion (Rosenblatt 1958).
    """
    return (knobs["margin"].unsqueeze(-1) - (2 * targets - 1) * outputs).clamp_min(0).mean(-1)


# The best constants


def _mean(targets: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
    # targets are in deviations from their mean over the training rows
    return torch.zeros(targets.shape[1], dtype=torch.float64, device=targets.device)


def _shares(targets: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
    one_hot = targets if targets.is_floating_point() else F.one_hot(targets, outputs)
    own = torch.ones(len(targets), device=targets.device) if weights is None else weights
    shares = (one_hot.double() * own.double().unsqueeze(1)).sum(0) / own.double().sum()
    floor = 0.5 / len(targets)  # a class that the fold never saw must keep a finite score
    return torch.where(shares == 0, floor, torch.where(shares == 1, 1 - floor, shares))


def _log_shares(targets: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
    return _shares(targets, weights, outputs).log()


def _log_odds(targets: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
    return torch.logit(_shares(targets, weights, outputs))


def _unknown(targets: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
    raise AssertionError("settings refuse the constant network under this loss")


LOSSES: dict[str, Loss] = {
    "squared_error": Loss(squared_error, "numbers", _mean),
    "half_squared_error": Loss(half_squared_error, "numbers", _mean),
    "absolute_error": Loss(absolute_error, "numbers", _unknown),
    "huber": Loss(huber, "numbers", _unknown),
    "quantile": Loss(quantile, "numbers", _unknown),
    "cross_entropy": Loss(cross_entropy, "classes", _log_shares),
    "binary_cross_entropy": Loss(binary_cross_entropy, "labels", _log_odds),
    "hinge": Loss(hinge, "classes", _unknown),
    "binary_hinge": Loss(binary_hinge, "labels", _unknown),
}


def losses_for(task: Task, own: OwnLoss | None = None) -> dict[str, Loss]:
    """Give all losses by name, with the user's own as `custom`; without it, `custom` can predict but not train.

    Its targets are what the task's usual loss takes: numbers; class numbers or shares; 0 and 1 for a binary target
    or several labels.
    """
    forms: dict[str, Form] = {"regression": "numbers", "multiclass": "classes"}
    form = forms.get(task.kind, "labels")
    return {**LOSSES, "custom": Loss(_missing if own is None else _own_per_row(own), form, _unknown)}


def _missing(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
    raise SettingsError("loss `custom` needs a function of your own.", hint="loss=my_loss")


def outputs_by_loss(task: Task) -> dict[str, int]:
    """Count a network's outputs for each loss."""
    return {name: loss.outputs(task) for name, loss in losses_for(task).items()}


def _own_per_row(own: OwnLoss) -> PerRow:
    name = getattr(own, "__name__", type(own).__name__)

    def shaped(outputs: Tensor, targets: Tensor) -> Tensor:
        values = own(outputs, targets)
        if not isinstance(values, Tensor) or tuple(values.shape) != tuple(outputs.shape[:1]):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            cure = "it has a mean too many: rows are weighted and averaged for each member"
            if isinstance(values, Tensor) and values.ndim > 1:
                cure = "take the mean over what is left of a row, such as .mean(-1)"
            raise SettingsError(
                f"the loss `{name}` must give one value per row, of shape ({outputs.shape[0]},); got {got}.",
                hint=cure if isinstance(values, Tensor) else "give a torch.Tensor",
            )
        if not values.is_floating_point() or (outputs.requires_grad and not values.requires_grad):
            raise SettingsError(
                f"the loss `{name}` gives values from which no gradient leads back to the outputs.",
                hint="compute it by torch functions of the outputs, without detach, numpy or rounding",
            )
        return values

    def checked(outputs: Tensor, targets: Tensor) -> Tensor:
        before = torch.get_rng_state()
        try:
            values = shaped(outputs, targets)
        except SettingsError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise SettingsError(
                f"the loss `{name}` fails: {said}",
                hint="it takes outputs and targets of a batch, and gives one value per row",
            ) from error
        if not torch.equal(before, torch.get_rng_state()):
            raise SettingsError(
                f"the loss `{name}` draws random numbers, which would make every study another one.",
                hint="leave chance out of it; input_noise, label_noise and mixup draw by the seed of a member",
            )
        return values

    def one_by_one(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([checked(o, t) for o, t in zip(outputs, targets, strict=True)])

    # what vmap cannot take, such as branches that depend on values, goes member by member
    ways = [vmap(shaped), one_by_one]
    known = threading.Event()

    def per_row(outputs: Tensor, targets: Tensor, knobs: Mapping[str, Tensor]) -> Tensor:
        if outputs.ndim == 2:
            return checked(outputs, targets)
        if not known.is_set():
            checked(outputs[0], targets[0])
            known.set()
        try:
            return ways[0](outputs, targets)
        except SettingsError:
            raise
        except Exception:
            values = one_by_one(outputs, targets)  # raises what is wrong with the loss itself
            ways[0] = one_by_one
            return values

    return per_row
