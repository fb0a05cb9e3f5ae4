"""Losses: those of torch.nn.functional, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import zoo
from foldwise.data.target import Task
from foldwise.engine.losses import KNOBS, LOSSES, losses_for
from foldwise.errors import SettingsError
from foldwise.reference import Own, loss_of
from foldwise.settings import Settings

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def drawn(target: zoo.Target, members: int = 3, rows: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw outputs `[members, rows, outputs]`, some of them large, and targets."""
    random = np.random.default_rng(3)
    outputs = torch.from_numpy(random.normal(size=(members, rows, target.outputs)) * 5)
    targets = np.stack([target.draw(random, rows) for _ in range(members)])
    return outputs, torch.from_numpy(targets)


def columns(values: list[float]) -> torch.Tensor:
    """Give each member its own value."""
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize("target", zoo.TARGETS.values(), ids=zoo.TARGETS.keys())
def test_losses_are_those_of_torch_with_knobs_of_each_member(target: zoo.Target) -> None:
    outputs, targets = drawn(target)
    own = [dict(knobs) for knobs in target.knobs]
    if target.smooths:
        own = [{"label_smoothing": share} for share in (0.0, 0.1, 0.9)]
    members = [Settings(loss=target.loss, **knobs) for knobs in own]  # type: ignore[arg-type]
    names = ("label_smoothing", "huber_delta", "quantile", "margin")
    knobs = {name: columns([getattr(s, name) for s in members]) for name in names}
    ours = target.record.per_row(outputs, targets, knobs)
    assert ours.shape == (3, 50)
    for place, s in enumerate(members):
        theirs = loss_of(s, Own(loss=target.own))(outputs[place], targets[place])
        torch.testing.assert_close(ours[place], theirs, **EXACT)


@pytest.mark.parametrize("target", [t for t in zoo.TARGETS.values() if t.smooths], ids=lambda t: t.name)
def test_each_member_smooths_by_its_own_share(target: zoo.Target) -> None:
    outputs, targets = drawn(target)
    shares = torch.tensor([[0.0], [0.2], [0.5]], dtype=torch.float64)
    together = target.record.per_row(outputs, targets, {"label_smoothing": shares})
    for place, share in enumerate(shares):
        own = {"label_smoothing": share}
        torch.testing.assert_close(
            together[place], target.record.per_row(outputs[place], targets[place], own), **EXACT
        )


@pytest.mark.parametrize("target", zoo.TARGETS.values(), ids=zoo.TARGETS.keys())
def test_a_mean_over_rows_has_the_same_bits_whoever_is_judged_beside(target: zoo.Target) -> None:
    # parts differ after a resume, and members may not
    outputs, targets = drawn(target, members=11, rows=97)
    knobs = {name: torch.full((11, 1), 0.7, dtype=torch.float64) for name in KNOBS}
    per_row = target.record.per_row

    def means(own: list[int]) -> torch.Tensor:
        return per_row(outputs[own], targets[own], {n: k[own] for n, k in knobs.items()}).sum(1)

    every = means(list(range(11)))
    for parts in ([[i] for i in range(11)], [[0], [1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]):
        assert torch.equal(torch.cat([means(part) for part in parts]), every)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_uniform_scores_cost_log_c(classes: int) -> None:
    outputs = torch.full((4, classes), 0.7, dtype=torch.float64)
    loss = LOSSES["cross_entropy"].per_row(outputs, torch.arange(4) % classes, {})
    assert loss.tolist() == pytest.approx([math.log(classes)] * 4, abs=1e-12)


def test_an_undecided_output_costs_log_two() -> None:
    loss = LOSSES["binary_cross_entropy"].per_row(torch.zeros(2, 3).double(), torch.eye(3)[:2].double(), {})
    assert loss.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-12)


def test_one_output_costs_what_two_do() -> None:
    x, y = torch.randn(20, generator=torch.Generator().manual_seed(0)).double(), torch.arange(20) % 2
    one = LOSSES["binary_cross_entropy"].per_row(x[:, None], y[:, None].double(), {})
    two = LOSSES["cross_entropy"].per_row(torch.stack([torch.zeros_like(x), x], 1), y, {})
    torch.testing.assert_close(one, two, **EXACT)


def test_hard_labels_are_soft_ones_that_are_sure() -> None:
    outputs, targets = drawn(zoo.TARGETS["classes"])
    sure = F.one_hot(targets, 3).double()
    torch.testing.assert_close(
        LOSSES["cross_entropy"].per_row(outputs, targets, {}),
        LOSSES["cross_entropy"].per_row(outputs, sure, {}),
        **EXACT,
    )


def test_squared_errors_by_hand() -> None:
    outputs, targets = torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 5.0]])
    assert LOSSES["squared_error"].per_row(outputs, targets, {}).item() == 2.5  # (4 + 1) / 2
    assert LOSSES["half_squared_error"].per_row(outputs, targets, {}).item() == 1.25


def test_smoothing_by_hand() -> None:
    # q = 0.8·(1, 0) + 0.1 = (0.9, 0.1) and p = (0.75, 0.25)
    outputs, smoothing = (
        torch.tensor([[math.log(3), 0.0]], dtype=torch.float64),
        {"label_smoothing": torch.tensor([0.2], dtype=torch.float64)},
    )
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert LOSSES["cross_entropy"].per_row(outputs, torch.tensor([0]), smoothing).item() == pytest.approx(
        expected, abs=1e-12
    )
    single = torch.tensor([[math.log(3)]], dtype=torch.float64)  # the label is there with probability 0.75
    ours = LOSSES["binary_cross_entropy"].per_row(single, torch.ones(1, 1).double(), smoothing)
    assert ours.item() == pytest.approx(expected, abs=1e-12)


@given(st.floats(-1000, 1000), st.sampled_from([0.0, 1.0]))
def test_binary_cross_entropy_is_right_for_every_score(x: float, label: float) -> None:
    score, target = torch.tensor([[[x]], [[label]]], dtype=torch.float64)
    ours = LOSSES["binary_cross_entropy"].per_row(score, target, {})
    theirs = F.binary_cross_entropy_with_logits(score, target)
    # F.softplus is x itself above 20, which is off by e⁻²⁰ at most
    assert ours.item() == pytest.approx(theirs.item(), abs=math.exp(-20), rel=1e-12)


# The losses of regression and hinge, by hand


def one(loss: str, output: list[float], target: list[float] | int, **knobs: float) -> float:
    """Compute the loss of one row."""
    wanted = torch.tensor([target]) if isinstance(target, int) else torch.tensor([target]).double()
    asked = {name: columns([value])[0] for name, value in knobs.items()}
    return LOSSES[loss].per_row(torch.tensor([output]).double(), wanted, asked).item()


def test_losses_of_numbers_by_hand() -> None:
    assert one("absolute_error", [1, 4], [3, 5]) == 1.5
    assert one("huber", [0.5], [0.0], huber_delta=1.0) == 0.125
    assert one("huber", [3.0], [0.0], huber_delta=2.0) == 2 * (3 - 1)
    assert one("quantile", [1.0], [3.0], quantile=0.9) == pytest.approx(0.9 * 2)
    assert one("quantile", [3.0], [1.0], quantile=0.9) == pytest.approx(0.1 * 2)


@given(st.integers(2, 12), st.floats(0, 10))
def test_equal_scores_cost_the_margin_for_every_other_class(classes: int, margin: float) -> None:
    assert one("hinge", [0.3] * classes, 1, margin=margin) == pytest.approx((classes - 1) * margin)


def test_the_hinge_of_classes_is_that_of_torch() -> None:
    outputs, targets = drawn(zoo.TARGETS["hinge"])
    ours = LOSSES["hinge"].per_row(outputs, targets, {"margin": columns([0.7] * 3)})
    theirs = F.multi_margin_loss(outputs.flatten(0, 1), targets.flatten(), margin=0.7, reduction="none") * 3
    torch.testing.assert_close(ours.flatten(), theirs, **EXACT)


def test_hinges_by_hand() -> None:
    assert one("hinge", [2.0, 1.5, -1.0], 0, margin=1.0) == 0.5
    assert one("hinge", [2.0, 1.5, -1.0], 1, margin=1.0) == 1.5
    assert one("binary_hinge", [0.3], [1.0], margin=1.0) == pytest.approx(0.7)
    assert one("binary_hinge", [0.3], [0.0], margin=1.0) == pytest.approx(1.3)
    assert one("binary_hinge", [0.3], [0.0], margin=0.0) == pytest.approx(0.3)
    assert one("binary_hinge", [0.3], [1.0], margin=0.0) == 0


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.floats(0, 5))
def test_a_hinge_is_never_negative(scores: list[float], margin: float) -> None:
    assert one("hinge", scores, 0, margin=margin) >= 0


# A loss of one's own


def test_a_loss_of_ones_own_must_give_one_value_per_row() -> None:
    task = Task("regression", ("y",))
    outputs = torch.zeros(2, 5, 1).double()
    for wrong, got in ((lambda o, t: (o - t).square(), r"\(5, 1\)"), (lambda o, t: (o - t).mean(), r"\(\)")):
        with pytest.raises(SettingsError, match=rf"must give one value per row, of shape \(5,\); got {got}"):
            losses_for(task, wrong)["custom"].per_row(outputs, outputs, {})


def test_a_loss_of_ones_own_that_is_not_there_says_so() -> None:
    with pytest.raises(SettingsError, match="needs a function of your own"):
        losses_for(Task("regression", ("y",)))["custom"].per_row(torch.zeros(1, 1), torch.zeros(1, 1), {})
