"""Faults of the training itself, planted by settings; and healthy trainings that look odd."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

import foldwise
from benchmarks.faults.case import SETTINGS, Case, Outcome, Task, checking, scored, show, studied

Run = Callable[[Task, int], Outcome]
SLOPE = {"optimizer": "sgd", "learning_rate": 0.03, "momentum": 0.9}  # a good rate for these tasks
FEW = 60  # rows
CHOICES = 200
UNSURE = 0.25


@functools.cache  # so that cases that share a healthy twin can share its runs
def trained(**settings: Any) -> Run:
    """Give a run with settings other than the usual."""
    return lambda task, seed: studied(task, seed, settings)


def few_rows(task: Task, rows: int = FEW) -> tuple[Task, dict[str, str]]:
    """Give a task with few rows, and how it is asked for so that scores compare with those on clean rows."""
    few = task.with_train(task.train.head(rows))
    if task.kind == "regression":
        return few, {"task": "regression", "metric": "rmse"}
    return few, {"metric": "accuracy"}


def chosen_often(task: Task, seed: int, rows: int = FEW) -> Outcome:
    """Choose among many settings by few validated rows; what is claimed is the headline."""
    rates = foldwise.LogRange(1e-4, 1e-1)
    search = {**SETTINGS, "learning_rate": rates, "weight_decay": foldwise.LogRange(1e-5, 1e-1)}
    few, kind = few_rows(task, rows)
    study = foldwise.fit(
        few.train, target=task.target, search=search, trials=CHOICES, folds=5, seed=seed, remedies=False,
        checks=checking(), display=foldwise.terminal.Display(), **kind,
    )  # fmt: skip
    show(study)
    value = study.headline_result.value
    if task.kind == "regression":
        value = 1 - value**2 / float(few.train[task.target].var(ddof=0))  # type: ignore[arg-type]
    return Outcome(study.findings, scored(study, task, study.results[0].number), value)


def chosen_once(task: Task, seed: int) -> Outcome:
    """Train the usual settings on as few rows."""
    few, kind = few_rows(task)
    return studied(few, seed, metric=kind["metric"])


def doubtful(**settings: Any) -> Run:
    """Give a run on labels of which nobody can be sure, a quarter of them drawn anew, so that to be sure is wrong."""

    def run(task: Task, seed: int) -> Outcome:
        random = np.random.default_rng(seed)
        labels = task.train[task.target].to_numpy().copy()
        drawn = random.random(len(labels)) < UNSURE
        labels[drawn] = random.permutation(labels)[drawn]
        return studied(
            task.with_train(task.train.with_columns(pl.Series(task.target, labels))), seed, settings
        )

    return run


DEEP = {"depth": 8, "activation": "sigmoid", "initialization": "xavier"}
SURE = {"width": 128, "epochs": 100, "learning_rate": 0.01}

ROOMY = ("abalone", "california", "spambase", "phoneme")  # of which few rows still have all classes
FAULTS: list[Case] = [
    Case("rate × 100", ("rate-too-high",), trained(learning_rate=0.3)),
    Case(
        "rate × 100, sgd",
        ("rate-too-high", "exploding-gradients"),
        trained(**{**SLOPE, "learning_rate": 3.0}),
        trained(**SLOPE),
    ),
    Case("rate ÷ 1000", ("rate-too-low",), trained(learning_rate=3e-6)),
    Case("rate ÷ 1000, sgd", ("rate-too-low",), trained(**{**SLOPE, "learning_rate": 3e-5}), trained(**SLOPE)),
    Case(
        "rate decayed to 0 after one epoch",
        ("schedule-ends-early",),
        trained(schedule="exponential", decay_per_epoch=1e-4),
    ),
    Case("Adam's ε at 1", ("epsilon-dominates",), trained(epsilon=1.0)),
    Case(
        "clip norm 1e-4", ("clipped-always",), trained(**SLOPE, clip_norm=1e-4), trained(**SLOPE)
    ),
    Case("batch of one row", ("tiny-batches",), trained(batch_size=1)),
    Case("batch of all rows", ("few-steps",), trained(batch_size=100_000)),
    Case("weight decay dominates", ("decay-dominates",), trained(weight_decay=1.0)),
    Case(
        "decoupled weight decay dominates",
        ("decay-dominates",),
        trained(optimizer="adamw", weight_decay=30.0),
        trained(optimizer="adamw"),
    ),
    Case(
        "sigmoid in a deep stack",
        ("vanishing-gradients", "vanishing-signal", "saturated-units"),
        trained(**DEEP),
    ),
    Case(
        "initial deviation × 10",
        ("initial-scale", "exploding-signal", "saturated-units"),
        trained(initialization="normal", initial_deviation=2.5),
    ),
    Case(
        "initial deviation ÷ 100",
        ("initial-scale", "vanishing-signal", "vanishing-gradients"),
        trained(initialization="normal", initial_deviation=0.0025, depth=4),
        trained(depth=4),
    ),
    Case("chosen among 200", ("looked-too-often",), chosen_often, chosen_once, ROOMY),
    Case(
        "overconfident probabilities",
        ("overconfident",),
        doubtful(**SURE),
        doubtful(**SURE, label_smoothing=0.1),
        ("spambase", "phoneme", "digits"),
    ),
    Case(
        "float16 that overflows",
        ("half-overflow", "initial-scale"),
        trained(precision="float16", initialization="normal", initial_deviation=20.0),
        trained(precision="float16"),
    ),
]  # fmt: skip

CONTROLS: list[Case] = [
    Case("as it is", (), trained()),
    Case("warm-up from a tiny rate", (), trained(warmup=0.3)),
    Case("cosine to 0", (), trained(schedule="cosine")),
    Case("one cycle", (), trained(schedule="one_cycle", learning_rate=0.01)),
    Case("steps down when it no longer helps", (), trained(schedule="step", decay_every=15)),
    Case("gradient accumulation", (), trained(batch_size=8, accumulation=4)),
    Case("float16 with loss scaling", (), trained(precision="float16")),
    Case("validation better than training: dropout", (), trained(dropout=0.3)),
    Case("validation better than training: input noise", (), trained(input_noise=0.5)),
    Case("early stopping", (), trained(early_stopping=5, epochs=60)),
    Case("momentum at a good rate", (), trained(**SLOPE)),
    Case("sparse: wide and narrow layers", (), trained(width=256, learning_rate=0.001)),
    Case("a clip norm that clips often", (), trained(clip_norm=0.5)),
    Case("mild weight decay", (), trained(optimizer="adamw", weight_decay=0.03)),
    Case("60 rows", (), lambda task, seed: studied(task.with_train(task.train.head(FEW)), seed), tasks=ROOMY),
    Case("trained for long", (), trained(epochs=100, learning_rate=0.001)),
    Case("tanh", (), trained(activation="tanh")),
    Case("batch normalization", (), trained(normalization="batch")),
]  # fmt: skip
