"""Feature maps: products as scikit-learn makes them, cosines that approach a kernel, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import PolynomialFeatures
from torch import Tensor, nn

from foldwise.errors import SettingsError
from foldwise.nets.build import build
from foldwise.nets.features import ENTRIES_AT_ONCE, Fourier, Polynomial, median_distance
from foldwise.settings import Settings


def drawn(rows: int, inputs: int, seed: int = 0) -> Tensor:
    """Draw rows of a normal distribution."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, inputs)))


# Products


@pytest.mark.parametrize(("inputs", "degree"), [(1, 1), (1, 5), (2, 3), (5, 2), (4, 4), (7, 1)])
def test_products_are_those_of_scikit_learn(inputs: int, degree: int) -> None:
    x = drawn(6, inputs)
    theirs = PolynomialFeatures(degree, include_bias=False).fit_transform(x.numpy())
    ours = Polynomial(inputs, degree).double()
    assert ours.outputs == theirs.shape[1]
    np.testing.assert_allclose(ours(x).numpy(), theirs, rtol=1e-13)
    np.testing.assert_allclose(ours(x.view(2, 3, inputs)).numpy().reshape(theirs.shape), theirs, rtol=1e-13)


def test_products_by_hand() -> None:
    assert Polynomial(2, 3)(torch.tensor([2.0, 3.0])).tolist() == [2, 3, 4, 6, 9, 8, 12, 18, 27]


def test_products_of_training_rows_are_standardized() -> None:
    x = drawn(200, 3) * 5 + 2
    features = Polynomial(3, 3).double()
    features.learn(x, torch.ones(200, dtype=torch.float64))
    y = features(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(19).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(19).double(), rtol=0, atol=1e-12)


def test_products_that_do_not_vary_become_zero_for_every_row() -> None:
    x = torch.stack([torch.full((50,), 0.1), torch.linspace(-1, 1, 50)], dim=1).double()
    features = Polynomial(2, 2).double()
    features.learn(x, torch.ones(50, dtype=torch.float64))
    assert (features.scale == 0).tolist() == [True, False, True, False, False]
    assert features(torch.full((1, 2), 1e6).double())[0, [0, 2]].tolist() == [0, 0]


def test_a_row_that_counts_twice_is_that_row_twice() -> None:
    x = drawn(30, 3)
    counts = torch.arange(30) % 3 + 1
    weighted, repeated = Polynomial(3, 2).double(), Polynomial(3, 2).double()
    weighted.learn(x, counts.double())
    repeated.learn(x.repeat_interleave(counts, 0), torch.ones(int(counts.sum()), dtype=torch.float64))
    torch.testing.assert_close(weighted.mean, repeated.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weighted.scale, repeated.scale, rtol=1e-12, atol=1e-12)
    twice = median_distance(x.repeat_interleave(counts, 0), torch.ones(int(counts.sum())).double())
    assert median_distance(x, counts.double()) == twice


def test_many_products_are_measured_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    x, ones = drawn(100, 4), torch.ones(100, dtype=torch.float64)
    whole, parts = Polynomial(4, 3).double(), Polynomial(4, 3).double()
    assert whole.outputs * len(x) < ENTRIES_AT_ONCE
    whole.learn(x, ones)
    monkeypatch.setattr("foldwise.nets.features.ENTRIES_AT_ONCE", 7 * parts.outputs)
    parts.learn(x, ones)
    torch.testing.assert_close(whole.mean, parts.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.scale, parts.scale, rtol=1e-12, atol=1e-12)


def test_too_many_products_are_refused_with_their_number() -> None:
    with pytest.raises(
        SettingsError, match=r"`feature_degree` 3 would make 21,084,250 products of 500 inputs"
    ) as e:
        build(Settings(network="linear", feature_map="polynomial", feature_degree=3), 500, 2)
    assert "fourier" in e.value.hint
    assert Polynomial(198, 2).outputs < 20_000 < math.comb(201, 2)


def test_a_table_without_columns_has_no_products() -> None:
    features = Polynomial(0, 3)
    features.learn(torch.zeros(4, 0), torch.ones(4))
    assert features(torch.zeros(4, 0)).shape == (4, 0)


# Cosines


def learnt(inputs: int, count: int, width: float, seed: int = 0) -> Fourier:
    """Draw a map of many cosines with another generator than the package's."""
    random = np.random.default_rng(seed)
    features = Fourier(inputs, count).double()
    normals, uniforms = random.normal(size=inputs * count), random.uniform(size=count)
    features.learn(torch.from_numpy(normals), torch.from_numpy(uniforms), width)
    return features


@pytest.mark.parametrize("width", [0.5, 1.0, 4.0])
def test_scalar_products_approach_the_gaussian_kernel(width: float) -> None:
    x, count = drawn(40, 3), 40_000
    z = learnt(3, count, width)(x)
    kernel = torch.exp(-torch.cdist(x, x).square() / (2 * width**2))
    assert (z @ z.T - kernel).abs().max() < 5 / math.sqrt(count)  # five standard errors of a mean of cosines


def test_a_cosine_by_hand() -> None:
    features = Fourier(2, 1).double()
    features.learn(torch.tensor([3.0, 5.0]), torch.tensor([0.25]), 2.0)
    got = features(torch.tensor([[0.1, -0.2]]).double()).item()
    assert got == pytest.approx(math.sqrt(2) * math.cos(1.5 * 0.1 - 2.5 * 0.2 + math.pi / 2), abs=1e-7)


def test_the_median_distance_is_that_of_rows_that_differ() -> None:
    x = drawn(31, 4)
    pairs = [math.dist(a, b) for i, a in enumerate(x.tolist()) for b in x.tolist()[:i]]
    ones = torch.ones(62, dtype=torch.float64)
    assert median_distance(x, ones[:31]) == pytest.approx(float(np.median(pairs)), rel=1e-12)
    assert median_distance(torch.cat([x, x]), ones) == pytest.approx(float(np.median(pairs)), rel=1e-12)


@pytest.mark.parametrize("x", [torch.zeros(1, 3), torch.ones(5, 3), torch.zeros(5, 0)])
def test_rows_that_are_all_alike_have_distance_one(x: Tensor) -> None:
    assert median_distance(x, torch.ones(len(x))) == 1


# In front of a network


@pytest.mark.parametrize("network", ["linear", "mlp", "residual"])
@pytest.mark.parametrize("feature_map", ["polynomial", "fourier"])
def test_every_built_network_can_stand_behind_a_map(network: str, feature_map: str) -> None:
    own = {} if network == "linear" else {"width": 6, "depth": 1}
    net = build(Settings(network=network, feature_map=feature_map, **own), 4, 3)
    plain = build(Settings(network=network, **own), 4, 3)
    names = [name for name, _ in net.named_children()]
    assert names == ["features", *(name for name, _ in plain.named_children())]
    assert net(torch.zeros(5, 4)).shape == (5, 3)
    first = next(m for m in net.modules() if isinstance(m, nn.Linear))
    assert first.in_features == {"polynomial": 14, "fourier": 256}[feature_map]


@pytest.mark.parametrize("features", [Polynomial(3, 2), Fourier(3, 4)])
def test_a_map_has_nothing_to_train(features: nn.Module) -> None:
    assert not list(features.parameters())
    assert set(features.state_dict()) == {name for name, _ in features.named_buffers()}
