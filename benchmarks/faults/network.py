"""Faults of the network at its start and of the loss, and controls that look like them and are healthy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor, nn

import foldwise
from benchmarks.faults import nets
from benchmarks.faults.case import SETTINGS, Case, Outcome, Task, checking, studied
from foldwise.terminal import Display

Run = Callable[[Task, int], Outcome]
CLASSES = ("spambase", "phoneme", "digits")
NUMBERS = ("abalone", "california")


def with_settings(**settings: Any) -> Run:
    """Fit with other settings."""
    return lambda task, seed: studied(task, seed, settings)


def with_net(net: Callable[..., nn.Module], **settings: Any) -> Run:
    """Fit a network of one's own."""
    return lambda task, seed: studied(task, seed, settings, net=net)


def with_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Run:
    """Fit with a loss of one's own."""
    return lambda task, seed: studied(task, seed, loss=loss)


def class_numbers(task: Task, seed: int) -> Outcome:
    """Learn class numbers by squared error; the nearest class is what is said."""
    study = foldwise.fit(
        task.train, target=task.target, task="regression", log_target=False, search=SETTINGS, seed=seed,
        checks=checking(), remedies=checking(), display=Display(),
    )  # fmt: skip
    said = study.predict(task.test.drop(task.target), trial=max(r.number for r in study.results))
    numbers = np.rint(said["prediction"].to_numpy())
    return Outcome(study.findings, float((numbers == task.test[task.target].to_numpy()).mean()))


def several_labels(task: Task, seed: int) -> Outcome:
    """Ask two questions about a digit at once: whether it is even, and whether it is below 5."""
    digit = pl.col(task.target)
    train = task.train.with_columns(even=(digit % 2 == 0).cast(int), small=(digit < 5).cast(int)).drop(
        task.target
    )
    study = foldwise.fit(
        train, target=["even", "small"], search={"width": 32, "epochs": 20}, seed=seed, task="multilabel",
        checks=checking(), remedies=checking(), display=Display(),
    )  # fmt: skip
    return Outcome(study.findings, max(study.results, key=lambda r: r.number).score)


def weighted_classes(task: Task, seed: int) -> Outcome:
    """Let every class count alike."""
    return studied(task, seed, class_weights="balanced")


def rare_categories(task: Task, seed: int) -> Outcome:
    """Add a column of categories of which most are rare, which an embedding reads."""
    chance = np.random.default_rng(seed)
    names = [f"c{n}" for n in range(40)]
    shares = np.array([0.6, *([0.4 / 39] * 39)])

    def given(frame: pl.DataFrame) -> pl.DataFrame:
        drawn = chance.choice(names, frame.height, p=shares)
        drawn[: 5 * len(names)] = names * 5  # each is there often enough to have a column of its own
        return frame.with_columns(kind=pl.Series(drawn))

    return studied(replace(task, train=given(task.train), test=given(task.test)), seed, net=nets.Embedded)


def one_hot(task: Task, seed: int) -> Outcome:
    """Learn from one-hot columns: which quarter of its column each number is in."""
    columns = [n for n in task.train.columns if n != task.target and task.train[n].dtype.is_numeric()]
    cuts = {n: np.unique(np.quantile(task.train[n].to_numpy(), [0.25, 0.5, 0.75])) for n in columns}

    def given(frame: pl.DataFrame) -> pl.DataFrame:
        places = {n: np.digitize(frame[n].to_numpy(), cuts[n]) for n in columns}
        flags = {f"{n}={q}": (places[n] == q).astype(float) for n in columns for q in range(len(cuts[n]) + 1)}
        return pl.DataFrame(flags).with_columns(frame[task.target])

    return studied(replace(task, train=given(task.train), test=given(task.test)), seed)


def gated_units(inputs: int, outputs: int) -> nn.Module:
    """Weight units by a softmax over them."""
    return nets.Gated(inputs, outputs, axis=-1)


LONGER: Mapping[str, Any] = {
    "learning_rate": 0.01,
    "epochs": 80,
}  # of what learns slowly, so that it has learned
SMALLER: Mapping[str, Any] = {
    "initialization": "normal",
    "initial_deviation": 0.0025,
}  # Kaiming's at width 32, ÷ 100

FAULTS: list[Case] = [
    Case("no activation", ("no-activation",), with_net(nets.no_activation), with_net(nets.plain)),
    Case(
        "sigmoid in a deep stack",
        ("saturating-activation", "vanishing-signal"),
        with_settings(activation="sigmoid", depth=8),
    ),
    Case(
        "softmax as hidden activation",
        ("softmax-hidden",),
        with_net(nets.softmax_hidden),
        with_net(nets.plain),
    ),
    Case(
        "all weights equal", ("equal-weights",), with_settings(initialization="constant", initial_value=0.1)
    ),
    Case(
        "initial deviation × 10",
        ("initial-scale",),
        with_settings(initialization="normal", initial_deviation=2.5),
    ),
    Case("initial deviation ÷ 100", ("initial-scale",), with_settings(**SMALLER)),
    Case("dropout 0.95", ("dropout-strong",), with_settings(dropout=0.95)),
    Case(
        "dropout before batch normalization",
        ("dropout-before-normalization",),
        with_net(nets.dropout_before_normalization),
        with_net(nets.dropout_behind_normalization),
    ),
    Case(
        "batch normalization with two rows per batch",
        ("normalization-of-few-rows",),
        with_settings(normalization="batch", batch_size=2),
        with_settings(normalization="batch"),
    ),
    Case(
        "running statistics never updated",
        ("frozen-statistics",),
        with_net(nets.frozen_statistics),
        with_net(nets.normalized),
    ),
    Case("depth 30", ("vanishing-signal", "exploding-signal"), with_settings(depth=30)),
    Case("layers in a Python list", ("unregistered-layers",), with_net(nets.InList), with_net(nets.plain)),
    Case("a layer never used", ("unused-layers",), with_net(nets.Skipped), with_net(nets.plain)),
    Case(
        "part of the forward pass under no_grad",
        ("no-gradient",),
        with_net(nets.Detached),
        with_net(nets.plain),
    ),
    Case(
        "probabilities as scores",
        ("probabilities-as-scores",),
        with_net(nets.softmax_end),
        with_net(nets.plain),
        CLASSES,
    ),
    Case("squared error on class numbers", ("wrong-loss",), class_numbers, tasks=("digits",)),
    Case("cross-entropy of one output", ("wrong-loss",), with_loss(nets.one_output_entropy), tasks=NUMBERS),
    Case(
        "cross-entropy of numbers",
        ("wrong-loss", "unbounded-loss"),
        with_loss(nets.binary_entropy),
        tasks=NUMBERS,
    ),
    Case(
        "sum instead of mean",
        ("loss-sum",),
        with_settings(reduction="sum", optimizer="sgd", learning_rate=0.05),
        with_settings(optimizer="sgd", learning_rate=0.05),
    ),
    Case(
        "prediction (B, 1) against target (B,)", ("broadcast-loss",), with_loss(nets.broadcast), tasks=NUMBERS
    ),
    Case("sign flipped", ("loss-sign",), with_loss(nets.flipped)),
    Case("hinge without its end", ("unbounded-loss",), with_loss(nets.endless_hinge), tasks=CLASSES),
    Case("softmax over the rows", ("mixed-rows",), with_net(nets.Gated), with_net(gated_units)),
    Case("reshape that mixes rows", ("mixed-rows",), with_net(nets.Reshaped), with_net(nets.plain)),
    Case(
        "sigmoid before squared errors",
        ("unreachable-targets",),
        with_net(nets.sigmoid_end),
        with_net(nets.plain),
        NUMBERS,
    ),
    Case(
        "ReLU before squared errors",
        ("unreachable-targets",),
        with_net(nets.relu_end),
        with_net(nets.plain),
        NUMBERS,
    ),
]

CONTROLS: list[Case] = [
    Case("frozen body with a new head", (), with_net(nets.frozen_body)),
    Case("a head unused on purpose", (), with_net(nets.SpareHead)),
    Case("ReLU network with 90 % zeros", (), with_net(nets.Sparse)),
    Case("several labels", (), several_labels, tasks=("digits",)),
    Case("rare categories in an embedding", (), rare_categories),
    Case("label smoothing", (), with_settings(label_smoothing=0.1), tasks=CLASSES),
    Case("class weights", (), weighted_classes, tasks=CLASSES),
    Case("output bias at the class priors", (), with_net(nets.prior_bias)),
    Case(
        "log-softmax applied twice", (), with_net(nets.log_softmax_end, loss="cross_entropy"), tasks=CLASSES
    ),
    Case("one-hot inputs", (), one_hot),
    Case("residual network", (), with_settings(network="residual", depth=4)),
    Case("deep residual network", (), with_settings(network="residual", depth=12, normalization="batch")),
    Case("residual branches and output that start with zeros", (), with_net(nets.ZeroResidual)),
    Case("a layer used twice", (), with_net(nets.Tied)),
    Case("20 layers with batch normalization", (), with_settings(depth=20, normalization="batch", **LONGER)),
    Case("12 layers with layer normalization", (), with_settings(depth=12, normalization="layer")),
    Case("linear or softmax regression", (), with_net(nets.linear, **LONGER)),
    Case("hinge", (), with_settings(loss="hinge"), tasks=CLASSES),
    Case("tanh", (), with_settings(activation="tanh")),
    Case("two layers of sigmoid", (), with_settings(activation="sigmoid", **LONGER)),
    Case("dropout behind normalization", (), with_net(nets.dropout_behind_normalization)),
    Case("softmax over units", (), with_net(gated_units)),
    Case("attention within a row", (), with_net(nets.Tokens, **LONGER)),
    Case("LSUV", (), with_settings(initialization="lsuv")),
    Case("Huber's loss", (), with_settings(loss="huber"), tasks=NUMBERS),
    Case("a quantile", (), with_settings(loss="quantile", quantile=0.9), tasks=NUMBERS),
]
