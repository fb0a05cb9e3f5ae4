"""Alone = stacked: a member of any stack equals the same network trained by the plain PyTorch loop."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from foldwise.engine import orders
from foldwise.engine.dropout import KeyedDropout, masked
from foldwise.engine.members import tensors_of
from foldwise.engine.random import key
from foldwise.engine.stacked import forward as ways
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.plans.plan import Member
from foldwise.reference import Epoch, train_alone
from foldwise.settings import SHAPING

TOLERANCE = 1e-10  # in float64, of the largest weight
TOLERANCE_32 = 2e-5  # in float32: about 10 steps, each wrong by some units in the last place
FIRST, STOP, LAST = 1, 4, 10  # the members of the third trial stop after four epochs
ALL_ROWS = 64  # a batch that holds them all: then an epoch is one step


def difference(one: Tensor, other: Tensor) -> float:
    """Give the largest difference, as a share of the largest entry (of 0.001, where all are smaller)."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-3))


def train_stack(engine: StackedEngine, epochs: int) -> Iterator[tuple[int, Tensor]]:
    """Advance a stack, and give the mean training losses of each epoch."""
    for epoch in range(1, epochs + 1):
        losses = zoo.advance(engine)
        curve = [zoo.CURVES[m.trial % 3][epoch - 1] for m in engine.cohort.members]
        engine.cohort.follow_curve(
            torch.tensor(curve, dtype=torch.float64, device=zoo.DEVICE), zoo.everyone(engine)
        )
        yield epoch, losses


def compare(
    world: zoo.World,
    members: list[Member],
    tolerance: float,
    *,
    chunk: int | None = None,
    last: int = LAST,
) -> None:
    """Train members stacked and alone; compare them before any step, and after some epochs up to the last."""
    engine = world.engine(members, chunk)
    assert len({tuple(getattr(m.settings, name) for name in SHAPING) for m in members}) == 1
    start = engine.cohort.state.parameters.clone().cpu()
    stacked: dict[int, tuple[Tensor, dict[str, Tensor], Tensor, Tensor]] = {}
    for epoch, losses in train_stack(engine, last):
        if epoch in (FIRST, STOP, LAST):
            buffers = {name: b.clone().cpu() for name, b in engine.cohort.state.buffers.items()}
            stacked[epoch] = (
                engine.cohort.state.parameters.clone().cpu(),
                buffers,
                losses,
                zoo.outputs(engine, zoo.everyone(engine)),
            )
    for place, member in enumerate(members):
        module, data, own = world.alone(member)
        assert torch.equal(start[place], zoo.weights(module))
        for now in itertools.islice(train_alone(member, module, data, own), last):
            if now.number in stacked:
                _compare_epoch(place, module, now, stacked[now.number], tolerance)


def _compare_epoch(
    place: int,
    module: nn.Module,
    alone: Epoch,
    stacked: tuple[Tensor, dict[str, Tensor], Tensor, Tensor],
    tolerance: float,
) -> None:
    parameters, buffers, losses, outputs = stacked
    assert difference(parameters[place], zoo.weights(module)) < tolerance
    assert abs(losses[place] - alone.training_loss) < tolerance * max(1, alone.training_loss)
    assert difference(outputs[place, : len(alone.outputs)], alone.outputs) < 10 * tolerance
    for name, buffer in buffers.items():
        torch.testing.assert_close(buffer[place], tensors_of(module)[name], rtol=tolerance, atol=tolerance)


def check(
    network: str, target: str, optimizer: str, batch_size: int, last: int = LAST, recipe: str = "plain"
) -> None:
    """Compare the mixed stack of one combination."""
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS[target], zoo.RECIPES[recipe]
    members = zoo.mixed(net, what, optimizer, batch_size=batch_size, recipe=doing)
    compare(zoo.world(what, net.net, recipe=doing), members, TOLERANCE, last=last)


def paired(names: Collection[str], *others: Collection[str]) -> list[tuple[str, ...]]:
    """Put each name together with one of each of the others, going round."""
    return list(zip(names, *(itertools.cycle(o) for o in others), strict=False))


# The constant already stands at the optimum of all rows, where only rounding would move it; batches do.
KNOWN_PRIORS = ("squared_error", "half_squared_error", "cross_entropy", "binary_cross_entropy")
MOVING = [name for name in zoo.NETWORKS if name != "constant"]


@pytest.mark.parametrize(("network", "target", "optimizer"), paired(MOVING, zoo.TARGETS, zoo.OPTIMIZERS))
def test_every_network_after_one_and_ten_steps(network: str, target: str, optimizer: str) -> None:
    check(network, target, optimizer, ALL_ROWS)


@pytest.mark.parametrize("optimizer", zoo.OPTIMIZERS)
@pytest.mark.parametrize("target", zoo.TARGETS)
def test_every_loss_after_one_and_ten_steps(target: str, optimizer: str) -> None:
    check("mlp tanh", target, optimizer, ALL_ROWS)


@pytest.mark.parametrize(
    ("network", "target", "optimizer"),
    paired(
        ["constant", "mlp relu", "Normalized", "Branching", "reusing"],
        ["two numbers", "classes"],
        ["adamw", "sgd"],
    ),
)
def test_in_batches_of_unequal_length(network: str, target: str, optimizer: str) -> None:
    check(network, target, optimizer, zoo.BATCH, last=STOP)


@pytest.mark.parametrize(
    ("recipe", "network", "target", "optimizer"),
    paired(
        zoo.RECIPES,
        ["mlp relu", "residual, normalized", "Branching", "Normalized", "linear"],
        ["classes", "two numbers", "labels", "hinge", "soft classes", "quantile", "two classes"],
        zoo.OPTIMIZERS,
    ),
)
def test_every_recipe(recipe: str, network: str, target: str, optimizer: str) -> None:
    check(network, target, optimizer, zoo.BATCH, last=STOP, recipe=recipe)


def covering() -> list[tuple[str, str, str, str]]:
    """List combinations of everything such that every two things of different kinds meet."""
    rules, recipes = list(zoo.OPTIMIZERS), list(zoo.RECIPES)
    return [
        (network, target, rules[(i + j) % len(rules)], recipes[(i + 5 * j) % len(recipes)])
        for i, network in enumerate(zoo.NETWORKS)
        for j, target in enumerate(zoo.TARGETS)
    ]


def test_every_two_things_meet() -> None:
    kinds = (zoo.NETWORKS, zoo.TARGETS, zoo.OPTIMIZERS, zoo.RECIPES)
    for one, other in itertools.combinations(range(4), 2):
        met = {(c[one], c[other]) for c in covering()}
        assert met == set(itertools.product(kinds[one], kinds[other]))


@pytest.mark.slow
@pytest.mark.parametrize(("network", "target", "optimizer", "recipe"), covering())
def test_every_two_things_together(network: str, target: str, optimizer: str, recipe: str) -> None:
    if network != "constant" or zoo.TARGETS[target].loss in KNOWN_PRIORS:
        check(network, target, optimizer, zoo.BATCH, last=STOP, recipe=recipe)


@pytest.mark.parametrize(
    ("network", "optimizer"), paired(["mlp gelu", "Normalized", "Branching", "linear"], zoo.OPTIMIZERS)
)
def test_in_float32(network: str, optimizer: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net, dtype=torch.float32)
    compare(world, zoo.mixed(net, what, optimizer), TOLERANCE_32)


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("network", ["mlp tanh", "Normalized"])
def test_in_chunks(network: str, chunk: int) -> None:
    # chunks of 4 hold members of several seeds, of which the longest fold trains alone in the last step
    net, what = zoo.NETWORKS[network], zoo.TARGETS["labels"]
    compare(zoo.world(what, net.net), zoo.mixed(net, what, "adamw"), TOLERANCE, chunk=chunk, last=STOP)


@pytest.mark.parametrize("network", zoo.NETWORKS)
def test_each_network_goes_the_way_that_the_zoo_says(network: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    forward = zoo.world(what, net.net).engine(zoo.mixed(net, what, "sgd")).stepper.forward
    way = "chain" if forward.chain else "vmap" if forward.how == "stacked" else forward.how
    assert way == net.way
    assert ("cannot be stacked" in forward.why) == (way == "one by one")


@pytest.mark.parametrize(
    "network", ["linear", "mlp relu", "mlp scaled_sigmoid", "Residual", "Normalized", "Partly"]
)
def test_all_ways_through_a_network_agree(network: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["two numbers"]
    engine = zoo.world(what, net.net).engine(zoo.mixed(net, what, "sgd"))
    engine._mode(training=False)
    parameters = engine.cohort.layout.split(engine.cohort.state.parameters)
    group = engine.cohort.group(zoo.everyone(engine))
    each = {name: tensor[group.owner] for name, tensor in group.dropout.items()}
    keys = {
        f"{name}.key": torch.zeros(len(engine.cohort.members), 2, dtype=torch.int32, device=zoo.DEVICE)
        for name in engine.cohort.dropouts
    }
    buffers = {**engine.cohort.state.buffers, **each, **keys}
    drawn = np.random.default_rng(0).normal(size=(len(engine.cohort.members), 7, zoo.FEATURES))
    x = torch.from_numpy(drawn).to(zoo.DEVICE)
    alone = ways._one_by_one(engine.cohort.skeleton)(parameters, buffers, x)
    others = [ways._vmapped(engine.cohort.skeleton)]
    if ways.is_chain(engine.cohort.skeleton):
        others.append(ways._chained(engine.cohort.skeleton))
    for through in others:
        torch.testing.assert_close(through(parameters, buffers, x), alone, rtol=1e-13, atol=1e-13)


def test_a_layer_that_stands_at_two_places_is_used_twice() -> None:
    layer, activation = nn.Linear(1, 1, bias=False), nn.ReLU()
    with torch.no_grad():
        layer.weight.fill_(3.0)
    chain = nn.Sequential(layer, activation, layer, activation)
    through = ways._chained(chain)
    x = torch.tensor([[[2.0], [-1.0]]])
    assert through({"0.weight": torch.tensor([[[3.0]]])}, {}, x).flatten().tolist() == [18.0, 0.0]


# Bit for bit: starts, orders, masks


@pytest.mark.parametrize("scheme", zoo.INITIALIZATIONS)
def test_starts_do_not_depend_on_companions(scheme: str) -> None:
    what = zoo.TARGETS["classes"]
    own = {"normal": {"initial_deviation": 0.5}, "constant": {"initial_value": 0.5}}.get(scheme, {})
    world = zoo.world(what)
    trials = zoo.mixed(zoo.NETWORKS["mlp relu"], what, "adamw")
    changed = {"initialization": scheme, **own, "loss": what.loss, "width": 6}
    members = [
        replace(m, settings=type(m.settings)(**changed, learning_rate=0.1 * (n + 1)))
        for n, m in enumerate(trials)
    ]
    together = world.nursery.initial_state(members, {}).parameters
    for place, member in enumerate(members):
        assert torch.equal(world.nursery.initial_state([member], {}).parameters[0], together[place])
        assert torch.equal(zoo.weights(world.nursery.start(member)), together[place])
    by_seed = {m.seed: together[p] for p, m in enumerate(members)}
    assert torch.equal(by_seed[0], by_seed[1]) == (scheme == "constant")


@pytest.mark.parametrize("at_once", [1, 2 * zoo.ROWS, orders.AT_ONCE])
def test_orders_do_not_depend_on_companions(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "AT_ONCE", at_once)
    folds = zoo.world(zoo.TARGETS["classes"]).folds
    made = orders.RowOrders(folds, zoo.DEVICE)
    streams = [(seed, fold) for seed in (0, 1, 5) for fold in range(len(folds))]
    for epoch in (1, 2, 10, 2):
        side_by_side = made.padded([(epoch, *stream) for stream in streams])
        for line, (seed, fold) in zip(side_by_side.tolist(), streams, strict=True):
            own = [
                row for row in orders.epoch_order(zoo.ROWS, seed, epoch).tolist() if folds.train[fold][row]
            ]
            assert line[: len(own)] == own
            assert not any(line[len(own) :])
    first, second = (made.of(epoch, 0, 0).tolist() for epoch in (1, 2))
    assert first != second
    assert made.of(1, 0, 0).tolist() != made.of(1, 1, 0).tolist()


def test_orders_of_the_folds_of_a_seed_are_one_order() -> None:
    folds = zoo.world(zoo.TARGETS["classes"]).folds
    made = orders.RowOrders(folds, zoo.DEVICE)
    common = folds.train[0] & folds.train[1]
    first, second = (made.of(3, 7, fold).cpu() for fold in (0, 1))
    assert first[common[first]].tolist() == second[common[second]].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_of_a_stack_are_those_of_each_network_alone(dtype: torch.dtype) -> None:
    members = [(3, 0.0), (3, 0.5), (8, 0.1), (8, 0.9), (3, 0.5)]  # seeds and rates
    distinct = sorted(set(members))
    layers = {own: KeyedDropout(own[1]).to(dtype) for own in distinct}
    for (seed, _), layer in layers.items():
        layer.key = key(torch.tensor(seed), "dropout", 0, 4)
    x = torch.rand(len(members), 9, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    together = {
        name: torch.stack([getattr(layer, name) for layer in layers.values()])
        for name in ("key", "limit", "scale")
    }
    owner = torch.tensor([distinct.index(own) for own in members])
    for call in range(3):  # a layer at several places draws anew at each
        stacked = masked(x, **together, call=call, owner=owner)
        for place, own in enumerate(members):
            layers[own].calls = call
            assert torch.equal(layers[own](x[place]), stacked[place])


@pytest.mark.parametrize("network", ["mlp tanh", "Normalized", "Branching"])
def test_masks_that_the_engine_draws_are_those_of_the_plain_loop(network: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net)
    members = zoo.mixed(net, what, "sgd")
    engine, seen = world.engine(members), []
    forward = engine.stepper.forward

    def spying(parameters: ways.Named, buffers: ways.Named, x: Tensor) -> Tensor:
        seen.append({name: b.clone() for name, b in buffers.items()})
        return forward.through(parameters, buffers, x)

    engine.stepper = replace(engine.stepper, forward=replace(forward, through=spying))
    for _ in train_stack(engine, 3):
        pass
    alone = {key_bits for m in members for key_bits in keys_alone(world, m, len(engine.cohort.dropouts), 3)}
    assert {key_bits for step in seen for key_bits in keys_stacked(engine, step)} == alone


def keys_alone(world: zoo.World, member: Member, layers: int, epochs: int) -> Iterator[tuple[int, ...]]:
    """List the dropout keys of a member, counted by hand: seed, layer and its own steps."""
    steps = epochs * -(-int(world.folds.train[member.fold].sum()) // member.settings.batch_size)
    for step in range(steps):
        for layer in range(layers):
            yield (layer, *key(torch.tensor(member.seed), "dropout", layer, step).tolist())


def keys_stacked(engine: StackedEngine, buffers: ways.Named) -> Iterator[tuple[int, ...]]:
    """List the dropout keys that a step of the engine used."""
    for layer, name in enumerate(engine.cohort.dropouts):
        owned = buffers[f"{name}.key"]
        if ways.OWNER in buffers:
            owned = owned[buffers[ways.OWNER]]
        yield from ((layer, *own) for own in owned.tolist())
