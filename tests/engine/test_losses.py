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
from foldwise.engine.losses import LOSSES
from foldwise.reference import loss_of
from foldwise.settings import Settings

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def drawn(target: zoo.Target, members: int = 3, rows: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw outputs `[members, rows, outputs]`, some of them large, and targets."""
    random = np.random.default_rng(3)
    outputs = torch.from_numpy(random.normal(size=(members, rows, target.outputs)) * 5)
    targets = np.stack([target.draw(random, rows) for _ in range(members)])
    return outputs, torch.from_numpy(targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("target", zoo.TARGETS.values(), ids=zoo.TARGETS.keys())
def test_losses_are_those_of_torch(target: zoo.Target, smoothing: float) -> None:
    outputs, targets = drawn(target)
    knobs = {"label_smoothing": torch.full((3, 1), smoothing, dtype=torch.float64)} if smoothing else {}
    ours = LOSSES[target.loss](outputs, targets, knobs).mean(1)
    asked = {"label_smoothing": smoothing} if target.smooths else {}
    theirs = loss_of(Settings(loss=target.loss, **asked))
    if target.smooths or not smoothing:
        torch.testing.assert_close(
            ours, torch.stack([theirs(*pair) for pair in zip(outputs, targets, strict=True)]), **EXACT
        )


@pytest.mark.parametrize("target", [t for t in zoo.TARGETS.values() if t.smooths], ids=lambda t: t.name)
def test_each_member_smooths_by_its_own_share(target: zoo.Target) -> None:
    outputs, targets = drawn(target)
    shares = torch.tensor([[0.0], [0.2], [0.5]], dtype=torch.float64)
    together = LOSSES[target.loss](outputs, targets, {"label_smoothing": shares})
    for place, share in enumerate(shares):
        own = {"label_smoothing": share}
        torch.testing.assert_close(
            together[place], LOSSES[target.loss](outputs[place], targets[place], own), **EXACT
        )


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_uniform_scores_cost_log_c(classes: int) -> None:
    outputs = torch.full((4, classes), 0.7, dtype=torch.float64)
    loss = LOSSES["cross_entropy"](outputs, torch.arange(4) % classes, {})
    assert loss.tolist() == pytest.approx([math.log(classes)] * 4, abs=1e-12)


def test_an_undecided_output_costs_log_two() -> None:
    loss = LOSSES["binary_cross_entropy"](torch.zeros(2, 3).double(), torch.eye(3)[:2].double(), {})
    assert loss.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-12)


def test_one_output_costs_what_two_do() -> None:
    x, y = torch.randn(20, generator=torch.Generator().manual_seed(0)).double(), torch.arange(20) % 2
    one = LOSSES["binary_cross_entropy"](x[:, None], y[:, None].double(), {})
    two = LOSSES["cross_entropy"](torch.stack([torch.zeros_like(x), x], 1), y, {})
    torch.testing.assert_close(one, two, **EXACT)


def test_hard_labels_are_soft_ones_that_are_sure() -> None:
    outputs, targets = drawn(zoo.TARGETS["classes"])
    sure = F.one_hot(targets, 3).double()
    torch.testing.assert_close(
        LOSSES["cross_entropy"](outputs, targets, {}), LOSSES["cross_entropy"](outputs, sure, {}), **EXACT
    )


def test_squared_errors_by_hand() -> None:
    outputs, targets = torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 5.0]])
    assert LOSSES["squared_error"](outputs, targets, {}).item() == 2.5  # (4 + 1) / 2
    assert LOSSES["half_squared_error"](outputs, targets, {}).item() == 1.25


def test_smoothing_by_hand() -> None:
    # q = 0.8·(1, 0) + 0.1 = (0.9, 0.1) and p = (0.75, 0.25)
    outputs, smoothing = (
        torch.tensor([[math.log(3), 0.0]], dtype=torch.float64),
        {"label_smoothing": torch.tensor([0.2], dtype=torch.float64)},
    )
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert LOSSES["cross_entropy"](outputs, torch.tensor([0]), smoothing).item() == pytest.approx(
        expected, abs=1e-12
    )
    single = torch.tensor([[math.log(3)]], dtype=torch.float64)  # the label is there with probability 0.75
    ours = LOSSES["binary_cross_entropy"](single, torch.ones(1, 1).double(), smoothing)
    assert ours.item() == pytest.approx(expected, abs=1e-12)


@given(st.floats(-1000, 1000), st.sampled_from([0.0, 1.0]))
def test_binary_cross_entropy_is_right_for_every_score(x: float, label: float) -> None:
    score, target = torch.tensor([[[x]], [[label]]], dtype=torch.float64)
    ours = LOSSES["binary_cross_entropy"](score, target, {})
    theirs = F.binary_cross_entropy_with_logits(score, target)
    # F.softplus is x itself above 20, which is off by e⁻²⁰ at most
    assert ours.item() == pytest.approx(theirs.item(), abs=math.exp(-20), rel=1e-12)
