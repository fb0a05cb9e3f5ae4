"""Steps: optimizers, penalties, clipping and limits are those of torch.optim and torch.nn.utils, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from foldwise.engine.links import Link, Now, chain, scale_by_rate
from foldwise.engine.schedules import When
from foldwise.engine.shares import Shares, shares_of
from foldwise.engine.state import Layout
from foldwise.engine.step import Step, step_of
from foldwise.errors import SettingsError
from foldwise.reference import _default_dtype, clip, freeze, limit_weights, optimizer_of, penalty
from foldwise.settings import Settings, make_settings

STEPS = 10
LAYOUT = Layout(("first.weight", "first.bias", "second.inner.weight"), ((2, 4), (4,), (4, 3)))
NUMBERS = [name for name, f in Settings.model_fields.items() if isinstance(f.default, int | float)]


def problem(members: int) -> tuple[Tensor, list[Tensor]]:
    """Draw where members start, and the gradients of each step; some are zero, some large."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(members, LAYOUT.size, dtype=torch.float64, generator=random)
    gradients = [
        torch.randn(members, LAYOUT.size, dtype=torch.float64, generator=random) for _ in range(STEPS)
    ]
    for gradient in gradients:
        gradient[:, 3] = 0
        gradient[:, 4] *= 1e6
        gradient[:, 5] *= 1e-9
    return start, gradients


def now(parameters: Tensor, trials: list[Settings], shares: Shares, step: int) -> Now:
    """Say what links may look at."""
    exact = {n: torch.tensor([float(getattr(s, n)) for s in trials], dtype=torch.float64) for n in NUMBERS}
    done = torch.full((len(trials),), step)
    return Now(
        parameters=parameters,
        layout=LAYOUT,
        settings={n: v.unsqueeze(1) for n, v in exact.items()},
        shares=shares,
        when=When(done, torch.full((len(trials),), STEPS), 0, exact),
        scheduled={},
        updates=done.double(),
    )


def remembering(step: Step, parameters: Tensor) -> dict[str, Tensor]:
    """Lay out what the links remember."""
    one = torch.ones(len(parameters), 1, dtype=torch.float64)
    return {
        name: torch.zeros_like(parameters) if value is None else one * value
        for name, value in step.remembered().items()
    }


def stacked(trials: list[Settings]) -> Iterator[Tensor]:
    """Take steps for members that have nothing in common but the optimizer."""
    parameters, gradients = problem(len(trials))
    step = step_of(trials)
    remembered, shares = (
        remembering(step, parameters),
        shares_of(trials, LAYOUT, torch.float64, torch.device("cpu")),
    )
    for number, gradient in enumerate(gradients):
        present = now(parameters, trials, shares, number)
        parameters.add_(step.to_direction.apply(gradient, remembered, present))
        step.to_weights.apply(parameters, remembered, present)
        yield parameters.clone()


def alone(s: Settings, member: int, members: int) -> Iterator[Tensor]:
    """Take the same steps with torch's optimizer, for one of the members."""
    start, gradients = problem(members)
    named = {
        name: torch.nn.Parameter(part[0].clone())
        for name, part in LAYOUT.split(start[member : member + 1]).items()
    }
    trained = list(named.items())
    optimizer = optimizer_of(s, trained)
    for gradient in gradients:
        optimizer.zero_grad()
        penalty(s, trained).backward()
        for name, own in LAYOUT.split(gradient[member : member + 1]).items():
            named[name].grad += own[0]  # type: ignore[operator]
        freeze(s, trained)
        clip(s, trained)
        with _default_dtype(torch.float64):
            optimizer.step()
        limit_weights(s, trained)
        yield torch.cat([p.detach().flatten() for p in named.values()])


REGULARIZED: tuple[dict[str, Any], ...] = (
    {},
    {"weight_decay": 0.05},
    {"weight_decay": 0.05, "regularized": "all", "clip_norm": 0.5},
    {"l1": 0.1, "l2": 0.2, "clip_norm": 1e4},
    {"weight_limit": 3.0, "first.weight_limit": 1.0},
    {"first.frozen": True, "clip_norm": 2.0, "second.rate_factor": 0.1},
    {"second.l1": 0.3, "second.inner.l1": 0.1, "first.l2": 0.2, "first.weight_decay": 0.3, "l2": 0.01},
)


def trials(optimizer: str) -> list[Settings]:
    """Make members of every variant, rate and way to keep weights small."""
    rule = zoo.OPTIMIZERS[optimizer]
    variants = itertools.product(rule.trials, (1e-3, 0.3), REGULARIZED)
    return [
        make_settings(
            {**rule.shared, **own, **regularized, "learning_rate": rate}, base={"optimizer": rule.name}
        )
        for own, rate, regularized in variants
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

    s, layout = Settings(optimizer=optimizer, **values), Layout(("w",), ((1, 1),))
    step, parameters = step_of([s]), cell(weight)
    shares = shares_of([s], layout, torch.float64, torch.device("cpu"))
    present = now(parameters, [s], shares, 0)
    return float(parameters + step.to_direction.apply(cell(gradient), remembering(step, parameters), present))


def test_one_step_is_computed_by_hand() -> None:
    # sgd: 2 − 0.1·(3 + 0.5·2);  adamw: (1 − 0.1·0.5)·2 − 0.1·3/(|3| + ε)
    assert one_step("sgd", 2, 3, learning_rate=0.1, weight_decay=0.5) == pytest.approx(1.6, abs=1e-15)
    adamw = one_step("adamw", 2, 3, learning_rate=0.1, weight_decay=0.5, epsilon=1.0)
    assert adamw == pytest.approx(1.9 - 0.1 * 3 / 4, abs=1e-15)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_is_an_l2_penalty_for_sgd_and_not_for_adamw(optimizer: str) -> None:
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    shared = {"optimizer": optimizer, "learning_rate": 0.01, **momentum}
    both = [list(stacked([Settings(**shared, **{name: 0.1})]))[-1] for name in ("weight_decay", "l2")]
    apart = float((both[0] - both[1]).abs().max())
    assert apart < 1e-12 if optimizer == "sgd" else apart > 1e-3


def test_clipped_steps_are_counted() -> None:
    members = [Settings(clip_norm=1e-3), Settings(clip_norm=1e9), Settings()]
    parameters, gradients = problem(3)
    step = step_of(members)
    remembered = remembering(step, parameters)
    shares = shares_of(members, LAYOUT, torch.float64, torch.device("cpu"))
    for number, gradient in enumerate(gradients):
        step.to_direction.apply(gradient, remembered, now(parameters, members, shares, number))
    assert remembered["clipped"].flatten().tolist() == [STEPS, 0, 0]


def test_a_block_that_is_not_there_is_named() -> None:
    asked = make_settings({"secnd.l2": 0.1})
    with pytest.raises(SettingsError, match=r"`secnd\.l2`: the network has no block `secnd`[\s\S]*second"):
        shares_of([asked], LAYOUT, torch.float64, torch.device("cpu"))


def test_links_compose_in_order() -> None:
    double = Link(lambda direction, remembered, now: direction * 2)
    remember = Link(
        lambda direction, remembered, now: remembered["last"].copy_(direction) + 1, moments=("last",)
    )
    both = chain(double, remember)
    assert both.moments == ("last",)
    remembered, s = {"last": torch.zeros(1, 1)}, Settings(learning_rate=1.0)
    shares = shares_of([s], Layout(("w",), ((1, 1),)), torch.float64, torch.device("cpu"))
    present = now(torch.zeros(1, 1), [s], shares, 0)
    assert chain(both, scale_by_rate).apply(torch.full((1, 1), 3.0), remembered, present) == -7
    assert remembered["last"] == 6


def test_two_links_cannot_remember_under_one_name() -> None:
    with pytest.raises(ValueError, match="remember something called first"):
        step_of([Settings()], [Link(lambda direction, remembered, now: direction, moments=("first",))])
