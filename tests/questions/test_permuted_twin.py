"""The permuted twin: nothing is found where there is no leak, and planted leaks are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.model_selection import ShuffleSplit

import foldwise
from foldwise.data.folds import Folds, make_folds
from foldwise.data.target import Task
from foldwise.data.variants import Variants
from foldwise.plans.policy import StopAt
from foldwise.questions.permuted_twin import agreement_of, answer, shuffled
from foldwise.questions.subject import Subject, few_folds, kept_losses, seen, subject_of

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
    leaking = replace(
        subject, folds=Folds(np.ones_like(study.folds.train), study.folds.validation, "leaking")
    )
    assert not answer(subject).look
    assert answer(leaking).look


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


def test_alone_the_trial_that_is_asked_about_competes_with_none() -> None:
    x, y = table(rows=60)
    study = foldwise.fit(x, y, search=SETTINGS | {"epochs": 3, "learning_rate": [0.03, 1e-7]}, folds=3)
    asked = next(
        r for r in study.results if r.settings.network == "mlp" and r.number != study.results[0].number
    )
    found = study.permuted_twin(asked.number, data=(x, y), shuffles=5)
    assert found.facts["score"] == pytest.approx(asked.score)
    assert asked.name in found.how


def rare(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = np.zeros(rows, dtype=int)
    y[: rows // 20] = 1
    return random.normal(size=(rows, 5)), y


def test_by_balanced_classes_every_shuffle_is_weighed_with_its_own() -> None:
    """A constant has a balanced accuracy of a half, whatever the targets."""
    x, y = rare()
    study = foldwise.fit(
        x, y, search=SETTINGS | {"epochs": 2}, metric="accuracy", class_weights="balanced", folds=4
    )
    constant = next(r.number for r in study.results if r.settings.network == "constant")
    found = study.permuted_twin(constant, data=(x, y), shuffles=5)
    np.testing.assert_allclose(found.table["score"].to_numpy(), 0.5, atol=0.01)
    trained = study.permuted_twin(data=(x, y), shuffles=10)
    assert trained.facts["shuffled"] == pytest.approx(0.5, abs=0.1)


def test_losses_by_balanced_classes_are_those_of_each_version() -> None:
    x, y = rare(80)
    study = foldwise.fit(x, y, search=SETTINGS | {"epochs": 2}, class_weights="balanced", folds=2)
    subject = subject_of(study, 4, (x, y), torch.device("cpu"), lambda now: None)
    versions = np.stack([subject.table.targets, subject.table.targets[::-1]])
    base = subject.folds
    twice = Folds(np.tile(base.train, (2, 1)), np.tile(base.validation, (2, 1)), base.how)
    job = subject.train(
        "twice", [subject.settings], twice, seeds=[0], variants=Variants.of_targets(versions, np.array([0, 0, 1, 1])),
        policy=StopAt(1),
    )  # fmt: skip
    kept = kept_losses(job).sort("fold")["loss"].to_numpy()
    for m in seen(job, subject.metric):
        own = versions[m.member.fold // 2]
        share = own.mean()
        weights = np.where(own == 1, 0.5 / share, 0.5 / (1 - share))[m.rows]
        assert kept[m.member.fold] == pytest.approx(np.average(m.losses, weights=weights), rel=1e-5)


def many_folds(**how: object) -> Subject:
    x = np.random.default_rng(0).normal(size=(40, 2))
    frame = pl.DataFrame({"a": x[:, 0], "when": np.arange(40), "part": np.arange(40) % 12, "y": x[:, 1]})
    study = foldwise.fit(frame, target="y", search=SETTINGS | {"epochs": 1}, **how)
    return subject_of(study, None, frame, torch.device("cpu"), lambda now: None)


@pytest.mark.parametrize(
    "how",
    [{"time": "when", "folds": 12}, {"fold_column": "part"}, {"folds": ShuffleSplit(11, random_state=0)}],
)
def test_few_folds_are_divided_as_those_of_the_study(how: dict[str, object]) -> None:
    subject = many_folds(**how)
    few = few_folds(subject)
    of = {
        v.tobytes() + t.tobytes() for t, v in zip(subject.folds.train, subject.folds.validation, strict=True)
    }
    assert len(few) == 5
    assert {v.tobytes() + t.tobytes() for t, v in zip(few.train, few.validation, strict=True)} < of
    assert few.how.startswith("5 of ")


def test_few_folds_of_many_at_random_score_every_row() -> None:
    for how in ({"folds": "loo"}, {"folds": 4, "repeats": 3}):
        few = few_folds(many_folds(**how))
        assert (few.validation.sum(axis=0) == 1).all()
        assert len(few) == 5


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
