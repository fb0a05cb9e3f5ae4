"""Optimizers and schedules: step by step those of torch.optim."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from foldwise.engine.links import Link, Now, chain, scale_by_rate
from foldwise.engine.optimizers import OPTIMIZERS
from foldwise.engine.schedules import SCHEDULES, factors
from foldwise.reference import optimizer_of, schedule_of
from foldwise.settings import Settings

STEPS = 10
SIZE = 12
ALWAYS = {"constant": torch.tensor([True])}
DECAYED = torch.arange(SIZE) < 8  # the others stand for biases


def problem(members: int) -> tuple[Tensor, list[Tensor]]:
    """Draw where members start, and the gradients of each step; some are zero, some large."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(members, SIZE, dtype=torch.float64, generator=random)
    gradients = [torch.randn(members, SIZE, dtype=torch.float64, generator=random) for _ in range(STEPS)]
    for gradient in gradients:
        gradient[:, 3] = 0
        gradient[:, 4] *= 1e6
        gradient[:, 5] *= 1e-9
    return start, gradients


def stacked(trials: list[Settings]) -> Iterator[Tensor]:
    """Take steps for members that have nothing in common but the optimizer."""
    parameters, gradients = problem(len(trials))
    optimizer = OPTIMIZERS[trials[0].optimizer]
    moments = {name: torch.zeros_like(parameters) for name in optimizer.moments}
    names = ("learning_rate", "momentum", "beta1", "beta2", "epsilon", "weight_decay")
    settings = {n: torch.tensor([[getattr(s, n)] for s in trials], dtype=torch.float64) for n in names}
    for step, gradient in enumerate(gradients):
        now = Now(
            parameters,
            torch.full((len(trials),), step),
            torch.full((len(trials),), STEPS),
            settings,
            {n: torch.tensor([s.schedule == n for s in trials]) for n in zoo.SCHEDULES},
            settings["weight_decay"] * DECAYED,
        )
        parameters = parameters + optimizer.apply(gradient, moments, now)
        yield parameters


def alone(settings: Settings, member: int, members: int) -> Iterator[Tensor]:
    """Take the same steps with torch's optimizer and schedule, for one of the members."""
    start, gradients = problem(members)
    decayed, rest = (torch.nn.Parameter(start[member][part].clone()) for part in (DECAYED, ~DECAYED))
    module = torch.nn.ParameterDict({"decayed": decayed.data.view(2, 4), "rest": rest.data})
    optimizer = optimizer_of(settings, module)
    schedule = schedule_of(settings, optimizer, STEPS)
    for gradient in gradients:
        module["decayed"].grad = gradient[member][DECAYED].view(2, 4)
        module["rest"].grad = gradient[member][~DECAYED]
        optimizer.step()
        schedule.step()
        yield torch.cat([module["decayed"].detach().flatten(), module["rest"].detach()])


def trials(optimizer: str) -> list[Settings]:
    """Make members of every variant, rate and schedule."""
    variants = itertools.product(zoo.OPTIMIZERS[optimizer], (1e-3, 0.3), zoo.SCHEDULES, (0.0, 0.05))
    return [
        Settings(optimizer=optimizer, **{"weight_decay": decay, **own}, learning_rate=rate, schedule=schedule)
        for own, rate, schedule, decay in variants
    ]


@pytest.mark.parametrize("optimizer", zoo.OPTIMIZERS)
def test_ten_steps_are_those_of_torch(optimizer: str) -> None:
    members = trials(optimizer)
    ours = list(stacked(members))
    for place, settings in enumerate(members):
        for step, theirs in enumerate(alone(settings, place, len(members))):
            difference = (ours[step][place] - theirs).abs() / theirs.abs().clamp_min(1)
            assert difference.max() < 1e-10, (settings, step)


def one_step(optimizer: str, weight: float, gradient: float, **values: Any) -> float:
    """Take one step with one weight."""

    def cell(value: float) -> Tensor:
        return torch.tensor([[value]], dtype=torch.float64)

    s, link = Settings(optimizer=optimizer, **values), OPTIMIZERS[optimizer]
    names = ("learning_rate", "momentum", "beta1", "beta2", "epsilon")
    settings = {name: cell(getattr(s, name)) for name in names}
    now = Now(cell(weight), torch.tensor([0]), torch.tensor([1]), settings, ALWAYS, cell(s.weight_decay))
    return float(now.parameters + link.apply(cell(gradient), {name: cell(0) for name in link.moments}, now))


def test_one_step_is_computed_by_hand() -> None:
    # sgd: 2 − 0.1·(3 + 0.5·2);  adamw: (1 − 0.1·0.5)·2 − 0.1·3/(|3| + ε)
    assert one_step("sgd", 2, 3, learning_rate=0.1, weight_decay=0.5) == pytest.approx(1.6, abs=1e-15)
    adamw = one_step("adamw", 2, 3, learning_rate=0.1, weight_decay=0.5, epsilon=1.0)
    assert adamw == pytest.approx(1.9 - 0.1 * 3 / 4, abs=1e-15)


def test_links_compose_in_order() -> None:
    double = Link((), lambda direction, moments, now: direction * 2)
    remember = Link(("last",), lambda direction, moments, now: moments["last"].copy_(direction) + 1)
    both = chain(double, remember)
    assert both.moments == ("last",)
    moments = {"last": torch.zeros(1, 1)}
    now = Now(
        torch.zeros(1, 1),
        torch.tensor([0]),
        torch.tensor([1]),
        {"learning_rate": torch.ones(1, 1)},
        ALWAYS,
        None,
    )
    assert chain(both, scale_by_rate).apply(torch.full((1, 1), 3.0), moments, now) == -7
    assert moments["last"] == 6


# Schedules


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_torch(name: str, steps: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = schedule_of(Settings(schedule=name), optimizer, steps)
    theirs = []
    for _ in range(steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ours = SCHEDULES[name](torch.arange(steps), torch.full((steps,), steps))
    assert ours.tolist() == pytest.approx(theirs, abs=1e-12)


def test_the_cosine_by_hand() -> None:
    halves = SCHEDULES["cosine"](torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 4, 4]))
    assert halves.tolist() == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2], abs=1e-15)


def test_each_member_follows_its_own_schedule_at_its_own_step() -> None:
    mine = torch.tensor([True, False, True])
    ours = factors({"cosine": mine, "constant": ~mine}, torch.tensor([2, 3, 0]), torch.tensor([4, 4, 9]))
    assert ours.tolist() == pytest.approx([0.5, 1, 1], abs=1e-15)
