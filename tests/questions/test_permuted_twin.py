"""The permuted twin: nothing is found where there is no leak, and planted leaks are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import foldwise
from foldwise.data.folds import Folds, make_folds
from foldwise.data.target import Task
from foldwise.questions.permuted_twin import agreement_of, answer, shuffled
from foldwise.questions.subject import subject_of

SETTINGS = {"network": "mlp", "width": 16, "depth": 1, "epochs": 25, "learning_rate": 0.03}


def table(rows: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5))
    return x, (x[:, 0] + x[:, 1] + 0.5 * random.normal(size=rows) > 0).astype(int)


@pytest.mark.parametrize("seed", range(4))
def test_without_a_leak_nothing_is_found(seed: int) -> None:
    x, y = table(seed=seed)
    found = foldwise.permuted_twin(x, y, settings=SETTINGS, seed=seed)
    assert not found.look
    assert found.facts["p_leak"] > 0.01
    assert found.facts["p_score"] == pytest.approx(1 / 21)
    assert abs(found.facts["agreement"]) < 0.1


def test_noise_has_scores_that_luck_explains() -> None:
    """P-values of noise are even: of 12, the mean of all is near a half, and few are small."""
    p = []
    for seed in range(12):
        x, y = table(rows=60, seed=seed)
        noise = np.random.default_rng(seed).permutation(y)
        study = foldwise.fit(x, noise, search=SETTINGS, folds=3)
        found = study.permuted_twin(4, data=(x, noise), trials=3)
        p += [found.facts["p_score"], found.facts["p_leak"]]
    scores, leaks = p[::2], p[1::2]
    assert 0.25 < np.mean(scores) < 0.75
    assert 0.25 < np.mean(leaks) < 0.75
    assert sum(x < 0.06 for x in scores) <= 3
    assert not any(x < 0.01 for x in leaks)


def test_copies_of_rows_across_folds_are_found() -> None:
    x, y = table(rows=60)
    twice, both = np.concatenate([x, x]), np.concatenate([y, y])
    found = foldwise.permuted_twin(twice, both, settings=SETTINGS)
    assert found.look
    assert found.facts["p_leak"] < 1e-3
    assert "known beforehand" in found.sentence


def test_validation_rows_that_were_learnt_from_are_found() -> None:
    x, y = table()
    study = foldwise.fit(x, y, search=SETTINGS)
    subject = subject_of(study, 4, (x, y), torch.device("cpu"), lambda now: None)
    seen = replace(subject, folds=Folds(np.ones_like(study.folds.train), study.folds.validation, "leaking"))
    assert not answer(subject).look
    assert answer(seen).look


def test_a_column_that_holds_the_answer_is_explained_and_not_found() -> None:
    x, y = table()
    found = foldwise.permuted_twin(np.column_stack([x, y]), y, settings=SETTINGS)
    assert found.facts["score"] > 0.97
    assert not found.look
    assert "A column that holds the answer" in found.how


def test_shuffles_keep_the_targets_of_folds_and_copies_together() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 2))
    features[20:24] = features[:4]  # four pairs
    folds = make_folds(40, 4)
    source = shuffled(features, folds, random)
    assert sorted(source) == list(range(40))
    fold = folds.validation.argmax(axis=0)
    single = np.r_[4:20, 24:40]
    assert (fold[source[single]] == fold[single]).all()
    assert {*zip(source[:4].tolist(), source[20:24].tolist(), strict=True)} == {(n, n + 20) for n in range(4)}


def test_agreement_is_a_correlation() -> None:
    random = np.random.default_rng(0)
    outputs, truth = random.normal(size=(2, 50, 1))
    task = Task("regression", ("y",))
    expected = np.corrcoef(outputs[:, 0], truth[:, 0])[0, 1]
    assert agreement_of(torch.tensor(outputs), truth, task) == pytest.approx(expected)
    assert agreement_of(torch.ones(50, 1), truth, task) == 0.0
    classes = Task("binary", ("y",), (("no", "yes"),))
    sure = torch.tensor([[-50.0], [50.0], [-50.0], [50.0]])
    assert agreement_of(sure, np.array([0, 1, 0, 1]), classes) == pytest.approx(1)
