"""Losses that are given the wrong thing, or are wrong themselves, on patients and healthy twins."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldwise
from foldwise.checks import (
    broadcast_loss,
    loss_sign,
    loss_sum,
    overfit_one_batch,
    probabilities_as_scores,
    start_loss,
    unbounded_loss,
    wrong_loss,
)
from foldwise.checks.losses import towards
from foldwise.checks.probe import mean_loss
from foldwise.checks.sight import Network, Sight, run
from foldwise.checks.start_loss import expected_loss
from foldwise.settings import make_settings
from foldwise.terminal import Display
from network_sights import binary, classes, classes_of, entropy, labels, numbers, rows, seeded, squared

LOSS = (broadcast_loss, loss_sign, probabilities_as_scores, start_loss, unbounded_loss, wrong_loss)
SEEDS = range(3)


def plain(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def ending(end: nn.Module):
    return lambda i, o: nn.Sequential(*plain(i, o), end)


def codes(sight: Sight) -> list[str]:
    found = [check.find(sight) for check in LOSS]
    return [f.code for f in found if f is not None and f.alarm]


# Probabilities


@pytest.mark.parametrize("seed", SEEDS)
def test_softmax_before_the_cross_entropy(seed: int) -> None:
    found = probabilities_as_scores.find(classes(ending(nn.Softmax(-1)), count=5, seed=seed))
    assert found.sure == "sure"
    assert f"{math.log(1 + 4 / math.e):.2g}" in found.evidence  # the floor, with 4 other classes at 0


@pytest.mark.parametrize("count", [1, 3])
def test_sigmoid_before_the_binary_cross_entropy(count: int) -> None:
    found = probabilities_as_scores.find(labels(ending(nn.Sigmoid()), count))
    assert found.sure == "likely"


def test_tanh_before_the_cross_entropy() -> None:
    assert "between -1 and 1" in probabilities_as_scores.find(classes(ending(nn.Tanh()))).evidence


def likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
    return -outputs.gather(-1, targets[:, None]).clamp_min(1e-12).log().squeeze(-1)


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - F.one_hot(targets, outputs.shape[1])).square().sum(-1)


def of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy(outputs, targets, reduction="none").mean(-1)


def test_probabilities_where_they_are_wanted() -> None:
    assert codes(classes(ending(nn.Softmax(-1)), loss=likelihood)) == []
    assert codes(classes(ending(nn.Softmax(-1)), loss=brier)) == []
    assert codes(classes(ending(nn.LogSoftmax(-1)))) == []
    assert codes(labels(ending(nn.Sigmoid()), loss=of_probabilities)) == []
    assert codes(numbers(ending(nn.Sigmoid()))) == []


# Wrong losses


def broadcast(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets.reshape(-1)).square().mean(-1)


def broadcast_the_other_way(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.reshape(-1) - targets).square().mean(-1)


@pytest.mark.parametrize("loss", [broadcast, broadcast_the_other_way, lambda o, t: o.square().mean(-1)])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_that_does_not_know_whose_target_is_whose(loss, seed: int) -> None:
    assert broadcast_loss.find(numbers(plain, seed, loss)).sure == "sure"


def of_likelihoods(outputs: Tensor, targets: Tensor) -> Tensor:
    """Refuse what is no probability, as torch's loss does."""
    return F.binary_cross_entropy(
        *torch.broadcast_tensors(outputs, targets.reshape(-1)), reduction="none"
    ).mean(-1)


@pytest.mark.parametrize("bias", [0.0, -2.0])
def test_losses_of_probabilities_refuse_what_is_none(bias: float) -> None:
    def one(inputs: int, outputs: int) -> nn.Sequential:
        net = ending(nn.Sigmoid())(inputs, outputs)
        nn.init.constant_(net[2].bias, bias)
        return net

    assert broadcast_loss.find(labels(one, loss=of_probabilities)) is None
    assert broadcast_loss.find(labels(one, loss=of_likelihoods)).sure == "sure"
    x = rows()
    shares = Network(
        seeded(lambda: ending(nn.Softmax(1))(10, 4)),
        x, F.one_hot(classes_of(x, 4), 4).float(), of_probabilities,
    )  # fmt: skip
    assert broadcast_loss.find(Sight(network=shares)) is None


def ranking(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compare every row with every other: gradients depend on other rows, and on one's own target."""
    order = torch.sign(targets - targets.T)
    return F.softplus(-order * (outputs - outputs.T)).mean(-1)


@pytest.mark.parametrize(
    "loss", [squared, ranking, lambda o, t: F.huber_loss(o, t, reduction="none").mean(-1)]
)
def test_losses_that_do(loss) -> None:
    assert broadcast_loss.find(numbers(plain, loss=loss)) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flipped_sign(seed: int) -> None:
    assert loss_sign.find(numbers(plain, seed, lambda o, t: -squared(o, t))).code == "loss-sign"
    assert loss_sign.find(classes(plain, seed=seed, loss=lambda o, t: -entropy(o, t))).code == "loss-sign"
    assert loss_sign.find(labels(plain, 2, seed, lambda o, t: -binary(o, t))).code == "loss-sign"
    accuracy = lambda o, t: F.softmax(o, -1).gather(-1, t[:, None]).squeeze(-1)  # noqa: E731
    assert loss_sign.find(classes(plain, seed=seed, loss=accuracy)).code == "loss-sign"


def test_the_way_to_targets() -> None:
    outputs = torch.tensor([[0.5, 0.0], [2.0, 1.0]])
    assert towards(outputs, torch.tensor([1, 0])).tolist() == [[-1, 1], [1, -1]]
    assert towards(outputs, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [[1, -1], [-1, 1]]
    assert towards(outputs, torch.tensor([[3.0, -1.0], [1.0, 4.0]])).tolist() == [[1, -1], [-1, 1]]
    assert towards(outputs, torch.tensor([[0.7, 0.3], [0.2, 0.8]])).tolist() == [[1, -1], [-1, 1]]
    assert towards(outputs, torch.tensor([5, 6])) is None
    assert towards(outputs, torch.tensor([1, -100])) is None  # a row that torch's losses ignore


def test_a_loss_without_an_end() -> None:
    hinge = lambda o, t: (1 - (2 * t - 1) * o).mean(-1)  # noqa: E731
    assert unbounded_loss.find(labels(plain, loss=hinge)).code == "unbounded-loss"
    assert unbounded_loss.find(numbers(plain, loss=binary)).code == "unbounded-loss"  # targets are no labels
    ended = lambda o, t: (1 - (2 * t - 1) * o).clamp_min(0).mean(-1)  # noqa: E731
    assert codes(labels(plain, loss=ended)) == []


def test_a_likelihood_may_fall_for_ever() -> None:
    def gaussian(outputs: Tensor, targets: Tensor) -> Tensor:
        mean, spread = outputs[:, :1], F.softplus(outputs[:, 1:]) + 1e-3
        return (spread.log() + ((targets - mean) / spread).square() / 2).mean(-1)

    sight = numbers(lambda i, o: plain(i, 2), loss=gaussian)
    assert codes(sight) == []


def test_a_softmax_over_one_output() -> None:
    found = wrong_loss.find(numbers(plain, loss=lambda o, t: F.cross_entropy(o, t, reduction="none")))
    assert found.sure == "sure"
    assert "a softmax over one output is always 1" in found.evidence


def numbers_study(targets: np.ndarray, x: np.ndarray) -> list[str]:
    frame = pl.DataFrame({f"x{i}": x[:, i] for i in range(x.shape[1])}).with_columns(y=pl.Series(targets))
    search = {"width": 16, "depth": 1, "epochs": 2}
    study = foldwise.fit(
        frame, target="y", task="regression", search=search, folds=3, remedies=False, display=Display()
    )
    return [f.code for f in study.findings if f.code == "wrong-loss"]


def test_class_numbers_learned_as_numbers() -> None:
    chance = np.random.default_rng(0)
    names = chance.integers(0, 6, 300)
    centers = chance.normal(size=(6, 8)) * 2
    x = centers[names] + chance.normal(size=(300, 8))
    assert numbers_study(names, x) == ["wrong-loss"]
    grades = np.clip(np.round(x[:, 0] + 0.5 * x[:, 1] + chance.normal(size=300)), -3, 3).astype(int)
    assert numbers_study(grades, x) == []
    counts = chance.poisson(np.exp(0.3 * chance.normal(size=300) + 0.1 * x[:, 0]))
    assert numbers_study(counts, x) == []


# Sum and mean


def summed(rate: float, seed: int = 0, **more: object) -> Sight:
    return numbers(
        plain, seed, network="mlp", width=32, reduction="sum", learning_rate=rate, batch_size=64, **more
    )


def test_a_sum_is_an_alarm_only_where_steps_overshoot() -> None:
    assert loss_sum.find(summed(0.1, optimizer="sgd")).sure == "likely"
    assert loss_sum.find(summed(1e-4, optimizer="sgd")).sure == "hint"
    assert loss_sum.find(summed(0.1, optimizer="adam")).sure == "hint"
    assert loss_sum.find(numbers(plain, network="mlp", width=32, optimizer="sgd")) is None


def test_a_sum_in_a_loop_of_ones_own() -> None:
    assert loss_sum.find(numbers(plain, loss=lambda o, t: (o - t).square().sum())).sure == "hint"
    assert loss_sum.find(numbers(plain, loss=lambda o, t: (o - t).square().mean())) is None


def test_the_curvature_is_the_largest_eigenvalue_of_the_hessian() -> None:
    sight = numbers(nn.Linear)
    x = torch.cat([sight.network.inputs, torch.ones(len(sight.network.inputs), 1)], 1).double()
    exact = float(torch.linalg.eigvalsh(2 * x.T @ x / len(x)).max())
    assert loss_sum.curvature(sight.network) == pytest.approx(exact, rel=0.1)


# The loss at the start


def start(
    outputs: int, per_row, count: int = 3000, scale: float = 0.01, weights=None, bias=None
) -> tuple[float, Network]:
    x = rows(1, count)
    network = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, outputs))
    nn.init.normal_(network[2].weight, std=scale)
    nn.init.zeros_(network[2].bias)
    if bias is not None:
        network[2].bias = nn.Parameter(bias)
    shown = Network(network, x, classes_of(x, outputs), per_row, weights=weights)
    return float(mean_loss(shown, run(network, x))), shown


@pytest.mark.parametrize("outputs", [2, 3, 10])
@pytest.mark.parametrize("scale", [0.001, 0.1])
def test_the_loss_starts_at_the_logarithm_of_the_classes(outputs: int, scale: float) -> None:
    loss, network = start(outputs, entropy, scale=scale)
    expected = expected_loss(network)
    assert expected.value == pytest.approx(math.log(outputs), rel=1e-5)
    assert abs(loss - expected.value) < expected.tolerance
    assert expected.tolerance < 0.05 + 100 * scale**2


@pytest.mark.parametrize("margin", [1.0, 0.5])
def test_the_hinge_starts_at_the_other_classes(margin: float) -> None:
    def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
        right = outputs.gather(-1, targets[:, None])
        over = (outputs - right + margin).clamp_min(0)
        return over.scatter(-1, targets[:, None], 0).sum(-1)

    loss, network = start(4, hinge)
    expected = expected_loss(network)
    assert expected.value == pytest.approx(3 * margin, rel=1e-5)
    assert abs(loss - expected.value) < expected.tolerance


def test_smoothing_weights_and_prior_bias_are_computed_in() -> None:
    smooth = lambda o, t: F.cross_entropy(o, t, reduction="none", label_smoothing=0.2)  # noqa: E731
    assert expected_loss(start(5, smooth)[1]).value == pytest.approx(math.log(5), rel=1e-5)
    weights = torch.linspace(0.1, 3, 3000)
    loss, network = start(5, entropy, weights=weights)
    assert expected_loss(network).value == pytest.approx(math.log(5), rel=1e-5)
    bias = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    loss, network = start(4, entropy, bias=bias)
    assert expected_loss(network).value == pytest.approx(
        -float(bias.mean()), rel=1e-5
    )  # the classes are balanced
    assert abs(loss - expected_loss(network).value) < expected_loss(network).tolerance


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bias_behind_which_a_function_stands_is_no_output(seed: int) -> None:
    class Functional(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.net = plain(inputs, outputs)
            nn.init.constant_(self.net[2].bias, -0.5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.net(x))

    for count in (1, 4):
        assert start_loss.find(labels(Functional, count, seed, of_probabilities)) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_outputs_too_large_at_the_start(seed: int) -> None:
    def loud(inputs: int, outputs: int) -> nn.Module:
        network = plain(inputs, outputs)
        with torch.no_grad():
            network[2].weight.mul_(60)
        return network

    sight = classes(loud, seed=seed)
    assert start_loss.find(sight).sure == "likely"
    assert start_loss.find(replace(sight, settings=make_settings({"network": "mlp"}))).sure == "hint"
    for healthy in (classes(plain, seed=seed), numbers(plain, seed), labels(plain, seed=seed)):
        assert start_loss.find(healthy) is None


# Learning a batch by heart


def test_a_network_that_cannot_learn_a_batch() -> None:
    class Cut(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.body, self.output = nn.Linear(inputs, 32), nn.Linear(32, outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.output(F.relu(self.body(x * 0)))

    assert overfit_one_batch.find(numbers(Cut)).sure == "hint"
    assert overfit_one_batch.find(numbers(plain)) is None
    assert overfit_one_batch.find(numbers(nn.Linear)) is None  # too few weights for it


def logarithms(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(outputs, targets, reduction="none")


@pytest.mark.parametrize("seed", SEEDS)
def test_logarithms_of_shares_are_bounded_by_what_they_are(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.LogSoftmax(1))
    given = Network(net, torch.randn(60, 6), torch.randint(0, 3, (60,)), logarithms)
    assert unbounded_loss.find(Sight(network=given)) is None
    scores = replace(given, module=net[:3])
    finding = unbounded_loss.find(Sight(network=replace(scores, loss_name="nll_loss")))
    assert finding.sure == "likely"
    assert finding.remedies[0].what.startswith("log_softmax before nll_loss")
