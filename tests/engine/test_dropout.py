"""Keyed dropout: its expectation, its share of zeros, and what it replaces in a user's module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from foldwise.engine.dropout import UNKEYED, KeyedDropout, begin_pass, key_dropouts, masked, rescale
from foldwise.engine.random import draws24, key, threshold
from foldwise.errors import NetworkError
from foldwise.plans.plan import Member
from foldwise.settings import Settings


def test_the_mean_of_many_masks_is_the_input() -> None:
    masks, rate = 4000, 0.3
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    keys = key(torch.full((masks,), 1), "dropout", 0, torch.arange(masks))
    limit, scale = (
        torch.full((masks,), threshold(rate)),
        torch.full((masks,), rescale(rate), dtype=torch.float64),
    )
    mean = masked(x.expand(masks, 3), keys, limit, scale, owner=torch.arange(masks)).mean(0)
    deviation = (
        rate / (1 - rate) / masks
    ) ** 0.5  # of the mean of what is 1/0.7 with probability 0.7, and else 0
    assert ((mean / x - 1).abs() < 4 * deviation).all()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_entries_are_zero_or_scaled(rate: float) -> None:
    drop = KeyedDropout(rate).double()
    drop.key = key(torch.tensor(4), "dropout", 0, 0)
    y = drop(torch.ones(100, 100, dtype=torch.float64))
    assert set(y.unique().tolist()) <= {0.0, 1 / (1 - rate)}
    assert abs((y == 0).double().mean() - rate) <= 4 * (rate * (1 - rate) / 1e4) ** 0.5


def test_a_mask_is_written_out_by_hand() -> None:
    drop = KeyedDropout(0.25).double()
    drop.key = key(torch.tensor(4), "dropout", 2, 9)
    kept = draws24(drop.key, 6) >= 2**22  # a quarter of 2²⁴
    y = drop(torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(y.flatten(), kept.double() / 0.75)


def test_a_layer_at_two_places_draws_anew_at_each() -> None:
    drop, one = KeyedDropout(0.5), torch.ones(200)
    drop.key = key(torch.tensor(4), "dropout", 0, 0)
    first, second = drop(one), drop(one)
    assert not torch.equal(first, second)
    begin_pass(nn.Sequential(drop))
    assert torch.equal(drop(one), first)


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.ones(50)
    assert torch.equal(KeyedDropout(0.9).eval()(x), x)


def test_everything_may_be_dropped() -> None:
    assert not KeyedDropout(1.0)(torch.ones(9)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_entries_are_dropped_in_every_dtype(dtype: torch.dtype) -> None:
    drop = KeyedDropout(0.4).to(dtype)
    drop.key = key(torch.tensor(4), "dropout", 0, 0)
    twin = KeyedDropout(0.4)
    twin.key = drop.key
    assert torch.equal(drop(torch.ones(999, dtype=dtype)) == 0, twin(torch.ones(999)) == 0)


def test_every_dropout_of_a_module_is_replaced_in_order() -> None:
    module = zoo.Normalized(3, 2, 4, dropout=0.5).eval()
    assert key_dropouts(module) == ["layers.3", "drop"]
    assert [module.layers[3].rate, module.drop.rate] == [0.5, 0.25]
    assert not module.drop.training


def test_a_dropout_that_stands_at_two_places_stays_one() -> None:
    drop = nn.Dropout(0.5)
    module = nn.Sequential(drop, nn.Sequential(drop), drop)
    assert len(key_dropouts(module)) == 1
    assert module[0] is module[2] is module[1][0]


@pytest.mark.parametrize("layer", UNKEYED)
def test_layers_that_draw_without_a_key_are_refused(layer: type[nn.Module]) -> None:
    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, outputs), layer())

    with pytest.raises(
        NetworkError, match=rf"cannot be keyed per member: 1 is a {layer.__name__}\.\nhint: use nn.Drop"
    ):
        start(net)


def test_a_module_that_draws_by_itself_is_refused() -> None:
    class Noisy(nn.Linear):
        """Adds noise without asking anyone."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(inputs, outputs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.randn_like(x) * self.training)

    with pytest.raises(NetworkError, match=r"`Noisy` draws random numbers that cannot be keyed"):
        start(Noisy)


def start(net: object) -> None:
    """Put two members of a user's network into a stack."""
    what = zoo.TARGETS["classes"]
    settings = Settings(network="custom", initialization="own", loss=what.loss)
    zoo.world(what, net).engine([Member(0, fold, 0, settings) for fold in range(2)])  # type: ignore[arg-type]
