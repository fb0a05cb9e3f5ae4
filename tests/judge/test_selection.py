"""The winner's score without its luck, intervals, and tests between trials."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foldwise.judge.selection import (
    bootstrap_intervals,
    corrected_interval,
    corrected_p_value,
    corrected_winner,
    epoch_optimism,
    inflation,
    look_bound,
)

ALL = np.ones(20, dtype=bool)


def noise(seed: int, trials: int = 20, rows: int = 80) -> np.ndarray:
    """Draw losses of trials that are all equally good: right with probability one half."""
    return (np.random.default_rng(seed).random((trials, rows)) < 0.5).astype(float)


def nearer(scores: list[float], rows: int) -> tuple[float, float]:
    """Give the interval by hand: of the rows, a share is outside, and those scores spread more than all rows' would."""
    outside, mean = (1 - 1 / rows) ** rows, np.mean(scores)
    low, high = np.quantile(scores, [0.025, 0.975])
    scale = math.sqrt(outside / (1 - outside))
    return float(mean + scale * (low - mean)), float(mean + scale * (high - mean))


# BBC-CV


def test_the_corrected_winner_of_pure_noise_is_not_optimistic_and_the_raw_one_is() -> None:
    studies = 60
    raw = np.array([noise(s).mean(axis=1).min() for s in range(studies)])
    corrected = np.array([corrected_winner(noise(s), ALL, resamples=100).value for s in range(studies)])
    error = corrected.std(ddof=1) / math.sqrt(studies)
    assert abs(corrected.mean() - 0.5) < 0.01 + 3 * error
    assert raw.mean() < 0.42  # the best of 20 trials on 80 rows looks 8 percentage points better than it is


def test_the_intervals_of_the_corrected_winner_cover() -> None:
    found = [corrected_winner(noise(s), ALL, resamples=200) for s in range(60)]
    covered = [i.low <= 0.5 <= i.high for i in found]
    assert np.mean(covered) >= 0.9


def test_a_winner_that_is_better_beyond_doubt_is_not_punished() -> None:
    losses = np.stack([np.full(50, 1.0), np.random.default_rng(0).normal(0.2, 0.1, 50), np.full(50, 2.0)])
    interval = corrected_winner(losses, np.ones(3, bool))
    assert interval.value == pytest.approx(losses[1].mean(), abs=0.01)
    assert interval.low < interval.value < interval.high


def test_a_single_trial_was_not_chosen() -> None:
    losses = np.random.default_rng(1).normal(1, 0.3, (1, 200))
    assert corrected_winner(losses, np.ones(1, bool)).value == pytest.approx(losses.mean(), abs=0.01)


def test_trials_that_are_no_candidates_cannot_win() -> None:
    losses = np.stack([np.zeros(30), np.ones(30)])
    assert corrected_winner(losses, np.array([False, True])).value == 1


def test_the_correction_by_hand() -> None:
    # resample by resample: the trial that is best on the rows drawn, scored on those not drawn
    losses = np.random.default_rng(2).random((4, 12))
    random = np.random.default_rng(7)
    scores = []
    for _ in range(50):
        drawn = random.integers(0, 12, 12)
        outside = np.setdiff1d(np.arange(12), drawn)
        best = int(np.argmin(losses[:, drawn].sum(axis=1)))
        scores.append(losses[best, outside].mean())
    ours = corrected_winner(losses, np.ones(4, bool), resamples=50, seed=7)
    assert ours.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert (ours.low, ours.high) == pytest.approx(nearer(scores, 12), rel=1e-12)


@pytest.mark.parametrize("rows", [2, 3])
def test_few_rows_are_enough(rows: int) -> None:
    interval = corrected_winner(np.random.default_rng(0).random((3, rows)), np.ones(3, bool))
    assert math.isfinite(interval.value)


def test_the_interval_of_a_single_trial_is_that_of_its_mean() -> None:
    losses = np.random.default_rng(3).normal(1, 0.5, (1, 400))
    ours = corrected_winner(losses, np.ones(1, bool), resamples=4000)
    half = 1.96 * losses.std() / math.sqrt(400)
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=0.06)


def test_losses_below_zero_have_an_upper_end_below_zero() -> None:
    """Differences from another trial are no losses; nothing may hold their interval at 0."""
    losses = np.random.default_rng(3).normal(-1, 0.1, (2, 50))
    assert corrected_winner(losses, np.ones(2, bool)).high < -0.9


def test_a_winner_without_error_may_have_errors_beside_trials_that_have() -> None:
    """Whatever is drawn, the perfect trial wins; its limit is that of no error in 60 rows (Clopper & Pearson)."""
    losses = np.stack([np.zeros(60), np.ones(60)])
    limit = stats.binomtest(0, 60).proportion_ci(method="exact").high
    found = corrected_winner(losses, np.ones(2, bool))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(limit)
    assert [i.high for i in bootstrap_intervals(losses)] == pytest.approx([limit, 1])


# Epochs


def curves_of_noise(seed: int, trials: int = 10, epochs: int = 20) -> np.ndarray:
    """Draw mean losses of epochs that are all equally good, on five folds."""
    return np.random.default_rng(seed).normal(0.5, 0.1, (trials, epochs, 5))


def test_the_luck_of_epochs_is_what_choosing_them_brings() -> None:
    """In pure noise the kept epochs look better than they are; taking the optimism back, their choice is honest."""
    after, before = [], []
    for seed in range(200):
        curves = curves_of_noise(seed)
        kept = curves.mean(axis=2).argmin(axis=1)
        chosen = curves[np.arange(10), kept]
        # the trial is chosen without the fold, the epochs with it: what is left is the luck of epochs
        honest = [chosen[np.delete(chosen, f, axis=1).mean(axis=1).argmin(), f] for f in range(5)]
        before.append(np.mean(honest))
        after.append(np.mean(honest) + epoch_optimism(list(curves), kept.tolist(), np.ones(5)))
    assert np.mean(before) < 0.49
    assert abs(np.mean(after) - 0.5) < 0.015


def test_one_epoch_was_not_chosen() -> None:
    curves = curves_of_noise(0, epochs=1)
    assert epoch_optimism(list(curves), [0] * 10, np.ones(5)) == 0


def test_folds_of_the_same_rows_do_not_choose_for_each_other() -> None:
    once = curves_of_noise(1)
    kept = once.mean(axis=2).argmin(axis=1).tolist()
    twice = np.concatenate([once, once], axis=2)  # repeats that say the same: no new evidence
    together = np.tile(np.eye(5, dtype=bool), (2, 2))
    ours = epoch_optimism(list(twice), kept, np.ones(10) / 2, together)
    assert ours == pytest.approx(epoch_optimism(list(once), kept, np.ones(5)), rel=1e-9)


def test_of_one_hold_out_nothing_is_known() -> None:
    assert epoch_optimism([np.array([[0.1], [0.2]])], [0], np.ones(1)) == 0


def test_epochs_that_are_not_finite_are_no_candidates() -> None:
    curves = curves_of_noise(2)
    kept = curves.mean(axis=2).argmin(axis=1).tolist()
    worse = [
        np.concatenate([curve, np.full((1, 5), bad)])
        for curve, bad in zip(curves, [np.nan, np.inf] * 5, strict=True)
    ]
    assert epoch_optimism(worse, kept, np.ones(5)) == epoch_optimism(list(curves), kept, np.ones(5))


def test_no_look_is_off_by_more_than_the_bound() -> None:
    random = np.random.default_rng(4)
    off = np.abs(random.binomial(200, 0.5, size=(2000, 50)) / 200 - 0.5).max(axis=1)
    assert (off <= look_bound(50, 200)).mean() >= 0.95
    assert look_bound(50, 200) == pytest.approx(math.sqrt(math.log(2 * 50 / 0.05) / 400))


# Intervals


def test_bootstrap_intervals_are_nearly_those_of_the_mean() -> None:
    losses = np.random.default_rng(3).normal([[1.0], [5.0]], [[0.5], [2.0]], (2, 400))
    for interval, own in zip(bootstrap_intervals(losses), losses, strict=True):
        half = 1.96 * own.std() / math.sqrt(400)
        assert interval.value == pytest.approx(own.mean(), rel=1e-12)
        assert (interval.low, interval.high) == pytest.approx(
            (own.mean() - half, own.mean() + half), abs=half / 8
        )


def test_equal_losses_have_no_width() -> None:
    (interval,) = bootstrap_intervals(np.full((1, 9), 0.25))
    assert (interval.low, interval.value, interval.high) == (0.25, 0.25, 0.25)


def test_intervals_do_not_depend_on_the_other_trials() -> None:
    losses = np.random.default_rng(3).random((3, 50))
    alone, together = bootstrap_intervals(losses[1:2])[0], bootstrap_intervals(losses)[1]
    assert vars(alone) == pytest.approx(vars(together), rel=1e-12)


# Nadeau and Bengio


def test_the_corrected_test_by_hand() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.5, 2.1, 3.9, 4.0, 5.5])
    # d = −0.5, −0.1, −0.9, 0, −0.5: mean −0.4, sample variance 0.13; 1/5 + 20/80 = 0.45
    t = 0.4 / math.sqrt(0.45 * 0.13)
    assert corrected_p_value(first, second, 80, 20) == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-12)


def test_without_overlap_it_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(4).random((2, 12))
    assert corrected_p_value(first, second, 1, 0) == pytest.approx(
        stats.ttest_rel(first, second).pvalue, rel=1e-12
    )


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=9), st.floats(0.01, 5))
def test_the_test_is_symmetric_and_a_probability(pairs: list[tuple[float, float]], share: float) -> None:
    first, second = np.array(pairs).T
    p = corrected_p_value(first, second, 1, share)
    assert 0 <= p <= 1
    assert p == corrected_p_value(second, first, 1, share)


def test_the_correction_makes_the_test_more_careful() -> None:
    first, second = np.random.default_rng(5).random((2, 5))
    assert corrected_p_value(first, second, 4, 1) > corrected_p_value(first, second, 1, 0)


def test_no_variance_is_certainty() -> None:
    assert corrected_p_value(np.ones(3), np.ones(3), 2, 1) == 1
    assert corrected_p_value(np.ones(3), np.zeros(3), 2, 1) == 0
    assert corrected_p_value(np.ones(1), np.zeros(1), 2, 1) == 1  # one fold tells nothing


def test_between_equal_trials_it_rarely_sees_a_difference() -> None:
    # a simulation of cross-validation: folds share training rows, so their differences are correlated
    random = np.random.default_rng(6)
    shared, own = random.normal(size=(400, 1)), random.normal(size=(400, 5))
    correlation = 0.2  # the share of the rows that a fold validates, as Nadeau and Bengio assume
    differences = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    seen = np.mean([corrected_p_value(d, np.zeros(5), 4, 1) < 0.05 for d in differences])
    naive = np.mean([corrected_p_value(d, np.zeros(5), 1, 0) < 0.05 for d in differences])
    assert seen < 0.08
    assert naive > 0.1


# Weights

WEIGHTS = np.array([3.0, 1, 1, 2, 1, 2, 1, 1, 4, 1, 2, 1])


def test_a_weight_of_2_is_a_row_twice_in_every_mean() -> None:
    losses = np.random.default_rng(8).random((3, 12))
    twice = np.repeat(losses, WEIGHTS.astype(int), axis=1)
    for weighted, repeated in zip(
        bootstrap_intervals(losses, weights=WEIGHTS), bootstrap_intervals(twice), strict=True
    ):
        assert weighted.value == pytest.approx(repeated.value, rel=1e-12)
        assert weighted.low < weighted.value < weighted.high
        # a row that counts twice is one draw and not two, which makes the mean less certain
        assert weighted.high - weighted.low > repeated.high - repeated.low


def test_the_weighted_bootstrap_by_hand() -> None:
    losses = np.random.default_rng(8).random((1, 12))
    random = np.random.default_rng(5)
    drawn = (random.integers(0, 12, 12) for _ in range(40))
    means = [np.average(losses[0, rows], weights=WEIGHTS[rows]) for rows in drawn]
    (ours,) = bootstrap_intervals(losses, resamples=40, seed=5, weights=WEIGHTS)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), rel=1e-12)


def test_the_weighted_correction_by_hand() -> None:
    losses = np.random.default_rng(2).random((4, 12))
    random = np.random.default_rng(7)
    scores = []
    for _ in range(50):
        drawn = random.integers(0, 12, 12)
        outside = np.setdiff1d(np.arange(12), drawn)
        best = int(np.argmin((losses * WEIGHTS)[:, drawn].sum(axis=1)))
        scores.append(np.average(losses[best, outside], weights=WEIGHTS[outside]))
    ours = corrected_winner(losses, np.ones(4, bool), resamples=50, seed=7, weights=WEIGHTS)
    assert ours.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert (ours.low, ours.high) == pytest.approx(nearer(scores, 12), rel=1e-12)


@pytest.mark.parametrize("weight", [1.0, 0.01, 3.0])
def test_weights_that_are_all_alike_are_none(weight: float) -> None:
    losses, same = np.random.default_rng(8).random((3, 12)), np.full(12, weight)
    for weighted, plain in zip(
        bootstrap_intervals(losses, 100, weights=same), bootstrap_intervals(losses, 100), strict=True
    ):
        assert vars(weighted) == pytest.approx(vars(plain), rel=1e-12)
    weighted = corrected_winner(losses, np.ones(3, bool), 100, weights=same)
    assert vars(weighted) == pytest.approx(vars(corrected_winner(losses, np.ones(3, bool), 100)), rel=1e-12)
    p = corrected_p_value(losses[0], losses[1], 1, 0, same)
    assert p == pytest.approx(corrected_p_value(losses[0], losses[1], 1, 0), rel=1e-9)


def test_the_intervals_of_weighted_means_cover() -> None:
    random = np.random.default_rng(9)
    covered = []
    for _ in range(200):
        weights = random.exponential(size=60) + 0.05
        (interval,) = bootstrap_intervals(random.normal(1, 1, (1, 60)), 200, weights=weights)
        covered.append(interval.low <= 1 <= interval.high)
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("loss", [0.0, 1.0, 0.1])
def test_equal_losses_have_no_weighted_width(loss: float) -> None:
    weights = np.random.default_rng(9).random(30)
    (interval,) = bootstrap_intervals(np.full((1, 30), loss), weights=weights)
    assert interval.value == pytest.approx(loss, rel=1e-15)
    assert interval.low == loss
    assert loss == 0 or interval.high == loss
    assert corrected_winner(np.ones((1, 30)), np.ones(1, bool), weights=weights).value == 1


def test_without_an_error_few_heavy_rows_prove_little() -> None:
    right = np.zeros((1, 20))
    (equal,) = bootstrap_intervals(right)
    (heavy,) = bootstrap_intervals(right, weights=np.array([100.0] * 2 + [0.001] * 18))
    assert equal.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert heavy.high == pytest.approx(1 - 0.025 ** (1 / 2), rel=1e-3)


def test_the_weighted_test_by_hand() -> None:
    first, second, weights = np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0])
    # d̄ = 11/4; Σ v²(d − d̄)² = (7/4)²/16 + (3/4)²/16 + (5/4)²/4 = 158/256; times J/(J−1) = 3/2
    t = 11 / 4 / math.sqrt(1.5 * 158 / 256)
    assert corrected_p_value(first, second, 1, 0, weights) == pytest.approx(2 * stats.t.sf(t, 2), rel=1e-12)


def test_under_weights_equal_trials_rarely_seem_to_differ() -> None:
    random = np.random.default_rng(10)
    weights = random.exponential(size=40) + 0.05
    differences = random.normal(size=(1000, 40))
    found = np.mean([corrected_p_value(d, np.zeros(40), 1, 0, weights) < 0.05 for d in differences])
    assert 0.02 < found < 0.08


def test_the_interval_of_a_mean_over_folds_is_where_the_corrected_test_turns() -> None:
    random = np.random.default_rng(8)
    for weights in (None, random.uniform(1, 2, 6)):
        losses = random.normal(size=6)
        found = corrected_interval(losses, 50, 10, weights)
        for end in (found.low, found.high):
            p = corrected_p_value(losses, np.full(6, end), 50, 10, weights)
            assert p == pytest.approx(0.05, rel=1e-9)
    alone = corrected_interval(np.array([2.0]), 50, 10)
    assert (alone.low, alone.value, alone.high) == (2, 2, 2)


def test_intervals_of_repeated_cross_validation_cover_where_independent_ones_do_not() -> None:
    """Ten repeats say little more than one: rows are predicted by the mean of the others, with a loss of 1 + 1/n."""
    random, rows, k, repeats = np.random.default_rng(9), 50, 5, 10
    hits = {10: 0, 0: 0}
    for _ in range(300):
        y = np.stack(
            [drawn := random.normal(size=rows), *(random.permutation(drawn) for _ in range(repeats - 1))]
        )
        y = y.reshape(repeats * k, rows // k)
        means = (drawn.sum() - y.sum(axis=1)) / (rows - rows // k)
        losses = np.square(y - means[:, None]).mean(axis=1)
        for validation in hits:
            found = corrected_interval(losses, 40, validation)
            hits[validation] += found.low <= 1 + 1 / 40 <= found.high
    assert hits[10] / 300 > 0.9  # squares are skewed, which Student's t does not know
    assert hits[0] / 300 < 0.7


def test_inflation_makes_a_bootstrap_of_folds_as_wide_as_the_corrected_variance() -> None:
    losses = np.random.default_rng(10).normal(size=8)
    draws = np.random.default_rng(11).choice(losses, size=(40_000, 8)).mean(axis=1)
    assert inflation(8, 70, 10) * draws.std() == pytest.approx(
        losses.std(ddof=1) * np.sqrt(1 / 8 + 10 / 70), rel=0.02
    )
    assert inflation(1, 70, 10) == 1
