"""What was measured over time, by layer: the numbers of the looks, and nothing that does not fit is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from foldwise.checks.look import Recorder, look_at
from foldwise.checks.series import Looks, problems, series_of

STEPS = (0, 4, 12)


@pytest.fixture(scope="module")
def looked() -> tuple[Looks, list[Any]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    recorder, looks = Recorder(net), []
    for epoch, step in enumerate(STEPS):
        looks.append(
            look_at(
                net, x, y, lambda o, t: (o - t).square().mean(1), step=step, epoch=epoch, recorder=recorder
            )
        )
        with torch.no_grad():
            net[0].weight.mul_(1.1)
    found = series_of(4, looks, [0.5, 1.0])
    assert found is not None
    return found, looks


def test_series_are_the_numbers_of_the_looks(looked: tuple[Looks, list[Any]]) -> None:
    found, looks = looked
    assert (found.trial, found.steps, found.epochs) == (4, STEPS, (0, 1, 2))
    assert [(own.name, own.role) for own in found.layers] == [
        ("0", "weights"),
        ("1", "activation"),
        ("2", "weights"),
    ]
    for place, look in enumerate(looks):
        for own, measured in zip(found.layers, look.layers, strict=True):
            assert own.variance[place] == pytest.approx(measured.variance, rel=1e-4)
            assert own.gradient_variance[place] == pytest.approx(measured.gradient_variance, rel=1e-4)
        total = math.sqrt(sum((w.gradient_norm or 0.0) ** 2 for w in look.weights))
        assert found.gradient_norm[place] == pytest.approx(total, rel=1e-4)
    assert found.layers[0].saturated == (None, None, None)  # it is no bounded activation


def test_a_weight_that_grows_by_a_tenth_has_moved_by_a_tenth(looked: tuple[Looks, list[Any]]) -> None:
    first, last = looked[0].weights
    assert first.moved == (None, pytest.approx(0.1), pytest.approx(0.21))
    assert first.per_step == (None, pytest.approx(0.1 / 4), pytest.approx(0.1 / 8))
    assert last.moved == (None, 0.0, 0.0)


def test_clipping_is_averaged_over_the_epochs_between_looks(looked: tuple[Looks, list[Any]]) -> None:
    found, looks = looked
    assert found.clipped == (None, 0.5, 1.0)
    apart = series_of(1, [looks[0], looks[2]], [0.5, 1.0])
    assert apart is not None
    assert apart.clipped == (None, 0.75)
    unclipped = series_of(1, looks)
    assert unclipped is not None
    assert unclipped.clipped == (None, None, None)


def test_one_look_is_no_series(looked: tuple[Looks, list[Any]]) -> None:
    assert series_of(1, looked[1][:1]) is None


CHANGES: list[Callable[[Looks], Looks]] = [
    lambda own: dataclasses.replace(own, trial=9),
    lambda own: dataclasses.replace(own, steps=(4, 0, 12)),
    lambda own: dataclasses.replace(own, steps=own.steps[:2]),
    lambda own: dataclasses.replace(own, clipped=(None, 0.5, 1.5)),
    lambda own: dataclasses.replace(own, epochs=(0, 1, 2, 3)),
    lambda own: dataclasses.replace(own, layers=(dataclasses.replace(own.layers[0], mean=(0.0,)),)),
    lambda own: dataclasses.replace(own, layers=(dataclasses.replace(own.layers[0], dead=(0.0, 0.0, 2.0)),)),
    lambda own: dataclasses.replace(own, layers=own.layers * 5000),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_no_series(
    looked: tuple[Looks, list[Any]], change: Callable[[Looks], Looks]
) -> None:
    assert list(problems(looked[0], 4)) == []
    assert list(problems(change(looked[0]), 4))
