"""Schedules: step by step those of torch.optim.lr_scheduler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foldwise.engine.schedules import PLATEAU, SCHEDULES, When, factors, lower_on_plateau
from foldwise.reference import Schedules, optimizer_of
from foldwise.settings import Settings

ASKED: tuple[dict[str, Any], ...] = (
    {"schedule": "constant"},
    {"schedule": "constant", "warmup": 0.4},
    {"schedule": "step", "decay_every": 2, "decay_factor": 0.5},
    {"schedule": "step", "decay_every": 3, "decay_factor": 0.2, "warmup": 0.3},
    {"schedule": "exponential", "decay_per_epoch": 0.8},
    {"schedule": "exponential", "decay_per_epoch": 0.8, "warmup": 0.6},
    {"schedule": "cosine"},
    {"schedule": "cosine", "warmup": 0.25},
    {"schedule": "cosine", "warmup": 0.1},
    {"schedule": "one_cycle"},
    {"schedule": "one_cycle", "peak_at": 0.6, "start_divisor": 3.0, "end_divisor": 10.0},
    {"schedule": "plateau", "patience": 0, "decay_factor": 0.5, "threshold": 0.1},
    {"schedule": "plateau", "patience": 2, "decay_factor": 0.1, "warmup": 0.2},
)
CURVE = [5.0, 4.9, 4.0, 4.1, 4.2, 4.3, float("inf"), 3.9, 3.8, 4.0, 4.0, 4.0]
NAMES = ("warmup", "decay_factor", "decay_every", "decay_per_epoch", "peak_at", "start_divisor", "end_divisor",
         "patience", "threshold")  # fmt: skip


def settings_of(members: list[Settings]) -> dict[str, Tensor]:
    """Lay the settings of members out."""
    return {n: torch.tensor([float(getattr(s, n)) for s in members], dtype=torch.float64) for n in NAMES}


def ours(members: list[Settings], epochs: int, each: int) -> list[list[float]]:
    """Give the factor of every member at every step."""
    settings, count = settings_of(members), len(members)
    masks = {n: torch.tensor([s.schedule == n for s in members]) for n in SCHEDULES}
    remembered = {n: torch.full((count, 1), v, dtype=torch.float64) for n, v in PLATEAU.items()}
    rows = []
    for epoch in range(epochs):
        for step in range(epoch * each, (epoch + 1) * each):
            plateau = remembered["plateau_factor"].squeeze(1)
            total = torch.full((count,), epochs * each)
            when = When(torch.full((count,), step), total, torch.full((count,), epoch), settings, plateau)
            rows.append(factors(masks, when).tolist())
        lower_on_plateau(remembered, torch.full((count,), CURVE[epoch], dtype=torch.float64), settings)
    return [list(column) for column in zip(*rows, strict=True)]


def theirs(s: Settings, epochs: int, each: int) -> list[float]:
    """Give the rates of torch's schedules, as factors."""
    optimizer = optimizer_of(s, [("w", torch.nn.Parameter(torch.zeros(1, 1)))])
    schedules = Schedules(s, optimizer, epochs * each, CURVE)
    rates = []
    for epoch in range(1, epochs + 1):
        for _ in range(each):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedules.after_step()
        schedules.after_epoch(epoch)
    return rates


@pytest.mark.parametrize(("epochs", "each"), [(12, 5), (10, 1), (1, 7), (3, 40), (2, 1)])
def test_schedules_are_those_of_torch(epochs: int, each: int) -> None:
    members = [Settings(learning_rate=1.0, **asked) for asked in ASKED]
    for s, own in zip(members, ours(members, epochs, each), strict=True):
        assert own == pytest.approx(theirs(s, epochs, each), abs=1e-12), s.schedule


def test_every_schedule_is_compared() -> None:
    assert {asked["schedule"] for asked in ASKED} == set(SCHEDULES)


def when(step: list[int], total: list[int]) -> When:
    """Say how far members without warm-up are."""
    zero = torch.zeros(len(step), dtype=torch.float64)
    return When(
        torch.tensor(step), torch.tensor(total), torch.zeros_like(torch.tensor(step)), {"warmup": zero}
    )


def test_the_cosine_by_hand() -> None:
    halves = SCHEDULES["cosine"](when([0, 1, 2, 3], [4, 4, 4, 4]))
    assert halves.tolist() == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2], abs=1e-15)


def test_each_member_follows_its_own_schedule_at_its_own_step() -> None:
    mine = torch.tensor([True, False, True])
    own = factors({"cosine": mine, "constant": ~mine}, when([2, 3, 0], [4, 4, 9]))
    assert own.tolist() == pytest.approx([0.5, 1, 1], abs=1e-15)


def test_the_warm_up_rises_evenly() -> None:
    [own] = ours([Settings(warmup=0.4)], epochs=1, each=10)
    assert own == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_a_cycle_may_have_its_peak_at_the_first_step() -> None:
    [own] = ours([Settings(schedule="one_cycle", peak_at=0.1)], epochs=1, each=10)
    assert own[0] == 1
    assert own == sorted(own, reverse=True)


def test_an_untrained_plateau_keeps_its_rate() -> None:
    assert SCHEDULES["plateau"](when([0], [3])).tolist() == [1]


def test_an_equal_loss_is_no_better() -> None:
    knobs = {"threshold": 0.0, "patience": 0.0, "decay_factor": 0.5}
    exact = {n: torch.tensor([v], dtype=torch.float64) for n, v in knobs.items()}
    remembered = {n: torch.full((1, 1), v, dtype=torch.float64) for n, v in PLATEAU.items()}
    for _ in range(2):
        lower_on_plateau(remembered, torch.ones(1, dtype=torch.float64), exact)
    assert remembered["plateau_factor"].item() == 0.5
