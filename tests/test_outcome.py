"""What follows from a study: the test of sure networks, and what is said of several targets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import studies
from foldwise.checks.finding import Finding, Findings
from foldwise.data.target import Task
from foldwise.judge.metrics import METRICS, probabilities
from foldwise.outcome import combined, combined_outputs
from foldwise.report.content import content_of
from foldwise.report.page import render
from foldwise.study import Study

TASKS = {
    "binary": Task("binary", ("y",), (("a", "b"),)),
    "multiclass": Task("multiclass", ("y",), (("a", "b", "c"),)),
    "multilabel": Task("multilabel", ("y", "z"), ((0, 1), (0, 1))),
}


@pytest.mark.parametrize("kind", TASKS)
def test_the_outputs_of_an_ensemble_say_its_probabilities(kind: str) -> None:
    task = TASKS[kind]
    width = {"binary": 1, "multiclass": 3, "multilabel": 2}[kind]
    outputs = torch.tensor(np.random.default_rng(0).normal(0, 3, size=(4, 6, width)), dtype=torch.float32)
    mean = combined(outputs, task)
    assert torch.allclose(probabilities(combined_outputs(outputs, task), task), mean, atol=1e-12)
    assert torch.allclose(mean, probabilities(outputs.double(), task).mean(0))


@pytest.mark.parametrize("kind", TASKS)
def test_a_sure_and_wrong_ensemble_has_the_loss_of_its_logits(kind: str) -> None:
    task = TASKS[kind]
    sure = {"binary": [900.0], "multiclass": [900.0, 0.0, 0.0], "multilabel": [900.0, -900.0]}[kind]
    wrong = {
        "binary": torch.tensor([0]),
        "multiclass": torch.tensor([2]),
        "multilabel": torch.tensor([[0.0, 1.0]]),
    }
    outputs = torch.tensor(sure).expand(3, 1, -1)
    loss = METRICS["log_loss"].per_row(combined_outputs(outputs, task), wrong[kind], task)
    assert loss.tolist() == [pytest.approx(900.0)]


def made(task: str, **asked: Any) -> Study:
    trials = [{"epochs": 1}]
    job = studies.job(studies.table(task), task, trials, folds=2, test=0.2, dtype=torch.float32, **asked)
    return studies.study(job)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "soft"])
def test_the_test_of_very_sure_networks_has_a_score(task: str) -> None:
    study = made(task, metric="log_loss")
    study.models = [replace(m, parameters=m.parameters * 1000) for m in study.models]
    opening = study.open_test()
    assert math.isfinite(opening.score)
    assert opening.low <= opening.score <= opening.high
    json.dumps(opening.record(), allow_nan=False)


def test_predictions_of_sure_networks_are_above_zero() -> None:
    study = made("multiclass")
    study.models = [replace(m, parameters=m.parameters * 12) for m in study.models]
    shown = study.predict(studies.table("multiclass", rows=200, seed=3)).select(pl.col("^probability.*$"))
    assert shown.to_numpy().dtype == np.float64
    assert shown.to_numpy().min() > 0


def test_the_worst_rows_are_ranked_on_the_scale_that_is_learned_and_shown_in_units() -> None:
    study = made("log regression")
    incomes = dict(enumerate(studies.table("log regression")["income"].to_list()))
    said = study.predictions.group_by("row").agg(pl.col("^prediction.*$").mean()).sort("row")
    truth = np.array([incomes[row] for row in said["row"]])
    off = np.abs(np.log(truth) - np.log(said.drop("row").to_numpy()[:, 0]))
    order = np.argsort(-off)[:10]
    assert [w["row"] for w in study.worst_rows] == said["row"].to_numpy()[order].tolist()
    in_units = np.argsort(-np.abs(truth - said.drop("row").to_numpy()[:, 0]))[:10]
    assert order.tolist() != in_units.tolist()
    assert float(study.worst_rows[0]["truth"]) == pytest.approx(truth[order[0]])
    assert float(study.worst_rows[0]["prediction"]) == pytest.approx(
        said.drop("row")[int(order[0]), 0], rel=1e-3
    )
    assert study.worst_rows[0]["loss"] == pytest.approx(off[order[0]])
    assert "0.69 is a factor of 2" in render(content_of(study))
    assert "0.69 is a factor of 2" not in render(content_of(made("regression")))


def test_of_several_numbers_the_first_is_drawn_and_named() -> None:
    study = made("two numbers")
    assert study.outcome["target"] == "price"
    prices = studies.table("two numbers")["price"].to_list()
    assert study.outcome["truth"] == pytest.approx([prices[row] for row in study.outcome["row"]])


def test_no_tuning_is_advised_by_a_score_that_says_nothing() -> None:
    trials = [{"learning_rate": rate} for rate in (1e-4, 1e-2)]
    study = studies.study(studies.job(studies.table("binary"), "binary", trials))
    assert study.variance is not None
    assert study.variance_sentence == study.variance.sentence != ""
    for code in ("target-leak", "unlearnable-target"):
        study.findings = Findings([Finding(code, "likely", "so it is", where=("color",))])
        assert study.variance_sentence == ""
