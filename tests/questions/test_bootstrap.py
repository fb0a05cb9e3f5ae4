"""The bootstrap against a computation of its own, with networks of the plain loop."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import foldwise
import studies
from foldwise.data.folds import Folds
from foldwise.data.prepare import learn_preparation
from foldwise.data.variants import Variants
from foldwise.engine.losses import LOSSES
from foldwise.job import Job
from foldwise.judge.metrics import METRICS
from foldwise.plans.plan import Member
from foldwise.questions import bootstrap
from foldwise.questions.subject import Subject, subject_of
from foldwise.reference import Own, outputs_of, prepare_fold, train_alone


def test_the_estimate_is_that_of_networks_trained_one_by_one() -> None:
    frame = studies.table("binary", rows=30)
    settings = {
        "width": 3,
        "epochs": 4,
        "learning_rate": 0.05,
        "batch_size": 64,
    }  # rows not drawn take no place
    study = studies.study(studies.job(frame, "binary", [settings], metric="log_loss"))
    subject = subject_of(study, None, frame, torch.device("cpu"), lambda now: None)
    found = bootstrap.answer(subject, draws=20)
    table, loss, task = subject.table, LOSSES[subject.settings.loss], subject.table.task
    nursery = subject.train("starts", [subject.settings], subject.folds, seeds=[0]).nursery(
        subject.settings.loss
    )
    times = np.concatenate([np.ones((1, 30)), bootstrap._drawn(subject, 20)])
    everyone = np.ones(30, dtype=bool)
    truth = torch.tensor(table.targets)
    outputs, losses = [], []
    for n in times:
        data = prepare_fold(
            table.features, loss.shaped(table.targets), n > 0, everyone, table.numbers, subject.settings.scaling, False,
            torch.float64, n + 1e-300, n,
        )  # fmt: skip
        member = Member(0, 0, 0, subject.settings)
        module = nursery.start(member)
        for _ in itertools.islice(train_alone(member, module, data, Own(loss.form)), subject.epoch):
            pass
        outputs.append(outputs_of(module, data))
        losses.append(METRICS["log_loss"].per_row(outputs[-1], truth, task).numpy())
    apparent = losses[0].mean()
    by_row = [np.mean([losses[b][i] for b in range(1, 21) if times[b][i] == 0]) for i in range(30)]
    outside = np.mean(by_row)
    crossed = [
        METRICS["log_loss"].per_row(outputs[0][i].expand(30, -1), truth, task).numpy() for i in range(30)
    ]
    uninformed = np.mean(crossed)
    over = (min(outside, uninformed) - apparent) / (uninformed - apparent)
    weight = 0.632 / (1 - 0.368 * over)
    expected = (1 - weight) * apparent + weight * min(outside, uninformed)
    facts = found.facts
    assert facts["apparent"] == pytest.approx(apparent, rel=1e-9)
    assert facts["outside"] == pytest.approx(outside, rel=1e-9)
    assert facts["uninformed"] == pytest.approx(uninformed, rel=1e-9)
    assert facts["loss"] == pytest.approx(expected, rel=1e-9)
    assert facts["low"] <= facts["score"] <= facts["high"]


def test_counted_rows_prepare_like_rows_that_are_there_so_often() -> None:
    random = np.random.default_rng(0)
    x, counts = random.normal(size=(12, 3)), random.integers(0, 3, size=(2, 12)).astype(float)
    numbers, train = np.array([True, True, False]), counts >= 0
    variants = Variants.of_counts(np.zeros(12), counts)
    for scaling in ("robust", "standard"):
        ours = variants.preparation(x, train, numbers, scaling, np.ones(12))
        for fold in range(2):
            repeated = np.repeat(x, counts[fold].astype(int), axis=0)
            alone = learn_preparation(repeated, np.ones((1, len(repeated)), dtype=bool), numbers, scaling)
            np.testing.assert_allclose(ours.shift[fold], alone.shift[0], atol=1e-12)
            np.testing.assert_allclose(ours.scale[fold], alone.scale[0], rtol=1e-12)


def test_noise_is_estimated_as_noise() -> None:
    """Without information all of .632+ is γ, whatever a network that learned everything by heart says of its rows."""
    random = np.random.default_rng(2)
    x, y = random.normal(size=(80, 20)), random.integers(2, size=80)
    found = foldwise.bootstrap(
        x, y, settings={"network": "mlp", "width": 32, "epochs": 60, "learning_rate": 0.01}, draws=40
    )
    assert found.facts["overfitting"] > 0.8
    assert found.facts["low"] < 0.55
    assert abs(found.facts["score"] - 0.5) < 0.12


def test_rows_in_groups_cannot_be_drawn_one_by_one() -> None:
    frame = studies.table("regression", rows=40)
    study = foldwise.fit(frame, target="price", groups="color", folds=3, search={"width": 4, "epochs": 1})
    with pytest.raises(foldwise.FoldwiseError, match="because the study divides them by groups"):
        study.bootstrap(data=frame)


def test_draws_take_as_many_steps_as_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = studies.table("binary", rows=40)
    learnt, train = [], Subject.train

    def noting(self: Subject, question: str, trials: Any, folds: Folds, **options: Any) -> Job:
        learnt.append(folds.train.sum(axis=1))
        return train(self, question, trials, folds, **options)

    monkeypatch.setattr(Subject, "train", noting)
    for normalization in ("none", "batch"):
        settings = {"width": 3, "epochs": 2, "batch_size": 8, "normalization": normalization}
        study = studies.study(studies.job(frame, "binary", [settings]))
        found = bootstrap.answer(
            subject_of(study, None, frame, torch.device("cpu"), lambda now: None), draws=20
        )
        assert (learnt[-1] == 40).all() == (normalization == "none")
        assert ("a third fewer steps" in found.how) == (normalization == "batch")


def test_classes_that_draws_miss_are_refused() -> None:
    x, y = np.random.default_rng(0).normal(size=(120, 2)), np.array([f"class {n // 2}" for n in range(120)])
    study = foldwise.fit(x, y, search={"width": 2, "epochs": 1}, folds=2)
    with pytest.raises(foldwise.FoldwiseError, match="had rows of every class") as caught:
        study.bootstrap(data=(x, y), draws=20)
    assert "rare classes" in caught.value.hint
