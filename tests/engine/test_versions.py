"""Targets of their own for some folds: both engines train such members as the plain loop trains each by itself."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from foldwise.data.variants import Variants
from foldwise.engine.interface import Engine
from foldwise.engine.rows import Rows
from foldwise.plans.plan import Member
from foldwise.reference import Alone, Own, train_alone

TOLERANCE, EPOCHS = 1e-10, 4
VERSION = np.array([1, 0, 2, 1])
COMBINATIONS = [
    ("mlp tanh", "classes", "adamw", "plain"),
    ("mlp relu", "two numbers", "sgd", "noise"),
    ("linear", "two classes, one output", "adam", "weights"),
    ("residual", "soft classes", "rmsprop", "noise"),
    ("mlp tanh", "labels", "nadam", "weights, sums, noise"),
    ("mlp gelu", "hinge", "adagrad", "noise"),
]


@dataclass(frozen=True)
class Versioned(zoo.World):
    """A world whose folds learn three versions of the targets: as they are, backwards and rolled by five."""

    @cached_property
    def variants(self) -> Variants:
        """List the versions, and which of them each fold has."""
        backwards, rolled = self.targets[::-1], np.roll(self.targets, 5, axis=0)
        return Variants.of_targets(np.stack([self.targets, backwards, rolled]), VERSION)

    @cached_property
    def plain(self) -> zoo.World:
        """Give the same world with one version."""
        return zoo.World(**{f.name: getattr(self, f.name) for f in fields(zoo.World)})

    @cached_property
    def rows(self) -> Rows:
        """Place the rows as a question would."""
        placed = replace(
            self.plain.rows,
            targets=torch.tensor(self.variants.joined, device=self.device),
            target_start=torch.tensor(self.variants.target_start, device=self.device),
        )
        if placed.target_shift is None:
            return placed
        weights = np.ones(zoo.ROWS) if self.weights is None else self.weights
        scale = self.variants.target_scale(self.folds.train, weights)
        shift, factor = (torch.tensor(t, device=self.device) for t in (scale.shift, scale.scale))
        return replace(placed, target_shift=shift, target_scale=factor)

    def alone(self, member: Member) -> tuple[nn.Module, Alone, Own]:
        """Prepare a member with the targets of its fold, as if there were no others."""
        return self.plain.with_rows(self.features, self.variants.targets_of(member.fold)).alone(member)


def trained(engine: Engine) -> tuple[Tensor, Tensor]:
    """Train everyone, and give the losses of each epoch and the outputs on validation rows."""
    losses = torch.stack([zoo.advance(engine) for _ in range(EPOCHS)], dim=1)
    return losses, zoo.outputs(engine, zoo.everyone(engine))


def world_of(network: str, target: str, optimizer: str, recipe: str) -> tuple[Versioned, list[Member]]:
    """Make a world and its members."""
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS[target], zoo.RECIPES[recipe]
    made = zoo.world(what, net.net, recipe=doing)
    world = Versioned(**{f.name: getattr(made, f.name) for f in fields(made)})
    return world, zoo.mixed(net, what, optimizer, recipe=doing)


@pytest.mark.parametrize("engine", ["resident", "engine"])
@pytest.mark.parametrize(("network", "target", "optimizer", "recipe"), COMBINATIONS)
def test_members_of_other_versions_are_those_of_the_plain_loop(
    network: str, target: str, optimizer: str, recipe: str, engine: str
) -> None:
    world, members = world_of(network, target, optimizer, recipe)
    made = getattr(world, engine)(members)
    losses, outputs = trained(made)
    for place, member in enumerate(members):
        module, data, own = world.alone(member)
        alone = list(itertools.islice(train_alone(member, module, data, own), EPOCHS))
        for n, epoch in enumerate(alone):
            assert losses[place, n] == pytest.approx(epoch.training_loss, rel=1e-9, abs=TOLERANCE)
        torch.testing.assert_close(
            made.cohort.state.parameters[place].cpu(), zoo.weights(module), rtol=1e-9, atol=TOLERANCE
        )
        own_outputs = alone[-1].outputs
        torch.testing.assert_close(
            outputs[place, : len(own_outputs)], own_outputs, rtol=1e-8, atol=10 * TOLERANCE
        )
        index = torch.from_numpy(world.folds.validation_rows[member.fold])
        seen = world.on_cpu.rows.scaled_targets(index[None], torch.tensor([member.fold]))[0]
        torch.testing.assert_close(seen, data.targets[index], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", ["resident", "engine"])
def test_the_same_version_twice_changes_no_bit(engine: str) -> None:
    net, what = zoo.NETWORKS["mlp tanh"], zoo.TARGETS["two numbers"]
    plain, alike = (zoo.world(what, net.net) for _ in range(2))
    if engine == "resident":
        plain, alike = plain.on_cpu, alike.on_cpu
    members = zoo.mixed(net, what, "adamw")
    twice = torch.cat([alike.rows.targets, alike.rows.targets])
    starts = torch.tensor([0, zoo.ROWS, 0, zoo.ROWS], device=plain.device)
    vars(alike)["rows"] = replace(alike.rows, targets=twice, target_start=starts)
    one, two = (getattr(w, engine)(members) for w in (plain, alike))
    for mine, other in zip(trained(one), trained(two), strict=True):
        assert torch.equal(mine.nan_to_num(-1.0), other.nan_to_num(-1.0))
    assert torch.equal(one.cohort.state.parameters, two.cohort.state.parameters)
