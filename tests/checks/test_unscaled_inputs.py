"""Inputs of very different size; rare flags and networks that normalize are spared."""

from typing import Any

import pytest
import torch
from torch import nn

from foldwise.checks import unscaled_inputs
from foldwise.checks.sight import Network, Sight


def seen(inputs: torch.Tensor, *first: Any) -> Sight:
    return Sight(network=Network(nn.Sequential(*first, nn.Linear(inputs.shape[1], 2)), inputs))


def test_one_column_too_large() -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert unscaled_inputs.find(seen(x)) is None
    x[:, 3] *= 1e4
    found = unscaled_inputs.find(seen(x))
    assert found is not None
    assert found.where == ("input 3",)
    assert unscaled_inputs.find(seen(x, nn.BatchNorm1d(8))) is None


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_all_of_wrong_size(size: float) -> None:
    x = size * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert unscaled_inputs.find(seen(x)) is not None


def test_flags_beside_numbers() -> None:
    x = torch.cat([3 * torch.randn(256, 2), (torch.rand(256, 30) < 0.02).float()], dim=1)
    x[0, 2:] = 1
    assert unscaled_inputs.find(seen(x)) is None
    assert unscaled_inputs.find(seen(255 * torch.rand(32, 1, 8, 8)[:, 0, 0] / 255)) is None
