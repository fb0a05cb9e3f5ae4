"""Noise on inputs and labels, and mix-up: keyed, and what they say they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from foldwise.engine.noise import (
    Batch,
    OtherLabels,
    input_noise,
    mix_partners,
    mix_shares,
    mixed,
    noise_keys,
    other_labels,
)

SEEDS = torch.arange(400)
FIRST = torch.zeros(400, dtype=torch.int64)


def test_noise_on_inputs_is_standard_normal() -> None:
    drawn = input_noise(noise_keys(SEEDS, FIRST), 8, 5)
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    assert drawn.shape == (400, 8, 5)


def test_noise_of_a_member_is_the_same_alone() -> None:
    together = input_noise(noise_keys(SEEDS, SEEDS + 3), 7, 5)
    for place in (0, 17, 399):
        alone = input_noise(noise_keys(SEEDS[place : place + 1], SEEDS[place : place + 1] + 3), 7, 5)
        assert torch.equal(alone[0], together[place])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0])
def test_shares_follow_a_beta_distribution(alpha: float) -> None:
    shares = mix_shares(SEEDS, FIRST, torch.full((400,), alpha, dtype=torch.float64))
    assert stats.kstest(shares.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_without_mix_up_a_row_is_all_its_own() -> None:
    alpha = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)
    shares = mix_shares(SEEDS[:3], FIRST[:3], alpha)
    assert shares[[0, 2]].tolist() == [1, 1]
    assert 0 < shares[1] < 1


def test_partners_are_a_permutation_of_each_batch() -> None:
    partners = mix_partners(SEEDS, FIRST, 9)
    assert all(sorted(own) == list(range(9)) for own in partners.tolist())
    assert torch.equal(mix_partners(SEEDS[5:6], FIRST[5:6], 9)[0], partners[5])
    assert len({tuple(own) for own in partners.tolist()}) > 390


def test_mixed_rows_and_losses_by_hand() -> None:
    features = torch.tensor([[[1.0], [3.0], [5.0]]])
    targets, weights = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 2.0, 4.0]])
    both = mixed(Batch(features, targets, weights), torch.tensor([[0.75]]), torch.tensor([[1, 2, 0]]))
    assert both.features.flatten().tolist() == [1.5, 3.5, 4.0]
    # ¾·(1·0 + 2·1 + 4·2)/3 + ¼·(2·1 + 4·2 + 1·0)/3
    assert both.loss(lambda t: t).tolist() == pytest.approx([10 / 3])
    assert Batch(features, targets, None).loss(lambda t: t).tolist() == [1]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_are_replaced_by_classes_drawn_evenly(share: float) -> None:
    targets = torch.zeros(30_000, dtype=torch.int64)
    noise = other_labels(3, targets, "classes", 3)
    after = noise.instead(targets, torch.arange(30_000), torch.tensor(share, dtype=torch.float64))
    shares = np.bincount(after.numpy(), minlength=3) / 30_000
    assert shares == pytest.approx([1 - share * 2 / 3, share / 3, share / 3], abs=0.015)


def test_a_row_keeps_its_noisy_label() -> None:
    targets = torch.arange(60) % 3
    noise, half = other_labels(3, targets, "classes", 3), torch.tensor(0.5, dtype=torch.float64)
    whole = noise.instead(targets, torch.arange(60), half)
    rows = torch.tensor([7, 3, 59])
    assert torch.equal(noise.instead(targets[rows], rows, half), whole[rows])
    assert not torch.equal(
        whole, other_labels(4, targets, "classes", 3).instead(targets, torch.arange(60), half)
    )


def test_more_noise_replaces_the_same_labels_and_others() -> None:
    targets = torch.full((500,), 7)
    noise = other_labels(0, targets, "classes", 3)
    little, much = (
        noise.instead(targets, torch.arange(500), torch.tensor(a, dtype=torch.float64)) for a in (0.2, 0.6)
    )
    assert (little != 7).sum() < (much != 7).sum()
    assert ((little != 7) <= (much != 7)).all()


def test_numbers_are_shifted_and_labels_tossed() -> None:
    numbers = torch.zeros(5000, 2, dtype=torch.float64)
    shifted = other_labels(1, numbers, "numbers", 2).instead(
        numbers, torch.arange(5000), torch.tensor(0.5, dtype=torch.float64)
    )
    assert stats.kstest(shifted.flatten().numpy() / 0.5, "norm").pvalue > 1e-3
    tossed = other_labels(1, numbers, "labels", 2).instead(
        numbers, torch.arange(5000), torch.tensor(0.4, dtype=torch.float64)
    )
    assert tossed.mean() == pytest.approx(0.2, abs=0.02)
    assert set(tossed.flatten().tolist()) == {0, 1}


def test_shares_of_classes_are_replaced_by_sure_ones() -> None:
    shares = torch.full((1000, 3), 1 / 3, dtype=torch.float64)
    after = other_labels(1, shares, "classes", 3).instead(
        shares, torch.arange(1000), torch.tensor(0.5, dtype=torch.float64)
    )
    sure = after.max(1).values == 1
    assert 0.4 < sure.double().mean() < 0.6
    assert after.sum(1).tolist() == pytest.approx([1] * 1000)


def test_seeds_lie_one_after_another() -> None:
    targets = torch.arange(10) % 3
    several = [other_labels(seed, targets, "classes", 3) for seed in (4, 9)]
    joined = OtherLabels.joined(several)
    everything = torch.tensor(1.0, dtype=torch.float64)
    for place, own in enumerate(several):
        rows = torch.arange(10)
        assert torch.equal(
            joined.instead(targets, rows + 10 * place, everything), own.instead(targets, rows, everything)
        )


def test_an_infinite_loss_of_another_row_does_not_reach_one_that_is_all_its_own() -> None:
    features, targets = torch.ones(1, 2, 1), torch.tensor([[1.0, float("inf")]])
    both = mixed(Batch(features, targets, None), torch.ones(1, 1), torch.tensor([[1, 0]]))
    assert both.other is not None
    assert both.other.tolist() == [[0, 1]]


ONE, ALPHA = torch.tensor([3]), torch.tensor([0.5], dtype=torch.float64)
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": lambda n: input_noise(noise_keys(ONE, n), 4, 3),
    "share": lambda n: mix_shares(ONE, n, ALPHA),
    "partners": lambda n: mix_partners(ONE, n, 9),
}


@pytest.mark.parametrize("what", DRAWS)
def test_every_batch_draws_anew(what: str) -> None:
    first, second, again = (DRAWS[what](torch.tensor([n])) for n in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
