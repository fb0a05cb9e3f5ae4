"""Preparation: constants by hand and from scikit-learn, learnt from the training rows of each fold alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import RobustScaler, StandardScaler

from foldwise.data.folds import make_folds
from foldwise.data.prepare import (
    SCALINGS,
    Preparation,
    apply_preparation,
    learn_preparation,
    learn_target_scale,
    weighted_quantiles,
)
from foldwise.engine.rows import place_rows

NAN = np.nan


def learnt(column: list[float], scaling: str, number: bool = True) -> tuple[float, float, float]:
    """Learn one column from all rows, and give fill, shift and scale."""
    table = np.array(column)[:, None]
    p = learn_preparation(table, np.ones((1, len(column)), bool), np.array([number]), scaling)
    return float(p.fill[0, 0]), float(p.shift[0, 0]), float(p.scale[0, 0])


@pytest.mark.parametrize(
    ("column", "scaling", "expected"),
    [
        ([1, 3, 1, 3], "standard", (2, 2, 1)),
        ([0, 1, 2, 3, 4], "robust", (2, 2, 1 / 2)),
        ([1, NAN, 3], "standard", (2, 2, 1)),
        ([0, NAN, 1, 2, 3, 4, NAN], "robust", (2, 2, 1 / 2)),
        ([0] * 9 + [10], "robust", (0, 0, 1 / 5)),  # no quartile distance: half the range stands in
        ([0.1] * 3, "standard", (0.1, 0.1, 0)),  # whose deviation is 1e-17, were it not for care
        ([7] * 4, "robust", (7, 7, 0)),
        ([5, NAN, NAN], "standard", (5, 5, 0)),
        ([NAN] * 3, "robust", (0, 0, 0)),
        ([NAN] * 3, "standard", (0, 0, 0)),
    ],
)
def test_constants_by_hand(column: list[float], scaling: str, expected: tuple[float, ...]) -> None:
    assert learnt(column, scaling) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_flags_stay_as_they_are_but_one_that_does_not_vary_is_switched_off(scaling: str) -> None:
    assert learnt([0, 1, 1], scaling, number=False) == (0, 0, 1)
    assert learnt([1, 1, 1], scaling, number=False) == (0, 0, 0)
    assert learnt([0, 0, 0], scaling, number=False) == (0, 0, 0)


@pytest.mark.parametrize(("scaling", "scaler"), [("standard", StandardScaler()), ("robust", RobustScaler())])
def test_numbers_are_scaled_as_by_scikit_learn(scaling: str, scaler: StandardScaler | RobustScaler) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4)) * [1, 1e6, 1e-6, 3] + [0, 1e7, 0, -5]
    x[random.random(x.shape) < 0.1] = NAN
    p = learn_preparation(x, np.ones((1, 60), bool), np.ones(4, bool), scaling)
    ours = (x - p.shift) * p.scale
    np.testing.assert_allclose(ours, scaler.fit_transform(x), rtol=1e-9, atol=1e-9)


def test_robust_values_are_bounded_smoothly() -> None:
    p = Preparation(*(np.full((1, 1), c) for c in (0.0, 0.0, 1.0, 3.0)))
    z = apply_preparation(p, 0, np.array([[-1e9], [-3.0], [0.0], [0.1], [1e9], [NAN]]))[:, 0]
    assert z == pytest.approx([-3, -3 / 2**0.5, 0, 0.1 / (1 + 0.01 / 9) ** 0.5, 3, 0], rel=1e-12)


def test_missing_cells_become_the_middle() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [NAN]])
    p = learn_preparation(x, np.ones((1, 5), bool), np.ones(1, bool), "robust")
    assert apply_preparation(p, 0, x)[-1, 0] == 0


def test_what_never_varied_cannot_move_the_outputs() -> None:
    x = np.array([[0.1, 1.0, NAN], [0.1, 1.0, NAN], [0.1, 1.0, NAN], [1e30, 0.0, 5.0]])
    train = np.array([[True, True, True, False]])
    for scaling in SCALINGS:
        p = learn_preparation(x, train, np.array([True, False, True]), scaling)
        assert not apply_preparation(p, 0, x).any()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_tables_of_numbers_alone_and_of_flags_alone(scaling: str) -> None:
    x = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    for number in (True, False):
        p = learn_preparation(x, np.ones((2, 3), bool), np.full(2, number), scaling)
        assert np.isfinite(apply_preparation(p, 1, x)).all()


cells = st.one_of(st.floats(-1e6, 1e6, allow_subnormal=False), st.just(NAN))


@given(arrays(np.float64, (12, 3), elements=cells), st.sampled_from(sorted(SCALINGS)))
def test_prepared_rows_are_finite_and_those_of_the_engine(x: np.ndarray, scaling: str) -> None:
    folds = make_folds(12, 3)
    numbers = np.ones(3, bool)
    p = learn_preparation(x, folds.train, numbers, scaling)
    rows = place_rows(
        x, np.zeros(12, int), folds, {scaling: p}, None, device=torch.device("cpu"), dtype=torch.float64
    )
    for fold in range(3):
        ours = apply_preparation(p, fold, x)
        assert np.isfinite(ours).all()
        own = rows.constants.of(torch.tensor([rows.preparation(scaling, fold)]))
        theirs = own.apply(rows.features[None])[0].numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    if scaling == "robust":
        assert np.abs(ours).max() <= 3 * (1 + 1e-12)


def test_each_fold_learns_its_own() -> None:
    x = np.array([[0.0], [2.0], [10.0], [30.0]])
    p = learn_preparation(x, np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool), np.ones(1, bool), "standard")
    assert p.shift[:, 0].tolist() == [1, 20]
    assert p.scale[:, 0].tolist() == [1, 0.1]


def test_targets_are_scaled_by_the_training_rows() -> None:
    y = np.array([[1.0, 5.0], [3.0, 5.0], [100.0, 5.0], [0.1, 5.0]])
    scale = learn_target_scale(y, np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool))
    np.testing.assert_allclose(scale.shift, [[2, 5], [50.05, 5]])
    np.testing.assert_allclose(scale.scale, [[1, 1], [49.95, 1]])  # a constant target is left alone


def test_a_target_that_is_constant_but_for_rounding_is_left_alone() -> None:
    assert learn_target_scale(np.full((3, 1), 0.1), np.ones((1, 3), bool)).scale.item() == 1


# Weights


@given(arrays(np.float64, (12, 3), elements=cells), st.sampled_from(sorted(SCALINGS)), st.integers(0, 999))
def test_a_row_of_weight_2_is_prepared_as_the_row_twice(x: np.ndarray, scaling: str, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(1, 4, 12)
    twice = np.repeat(np.arange(12), weights)
    folds, numbers = make_folds(12, 3), np.array([True, True, False])
    weighted = learn_preparation(x, folds.train, numbers, scaling, weights.astype(float))
    repeated = learn_preparation(x[twice], folds.train[:, twice], numbers, scaling)
    size = np.nanmax(np.abs(x), initial=1.0)
    for name in ("fill", "shift"):
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-12, atol=1e-12 * size
        )
    np.testing.assert_array_equal(weighted.scale > 0, repeated.scale > 0)
    # a deviation far below the size of the numbers is lost in rounding, with repeated rows as well
    there = (repeated.scale > 0) & (repeated.scale < 1e6 / size)
    np.testing.assert_allclose(weighted.scale[there], repeated.scale[there], rtol=1e-6)


def test_targets_of_weight_2_are_scaled_as_targets_that_are_there_twice() -> None:
    random = np.random.default_rng(0)
    y, weights, folds = random.normal(1e3, 5, size=(20, 2)), random.integers(1, 5, 20), make_folds(20, 4)
    twice = np.repeat(np.arange(20), weights)
    weighted = learn_target_scale(y, folds.train, weights.astype(float))
    repeated = learn_target_scale(y[twice], folds.train[:, twice])
    np.testing.assert_allclose(weighted.shift, repeated.shift, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-9)
    assert learn_target_scale(np.full((3, 1), 0.1), folds.train[:1, :3], np.array([1.0, 2, 3])).scale == 1


@pytest.mark.parametrize("scaling", SCALINGS)
def test_weights_of_1_change_not_one_bit(scaling: str) -> None:
    random = np.random.default_rng(0)
    x, folds = random.normal(size=(30, 3)), make_folds(30, 3)
    x[random.random(x.shape) < 0.2] = NAN
    one = learn_preparation(x, folds.train, np.ones(3, bool), scaling)
    other = learn_preparation(x, folds.train, np.ones(3, bool), scaling, np.ones(30))
    for name in ("fill", "shift", "scale"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_weighted_constants_do_not_depend_on_rows_that_are_validated() -> None:
    random = np.random.default_rng(0)
    x, weights, folds = random.normal(size=(30, 2)), random.random(30) + 0.1, make_folds(30, 3)
    own = folds.validation[0]
    changed, heavier = np.where(own[:, None], 1e6, x), np.where(own, 50.0, weights)
    for scaling in SCALINGS:
        one = learn_preparation(x, folds.train, np.ones(2, bool), scaling, weights)
        other = learn_preparation(changed, folds.train, np.ones(2, bool), scaling, heavier)
        for name in ("fill", "shift", "scale"):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(other, name)[0])


rows_and_weights = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3)), min_size=1, max_size=20
).map(lambda pairs: np.array(pairs).T)


@given(rows_and_weights, st.floats(1e-6, 1.0))
def test_weighted_quantiles_are_ordered_and_between_the_values(
    drawn: tuple[np.ndarray, np.ndarray], share: float
) -> None:
    values, weights = drawn
    found = weighted_quantiles(values, weights, [0, 0.25 * share, 0.5 * share, share, 1])
    slack = 1e-9 * np.abs(values).max()
    assert (np.diff(found) >= -slack).all()
    assert (values.min() - slack <= found).all()
    assert (found <= values.max() + slack).all()


@given(rows_and_weights, st.floats(1e-6, 1.0))
def test_shares_of_a_whole_are_weights_as_well(drawn: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    values, weights = drawn
    weights = weights / weights.sum()
    shares = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(
        weighted_quantiles(values, weights * factor, shares),
        weighted_quantiles(values, weights, shares),
        rtol=1e-6,
        atol=1e-6 * np.abs(values).max(),
    )


@pytest.mark.parametrize("weight", [1e-9, 0.3, 1.0])
def test_equal_weights_up_to_1_give_the_quantiles_of_the_rows(weight: float) -> None:
    values = np.random.default_rng(0).normal(size=17)
    shares = [0, 0.1, 0.25, 0.5, 0.75, 1]
    found = weighted_quantiles(values, np.full(17, weight), shares)
    np.testing.assert_allclose(found, np.quantile(values, shares), rtol=1e-12, atol=1e-12)


def test_a_value_with_most_of_the_weight_is_every_quartile_exactly() -> None:
    values, weights = np.array([0.1, 0.3, 0.1, 7.0]), np.array([31.7, 0.3, 17.13, 1 / 3])
    assert weighted_quantiles(values, weights, [0.25, 0.5, 0.75]).tolist() == [0.1] * 3
