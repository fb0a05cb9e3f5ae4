"""Scale, signals, normalization and dropout at the start, on patients and healthy twins."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foldwise.checks import (
    dropout_before_normalization,
    dropout_strong,
    exploding_signal,
    frozen_statistics,
    initial_scale,
    normalization_of_few_rows,
    saturating_activation,
    vanishing_signal,
)
from foldwise.checks.order import findings_of
from foldwise.checks.probe import forward
from foldwise.checks.sight import Network, Sight
from foldwise.checks.signals import dimensions, stations
from foldwise.engine.initialize import initialize
from foldwise.nets.build import build
from foldwise.settings import make_settings
from network_sights import INPUTS, classes, numbers, rows, seeded, squared

SEEDS = range(3)
START = (exploding_signal, initial_scale, saturating_activation, vanishing_signal)


def built(seed: int = 0, **given: object) -> Sight:
    """Show a network of settings as a trial would start with it."""
    s = make_settings({"width": 32, **given})

    def start(inputs: int, outputs: int) -> nn.Module:
        network = build(s, inputs, outputs)
        initialize(network, s, seed)
        return network

    return numbers(start, seed, **{"width": 32, **given})


def codes(sight: Sight) -> list[str]:
    found = [check.find(sight) for check in START]
    return [f.code for f in found if f is not None and f.alarm]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factor", [10, 0.01])
@pytest.mark.parametrize("usual", ["kaiming", "xavier", "torch"])
def test_initial_weights_out_of_scale(seed: int, factor: float, usual: str) -> None:
    def scaled(inputs: int, outputs: int) -> nn.Module:
        network = build(make_settings({"width": 32}), inputs, outputs)
        if usual != "torch":
            initialize(network, make_settings({"initialization": usual}), seed)
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(factor)
        return network

    found = initial_scale.find(numbers(scaled, seed))
    assert found is not None
    assert found.where[:2] == ("hidden1", "hidden2")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("usual", ["kaiming", "xavier", "orthogonal"])
@pytest.mark.parametrize("width", [8, 256])
def test_usual_initial_weights_are_left_alone(seed: int, usual: str, width: int) -> None:
    assert codes(built(seed, initialization=usual, width=width)) == []


def test_scale_does_not_matter_before_normalization_or_at_a_small_output() -> None:
    def normalized(inputs: int, outputs: int) -> nn.Module:
        network = nn.Sequential(nn.Linear(inputs, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, outputs))
        with torch.no_grad():
            network[0].weight.mul_(1000)
            network[3].weight.mul_(1e-4)
        return network

    assert codes(numbers(normalized)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stack_of_sigmoids_lets_nothing_through(seed: int) -> None:
    (found,) = findings_of(
        built(seed, activation="sigmoid", depth=8), ["saturating-activation", "vanishing-signal"]
    )
    assert (found.code, found.symptoms) == ("saturating-activation", ("vanishing-signal",))
    assert found.remedies[0].settings == {"activation": "relu"}
    assert codes(built(seed, activation="sigmoid", depth=2)) == []


def test_tanh_at_its_ends() -> None:
    def steep(inputs: int, outputs: int) -> nn.Module:
        network = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))
        with torch.no_grad():
            network[0].weight.mul_(100)
        return network

    found = saturating_activation.find(numbers(steep))
    values = torch.tanh(forward(numbers(steep).network.module, rows()).layers[0].after).abs()
    assert f"{(values > 0.96).double().mean():.0%}"[:2] in found.evidence


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_without_skips(seed: int) -> None:
    assert codes(built(seed, depth=30)) == ["vanishing-signal"]
    assert codes(built(seed, depth=30, initialization="xavier")) == ["vanishing-signal"]


@pytest.mark.parametrize("seed", SEEDS)
def test_residual_sums_that_explode(seed: int) -> None:
    assert codes(built(seed, network="residual", depth=20)) == ["exploding-signal"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "healthy",
    [
        {"depth": 8}, {"depth": 30, "normalization": "batch"}, {"depth": 20, "normalization": "layer"},
        {"network": "residual", "depth": 20, "normalization": "batch"}, {"network": "residual", "depth": 4},
        {"network": "residual", "depth": 16, "initialization": "xavier"},
        {"depth": 30, "activation": "tanh"}, {"depth": 4, "activation": "tanh", "initialization": "xavier"},
        {"network": "linear", "width": None},
    ],
)  # fmt: skip
def test_healthy_starts(seed: int, healthy: dict) -> None:
    given = {"width": 32, **healthy}
    sight = numbers(nn.Linear, seed) if given["width"] is None else built(seed, **given)
    assert codes(sight) == []


def test_stations_measure_what_arrives() -> None:
    sight = numbers(lambda i, o: nn.Sequential(nn.Linear(i, 16), nn.ReLU(), nn.Linear(16, o)))
    seen = stations(sight)
    network = sight.network
    h = torch.relu(network.module[0](network.inputs)).detach().requires_grad_()
    squared(network.module[2](h), network.targets).mean().backward()
    assert seen.stations[0].signal == pytest.approx(
        float(h.detach().double().var(0, correction=0).mean().sqrt()), rel=1e-5
    )
    assert seen.stations[0].gradient == pytest.approx(float(h.grad.double().square().mean().sqrt()), rel=1e-5)


def test_dimensions_are_those_of_the_covariance() -> None:
    values = rows(3, 200, 6) * torch.tensor([3.0, 2, 1, 1, 0.1, 0])
    eigenvalues = np.linalg.eigvalsh(np.cov(values.double().numpy().T))
    assert dimensions(values.double()) == pytest.approx(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())
    assert dimensions(values.double()[:4]) <= 3


def normed(momentum: float | None = 0.1, rate: float = 0.0, before: bool = False):
    def make(inputs: int, outputs: int) -> nn.Module:
        middle = [nn.BatchNorm1d(16, momentum=momentum), nn.ReLU()]
        drop = [nn.Dropout(rate)] if rate else []
        return nn.Sequential(
            nn.Linear(inputs, 16), *(drop + middle if before else middle + drop), nn.Linear(16, outputs)
        )

    return make


@pytest.mark.parametrize(("size", "sure"), [(1, "likely"), (4, "likely"), (8, "hint"), (32, None)])
def test_normalization_over_few_rows(size: int, sure: str | None) -> None:
    found = normalization_of_few_rows.find(numbers(normed(), network="mlp", width=16, batch_size=size))
    assert (None if found is None else found.sure) == sure


def test_positions_of_a_convolution_count_as_values() -> None:
    images = rows(0, 16, 64).view(16, 1, 8, 8)
    network = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 1))
    )
    sight = Sight(network=Network(network, images[:2], images[:2, :, 0, 0], squared))
    assert normalization_of_few_rows.find(sight) is None  # 2 · 36 values


def test_running_statistics_that_stay() -> None:
    assert frozen_statistics.find(numbers(normed(0.0))).where == ("1",)
    assert frozen_statistics.find(numbers(normed(1e-5))).sure == "likely"
    for momentum in (0.1, 0.01, None):
        assert frozen_statistics.find(numbers(normed(momentum))) is None


def test_normalization_held_in_evaluation_is_healthy() -> None:
    class Held(nn.Sequential):
        def train(self, mode: bool = True) -> "Held":
            super().train(mode)
            self[1].eval()
            return self

    assert frozen_statistics.find(numbers(lambda i, o: Held(*normed(0.0)(i, o)))) is None


def dropping(rate: float):
    return lambda i, o: nn.Sequential(nn.Linear(i, 32), nn.ReLU(), nn.Dropout(rate), nn.Linear(32, o))


@pytest.mark.parametrize(("rate", "sure"), [(0.95, "likely"), (0.85, "hint"), (0.5, None)])
def test_strong_dropout(rate: float, sure: str | None) -> None:
    found = dropout_strong.find(numbers(dropping(rate)))
    assert (None if found is None else found.sure) == sure


def test_strong_dropout_says_what_is_left_and_can_be_cured() -> None:
    found = dropout_strong.find(numbers(dropping(0.95), network="mlp", width=32, dropout=0.95))
    assert "so that 1.6 are left" in found.evidence
    assert found.remedies[0].settings == {"dropout": 0.1}


def test_dropout_before_batch_normalization() -> None:
    found = dropout_before_normalization.find(numbers(normed(rate=0.5, before=True)))
    assert (found.sure, found.where) == ("likely", ("2",))
    assert dropout_before_normalization.find(numbers(normed(rate=0.1, before=True))).sure == "hint"
    assert dropout_before_normalization.find(numbers(normed(rate=0.5))) is None


def test_layers_and_inputs_that_are_no_numbers() -> None:
    words = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(40, 3))
    inputs = torch.randint(0, 20, (32, 5), generator=torch.Generator().manual_seed(0))
    per_row = lambda o, t: nn.functional.cross_entropy(o, t, reduction="none")  # noqa: E731
    sight = Sight(network=Network(words, inputs, inputs[:, 0] % 3, per_row))
    assert [f.code for f in findings_of(sight)] == []


def test_classes_start_as_well_as_numbers() -> None:
    assert (
        codes(classes(lambda i, o: nn.Sequential(nn.Linear(i, 64), nn.GELU(), nn.Linear(64, o)), count=10))
        == []
    )
    assert math.isfinite(stations(classes(lambda i, o: build(make_settings({}), INPUTS, o))).gradients)


def test_rows_alike_or_alone_are_no_reason_to_fail() -> None:
    for inputs in (torch.zeros(8, INPUTS), rows()[:1]):
        network = nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, 1))
        findings_of(Sight(network=Network(network, inputs, torch.ones(len(inputs), 1), squared)))
    assert isinstance(inputs, Tensor)
