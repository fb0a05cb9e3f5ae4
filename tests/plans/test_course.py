"""A trial's clock: which epoch is best, and when the trial ends."""

from __future__ import annotations

import math

import pytest

from foldwise.plans.course import Course
from foldwise.settings import Settings

INF, NAN = math.inf, math.nan


def after(curve: list[float], **asked: int) -> Course:
    """Note a curve, from the untrained epoch on, until the trial ends."""
    course = Course(0, Settings(**{"epochs": 6, **asked}))
    for mean in curve:
        assert not course.ended
        course.note(mean, (mean, mean + 2))
    return course


@pytest.mark.parametrize(
    ("curve", "best"),
    [
        ([0.1, 5, 3, 4], 2),  # an untrained network is no candidate
        ([9, 3, 2, 2], 2),  # the first of equal ones
        ([9, 3, INF, INF], 1),
        ([9, INF], 0),
        ([9, NAN, 4], 2),
        ([9], 0),
        ([], 0),
    ],
)
def test_the_best_epoch(curve: list[float], best: int) -> None:
    course = after(curve)
    assert course.best_epoch == best
    assert course.best == (curve[best] if best else INF)


def test_where_nothing_is_trained_the_start_is_the_best() -> None:
    course = after([0.5], epochs=0)
    assert (course.best_epoch, course.best, course.ended) == (0, 0.5, "finished")


def test_a_better_epoch_is_told() -> None:
    course = Course(0, Settings(epochs=5))
    told = [course.note(mean, (mean,)) for mean in (1.0, 3.0, 3.0, 2.0, INF)]
    assert told == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("curve", "ended"),
    [
        ([9, 3, 4, 2, 5], ""),
        ([9, 3, 4, 2, 5, 2], "stopped early at epoch 5: no better fold mean for 2 epochs"),
        ([9, 3, 4, 4], "stopped early at epoch 3: no better fold mean for 2 epochs"),
        ([9, INF, INF], "stopped early at epoch 2: no better fold mean for 2 epochs"),
        ([9, 6, 5, 4, 3, 2, 1], "finished"),
        ([9, 6, 5, 4, 3, 4, 4], "finished"),
    ],
)
def test_early_stopping(curve: list[float], ended: str) -> None:
    assert after(curve, early_stopping=2).ended == ended


def test_patience_of_one_epoch() -> None:
    assert after([9, 3, 4], early_stopping=1).ended.endswith("for 1 epoch")


def test_who_diverged_says_more_than_how_it_went_on() -> None:
    course = after([9, 3])
    course.lose([2])
    course.lose([0, 2])
    assert not course.ended
    course.end("pruned")
    assert course.ended == course.diverged == "diverged: folds 1, 3"


def test_the_spread_is_over_members() -> None:
    course = after([9, 3])
    assert course.spread(1) == pytest.approx(2**0.5)
    assert course.spread(1, lambda score: 10 * score) == pytest.approx(10 * 2**0.5)
    alone = Course(0, Settings())
    alone.note(1.0, (1.0,))
    assert math.isnan(alone.spread(0))
