"""Intervals and sets: what they cover where rows are exchangeable, and numbers by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldwise.data.folds import Folds, make_folds
from foldwise.errors import DataError, SettingsError
from foldwise.judge.conformal import bound, intervals, prediction_sets, rank
from foldwise.judge.heldout import in_time, judges_of


@given(st.integers(1, 200), st.integers(1, 99))
def test_the_rank_is_the_smallest_share_that_is_large_enough(rows: int, percent: int) -> None:
    level = percent / 100
    enough = [k for k in range(1, rows + 1) if 100 * k >= percent * (rows + 1)]
    if enough:
        assert rank(level, rows) == enough[0]
    else:
        with pytest.raises(DataError):
            rank(level, rows)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(SettingsError):
        rank(level, 100)


def simulated(draws: int, level: float, k: int) -> tuple[float, float]:
    """Give the coverage of intervals and sets over fresh rows, of a mean and of class frequencies learned per fold."""
    random, rows, new = np.random.default_rng(0), 60, 200
    folds = make_folds(rows, k)
    judges = judges_of(folds)
    numbers, classes = [], []
    for _ in range(draws):
        y = random.gumbel(size=rows + new)
        centers = np.array([y[:rows][own].mean() for own in folds.train])
        residuals = np.abs(y[:rows] - judges.over(centers)[judges.which])
        center = np.tile(judges.over(centers)[:, None], (1, new))
        low, high = intervals(center, residuals, judges.which, level)
        numbers.append(((low <= y[rows:]) & (y[rows:] <= high)).mean())
        c = random.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=rows + new)
        shares = np.stack(
            [(np.bincount(c[:rows][own], minlength=4) + 1) / (own.sum() + 4) for own in folds.train]
        )
        of_truth = judges.over(shares)[judges.which, c[:rows]]
        said = np.tile(judges.over(shares)[:, None], (1, new, 1))
        sets = prediction_sets(said, of_truth, judges.which, np.zeros(new, int), level)
        classes.append(sets[np.arange(new), c[rows:]].mean())
    return float(np.mean(numbers)), float(np.mean(classes))


@pytest.mark.parametrize("k", [5, 60])
def test_they_cover(k: int) -> None:
    numbers, classes = simulated(200, 0.8, k)
    assert 0.78 < numbers < 0.83
    assert classes > 0.79  # sets of classes that are always equally probable cannot be finer


def test_many_rows_are_taken_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    center, residuals = random.normal(size=(3, 50)), random.exponential(size=40)
    which = np.arange(40) % 3
    whole = intervals(center, residuals, which, 0.7)
    monkeypatch.setattr("foldwise.judge.conformal.AT_ONCE", 100)
    for part, all_at_once in zip(intervals(center, residuals, which, 0.7), whole, strict=True):
        np.testing.assert_array_equal(part, all_at_once)


def test_many_new_rows_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldwise.judge.conformal.AT_ONCE", 1 << 14)
    center, residuals = np.zeros((4, 5000)), np.ones(400)
    tracemalloc.start()
    intervals(center, residuals, np.arange(400) % 4, 0.9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # every residual with every new row would take 16 MB


def test_residuals_that_are_not_finite_count_as_large() -> None:
    residuals = np.array([1.0] * 8 + [np.inf] * 2)
    low, high = intervals(np.zeros((1, 1)), residuals, np.zeros(10, int), 0.7)
    assert (low[0], high[0]) == (-1, 1)
    low, high = intervals(np.zeros((1, 1)), residuals, np.zeros(10, int), 0.9)
    assert (low[0], high[0]) == (-np.inf, np.inf)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_a_weight_of_two_is_the_row_twice_and_of_nothing_no_row(level: float) -> None:
    random = np.random.default_rng(5)
    rows, new = 40, 30
    times = random.integers(0, 4, rows)
    which, center = np.arange(rows) % 3, random.normal(size=(3, new))
    residuals = random.exponential(size=rows)
    weighted = intervals(center, residuals, which, level, times.astype(float))
    repeated = intervals(center, residuals.repeat(times), which.repeat(times), level)
    np.testing.assert_array_equal(weighted, repeated)
    shares, truth = random.dirichlet(np.ones(4), (3, new)), random.uniform(0, 0.6, rows)
    best = shares.mean(axis=0).argmax(axis=-1)
    np.testing.assert_array_equal(
        prediction_sets(shares, truth, which, best, level, times.astype(float)),
        prediction_sets(shares, truth.repeat(times), which.repeat(times), best, level),
    )


def test_weights_cover_where_rows_of_one_kind_are_overdrawn() -> None:
    """Calibration rows of a kind with wide errors came three times too often: a weight of 1/3 for each mends it."""
    random = np.random.default_rng(6)
    covered = {"weighted": [], "plain": []}  # type: dict[str, list[float]]
    for _ in range(200):
        wide, fresh = random.random(300) < 0.6, random.random(500) < 1 / 3
        residuals = np.abs(random.normal(size=300)) * np.where(wide, 5, 1)
        new = np.abs(random.normal(size=500)) * np.where(fresh, 5, 1)
        for name, weights in (("weighted", np.where(wide, 1 / 3, 1.0)), ("plain", np.ones(300))):
            covered[name].append(float((new <= bound(residuals, 0.8, weights)).mean()))
    assert 0.785 < np.mean(covered["weighted"]) < 0.825
    assert np.mean(covered["plain"]) > 0.86


def test_weights_that_sum_to_little_are_few_rows() -> None:
    with pytest.raises(DataError, match=r"needs 9 rows .* has 4\.5, each counted by its weight"):
        bound(np.arange(9.0), 0.9, np.full(9, 0.5))
    assert bound(np.arange(9.0), 0.9, np.full(9, 1.1)) == 8
    assert bound(np.arange(10.0), 0.9, np.full(10, 0.1 * 9)) == 9


def test_who_judges_a_row_are_all_folds_that_left_it_out() -> None:
    folds = make_folds(12, 3, repeats=2, seed=4)
    judges = judges_of(folds)
    for place, which in zip(judges.places, judges.which, strict=True):
        np.testing.assert_array_equal(judges.sets[which], folds.validation[:, place])
    by_fold = np.arange(6.0)
    for own, mean in zip(judges.sets, judges.over(by_fold), strict=True):
        assert mean == pytest.approx(by_fold[own].mean())


def test_only_folds_in_time_are_in_time() -> None:
    assert in_time(make_folds(30, 4, time=np.arange(30)))
    for folds in (
        make_folds(30, 5),
        make_folds(30, "loo"),
        make_folds(30, holdout=0.2),
        make_folds(30, 3, repeats=2),
        make_folds(30, numbers=np.arange(30) % 3),
    ):
        assert not in_time(folds)
    assert not in_time(Folds(np.ones((1, 2), bool), np.ones((1, 2), bool), ""))
