"""Built-in networks: their layers, what they compute by hand, and what they can and cannot learn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import studies
import zoo
from foldwise.nets.activations import ACTIVATIONS
from foldwise.nets.build import build, own_options
from foldwise.nets.constant import Constant
from foldwise.nets.mlp import mlp
from foldwise.plans.plan import Member
from foldwise.settings import Settings


@pytest.mark.parametrize(
    ("depth", "count"), [(0, 4 * 3 + 3), (1, 4 * 8 + 8 + 8 * 3 + 3), (3, 4 * 8 + 8 + 2 * (64 + 8) + 27)]
)
def test_the_number_of_weights(depth: int, count: int) -> None:
    net = mlp(4, 3, width=8, depth=depth)
    assert sum(p.numel() for p in net.parameters()) == count


def test_layers_come_in_order_and_the_output_is_bare() -> None:
    net = mlp(4, 3, width=8, depth=2, activation="tanh", dropout=0.2)
    kinds = [type(layer) for layer in net]
    assert kinds == [nn.Linear, nn.Tanh, nn.Dropout, nn.Linear, nn.Tanh, nn.Dropout, nn.Linear]
    assert net.dropout1.p == 0.2


@pytest.mark.parametrize(
    ("name", "kind"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm), ("group", nn.GroupNorm)]
)
def test_normalization_stands_between_a_linear_layer_and_its_activation(name: str, kind: type) -> None:
    own = {"normalization_groups": 2} if name == "group" else {}
    net = build(Settings(network="mlp", width=8, depth=2, normalization=name, **own), 4, 3)
    layers = [f"{part}{i}" for i in (1, 2) for part in ("hidden", "normalization", "activation", "dropout")]
    assert [name for name, _ in net.named_children()] == [*layers, "output"]
    assert type(net.normalization1) is kind
    if name == "group":
        assert net.normalization2.num_groups == 2


@pytest.mark.parametrize("initialization", ["kaiming", "orthogonal", "own"])
def test_without_hidden_layers_it_is_the_linear_network_weight_for_weight(initialization: str) -> None:
    what = zoo.TARGETS["classes"]
    own = {"loss": what.loss, "initialization": initialization}
    world = zoo.world(what)
    kinds = (Settings(network="mlp", depth=0, **own), Settings(network="linear", **own))
    flat, linear = (world.nursery.start(Member(0, 1, 3, s)).state_dict() for s in kinds)
    assert list(flat) == list(linear) == ["output.weight", "output.bias"]
    assert all(torch.equal(flat[name], linear[name]) for name in flat)


def test_without_hidden_layers_it_is_linear() -> None:
    net = mlp(2, 1, width=8, depth=0)
    assert [name for name, _ in net.named_children()] == ["output"]
    with torch.no_grad():
        net.output.weight.copy_(torch.tensor([[2.0, -1.0]]))
        net.output.bias.fill_(0.5)
    assert net(torch.tensor([[3.0, 4.0]])).item() == 2.5


def test_a_hidden_layer_by_hand() -> None:
    net = mlp(1, 1, width=2, depth=1)
    with torch.no_grad():
        net.hidden1.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.hidden1.bias.zero_()
        net.output.weight.copy_(torch.tensor([[1.0, 1.0]]))
        net.output.bias.zero_()
    assert net(torch.tensor([[-3.0], [2.0]])).flatten().tolist() == [3, 2]  # the absolute value


BY_HAND = {
    "relu": (0, 2),
    "leaky_relu": (-0.02, 2),
    "tanh": (-np.tanh(2), np.tanh(2)),
    "sigmoid": (1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))),
    "scaled_sigmoid": (4 / (1 + np.exp(2)) - 2, 4 / (1 + np.exp(-2)) - 2),
    "gelu": (-2 * 0.02275013194817921, 2 * 0.9772498680518208),  # x·Φ(x)
    "silu": (-2 / (1 + np.exp(2)), 2 / (1 + np.exp(-2))),
}


@pytest.mark.parametrize("name", zoo.ACTIVATIONS)
def test_activations_by_hand(name: str) -> None:
    y = ACTIVATIONS[name]()(torch.tensor([-2.0, 2.0], dtype=torch.float64))
    assert y.tolist() == pytest.approx(BY_HAND[name], abs=1e-12)


def test_the_scaled_sigmoid_is_nearly_the_identity_at_zero() -> None:
    x = torch.tensor([0.0, 1e-3], dtype=torch.float64, requires_grad=True)
    y = ACTIVATIONS["scaled_sigmoid"]()(x)
    assert y.tolist() == pytest.approx([0, 1e-3], abs=1e-9)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == pytest.approx([1, 1], abs=1e-6)


def test_the_constant_looks_at_nothing() -> None:
    net = Constant(2)
    with torch.no_grad():
        net.prior.copy_(torch.tensor([1.0, -1.0]))
    assert net(torch.full((3, 5), torch.nan)).tolist() == [[1, -1]] * 3


@pytest.mark.parametrize("name", ["constant", "linear", "mlp"])
def test_settings_make_the_network_that_they_name(name: str) -> None:
    net = build(Settings(network=name), 4, 3)
    assert net(torch.zeros(7, 4)).shape == (7, 3)
    assert isinstance(net, Constant if name == "constant" else nn.Sequential)
    assert (
        sum(isinstance(m, nn.Linear) for m in net.modules()) == {"constant": 0, "linear": 1, "mlp": 3}[name]
    )


def test_a_network_of_ones_own_gets_what_it_asks_for() -> None:
    def net(inputs: int, *, outputs: int, width: int = 3, flavor: str = "plain", **rest: object) -> nn.Module:
        assert not rest
        layer = nn.Linear(inputs, outputs)
        layer.told = (width, flavor)
        return layer

    own = {"network": "custom", "width": 9}
    assert build(Settings(**own), 4, 3, net).told == (3, "plain")  # a network's own defaults are kept
    told = build(Settings(**own, takes=("width",), options=(("flavor", "sour"),)), 4, 3, net).told
    assert told == (9, "sour")
    assert list(own_options(net)) == ["width", "flavor"]


def test_a_network_may_take_nothing_at_all() -> None:
    def net() -> nn.Module:
        return nn.Linear(4, 3)

    assert isinstance(build(Settings(network="custom"), 4, 3, net), nn.Linear)


# What networks can learn


def corners(rows: int) -> pl.DataFrame:
    """Draw exclusive or: the answer is whether two signs differ."""
    x = np.random.default_rng(0).uniform(-1, 1, size=(rows, 2))
    return pl.DataFrame(
        {"x": x[:, 0], "y": x[:, 1], "ill": np.where((x[:, 0] > 0) != (x[:, 1] > 0), "yes", "no")}
    )


def test_exclusive_or_is_learnt_by_the_mlp_and_not_by_the_linear_network() -> None:
    rate = {"epochs": 25, "learning_rate": 0.03}
    trials = [{"width": 16, **rate}, {"network": "linear", **rate}, {"network": "constant", "epochs": 0}]
    made = studies.study(studies.job(corners(400), "binary", trials, folds=2))
    score = {r.settings.network: r.score for r in made.results}
    assert score["mlp"] > 0.93
    assert score["linear"] < 0.65
    assert score["constant"] < 0.6


def test_a_line_is_learnt_by_the_linear_network_exactly() -> None:
    x = np.linspace(-1, 1, 60)
    frame = pl.DataFrame({"x": x, "price": 3 * x + 20})
    line = {
        "network": "linear",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "epochs": 60,
        "scaling": "standard",
    }
    made = studies.study(studies.job(frame, "regression", [line], folds=3))
    assert made.results[0].score < 1e-6
    assert made.predict(pl.DataFrame({"x": [0.5]}))["prediction"].item() == pytest.approx(21.5, abs=1e-5)
