"""Scores: each is a mean over rows of a loss per row, and a last step that gives it its usual scale.

That form lets a score be computed for every member at once on the device, pooled over unequal folds, weighted and
bootstrapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldwise.data.target import Task
from foldwise.errors import SettingsError, did_you_mean

PerRow = Callable[[Tensor, Tensor, Task], Tensor]


@dataclass(frozen=True)
class Metric:
    """A score. `per_row` takes outputs `[..., outputs]` and targets in the units of the targets, and gives losses
    `[...]`, lower is better; `finish` turns their mean into the score."""

    name: str
    label: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    per_row: PerRow
    finish: Callable[[float], float]
    needs_log: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by name: its functions have none."""
        return metric_called, (self.name,)


def class_scores(outputs: Float[Tensor, "*axes outputs"], task: Task) -> Float[Tensor, "*axes classes"]:
    """Give one raw score per class; a single output x of a binary network stands for the scores (0, x)."""
    if task.kind == "binary" and outputs.shape[-1] == 1:
        return torch.cat([torch.zeros_like(outputs), outputs], dim=-1)
    return outputs


def probabilities(outputs: Float[Tensor, "*axes outputs"], task: Task) -> Tensor:
    """Turn raw outputs into probabilities, one per class (or one per label when there are several targets)."""
    if task.kind == "multilabel":
        return torch.sigmoid(outputs)
    return torch.softmax(class_scores(outputs, task), dim=-1)


def natural(values: Tensor, task: Task) -> Tensor:
    """Undo the logarithm of targets that are learnt on it."""
    return values.exp() if task.log else values


def _error(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    if task.kind == "multilabel":
        return ((outputs > 0) != (targets > 0.5)).double().mean(-1)
    labels = targets.argmax(-1) if task.soft else targets
    return (class_scores(outputs, task).argmax(-1) != labels).double()


def _cross_entropy(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    outputs = outputs.double()
    if task.kind == "multilabel":
        return F.binary_cross_entropy_with_logits(outputs, targets.double(), reduction="none").mean(-1)
    logs = F.log_softmax(class_scores(outputs, task), dim=-1)
    if task.soft:
        return -(logs * targets).sum(-1)
    return -logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _squared(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    return (natural(outputs.double(), task) - natural(targets.double(), task)).square().mean(-1)


def _absolute(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    return (natural(outputs.double(), task) - natural(targets.double(), task)).abs().mean(-1)


def _squared_logarithm(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    return (outputs.double() - targets.double()).square().mean(-1)


CLASSES = ("binary", "multiclass", "multilabel")


def _same(mean: float) -> float:
    return mean


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("accuracy", "accuracy", True, CLASSES, _error, lambda mean: 1 - mean),
        Metric("log_loss", "cross-entropy (nats)", False, CLASSES, _cross_entropy, _same),
        Metric(
            "log_loss_bits",
            "cross-entropy (bits)",
            False,
            CLASSES,
            _cross_entropy,
            lambda mean: mean / math.log(2),
        ),
        Metric("rmse", "RMSE", False, ("regression",), _squared, math.sqrt),
        Metric("mae", "mean absolute error", False, ("regression",), _absolute, _same),
        Metric(
            "log_rmse",
            "log-RMSE",
            False,
            ("regression",),
            _squared_logarithm,
            math.sqrt,
            needs_log=True,
        ),
    )
}


def scale_of(metric: Metric, task: Task) -> list[str]:
    """Say on which scale numbers are learned, and in which units the score is; nothing for classes.

    >>> scale_of(METRICS["mae"], Task("regression", ("price",)))
    ['mean absolute error is in units of `price`']
    >>> scale_of(METRICS["log_rmse"], Task("regression", ("price",), log=True))[1]
    'log-RMSE is the deviation of logarithms: 0.1 is about 10 % of `price`'
    """
    if task.kind != "regression":
        return []
    of = " and ".join(f"`{target}`" for target in task.targets)
    units = f"{metric.label} is in units of {of}"
    if metric.needs_log:
        units = f"{metric.label} is the deviation of logarithms: 0.1 is about 10 % of {of}"
    learned = f"what is learned is the logarithm of {of}; predictions are in its units (--no-log-target: no logarithm)"
    return [learned, units] if task.log else [units]


def metric_called(name: str) -> Metric | None:
    """Find a metric by name; `quantile:0.9` is what the loss `quantile` minimizes for τ = 0.9.

    >>> metric_called("quantile:0.9").label
    'quantile loss (τ = 0.9)'
    """
    head, _, share = name.partition(":")
    if head == "quantile":
        try:
            return _quantile_metric(float(share), name)
        except ValueError:
            return None
    return METRICS.get(name)


def _quantile_metric(share: float, name: str) -> Metric:
    """Average max(τe, (τ−1)e), e = target − prediction, in the units of the target (Koenker & Bassett 1978)."""
    if not 0 < share < 1:
        raise ValueError

    def per_row(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
        error = natural(targets.double(), task) - natural(outputs.double(), task)
        return torch.maximum(share * error, (share - 1) * error).mean(-1)

    return Metric(name, f"quantile loss (τ = {share:g})", False, ("regression",), per_row, _same)


def choose_metric(name: str | None, task: Task) -> Metric:
    """Find the metric asked for, or the usual one of the task: accuracy, RMSE, or log-RMSE of logarithmic targets."""
    if name is None:
        return METRICS["accuracy" if task.kind in CLASSES else "log_rmse" if task.log else "rmse"]
    fitting = [m.name for m in METRICS.values() if task.kind in m.tasks and (task.log or not m.needs_log)]
    fitting += ["quantile:0.9"] if task.kind == "regression" else []
    found = metric_called(name)
    if found is None:
        raise SettingsError(
            f"there is no metric `{name}`.",
            hint=did_you_mean(name, fitting) or f"one of {', '.join(fitting)}",
        )
    if task.kind not in found.tasks or (found.needs_log and not task.log):
        cure = "--log-target learns logarithms; " if found.needs_log and task.kind == "regression" else ""
        raise SettingsError(
            f"`{name}` is not a metric for this {task.kind} target.",
            hint=f"{cure}one of {', '.join(fitting)}",
        )
    return found
