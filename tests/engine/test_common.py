"""What holds for everything in the zoo: weights mean rows, nothing is remembered outside the state, types stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from foldwise.data.folds import Folds
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.state import put, take
from foldwise.plans.plan import Member

pytestmark = pytest.mark.slow  # together they take minutes

ALL_ROWS = 1000
TIMES = np.array([0, 1, 2, 3])[np.random.default_rng(5).permutation(np.arange(zoo.ROWS) % 4)]
# these draw by the place of a row, normalize over a batch of rows, or look at rows for their start
BY_PLACE = ("noise", "weights, sums, noise", "accumulation", "growing batches", "weights")
BY_ROWS = (
    "constant",
    "mlp, batch normalization",
    "residual, normalized",
    "Normalized",
    "Branching",
    "fourier",
)


def followed(engine: StackedEngine, epochs: range) -> list[Tensor]:
    """Train some epochs, as the loop does, and give the losses."""
    losses = []
    for epoch in epochs:
        losses.append(zoo.advance(engine))
        curve = [zoo.CURVES[m.trial][epoch - 1] for m in engine.cohort.members]
        engine.cohort.follow_curve(torch.tensor(curve, dtype=torch.float64), zoo.everyone(engine))
    return losses


def members_for(network: str, target: str, optimizer: str, recipe: str, **changed: Any) -> list[Member]:
    """Make a mixed stack."""
    what = zoo.TARGETS[target]
    made = zoo.mixed(zoo.NETWORKS[network], what, optimizer, recipe=zoo.RECIPES[recipe])
    return [replace(m, settings=m.settings.model_copy(update=changed)) for m in made]


# Weights mean rows


def repeated(world: zoo.World) -> zoo.World:
    """Give the world in which every row is there as often as its weight says."""
    rows = np.repeat(np.arange(zoo.ROWS), TIMES)
    folds = Folds(world.folds.train[:, rows], world.folds.validation[:, rows], world.folds.how)
    return replace(world, features=world.features[rows], targets=world.targets[rows], folds=folds)


def weighted(world: zoo.World) -> zoo.World:
    """Give the world in which rows have weights; those of weight 0 are absent, as a table would have them."""
    kept = TIMES > 0
    folds = Folds(world.folds.train[:, kept], world.folds.validation[:, kept], world.folds.how)
    return zoo.Weighted(
        world.features[kept], world.targets[kept], folds, world.target, world.net, world.dtype,
        TIMES[kept].astype(float), world.links,
    )  # fmt: skip


def check_weights(network: str, target: str, optimizer: str, recipe: str) -> None:
    """Train with weights and with repeated rows; all rows are one batch."""
    net, what = zoo.NETWORKS[network], zoo.TARGETS[target]
    world = zoo.world(what, net.net, recipe=zoo.RECIPES[recipe])
    start = {"initialization": net.settings.get("initialization", "kaiming")}
    members = members_for(network, target, optimizer, recipe, batch_size=ALL_ROWS, dropout=0.0, **start)
    after = []
    for own in (weighted(world), repeated(world)):
        engine = own.engine(members)
        losses = followed(engine, range(1, 5))
        after.append((engine.cohort.state.parameters, *losses))
    for one, other in zip(*after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8, equal_nan=True)


@pytest.mark.parametrize("target", zoo.TARGETS)
def test_weights_mean_rows_for_every_loss(target: str) -> None:
    check_weights("mlp tanh", target, "sgd", "plain")


@pytest.mark.parametrize("network", [n for n in zoo.NETWORKS if n not in BY_ROWS])
def test_weights_mean_rows_for_every_network(network: str) -> None:
    check_weights(network, "two classes, one output", "sgd", "plain")


@pytest.mark.parametrize("recipe", [r for r in zoo.RECIPES if r not in BY_PLACE])
def test_weights_mean_rows_in_every_recipe(recipe: str) -> None:
    check_weights("mlp tanh", "huber", "sgd", recipe)


@pytest.mark.parametrize("optimizer", zoo.OPTIMIZERS)
def test_weights_mean_rows_with_every_optimizer(optimizer: str) -> None:
    check_weights("mlp tanh", "two numbers", optimizer, "plain")


# Nothing is remembered outside the state


def check_resumed(network: str, optimizer: str, recipe: str) -> None:
    """Stop after three epochs, put the state into a new engine, and go on: bit by bit as without the stop."""
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net, recipe=zoo.RECIPES[recipe])
    members = members_for(network, "classes", optimizer, recipe)
    whole, first, second = (world.engine(members) for _ in range(3))
    straight = followed(whole, range(1, 7))[3:]
    followed(first, range(1, 4))
    everyone = torch.arange(len(members))
    put(second.cohort.state, everyone, take(first.cohort.state, everyone))
    resumed = followed(second, range(4, 7))
    assert torch.equal(whole.cohort.state.parameters, second.cohort.state.parameters)
    for name, moment in whole.cohort.state.moments.items():
        assert torch.equal(moment, second.cohort.state.moments[name])
    for one, other in zip(straight, resumed, strict=True):
        assert torch.equal(one.view(torch.int64), other.view(torch.int64))


@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_a_state_can_be_resumed_in_every_recipe(recipe: str) -> None:
    check_resumed("mlp relu", "sgd", recipe)


@pytest.mark.parametrize("optimizer", zoo.OPTIMIZERS)
def test_a_state_can_be_resumed_with_every_optimizer(optimizer: str) -> None:
    check_resumed("mlp relu", optimizer, "clipping")


@pytest.mark.parametrize("network", zoo.NETWORKS)
def test_a_state_can_be_resumed_with_every_network(network: str) -> None:
    check_resumed(network, "nadam", "plain")


# Types stay


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_the_number_type_stays_in_every_recipe(recipe: str, dtype: torch.dtype) -> None:
    for number, optimizer in enumerate(zoo.OPTIMIZERS):
        network = list(zoo.NETWORKS)[(3 * number) % len(zoo.NETWORKS)]
        net = zoo.NETWORKS[network]
        world = zoo.world(zoo.TARGETS["classes"], net.net, dtype=dtype, recipe=zoo.RECIPES[recipe])
        engine = world.engine(members_for(network, "classes", optimizer, recipe))
        before = types(engine)
        zoo.advance(engine)
        assert types(engine) == before
        assert engine.cohort.state.parameters.dtype == dtype
        assert zoo.outputs(engine, zoo.everyone(engine)).dtype == dtype


def types(engine: StackedEngine) -> dict[str, torch.dtype]:
    """Name the types of all tensors of the state."""
    state = engine.cohort.state
    everything = {"parameters": state.parameters, "step": state.step, **state.buffers, **state.moments}
    return {name: tensor.dtype for name, tensor in everything.items()}
