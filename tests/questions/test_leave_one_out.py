"""Leave-one-out: brute force by the plain loop, and planted wrong labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

import foldwise
import studies
from foldwise.data.table import Table
from foldwise.engine.losses import LOSSES
from foldwise.engine.members import Nursery
from foldwise.job import Job
from foldwise.judge.metrics import METRICS
from foldwise.plans.plan import Member
from foldwise.questions.bootstrap import answer as bootstrap
from foldwise.questions.leave_one_out import answer as leave_one_out
from foldwise.questions.leave_one_out import beyond_noise
from foldwise.questions.numbers import moderated
from foldwise.questions.subject import Subject, subject_of
from foldwise.reference import Own, outputs_of, prepare_fold, train_alone
from foldwise.study import Study


def brute_force(subject: Subject, nursery: Nursery, row: int, seeds: range) -> float:
    """Train every fold that learns from a row with and without it, by the plain loop; the row is really gone."""
    changes, shares = [], []
    for fold in range(len(subject.folds)):
        train, validation = subject.folds.train[fold], subject.folds.validation[fold]
        if not train[row]:
            continue
        without = train & (np.arange(len(train)) != row)
        for seed in seeds:
            losses = [
                _loss(subject, nursery, rows, validation, Member(0, fold, seed, subject.settings))
                for rows in (train, without)
            ]
            changes.append(losses[0] - losses[1])
            shares.append(validation.sum())
    return float(np.average(changes, weights=shares))


def _loss(
    subject: Subject, nursery: Nursery, train: np.ndarray, validation: np.ndarray, member: Member
) -> float:
    table: Table = subject.table
    loss = LOSSES[subject.settings.loss]
    data = prepare_fold(
        table.features, loss.shaped(table.targets), train, validation, table.numbers, subject.settings.scaling, False,
        torch.float64,
    )  # fmt: skip
    module = nursery.start(member)
    for _ in itertools.islice(train_alone(member, module, data, Own(loss.form)), subject.epoch):
        pass
    truth = torch.tensor(table.targets[validation])
    return float(METRICS["log_loss"].per_row(outputs_of(module, data), truth, table.task).mean())


def small_study() -> tuple[Study, pl.DataFrame]:
    frame = studies.table("binary", rows=40)
    settings = {"width": 4, "batch_size": 64, "epochs": 12, "learning_rate": 0.05}
    return studies.study(studies.job(frame, "binary", [settings])), frame


def test_values_agree_with_brute_force_by_the_plain_loop() -> None:
    study, frame = small_study()
    subject = subject_of(study, None, frame, torch.device("cpu"), lambda now: None)
    found = leave_one_out(subject, seeds=2)
    nursery = subject.train("starts", [subject.settings], subject.folds, seeds=[0]).nursery(
        subject.settings.loss
    )
    rows = found.table.sort("row")["row"].to_list()[::3]
    alone = [brute_force(subject, nursery, row, range(2)) for row in rows]
    ours = [found.table.filter(pl.col("row") == row)["harm"].item() for row in rows]
    # a batch of all rows has no places, so that a row of no weight is a row that is gone, up to rounding
    np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-8)
    assert stats.spearmanr(ours, alone).statistic > 0.999


def test_rows_that_are_taken_out_agree_too() -> None:
    frame = studies.table("binary", rows=40)
    settings = {"width": 4, "batch_size": 64, "epochs": 6, "learning_rate": 0.05, "normalization": "batch"}
    study = studies.study(studies.job(frame, "binary", [settings]))
    subject = subject_of(study, None, frame, torch.device("cpu"), lambda now: None)
    found = leave_one_out(subject, seeds=2, rows=10)
    assert "is taken out" in found.how
    assert found.table.height == 10
    nursery = subject.train("starts", [subject.settings], subject.folds, seeds=[0]).nursery(
        subject.settings.loss
    )
    for row, harm in found.table.select("row", "harm").head(3).iter_rows():
        assert harm == pytest.approx(brute_force(subject, nursery, row, range(2)), rel=1e-5, abs=1e-8)


def test_planted_wrong_labels_come_out_on_top() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4))
    signal = x @ [1.0, -2.0, 0.5, 1.0]
    y = (signal > 0).astype(int)
    clear = np.flatnonzero(np.abs(signal) > 1)  # a wrong label at the border between the classes hardly hurts
    wrong = random.choice(clear, size=8, replace=False)
    y[wrong] = 1 - y[wrong]
    settings = {"network": "mlp", "width": 16, "depth": 1, "epochs": 30, "learning_rate": 0.01}
    study = foldwise.fit(x, y, search=settings, folds=4)
    answer = study.leave_one_out(trial=4, data=(x, y), seeds=3)
    top = set(answer.table["row"].head(16))
    assert top >= set(wrong.tolist())
    ranks = answer.table.with_row_index("rank").filter(pl.col("row").is_in(wrong.tolist()))["rank"]
    assert ranks.median() < 10
    assert answer.facts["hurting"] >= 4
    # and what is found is mostly what was planted
    found = answer.table.filter(pl.col("beyond_noise") & (pl.col("harm") > 0))["row"]
    assert np.isin(found, wrong).mean() > 0.5


def test_one_seed_has_no_noise_floor() -> None:
    study, frame = small_study()
    with pytest.raises(foldwise.FoldwiseError, match="at least 2"):
        study.leave_one_out(data=frame, seeds=1)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [3, 10])
def test_noise_is_rarely_beyond_the_noise(spread: float, seeds: int) -> None:
    """Of questions about noise, some row is beyond it in about 5 %, though rows are not equally noisy."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        scale = np.exp(spread * random.normal(size=300))
        wrong += beyond_noise(scale * random.normal(size=(seeds, 300)))[2].any()
    assert wrong / 300 < 0.11


def test_variances_of_one_size_are_drawn_together_and_others_left() -> None:
    random = np.random.default_rng(0)
    true = 1 / random.gamma(3, 1 / 3, size=20000)  # s²·d/χ²(d) of d = 6, s² = 1
    found = true * random.chisquare(4, size=20000) / 4
    drawn, degrees = moderated(found, 4)
    assert degrees == pytest.approx(10, rel=0.05)
    np.testing.assert_allclose(drawn, (6 + 4 * found) / 10, rtol=0.05)
    assert moderated(random.chisquare(4, size=2000) / 4, 4)[1] > 100
    assert moderated(np.zeros(3), 4) == (pytest.approx(np.zeros(3)), 4)


@pytest.mark.parametrize("question", [leave_one_out, bootstrap])
def test_members_reach_the_epoch_that_was_kept(
    question: Callable[[Subject], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = studies.table("binary", rows=30)
    settings = {"width": 4, "epochs": 12, "early_stopping": 1, "learning_rate": 3.0}
    study = studies.study(studies.job(frame, "binary", [settings]))
    subject = replace(subject_of(study, None, frame, torch.device("cpu"), lambda now: None), epoch=9)
    jobs, train = [], Subject.train

    def keeping(self: Subject, *args: Any, **options: Any) -> Job:
        jobs.append(train(self, *args, **options))
        return jobs[-1]

    monkeypatch.setattr(Subject, "train", keeping)
    question(subject)
    assert [course.epoch for job in jobs for course in job.field.courses] == [9] * len(jobs)
