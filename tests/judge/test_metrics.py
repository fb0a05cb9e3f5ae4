"""Scores: those of scikit-learn, and by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from foldwise.data.target import Task
from foldwise.errors import SettingsError
from foldwise.judge.metrics import METRICS, choose_metric, class_scores, natural, probabilities

NUMBER = Task("regression", ("y",))
LOGARITHM = Task("regression", ("y",), log=True)
NUMBERS = Task("regression", ("y", "z"))
BINARY = Task("binary", ("y",), (("no", "yes"),))
CLASSES = Task("multiclass", ("y",), (("a", "b", "c"),))
LABELS = Task("multilabel", ("y", "z"), ((0, 1), (0, 1)))
SOFT = Task("multiclass", ("p", "q", "r"), (("p", "q", "r"),), soft=True)
RANDOM = np.random.default_rng(0)


def score(name: str, outputs: np.ndarray, targets: np.ndarray, task: Task) -> float:
    """Average a metric's loss over the rows and finish it."""
    per_row = METRICS[name].per_row(torch.from_numpy(outputs), torch.from_numpy(targets), task)
    assert per_row.shape == (len(outputs),)
    assert per_row.dtype == torch.float64
    return METRICS[name].finish(float(per_row.mean()))


def shares(outputs: np.ndarray, task: Task) -> np.ndarray:
    """Turn outputs into probabilities."""
    return probabilities(torch.from_numpy(outputs), task).numpy()


# Against scikit-learn


@pytest.mark.parametrize("columns", [1, 2])
def test_numbers(columns: int) -> None:
    outputs, targets = RANDOM.normal(size=(2, 40, columns))
    task = NUMBER if columns == 1 else NUMBERS
    assert score("rmse", outputs, targets, task) == pytest.approx(
        math.sqrt(sk.mean_squared_error(targets, outputs))
    )
    assert score("mae", outputs, targets, task) == pytest.approx(sk.mean_absolute_error(targets, outputs))


def test_logarithms() -> None:
    outputs, targets = RANDOM.normal(size=(2, 40, 1))
    y, truth = np.exp(outputs), np.exp(targets)
    assert score("rmse", outputs, targets, LOGARITHM) == pytest.approx(sk.root_mean_squared_error(truth, y))
    assert score("mae", outputs, targets, LOGARITHM) == pytest.approx(sk.mean_absolute_error(truth, y))
    # scikit-learn's is of log(1 + y)
    expected = (
        sk.root_mean_squared_log_error(truth - 1, y - 1)
        if y.min() > 1
        else math.sqrt(np.mean((outputs - targets) ** 2))
    )
    assert score("log_rmse", outputs, targets, LOGARITHM) == pytest.approx(expected)


@pytest.mark.parametrize("columns", [1, 2])
def test_two_classes(columns: int) -> None:
    outputs, targets = RANDOM.normal(size=(60, columns)) * 3, RANDOM.integers(0, 2, 60)
    p = shares(outputs, BINARY)
    assert p.shape == (60, 2)
    assert score("accuracy", outputs, targets, BINARY) == pytest.approx(
        sk.accuracy_score(targets, p.argmax(1))
    )
    assert score("log_loss", outputs, targets, BINARY) == pytest.approx(sk.log_loss(targets, p))
    assert score("log_loss_bits", outputs, targets, BINARY) == pytest.approx(
        sk.log_loss(targets, p) / math.log(2)
    )


def test_several_classes() -> None:
    outputs, targets = RANDOM.normal(size=(60, 3)) * 3, RANDOM.integers(0, 3, 60)
    p = shares(outputs, CLASSES)
    assert score("accuracy", outputs, targets, CLASSES) == pytest.approx(
        sk.accuracy_score(targets, p.argmax(1))
    )
    assert score("log_loss", outputs, targets, CLASSES) == pytest.approx(sk.log_loss(targets, p))


def test_labels() -> None:
    outputs, targets = RANDOM.normal(size=(60, 2)) * 3, RANDOM.integers(0, 2, (60, 2)).astype(float)
    p = shares(outputs, LABELS)
    assert score("accuracy", outputs, targets, LABELS) == pytest.approx(1 - sk.hamming_loss(targets, p > 0.5))
    each = [sk.log_loss(targets[:, i], p[:, i]) for i in range(2)]
    assert score("log_loss", outputs, targets, LABELS) == pytest.approx(np.mean(each))


def test_class_probabilities() -> None:
    outputs, targets = RANDOM.normal(size=(60, 3)), RANDOM.dirichlet([1, 1, 1], 60)
    p = shares(outputs, SOFT)
    assert score("log_loss", outputs, targets, SOFT) == pytest.approx(-(targets * np.log(p)).sum(1).mean())
    expected = np.mean(targets.argmax(1) == p.argmax(1))
    assert score("accuracy", outputs, targets, SOFT) == pytest.approx(expected)


# By hand


def test_log_rmse_by_hand() -> None:
    # predicted 2 and 8 where 4 and 2 are right: logarithms differ by ln 2 and ln 4
    outputs, targets = np.log([[2.0], [8.0]]), np.log([[4.0], [2.0]])
    expected = math.sqrt((math.log(2) ** 2 + math.log(4) ** 2) / 2)
    assert score("log_rmse", outputs, targets, LOGARITHM) == pytest.approx(expected, rel=1e-14)


def test_log_rmse_does_not_change_with_the_unit() -> None:
    outputs, targets = RANDOM.normal(size=(2, 9, 1))
    cents = math.log(100)
    there = score("log_rmse", outputs + cents, targets + cents, LOGARITHM)
    assert there == pytest.approx(score("log_rmse", outputs, targets, LOGARITHM), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_uniform_scores_are_worth_log_c(classes: int) -> None:
    task = Task("multiclass", ("y",), (tuple(range(classes)),))
    outputs, targets = np.full((5, classes), 1.5), np.arange(5) % classes
    assert score("log_loss", outputs, targets, task) == pytest.approx(math.log(classes), abs=1e-14)
    assert score("log_loss_bits", outputs, targets, task) == pytest.approx(math.log2(classes), abs=1e-14)


def test_an_undecided_binary_output_is_worth_one_bit() -> None:
    assert score("log_loss_bits", np.zeros((4, 1)), np.arange(4) % 2, BINARY) == pytest.approx(1, abs=1e-15)
    assert score("log_loss_bits", np.zeros((4, 2)), np.ones((4, 2)), LABELS) == pytest.approx(1, abs=1e-15)


def test_sure_and_wrong_scores_stay_finite() -> None:
    assert score("log_loss", np.array([[900.0, 0.0, 0.0]]), np.array([1]), CLASSES) == pytest.approx(900)
    assert score("log_loss", np.array([[-900.0]]), np.array([1]), BINARY) == pytest.approx(900)


def test_a_single_output_stands_for_two_scores() -> None:
    x = torch.tensor([[2.0], [-1.0]])
    assert class_scores(x, BINARY).tolist() == [[0, 2], [0, -1]]
    torch.testing.assert_close(probabilities(x, BINARY)[:, 1:], torch.sigmoid(x))


def test_scores_work_on_stacks() -> None:
    outputs, targets = RANDOM.normal(size=(3, 7, 3)), RANDOM.integers(0, 3, (3, 7))
    together = (
        METRICS["log_loss"].per_row(torch.from_numpy(outputs), torch.from_numpy(targets), CLASSES).mean(1)
    )
    alone = [score("log_loss", o, t, CLASSES) for o, t in zip(outputs, targets, strict=True)]
    assert together.tolist() == pytest.approx(alone)


def test_lower_losses_are_better_scores() -> None:
    for metric in METRICS.values():
        better, worse = metric.finish(0.1), metric.finish(0.4)
        assert (better > worse) == metric.higher_is_better


def test_natural_undoes_the_logarithm() -> None:
    assert natural(torch.tensor([0.0, math.log(3)]), LOGARITHM).tolist() == pytest.approx([1, 3])
    assert natural(torch.tensor([0.5]), NUMBER).tolist() == [0.5]


# Choosing


@pytest.mark.parametrize(
    ("task", "usual"),
    [
        (NUMBER, "rmse"),
        (LOGARITHM, "log_rmse"),
        (BINARY, "accuracy"),
        (CLASSES, "accuracy"),
        (LABELS, "accuracy"),
    ],
)
def test_each_task_has_a_usual_metric(task: Task, usual: str) -> None:
    assert choose_metric(None, task).name == usual
    assert choose_metric(usual, task) is METRICS[usual]


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("acuracy", CLASSES, "there is no metric `acuracy`.\nhint: Did you mean `accuracy`?"),
        ("xyz", NUMBER, "there is no metric `xyz`.\nhint: one of rmse, mae"),
        (
            "rmse",
            CLASSES,
            "`rmse` is not a metric for this multiclass target.\nhint: one of accuracy, log_loss",
        ),
        (
            "accuracy",
            NUMBER,
            "`accuracy` is not a metric for this regression target.\nhint: one of rmse, mae",
        ),
        (
            "log_rmse",
            NUMBER,
            "`log_rmse` is not a metric for this regression target.\nhint: --log-target learns",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(name: str, task: Task, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        choose_metric(name, task)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_quantile_loss_is_that_of_scikit_learn(share: float) -> None:
    outputs, targets = RANDOM.normal(size=(30, 1)), RANDOM.normal(size=(30, 1))
    metric = choose_metric(f"quantile:{share}", NUMBER)
    ours = metric.finish(float(metric.per_row(torch.tensor(outputs), torch.tensor(targets), NUMBER).mean()))
    assert ours == pytest.approx(sk.mean_pinball_loss(targets, outputs, alpha=share))
    assert metric.label == f"quantile loss (τ = {share:g})"


@pytest.mark.parametrize("wrong", ["quantile", "quantile:", "quantile:1", "quantile:-0.1", "quantile:much"])
def test_a_quantile_must_be_between_0_and_1(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"no metric `quantile[\s\S]*quantile:0.9"):
        choose_metric(wrong, NUMBER)


def test_a_quantile_is_none_of_classes() -> None:
    with pytest.raises(SettingsError, match="is not a metric for this binary target"):
        choose_metric("quantile:0.9", BINARY)
