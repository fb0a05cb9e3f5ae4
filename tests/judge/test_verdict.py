"""The verdict: places, ties, names and the headline."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldwise.data.folds import Folds, make_folds
from foldwise.judge.metrics import METRICS
from foldwise.judge.selection import chosen_again, corrected_winner
from foldwise.judge.verdict import (
    Headline,
    TrialRecord,
    TrialResult,
    decimals,
    judge,
    row_losses,
    trial_names,
)
from foldwise.settings import Settings

TRIALS = [
    Settings(network="constant", epochs=0),
    Settings(network="linear"),
    Settings(width=32),
    Settings(width=64, learning_rate=0.1),
]


def record(losses: np.ndarray, folds: Folds, epoch: int = 3, status: str = "finished") -> TrialRecord:
    """Average losses per row by fold."""
    return TrialRecord(losses, np.array([losses[v].mean() for v in folds.validation]), epoch, status)


def verdict(losses: np.ndarray, folds: Folds, metric: str = "rmse") -> tuple[list[TrialResult], Headline]:
    """Judge trials by their losses per row."""
    return judge(
        TRIALS[: len(losses)], [record(own, folds) for own in losses], folds, METRICS[metric], "price"
    )


def drawn(rows: int = 40) -> np.ndarray:
    """Draw losses of four trials, of which the third is the best."""
    random = np.random.default_rng(0)
    return random.random((4, rows)) * 0.1 + np.array([[9.0], [4.0], [1.0], [1.01]])


def test_places_follow_the_mean_over_rows() -> None:
    losses = drawn()
    results, _ = verdict(losses, make_folds(40, 4))
    assert [r.number for r in results] == [3, 4, 2, 1]
    assert [r.place for r in results] == [1, 2, 3, 4]
    for r in results:
        own = losses[r.number - 1]
        assert r.score == pytest.approx(math.sqrt(own.mean()))
        assert r.low < r.score < r.high
        assert len(r.fold_scores) == 4


def test_fold_scores_and_their_deviation() -> None:
    folds, losses = make_folds(40, 4), drawn()
    results, _ = verdict(losses, folds)
    expected = [math.sqrt(losses[2][v].mean()) for v in folds.validation]
    assert results[0].fold_scores == pytest.approx(tuple(expected))
    assert results[0].deviation == pytest.approx(np.std(expected, ddof=1))


def test_a_difference_below_the_noise_is_a_tie() -> None:
    results, _ = verdict(drawn(), make_folds(40, 4))
    assert [r.tied for r in results] == [False, True, False, False]


def test_accuracy_is_better_when_it_is_higher() -> None:
    random = np.random.default_rng(1)
    losses = (random.random((2, 200)) < [[0.5], [0.1]]).astype(float)
    results, headline = verdict(losses, make_folds(200, 4), "accuracy")
    assert [r.number for r in results] == [2, 1]
    assert results[0].score == pytest.approx(1 - losses[1].mean())
    assert results[0].low < results[0].score < results[0].high
    assert headline.low < headline.value < headline.high
    assert headline.value == pytest.approx(0.9, abs=0.05)


def test_the_headline_names_the_baselines() -> None:
    losses = drawn()
    _, headline = verdict(losses, make_folds(40, 4))
    linear, constant = (math.sqrt(losses[i].mean()) for i in (1, 0))
    d = decimals(headline.value, headline.low, headline.high)
    assert headline.sentence == (
        f"price: RMSE {headline.value:.{d}f} (95 % {headline.low:.{d}f}–{headline.high:.{d}f}), "
        f"linear model {linear:.{d}f}, constant {constant:.{d}f}"
    )
    assert headline.how.startswith("The best of 4 trials by 4-fold cross-validation, all rows scored by")
    assert "BBC-CV" in headline.how


def test_the_linear_model_beside_the_headline_is_corrected_as_the_winner_is() -> None:
    """Trials that are equally good: the best of 40 looks better than the linear ones, and nobody may say that it is."""
    folds, random = make_folds(100, 4), np.random.default_rng(3)
    losses = random.normal(1.0, 0.3, (42, 100)) + random.normal(0, 0.3, 100)
    trials = [
        *[Settings(network="linear", learning_rate=r) for r in (0.01, 0.1)],
        *[Settings(width=w) for w in range(1, 41)],
    ]
    records = [record(own, folds) for own in losses]
    results, headline = judge(trials, records, folds, METRICS["mae"], "price")
    assert results[0].settings.network == "mlp"
    alone = corrected_winner(losses, np.arange(42) < 2).value
    raw = min(r.score for r in results if r.settings.network == "linear")
    assert alone > raw
    d = decimals(headline.value, headline.low, headline.high)
    assert headline.sentence.endswith(f", linear model {alone:.{d}f} (no clear difference)")
    assert "corrected alike" in headline.how


def test_a_difference_from_the_linear_model_is_clear_only_if_folds_and_rows_say_so() -> None:
    folds, losses = make_folds(40, 4), drawn()
    _, clear = verdict(losses, folds)
    assert "no clear difference" not in clear.sentence
    losses[2:] += np.random.default_rng(1).random(40)
    losses[1] = losses[2] + np.where(folds.validation[0], 0.4, 0.0)  # worse in one fold only
    results, headline = verdict(losses, folds)
    assert next(r for r in results if r.number == 2).tied
    assert "(no clear difference)" in headline.sentence
    losses[1] = losses[2] - 0.5
    assert " by the linear model, constant" in verdict(losses, folds)[1].sentence


def test_choosing_again_is_paired_and_chooses_among_its_own() -> None:
    losses = np.random.default_rng(4).random((3, 30))
    both = np.array([True, False, True])
    every, some, one = chosen_again(
        losses, [np.ones(3, bool), both, np.array([False, True, False])], 40, seed=5
    )
    drawn_rows = np.random.default_rng(5)
    for i in range(40):
        counts = np.bincount(drawn_rows.integers(0, 30, 30), minlength=30)
        inside, outside = np.average(losses, axis=1, weights=counts), losses[:, counts == 0].mean(axis=1)
        assert every[i] == pytest.approx(outside[inside.argmin()])
        assert some[i] == pytest.approx(outside[0 if inside[0] < inside[2] else 2])
        assert one[i] == pytest.approx(outside[1])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_trials_that_failed_come_last_and_spoil_nothing(bad: float) -> None:
    folds, losses = make_folds(40, 4), drawn()
    good, _ = verdict(losses[[0, 1, 3]], folds)
    losses[2, 5 if math.isnan(bad) else slice(None)] = bad
    results, headline = verdict(losses, folds)
    assert [r.number for r in results] == [4, 2, 1, 3]
    assert math.isnan(results[-1].score)
    assert not results[-1].tied
    assert [r.score for r in results[:3]] == [r.score for r in good]
    assert math.isfinite(headline.value)
    assert "of 3 trials" in headline.how


def test_rows_that_were_never_validated_do_not_count() -> None:
    folds = make_folds(40, holdout=0.25)
    losses = np.where(folds.validation[0], drawn(), np.nan)
    results, headline = verdict(losses, folds)
    assert results[0].score == pytest.approx(math.sqrt(np.nanmean(losses[2])))
    assert math.isfinite(headline.value)
    assert results[1].tied  # judged by rows, as there is but one fold
    assert not results[2].tied
    assert math.isnan(results[0].deviation)


@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 2), st.integers(0, 9))
def test_losses_of_rows_are_means_over_seeds_and_repeats(k: int, seeds: int, repeats: int, draw: int) -> None:
    folds, random = make_folds(13, k, repeats=repeats), np.random.default_rng(draw)
    table = random.random((seeds, len(folds), 13))
    losses = {
        (seed, fold): table[seed, fold][folds.validation[fold]]
        for seed in range(seeds)
        for fold in range(len(folds))
    }
    per_row, per_fold = row_losses(13, losses, folds.validation_rows)
    for row in range(13):
        assert per_row[row] == pytest.approx(table[:, folds.validation[:, row], row].mean())
    for fold in range(len(folds)):
        assert per_fold[fold] == pytest.approx(table[:, fold, folds.validation[fold]].mean())


def test_a_row_of_no_fold_has_no_loss() -> None:
    per_row, _ = row_losses(3, {(0, 0): np.array([2.0])}, [np.array([1])])
    assert np.isnan(per_row).tolist() == [True, False, True]


def test_names_say_what_differs() -> None:
    assert trial_names(TRIALS) == ["constant", "linear", "mlp 32×2, rate 0.001", "mlp 64×2, rate 0.1"]
    assert trial_names([Settings(width=8)]) == ["mlp 8×2"]
    own = [Settings(network="custom", options=(("flavor", f),)) for f in ("sour", "sweet")]
    assert trial_names(own) == ["custom, flavor sour", "custom, flavor sweet"]


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.1283, 0.121, 0.136, 3),
        (52314.2, 50100.0, 54700.0, 0),
        (0.5, math.nan, math.nan, 3),
        (0.0, math.nan, math.nan, 3),
        (1e-9, 0.9e-9, 1.1e-9, 6),
        (math.nan, math.nan, math.nan, 3),
    ],
)
def test_decimals_suit_the_width(value: float, low: float, high: float, expected: int) -> None:
    assert decimals(value, low, high) == expected


# Weights


def fold_means(losses: np.ndarray, folds: Folds, weights: np.ndarray | None) -> TrialRecord:
    """Average losses per row by fold, as a job does."""
    rows = folds.validation_rows
    by_fold = {(0, fold): losses[own] for fold, own in enumerate(rows)}
    return TrialRecord(*row_losses(len(losses), by_fold, rows, weights), 3, "finished")


@pytest.mark.parametrize("holdout", [None, 0.25])
def test_a_weight_of_2_scores_as_a_row_twice(holdout: float | None) -> None:
    losses, folds = drawn(), make_folds(40, 4 if holdout is None else 5, holdout=holdout)
    weights = np.random.default_rng(2).integers(1, 4, 40)
    twice = np.repeat(np.arange(40), weights)
    repeated = Folds(folds.train[:, twice], folds.validation[:, twice], folds.how)
    one, first = judge(
        TRIALS, [fold_means(own, folds, weights * 0.5) for own in losses], folds, METRICS["rmse"], "price",
        weights=weights * 0.5,
    )  # fmt: skip
    other, second = judge(
        TRIALS, [fold_means(own[twice], repeated, None) for own in losses], repeated, METRICS["rmse"], "price"
    )
    for weighted, again in zip(one, other, strict=True):
        assert weighted.number == again.number
        assert weighted.score == pytest.approx(again.score, rel=1e-12)
        assert weighted.fold_scores == pytest.approx(again.fold_scores, rel=1e-12)
        assert weighted.tied == again.tied
        assert weighted.low < weighted.score < weighted.high
    assert first.value == pytest.approx(second.value, rel=0.02)


def test_weights_can_make_another_trial_the_best() -> None:
    losses, folds = np.stack([np.tile([1.0, 2.0], 10), np.tile([2.0, 1.5], 10)]), make_folds(20, 4)

    def winner(weights: np.ndarray | None) -> int:
        records = [fold_means(own, folds, weights) for own in losses]
        return judge(TRIALS[:2], records, folds, METRICS["mae"], "price", weights=weights)[0][0].number

    assert winner(None) == winner(np.full(20, 0.3)) == 1
    assert winner(np.tile([0.1, 1.0], 10)) == 2


def test_a_failed_trial_spoils_no_weighted_score() -> None:
    losses, folds, weights = drawn(), make_folds(40, 4), np.linspace(0.1, 3, 40)
    losses[2] = math.inf
    records = [record(own, folds) for own in losses]
    results, headline = judge(TRIALS, records, folds, METRICS["rmse"], "price", weights=weights)
    assert [r.number for r in results] == [4, 2, 1, 3]
    assert math.isnan(results[-1].score)
    assert math.isfinite(headline.value)


# What was luck, and which trial to take


def sized(losses: np.ndarray, folds: Folds, parameters: int, epoch: int = 3) -> TrialRecord:
    curve = np.stack([[losses[v].mean() for v in folds.validation]] * 4)
    return replace(record(losses, folds, epoch), parameters=parameters, curve=curve, kept=epoch)


def test_the_simplest_of_the_tied_is_recommended() -> None:
    folds, losses = make_folds(40, 4), drawn()
    sizes = (1, 5, 900, 100)
    records = [sized(own, folds, size) for own, size in zip(losses, sizes, strict=True)]
    results, headline = judge(TRIALS, records, folds, METRICS["rmse"], "price")
    assert [r.number for r in results if r.recommended] == [4]  # tied with the third, and smaller
    assert "Of it and the 1 tied with it, trial 4" in headline.how
    assert "100 parameters) is the simplest" in headline.how
    records[3] = sized(losses[3], folds, 1000)
    results, headline = judge(TRIALS, records, folds, METRICS["rmse"], "price")
    assert [r.number for r in results if r.recommended] == [3]
    assert "none is simpler" in headline.how


def test_no_twin_of_the_same_size_is_recommended() -> None:
    folds, losses = make_folds(40, 4), drawn()
    losses[1] = losses[3] + 0.001
    for sizes, expected in (((1, 900, 900, 900), 3), ((1, 100, 900, 100), 4)):
        records = [
            sized(own, folds, size, epoch=3 - place % 3)
            for place, (own, size) in enumerate(zip(losses, sizes, strict=True))
        ]
        results, _ = judge(TRIALS, records, folds, METRICS["rmse"], "price")
        assert [r.number for r in results if r.tied] == [4, 2]
        assert [r.number for r in results if r.recommended] == [expected]  # the best of the smallest


def test_looks_are_trials_times_epochs() -> None:
    folds, losses = make_folds(40, 4), drawn()
    records = [sized(own, folds, 1) for own in losses]
    _, headline = judge(TRIALS, records, folds, METRICS["rmse"], "price")
    assert headline.luck is not None
    assert (headline.luck.looks, headline.luck.bound) == (16, None)
    assert headline.luck.of_epochs == 0  # all epochs are alike
    assert headline.luck.gains


def test_in_noise_no_gain_over_the_constant_is_claimed() -> None:
    folds, random, claims, kept = make_folds(80, 4), np.random.default_rng(0), [], []
    for _ in range(60):
        losses = random.integers(0, 2, (30, 80)).astype(float)
        trials = [TRIALS[0], *[Settings(width=w) for w in range(1, 30)]]
        _, headline = judge(trials, [record(own, folds) for own in losses], folds, METRICS["accuracy"], "y")
        assert headline.luck is not None
        claims.append(headline.luck.gains)
        kept.append(headline.luck.raw - headline.value)
    assert np.mean(claims) <= 0.05
    assert np.mean(kept) > 0.08


def test_a_constant_winner_is_no_gain() -> None:
    folds, losses = make_folds(40, 4), drawn()
    losses[0] = 0.1
    _, headline = judge(TRIALS, [record(own, folds) for own in losses], folds, METRICS["rmse"], "price")
    assert headline.luck is not None
    assert headline.luck.gains is False


def test_an_accuracy_and_its_interval_are_shares() -> None:
    """Nearly all rows are wrong, and the epoch that the other folds like is always worse on a fold."""
    losses, folds = (np.arange(12) > 0)[None].astype(float), make_folds(12, 3)
    curve = np.where(np.eye(3, dtype=bool), 1.0, 0.5)
    _, headline = judge(
        TRIALS[:1], [replace(record(losses[0], folds), curve=curve)], folds, METRICS["accuracy"], "y"
    )
    assert headline.luck is not None
    assert headline.luck.of_epochs > 0.1
    assert 0 <= headline.low <= headline.value <= headline.high <= 1


def test_the_bound_of_looks_is_that_of_the_smallest_fold() -> None:
    losses = (np.random.default_rng(0).random((2, 500)) < 0.3).astype(float)
    fold = np.repeat([1, 2, 3], [300, 150, 50])
    folds = make_folds(500, numbers=fold)
    _, headline = verdict(losses, folds, "accuracy")
    luck = headline.luck
    assert luck is not None
    assert luck.rows == 50
    assert luck.bound == pytest.approx(math.sqrt(math.log(2 * 2 / 0.05) / 100))
    assert "with 50 rows in the smallest fold, none is off by more than 0.21" in luck.sentence(
        METRICS["accuracy"], headline.low, headline.high
    )
    weights = np.where(fold == 3, 1.0, np.where(np.arange(500) % 300 == 0, 1.0, 1e-9))
    _, heavy = judge(
        TRIALS[:2], [record(own, folds) for own in losses], folds, METRICS["accuracy"], "y", weights=weights
    )
    assert heavy.luck is not None
    assert heavy.luck.rows == pytest.approx(1, rel=1e-3)  # all the weight of a fold lies on one row
    assert heavy.luck.bound is None


def test_no_bound_is_given_where_it_says_nothing() -> None:
    losses = (np.random.default_rng(0).random((2, 30)) < 0.3).astype(float)
    luck = verdict(losses, make_folds(30, "loo"), "accuracy")[1].luck
    assert luck is not None
    assert (luck.rows, luck.bound) == (1, None)
