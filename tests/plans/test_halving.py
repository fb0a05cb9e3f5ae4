"""Successive halving, on curves whose outcome is known."""

from __future__ import annotations

import math

import pytest

from curves import course
from foldwise.errors import PlanError
from foldwise.plans.halving import Halving, alike, read_halving


@pytest.mark.parametrize(
    ("by", "epochs", "rungs"),
    [
        (3, 60, [2, 6, 18]),
        (3, 27, [1, 3, 9]),
        (3, 12, [1, 3]),
        (3, 3, [1]),
        (3, 2, []),
        (2, 40, [5, 10, 20]),
        (4, 100, [1, 4, 16]),
        (3, 600, [22, 66, 198]),
    ],
)
def test_rungs_leave_the_most_part_to_be_saved(by: int, epochs: int, rungs: list[int]) -> None:
    assert Halving.over(by, epochs).rungs(epochs) == rungs


def test_the_epochs_expected_are_those_of_a_third_at_each_rung() -> None:
    halving = Halving(3, 1)
    assert halving.expected(27) == pytest.approx(1 + 2 / 3 + 6 / 9 + 18 / 27)
    assert halving.expected(27, done=3) == pytest.approx(6 + 18 / 3)
    assert halving.expected(27, done=20) == 7
    assert Halving(3, 9).expected(5) == 5


def test_the_best_third_goes_on() -> None:
    at_one = [course(n, [9, (7 * n) % 9]) for n in range(9)]  # places by score: 0, 4, 8, 3, 7, 2, 6, 1, 5
    assert Halving(3, 1).stops(at_one) == {
        trial: f"halving: {place} of 9 at epoch 1"
        for trial, place in {3: "4th", 7: "5th", 2: "6th", 6: "7th", 1: "8th", 5: "9th"}.items()
    }


def test_a_third_is_rounded_up_and_equal_ones_go_by_their_number() -> None:
    halving = Halving(3, 1)
    assert sorted(halving.stops([course(n, [9, 5]) for n in range(4)])) == [2, 3]
    assert not halving.stops([course(0, [9, 5])])


def test_what_counts_is_the_best_epoch_so_far() -> None:
    wild, steady = course(0, [0, 1, 5, 8]), course(1, [9, 4, 3, 2])
    assert list(Halving(2, 3).stops([wild, steady])) == [1]
    assert list(Halving(2, 3).stops([wild, course(1, [9, 4, 0.5, 8])])) == [0]


def test_nobody_stops_between_rungs_nor_who_is_through() -> None:
    halving = Halving(3, 2)
    between = [course(n, [9, 5 + n]) for n in range(3)]
    assert not halving.stops(between)
    through = [course(0, [9, 5, 5], epochs=2), *(course(n, [9, 1 + n, 1 + n]) for n in (1, 2))]
    assert list(halving.stops(through)) == [2]
    through[2].end("stopped early at epoch 2")
    assert not halving.stops(through)


def test_who_comes_later_is_compared_with_all_before() -> None:
    halving = Halving(3, 1)
    before = [course(0, [9, 1, 1]), course(1, [9, 5]), course(2, [9, 6])]
    for gone in before[1:]:
        gone.end("halving: somewhere")
    late = [course(3, [9, 4]), course(4, [9, 7])]
    # five have come: the two best of them are trials 0 and 3
    assert halving.stops([*before, *late]) == {4: "halving: 5th of 5 at epoch 1"}
    assert halving.stops([*before, course(3, [9, 5.5])]) == {3: "halving: 3rd of 4 at epoch 1"}


def test_what_came_after_a_rung_does_not_count_at_it() -> None:
    before = [course(0, [9, 6, 1, 1]), course(1, [9, 7])]
    before[1].end("halving: somewhere")
    assert not Halving(3, 1).stops([*before, course(2, [9, 5])])
    assert Halving(3, 1).stops([*before, course(2, [9, 6.5])]) == {2: "halving: 2nd of 3 at epoch 1"}


def test_the_rungs_of_a_short_trial_are_its_own() -> None:
    halving = Halving(3, 1)
    short = course(0, [9, 8], epochs=2)
    assert not halving.stops([short, course(1, [9, 7], epochs=2), course(2, [9, 6], epochs=2)])
    assert list(halving.stops([short, course(1, [9, 7]), course(2, [9, 6])])) == [1]


SPREAD = (-3.0, 1.0, 2.0)  # of members, whose deviations cancel where they are the same for all


def test_what_cannot_be_told_apart_from_the_last_one_kept_goes_on() -> None:
    halving = Halving(3, 1)
    others = [course(n, [9, 5 + n], members=SPREAD) for n in (1, 2)]
    first = course(0, [9, 5], members=SPREAD)
    # the same folds are hard for all: members differ by 1 in each, without any deviation
    assert list(halving.stops([first, *others])) == [1, 2]
    # folds that are hard for one are easy for the other: 1 ± 2.5 is no difference
    turned = course(1, [9, 6], members=SPREAD[::-1])
    assert list(halving.stops([first, turned, others[1]])) == [2]


def test_no_more_than_twice_the_places_are_taken() -> None:
    same = [course(n, [9, 5 + n / 100], members=SPREAD if n % 2 else SPREAD[::-1]) for n in range(9)]
    # three places; those alike with the last one kept (2) are 3, 5, 7: the last is beyond six
    assert sorted(Halving(3, 1).stops(same)) == [4, 6, 7, 8]


def test_a_diverged_member_is_like_nothing() -> None:
    assert not alike((1.0, math.nan, 3.0), (1.0, 2.0, 3.0))
    assert not alike((1.0,), (1.0,))
    broken = course(1, [9, math.inf], members=SPREAD)
    assert list(Halving(2, 1).stops([course(0, [9, 5], members=SPREAD), broken])) == [1]


@pytest.mark.parametrize("given", [1, 0, -3, 2.5, True, "3"])
def test_what_is_no_halving_is_refused(given: object) -> None:
    with pytest.raises(
        PlanError, match=r"`halving` must be a whole number of at least 2; got .*\nhint: halving=3"
    ):
        read_halving(given, 27, 9)


def test_a_halving_without_effect_is_refused() -> None:
    with pytest.raises(PlanError, match=r"`halving` has no effect: no trial has more than 2 epochs"):
        read_halving(3, 2, 9)
    with pytest.raises(PlanError, match=r"`halving` has no effect: fewer than two trials are searched"):
        read_halving(3, 60, 1)
    assert read_halving(3, 60, 2) == Halving(3, 2)
