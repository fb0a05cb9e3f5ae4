"""The search that runs when the user gives none; chosen by measurement (benchmarks/defaults)."""

from __future__ import annotations

from typing import Any

from foldwise.plans.search import Grid

LOSSES_OF_TASK = {
    "regression": ("squared_error", "half_squared_error", "absolute_error", "huber", "quantile", "custom"),
    "binary": ("binary_cross_entropy", "cross_entropy", "hinge", "binary_hinge", "custom"),
    "multiclass": ("cross_entropy", "hinge", "custom"),
    "multilabel": ("binary_cross_entropy", "binary_hinge", "custom"),
}
"""The losses that a task can be learnt with; the first is the default."""
NEEDS_LABELS = ("hinge",)
"""The losses that need one class for each row, not a probability for each class."""


def base_settings(task: str, rows: int) -> dict[str, Any]:
    """Give what all trials share unless the search says otherwise: the loss, and sizes that suit the rows."""
    batch_size = 32 if rows < 1_000 else 64 if rows < 50_000 else 256
    return {
        "loss": LOSSES_OF_TASK[task][0],
        "optimizer": "adamw",
        "schedule": "cosine",
        "batch_size": batch_size,
        "epochs": _epochs(rows, batch_size),
    }


def _epochs(rows: int, batch_size: int, steps: int = 1_000) -> int:
    # about the same number of steps for every table, within reason: few rows need many passes
    return min(60, max(12, round(steps * batch_size / max(1, rows))))


def baselines() -> list[dict[str, Any]]:
    """Give the trials that every study has, so that the network can be compared: a constant and a linear model."""
    return [
        {"network": "constant", "epochs": 0},
        *({"network": "linear", "learning_rate": rate, "initialization": "normal"} for rate in (0.01, 0.1)),
    ]


DOZEN: list[dict[str, Any]] = [
    {"learning_rate": 0.01, "dropout": 0.1, "weight_decay": 0.03, "scaling": "standard"},
    {"learning_rate": 0.01, "dropout": 0.1, "weight_decay": 0.0, "scaling": "standard"},
    {"learning_rate": 0.01, "dropout": 0.0, "weight_decay": 0.03, "scaling": "standard"},
    {"learning_rate": 0.01, "dropout": 0.0, "weight_decay": 0.0, "scaling": "standard"},
    {"learning_rate": 0.01, "dropout": 0.3, "weight_decay": 0.0, "scaling": "standard"},
    {"learning_rate": 0.003, "dropout": 0.1, "weight_decay": 0.03, "scaling": "standard"},
    {"learning_rate": 0.003, "dropout": 0.1, "weight_decay": 0.0, "scaling": "standard"},
    {"learning_rate": 0.003, "dropout": 0.1, "weight_decay": 0.03, "activation": "silu"},
    {"learning_rate": 0.01, "dropout": 0.1, "weight_decay": 0.03},
    {"learning_rate": 0.01, "dropout": 0.1, "weight_decay": 0.03, "width": 64},
    {"learning_rate": 0.01, "dropout": 0.0, "weight_decay": 0.03},
    {"learning_rate": 0.001, "dropout": 0.0, "weight_decay": 0.0},
]
"""The settings of the perceptron that together served 13 real tables best, of 80 that were tried on each: see
benchmarks/defaults. What is not named has its default: two hidden layers of 128 units, ReLU, robust scaling."""


def one_setting(task: str, rows: int) -> dict[str, Any]:
    """Give what a network has that is trained without a search: the base and the first of the dozen."""
    return {**base_settings(task, rows), **DOZEN[0]}


def default_grid() -> Grid:
    """Give a dozen settings of the perceptron."""
    return Grid(*({"network": "mlp", **settings} for settings in DOZEN))
