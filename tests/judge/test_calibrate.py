"""Calibration: planted distortions are undone, calibrated probabilities are left alone, numbers by hand."""

from __future__ import annotations

from dataclasses import asdict, astuple, replace

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from foldwise.data.target import Task
from foldwise.judge.calibrate import (
    SURE,
    Calibration,
    Steps,
    _parts,
    best_steps,
    best_temperature,
    calibrate,
    cross_entropy,
    expected_error,
    reliability,
    stepped,
    tempered,
)
from foldwise.store.plain import as_record

TASKS = {
    "binary": Task("binary", ("y",), (("a", "b"),)),
    "multiclass": Task("multiclass", ("y",), (("a", "b", "c"),)),
    "multilabel": Task("multilabel", ("y", "z"), ((0, 1), (0, 1))),
}


def drawn(kind: str, rows: int, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities, the truth by them, and give them distorted by a temperature."""
    random = np.random.default_rng(seed)
    if kind == "multilabel":
        true = random.beta(0.7, 0.7, size=(rows, 2))
        return tempered(true, kind, 1 / temperature), (random.random((rows, 2)) < true).astype(float)
    true = random.dirichlet([0.8] * (2 if kind == "binary" else 3), size=rows)
    truth = (random.random(rows)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    return tempered(true, kind, 1 / temperature), truth


def found(kind: str, said: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> Calibration:
    rows = np.arange(len(said))
    return calibrate(said, truth, TASKS[kind], rows % 5, rows, weights)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_a_planted_temperature_is_found(kind: str, temperature: float) -> None:
    said, truth = drawn(kind, 900, temperature)
    ours = found(kind, said, truth)
    assert ours.method == "temperature"
    assert ours.temperature == pytest.approx(temperature, rel=0.2)
    assert ours.loss[1] < ours.loss[0]
    assert ours.error[1] < ours.error[0]
    fresh, true = drawn(kind, 4000, temperature, seed=1)
    helped = cross_entropy(ours.applied(fresh, kind), true, kind).mean()
    assert helped < cross_entropy(fresh, true, kind).mean()


@pytest.mark.parametrize("kind", TASKS)
def test_calibrated_probabilities_are_mostly_left_alone(kind: str) -> None:
    kept = [found(kind, *drawn(kind, 1200, seed=seed)).method for seed in range(20)]
    assert kept.count("none") >= 15  # one standard error lets about one in six through, of two looks


def test_steps_are_found_where_no_temperature_fits() -> None:
    random = np.random.default_rng(3)
    second = random.random(4000)
    truth = (random.random(4000) < 0.25 + 0.5 * (second > 0.7)).astype(int)
    said = np.stack([1 - second, second], axis=1)
    ours = found("binary", said, truth)
    assert ours.method == "isotonic"
    assert ours.error[1] < 0.03 < ours.error[0]
    applied = ours.applied(np.array([[0.9, 0.1], [0.1, 0.9]]), "binary")
    assert applied[:, 1] == pytest.approx([0.25, 0.75], abs=0.05)


@pytest.mark.parametrize("kind", TASKS)
def test_few_rows_get_no_steps(kind: str) -> None:
    said, truth = drawn(kind, 999)
    said = said**3 / (said**3).sum(axis=1, keepdims=True) if kind != "multilabel" else said**3
    assert found(kind, said, truth).method != "isotonic"


# The two maps, against other computations


@pytest.mark.parametrize("kind", TASKS)
def test_a_temperature_is_that_of_logits(kind: str) -> None:
    logits = torch.tensor(np.random.default_rng(4).normal(size=(7, 2 if kind == "binary" else 3)))
    turn = torch.sigmoid if kind == "multilabel" else lambda x: torch.softmax(x, dim=-1)
    np.testing.assert_allclose(tempered(turn(logits).numpy(), kind, 1.7), turn(logits / 1.7), rtol=1e-9)


def test_the_temperature_is_that_of_a_plain_search() -> None:
    said, truth = drawn("multiclass", 300, 1.8)
    weights = np.random.default_rng(5).random(300)
    plain = optimize.minimize(
        lambda t: log_loss(truth, tempered(said, "multiclass", float(t[0])), sample_weight=weights), [1.0],
        method="Nelder-Mead",
    )  # fmt: skip
    assert best_temperature(said, truth, "multiclass", weights) == pytest.approx(plain.x[0], rel=1e-3)


def test_steps_of_several_classes_are_those_of_scikit_learn_scaled() -> None:
    said, truth = drawn("multiclass", 500, 1.8)
    steps = best_steps(said, truth, "multiclass", np.ones(500))
    edge = 1 / 502
    plain = [
        IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(said[:, c], truth == c)
        for c in range(3)
    ]
    fresh = drawn("multiclass", 50, seed=6)[0]
    expected = np.stack([p.predict(fresh[:, c]) for c, p in enumerate(plain)], axis=1)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(stepped(fresh, "multiclass", steps), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", TASKS)
def test_corrected_probabilities_are_probabilities(kind: str) -> None:
    said, truth = drawn(kind, 1500, 2.0)
    said[:3] = np.eye(said.shape[1])[[0, 1, 0]]  # surer than any number of rows can prove
    for made in (
        tempered(said, kind, 3.0),
        stepped(said, kind, best_steps(said, truth, kind, np.ones(1500))),
    ):
        assert made.min() >= 0
        assert np.isfinite(made).all()
        if kind != "multilabel":
            np.testing.assert_allclose(made.sum(axis=1), 1, rtol=1e-12)


# How it is chosen and measured


def test_a_row_in_several_lines_is_one_row() -> None:
    """Each row three times, a third each: the same temperature, and the same doubts."""
    said, truth = drawn("binary", 400, 1.15)
    once = found("binary", said, truth)
    rows = np.tile(np.arange(400), 3)
    thrice = calibrate(
        np.tile(said, (3, 1)), np.tile(truth, 3), TASKS["binary"], np.tile(np.arange(400) % 5, 3), rows,
        np.full(1200, 1 / 3),
    )  # fmt: skip
    assert thrice.method == once.method
    assert thrice.temperature == pytest.approx(once.temperature, rel=1e-4)
    assert thrice.loss == pytest.approx(once.loss, rel=1e-4)
    assert thrice.rows == once.rows == 400


def test_the_loss_after_is_that_of_rows_not_learned_from() -> None:
    said, truth = drawn("binary", 100, 3.0)
    parts, after = np.arange(100) % 5, np.zeros(100)
    for part in range(5):
        t = best_temperature(said[parts != part], truth[parts != part], "binary", np.ones(80))
        own = parts == part
        after[own] = cross_entropy(tempered(said[own], "binary", t), truth[own], "binary")
    ours = found("binary", said, truth)
    assert ours.loss == pytest.approx((log_loss(truth, said), after.mean()), rel=1e-9)


def test_weights_decide() -> None:
    """Rows of two kinds, too sure and not sure enough: the heavier kind gets its temperature."""
    (hot, first), (cold, second) = drawn("binary", 400, 3.0), drawn("binary", 400, 0.4, seed=1)
    said, truth = np.concatenate([hot, cold]), np.concatenate([first, second])
    heavy = np.repeat([1.0, 1e-3], 400)
    assert found("binary", said, truth, heavy).temperature > 2
    assert found("binary", said, truth, heavy[::-1].copy()).temperature < 0.6


def test_the_curve_is_that_of_scikit_learn() -> None:
    said, truth = drawn("binary", 1000)
    bins = reliability(said, truth, "binary", np.ones(1000))
    true, mean = calibration_curve(truth, said[:, 1], n_bins=10, strategy="quantile")
    assert [b.said for b in bins] == pytest.approx(mean.tolist(), abs=0.01)
    assert [b.true for b in bins] == pytest.approx(true.tolist(), abs=0.02)
    assert sum(b.rows for b in bins) == 1000
    wilson = stats.binomtest(round(bins[3].true * bins[3].rows), bins[3].rows).proportion_ci(method="wilson")
    assert (bins[3].low, bins[3].high) == pytest.approx((wilson.low, wilson.high), rel=1e-6)


def test_equal_claims_are_one_group() -> None:
    said = np.tile([[0.3, 0.7]], (100, 1))
    truth = (np.arange(100) < 70).astype(int)
    assert expected_error(said, truth, "binary", np.ones(100)) == pytest.approx(0, abs=1e-12)
    assert len(reliability(said, truth, "binary", np.ones(100))) == 1


def test_of_several_classes_the_likeliest_is_the_claim() -> None:
    said = np.tile([[0.5, 0.3, 0.2]], (40, 1))
    bins = reliability(said, np.arange(40) % 4 % 3, "multiclass", np.ones(40))
    assert [(b.said, b.true) for b in bins] == [(0.5, 0.5)]


def test_the_cross_entropy_is_that_of_torch() -> None:
    said, truth = drawn("multilabel", 20)
    expected = torch.nn.functional.binary_cross_entropy(
        torch.tensor(np.clip(said, SURE, 1 - SURE)), torch.tensor(truth), reduction="none"
    )
    np.testing.assert_allclose(cross_entropy(said, truth, "multilabel"), expected.mean(1), rtol=1e-9)
    soft = np.array([[0.5, 0.25, 0.25]])
    assert cross_entropy(soft, soft, "multiclass")[0] == pytest.approx(stats.entropy(soft[0]))


def test_it_is_plain_numbers() -> None:
    ours = found("multiclass", *drawn("multiclass", 1200, 2.0))
    assert as_record(Calibration, asdict(ours)) == ours
    step = Steps((0.0, 1.0), (0.1, 0.9))
    assert as_record(Steps, asdict(step)) == step


@pytest.mark.parametrize(
    ("temperature", "words"),
    [(2.5, "because they were too sure"), (0.4, "because they were not sure enough")],
)
def test_it_says_what_was_done(temperature: float, words: str) -> None:
    ours = found("binary", *drawn("binary", 900, temperature))
    assert words in ours.sentence
    assert f"{ours.temperature:.2f}" in ours.sentence
    assert f"falls from {ours.loss[0]:.3f} to {ours.loss[1]:.3f}" in ours.sentence
    assert "left as they are" in found("binary", *drawn("binary", 60)).sentence


def test_a_calibration_is_printed_in_a_few_words() -> None:
    ours = found("binary", *drawn("binary", 3000, 2.0))
    assert len(ours.before) > 1
    assert str(ours) == ours.sentence
    assert repr(ours).startswith("Calibration(method=")
    assert len(repr(ours)) < 250


def test_the_sentence_names_no_error_that_grew() -> None:
    ours = Calibration("temperature", 500, (0.4, 0.39), (0.010, 0.015), (), (), 0.8)
    assert ours.sentence.endswith("the cross-entropy falls from 0.400 to 0.390.")
    better = replace(ours, error=(0.015, 0.010))
    assert better.sentence.endswith("to 0.390, and on average they are off by 1.0 % instead of 1.5 %.")
    close = replace(ours, loss=(0.39004, 0.39001))
    assert "from 0.39004 to 0.39001" in close.sentence


def test_the_limits_of_a_row_in_several_lines_are_those_of_one() -> None:
    said, truth = drawn("binary", 400)
    once = reliability(said, truth, "binary", np.ones(400))
    thrice = reliability(
        np.tile(said, (3, 1)), np.tile(truth, 3), "binary", np.full(1200, 1 / 3), np.tile(np.arange(400), 3)
    )
    for one, other in zip(once, thrice, strict=True):
        assert astuple(other) == pytest.approx(astuple(one), rel=1e-9)


def test_labels_of_a_row_are_claims_of_their_own() -> None:
    said, truth = drawn("multilabel", 300)
    rows = np.arange(300)
    assert sum(b.rows for b in reliability(said, truth, "multilabel", np.ones(300), rows)) == 600
    twice = reliability(
        np.tile(said, (2, 1)), np.tile(truth, (2, 1)), "multilabel", np.full(600, 0.5), np.tile(rows, 2)
    )
    assert sum(b.rows for b in twice) == 600


def test_the_expected_error_weighs_as_the_bins_do() -> None:
    """A light group that is right and a heavy one that is 0.4 off."""
    said = np.repeat([[0.5, 0.5], [0.1, 0.9]], [60, 40], axis=0)
    truth = np.concatenate([np.tile([0, 1], 30), np.tile([0, 1], 20)])
    weights = np.repeat([1.0, 6.0], [60, 40])
    assert expected_error(said, truth, "binary", weights) == pytest.approx(0.4 * 240 / 300)


@pytest.mark.parametrize("folds", [5, 20, 21, 60])
def test_rows_of_one_fold_stand_on_one_side(folds: int) -> None:
    """Rows of a group are in one fold; none may be learned from where others are scored."""
    fold = np.random.default_rng(0).permutation(np.arange(240) % folds)
    scored = np.zeros(240, int)
    for learnt, now in _parts(fold, np.arange(240)):
        assert not {*fold[learnt]} & {*fold[now]}
        scored += now
    assert (scored == 1).all()
