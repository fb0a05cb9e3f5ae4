"""The split of the variance: planted components are found, and the sentence follows from the largest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from foldwise.judge.variance import Split, split_variance


def drawn(draw: int, /, trials: int = 12, seeds: int = 3, folds: int = 6, **deviations: float) -> np.ndarray:
    random = np.random.default_rng(draw)
    shapes = {
        "setting": (trials, 1, 1), "fold": (1, 1, folds), "rest": (trials, 1, folds), "seed": (trials, seeds, folds),
    }  # fmt: skip
    parts = [deviations.get(name, 0.0) * random.normal(size=shape) for name, shape in shapes.items()]
    return 5 + sum(parts, np.zeros((trials, seeds, folds)))


def test_planted_components_are_found_on_average() -> None:
    planted = {"setting": 1.0, "fold": 2.0, "rest": 0.5, "seed": 1.5}
    found = [split_variance(drawn(s, **planted)) for s in range(300)]
    for name, deviation in planted.items():
        values = [getattr(f, name) for f in found]
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - deviation**2) < 4 * error + 0.02, name


def test_with_one_seed_the_rest_holds_the_seed() -> None:
    found = [split_variance(drawn(s, seeds=1, setting=1.0, fold=1.0, rest=1.0, seed=1.0)) for s in range(200)]
    assert found[0].seed is None
    assert np.mean([f.rest for f in found]) == pytest.approx(2, abs=0.15)
    assert np.mean([f.setting for f in found]) == pytest.approx(1, abs=0.25)


def test_the_mean_squares_are_those_of_one_way_tables() -> None:
    """With one fold, trials against seeds is a one-way analysis of variance."""
    losses = drawn(0, folds=1, setting=2.0, seed=1.0)
    found = split_variance(losses)
    f = stats.f_oneway(*losses[:, :, 0]).statistic
    assert found.seed is not None
    assert found.setting == pytest.approx(max(0, (f - 1) * found.seed / 3), rel=1e-9)
    assert (found.fold, found.rest) == (None, None)


def test_noise_alone_gives_no_negative_part() -> None:
    for seed in range(30):
        found = split_variance(drawn(seed, seed=1.0))
        assert min(v for v in (found.setting, found.fold, found.seed, found.rest) if v is not None) >= 0
        assert sum(found.shares.values()) == pytest.approx(1)


def test_order_and_scale_do_not_matter() -> None:
    losses = drawn(1, setting=1.0, fold=1.0, rest=1.0, seed=1.0)
    turned = 10 * losses[::-1, ::-1, ::-1]
    one, other = split_variance(losses), split_variance(turned)
    assert one.shares == pytest.approx(other.shares)


@pytest.mark.parametrize(
    ("part", "advice"),
    [("setting", "tuning"), ("fold", "more rows"), ("seed", "more seeds"), ("rest", "repeats")],
)
def test_the_sentence_follows_from_the_largest_part(part: str, advice: str) -> None:
    said = split_variance(drawn(2, **{part: 3.0, "seed": 3.0 if part == "seed" else 0.3})).sentence
    assert advice in said
    assert said.startswith("Most of the variance")


def test_nothing_is_said_of_what_does_not_vary() -> None:
    assert split_variance(np.ones((3, 2, 4))).sentence == ""
    assert split_variance(np.ones((1, 1, 1))) == Split(None, None, None, None, 1, 1, 1)
    assert split_variance(drawn(3, trials=1, seeds=1, fold=1.0)).sentence == ""
