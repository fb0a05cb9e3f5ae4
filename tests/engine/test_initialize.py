"""Initial weights: the variance that each scheme promises, and what a seed and a constructor decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import zoo
from foldwise.engine.initialize import fans, initialize, seeded
from foldwise.engine.random import key, uniform

SHAPE = (300, 200)
COUNT = math.prod(SHAPE)


def drawn(scheme: str, seed: int = 0, deviation: float = 0.05) -> torch.Tensor:
    """Initialize one large layer."""
    layer = nn.Linear(SHAPE[1], SHAPE[0]).double()
    initialize(layer, scheme, seed, deviation)
    assert not layer.bias.any()
    return layer.weight.detach()


@pytest.mark.parametrize(
    ("scheme", "variance"), [("xavier", 2 / (300 + 200)), ("kaiming", 2 / 200), ("normal", 0.05**2)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_variance_is_the_promised_one(scheme: str, variance: float, seed: int) -> None:
    weight = drawn(scheme, seed)
    kurtosis = 1.8 if scheme == "xavier" else 3  # of a uniform and of a normal distribution
    error = math.sqrt((kurtosis - 1) / COUNT)  # of a variance, as a share of it
    assert abs(weight.var().item() / variance - 1) < 4 * error
    assert abs(weight.mean().item()) < 4 * math.sqrt(variance / COUNT)


def test_xavier_is_uniform_and_the_others_are_normal() -> None:
    bound = math.sqrt(6 / 500)
    weight = drawn("xavier").flatten().numpy()
    assert np.abs(weight).max() < bound
    assert stats.kstest(weight, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
    assert stats.kstest(drawn("kaiming").flatten().numpy(), "norm", (0, 0.1)).pvalue > 1e-3
    assert stats.kstest(drawn("normal").flatten().numpy(), "norm", (0, 0.05)).pvalue > 1e-3


def test_xavier_is_written_out_by_hand() -> None:
    layer = nn.Linear(2, 1).double()
    initialize(layer, "xavier", 9, 0.01)
    u = uniform(key(torch.tensor(9), "weights", 0), 2)  # parameter 0: the weight
    assert torch.equal(layer.weight[0].detach(), (2 * u - 1) * math.sqrt(6 / 3))


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (5, 2, 7)])
def test_fans_are_those_of_torch(shape: tuple[int, ...]) -> None:
    assert fans(shape) == nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_seeds_and_parameters_have_weights_of_their_own() -> None:
    assert not torch.equal(drawn("kaiming", 0), drawn("kaiming", 1))
    pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    initialize(pair, "kaiming", 0, 0.01)
    assert not torch.equal(pair[0].weight, pair[1].weight)


def test_weights_in_float32_are_those_in_float64_rounded() -> None:
    layer = nn.Linear(SHAPE[1], SHAPE[0])
    initialize(layer, "normal", 3, 0.05)
    assert torch.equal(layer.weight.detach(), drawn("normal", 3).float())


def test_biases_become_zero_and_scales_of_normalization_stay() -> None:
    module = zoo.Normalized(3, 2, 6)
    with torch.no_grad():
        module.layers[1].weight.fill_(0.7)
        module.layers[1].bias.fill_(0.7)
    initialize(module, "xavier", 0, 0.01)
    assert module.layers[1].weight.eq(0.7).all()
    assert not module.layers[1].bias.any()


def test_a_constructor_draws_by_the_seed_alone_and_leaves_the_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = seeded(lambda: nn.Linear(3, 3), 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = seeded(lambda: nn.Linear(3, 3), 1), seeded(lambda: nn.Linear(3, 3), 2)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
