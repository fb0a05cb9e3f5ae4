"""Steps: optimizers, penalties, clipping and limits are those of torch.optim and torch.nn.utils, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from foldwise.engine.links import Link, Now, chain, scale_by_rate
from foldwise.engine.schedules import When
from foldwise.engine.shares import Shares, entries_of, refuse_unknown_blocks, shares_of
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
        when=When(done, torch.full((len(trials),), STEPS), torch.zeros_like(done), exact),
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
    {"second.weight_limit": 2.0, "second.inner.weight_limit": 1.0},
    {"second.inner.weight_limit": 1.0},
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
    with pytest.raises(
        SettingsError, match=r"`secnd\.l2`: the network of trial 3 has no block `secnd`[\s\S]*second"
    ):
        refuse_unknown_blocks(asked, LAYOUT, "trial 3")


@pytest.mark.parametrize(
    "asked",
    [
        {"first.bias.l2": 0.1},
        {"first.frozen": True, "second.frozen": True},
    ],
)
def test_settings_of_blocks_without_effect_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(
        SettingsError, match=r"has no effect \(trial 1\)|every block of the network is frozen"
    ):
        refuse_unknown_blocks(make_settings(asked), LAYOUT, "trial 1")


def test_a_frozen_block_has_nothing_else() -> None:
    with pytest.raises(SettingsError, match=r"`first\.l2` has no effect on a block that is frozen"):
        make_settings({"first.frozen": True, "first.l2": 0.1})


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
    def same(direction: Tensor, remembered: object, now: Now) -> Tensor:
        return direction

    for own in (
        [Link(same, moments=("first",))],
        [Link(same, moments=("velocity",), stage="weights")],
        [Link(same, scalars={"loss_scale": 1.0})],
        [Link(same, moments=("mine",)), Link(same, scalars={"mine": 0.0}, stage="weights")],
    ):
        with pytest.raises(SettingsError, match="something else remembers a value called"):
            step_of([Settings()], own)


def test_a_link_has_one_of_two_stages() -> None:
    with pytest.raises(SettingsError, match="`stage` is gradient or weights; got 'weight'"):
        Link(lambda direction, remembered, now: direction, stage="weight")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [lambda d, r, n: d.sum(), lambda d, r, n: d[:, :1], lambda d, r, n: None])
def test_a_link_must_give_what_it_got(wrong: Any) -> None:
    step, parameters = step_of([Settings()], [Link(wrong)]), torch.ones(2, LAYOUT.size, dtype=torch.float64)
    shares = shares_of([Settings()] * 2, LAYOUT, torch.float64, torch.device("cpu"))
    with pytest.raises(SettingsError, match=r"must give \(2, 24\), members and parameters; got"):
        step.to_direction.apply(
            parameters.clone(), remembering(step, parameters), now(parameters, [Settings()] * 2, shares, 0)
        )


def test_decays_close_to_1_are_exact_in_float32() -> None:
    s = Settings(beta2=1 - 1e-8)
    parameters, gradient = torch.zeros(1, 1), torch.full((1, 1), 3.0)
    layout = Layout(("w",), ((1, 1),))
    step = step_of([s])
    shares = shares_of([s], layout, torch.float32, torch.device("cpu"))
    present = replace(
        now(parameters, [s], shares, 0), settings={n: torch.full((1, 1), getattr(s, n)) for n in NUMBERS}
    )
    remembered = {name: torch.zeros(1, 1) for name in step.remembered()}
    direction = step.to_direction.apply(gradient, remembered, present)
    assert direction.item() == pytest.approx(-s.learning_rate, rel=1e-5)


def test_a_block_is_not_another_whose_name_begins_alike() -> None:
    layout = Layout(("hidden1.weight", "hidden10.weight"), ((2, 2), (2, 2)))
    assert entries_of(layout, "hidden1").tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize("more", [{"l1": 0.1, "l2": 0.2, "clip_norm": 2.0}, {"weight_limit": 1.0}])
def test_frozen_blocks_are_in_no_penalty_and_no_limit(more: dict[str, Any]) -> None:
    s = make_settings({"first.frozen": True, "learning_rate": 0.01, **more}, base={"optimizer": "sgd"})
    for ours, theirs in zip(stacked([s]), alone(s, 0, 1), strict=True):
        assert (ours[0] - theirs).abs().max() < 1e-9 * theirs.abs().max()
