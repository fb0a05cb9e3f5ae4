"""The resident engine: its members are those of the plain loop, and so those of the stacked engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from numba.core.caching import IndexDataCacheFile
from scipy import special
from torch import Tensor, nn

import zoo
from foldwise.engine import random
from foldwise.engine.interface import choose_engine, why_not_resident
from foldwise.engine.noise import mix_partners
from foldwise.engine.orders import epoch_order
from foldwise.engine.resident import draws, functions, inputs, member, tiles
from foldwise.engine.resident.engine import ResidentEngine
from foldwise.engine.resident.losses import LOSSES
from foldwise.engine.resident.program import ACTIVATIONS
from foldwise.engine.resident.rules import OPTIMIZERS
from foldwise.engine.resident.tiles import PADDING, add_product, memory, multiply
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.stacked.forward import BATCHED
from foldwise.engine.state import put, take
from foldwise.errors import SettingsError
from foldwise.nets import activations
from foldwise.nets.constant import Constant
from foldwise.nets.features import Polynomial
from foldwise.nets.residual import Residual
from foldwise.plans.plan import Member
from foldwise.reference import train_alone
from foldwise.settings import make_settings

TOLERANCE, TOLERANCE_32 = 1e-10, 2e-5
NETWORKS = [name for name, n in zoo.NETWORKS.items() if n.way == "chain" and name != "constant"]
TARGETS = [name for name, t in zoo.TARGETS.items() if t.own is None]
RECIPES = [name for name, r in zoo.RECIPES.items() if not r.links]
EPOCHS = 4


def difference(one: Tensor, other: Tensor) -> float:
    """Give the largest difference, as a share of the largest entry (of 0.001, where all are smaller)."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-3))


def learned(engine: ResidentEngine, epochs: int = EPOCHS) -> tuple[Tensor, Tensor]:
    """Train everyone; give the losses of each epoch, and outputs on validation rows after the last."""
    losses = []
    for epoch in range(1, epochs + 1):
        losses.append(zoo.advance(engine))
        curve = [zoo.CURVES[m.trial % 3][epoch - 1] for m in engine.cohort.members]
        engine.cohort.follow_curve(torch.tensor(curve, dtype=torch.float64), zoo.everyone(engine))
    return torch.stack(losses, dim=1), zoo.outputs(engine, zoo.everyone(engine))


def compare(world: zoo.World, members: list[Member], tolerance: float, epochs: int = EPOCHS) -> None:
    """Train members on their cores and alone, in plain PyTorch."""
    engine = world.resident(members)
    start = engine.cohort.state.parameters.clone()
    losses, outputs = learned(engine, epochs)
    state = engine.cohort.state
    for place, m in enumerate(members):
        module, data, own = world.alone(m)
        assert torch.equal(start[place], zoo.weights(module))
        for epoch in itertools.islice(train_alone(m, module, data, own), epochs):
            assert abs(losses[place, epoch.number - 1] - epoch.training_loss) < tolerance * max(
                1, epoch.training_loss
            )
        assert difference(state.parameters[place], zoo.weights(module)) < tolerance
        assert difference(outputs[place, : len(epoch.outputs)], epoch.outputs) < 10 * tolerance
        for name, buffer in state.buffers.items():
            alone = dict(module.named_buffers())[name]
            torch.testing.assert_close(buffer[place], alone, rtol=tolerance, atol=tolerance)


def check(
    network: str, target: str, optimizer: str, recipe: str = "plain", batch_size: int = zoo.BATCH
) -> None:
    """Compare the mixed members of one combination."""
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS[target], zoo.RECIPES[recipe]
    members = zoo.mixed(net, what, optimizer, batch_size=batch_size, recipe=doing)
    compare(zoo.world(what, net.net, recipe=doing), members, TOLERANCE)


def paired(names: list[str], *others: list[str]) -> list[tuple[str, ...]]:
    """Put each name together with one of each of the others, going round."""
    return list(zip(names, *(itertools.cycle(o) for o in others), strict=False))


# Alone = resident


@pytest.mark.parametrize(("network", "target", "optimizer"), paired(NETWORKS, TARGETS, list(zoo.OPTIMIZERS)))
def test_every_network(network: str, target: str, optimizer: str) -> None:
    check(network, target, optimizer)


@pytest.mark.parametrize(("target", "optimizer"), paired(TARGETS, list(zoo.OPTIMIZERS)))
def test_every_loss_over_all_rows(target: str, optimizer: str) -> None:
    check("mlp tanh", target, optimizer, batch_size=64)


@pytest.mark.parametrize(
    ("recipe", "network", "target", "optimizer"),
    paired(
        RECIPES,
        ["mlp relu", "residual, normalized", "linear", "reusing", "residual"],
        ["classes", "two numbers", "labels", "hinge", "soft classes", "quantile", "two classes"],
        list(zoo.OPTIMIZERS),
    ),
)
def test_every_recipe(recipe: str, network: str, target: str, optimizer: str) -> None:
    check(network, target, optimizer, recipe)


def covering() -> list[tuple[str, str, str, str]]:
    """List combinations such that every two things of different kinds meet."""
    rules = list(zoo.OPTIMIZERS)
    return [
        (network, target, rules[(i + j) % len(rules)], RECIPES[(i + 5 * j) % len(RECIPES)])
        for i, network in enumerate(NETWORKS)
        for j, target in enumerate(TARGETS)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "target", "optimizer", "recipe"), covering())
def test_every_two_things_together(network: str, target: str, optimizer: str, recipe: str) -> None:
    check(network, target, optimizer, recipe)


@pytest.mark.parametrize(
    ("network", "target", "optimizer", "recipe"),
    paired(NETWORKS, TARGETS, list(zoo.OPTIMIZERS), RECIPES),
)
def test_in_float32(network: str, target: str, optimizer: str, recipe: str) -> None:
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS[target], zoo.RECIPES[recipe]
    members = zoo.mixed(net, what, optimizer, recipe=doing)
    worlds = [zoo.world(what, net.net, recipe=doing, dtype=d) for d in (torch.float32, torch.float64)]
    engine = worlds[0].resident(members)
    learned(engine)
    for place, m in enumerate(members):
        single, double = (last_weights(world, m) for world in worlds)
        rounding = difference(single.double(), double)  # some rules divide by what is nearly nothing
        apart = difference(engine.cohort.state.parameters[place].double(), double)
        assert apart < max(TOLERANCE_32, 20 * rounding)


def last_weights(world: zoo.World, m: Member) -> Tensor:
    """Train a member alone, in plain PyTorch."""
    module, data, own = world.alone(m)
    for _ in itertools.islice(train_alone(m, module, data, own), EPOCHS):
        pass
    return zoo.weights(module)


def test_the_constant_stays_where_it_is_best() -> None:
    what = zoo.TARGETS["classes"]
    world = zoo.world(what)
    settings = make_settings({"network": "constant"}, base={"loss": what.loss, "epochs": 0})
    engine = world.resident([Member(0, 1, 0, settings)])
    outputs = zoo.outputs(engine, [0])[0]
    assert torch.equal(outputs, engine.cohort.state.parameters[0].expand_as(outputs))


# No companion matters


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("network", ["residual, normalized", "mlp tanh"])
def test_poison_stays_where_it_is(network: str, recipe: str) -> None:
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS["classes"], zoo.RECIPES[recipe]
    world, members = zoo.world(what, recipe=doing), zoo.mixed(net, what, "nadam", recipe=doing)
    healthy, ill = world.resident(members), world.resident(members)
    ill.cohort.state.parameters[2] = float("nan")
    both = [learned(engine) for engine in (healthy, ill)]
    states = [[engine.cohort.state.parameters, *r] for engine, r in zip((healthy, ill), both, strict=True)]
    bits = [[tensor.view(torch.int64) for tensor in state] for state in states]
    same = [all(torch.equal(a[p], b[p]) for a, b in zip(*bits, strict=True)) for p in range(6)]
    assert same == [p != 2 for p in range(6)]
    assert not torch.isfinite(both[1][0][2]).any()
    assert not torch.isfinite(both[1][1][2]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_member_is_the_same_alone_and_in_any_company(dtype: torch.dtype) -> None:
    net, what, doing = zoo.NETWORKS["mlp relu"], zoo.TARGETS["two numbers"], zoo.RECIPES["blocks"]
    world, members = zoo.world(what, recipe=doing, dtype=dtype), zoo.mixed(net, what, "adamw", recipe=doing)
    together = world.resident(members)
    losses, outputs = learned(together)
    for place, m in enumerate(members):
        alone = world.resident([m])
        own_losses, own_outputs = learned(alone)
        assert torch.equal(alone.cohort.state.parameters[0], together.cohort.state.parameters[place])
        torch.testing.assert_close(own_losses[0], losses[place], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(own_outputs[0], outputs[place])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_how_many_cores_there_are_does_not_matter(threads: int) -> None:
    net, what = zoo.NETWORKS["mlp, batch normalization"], zoo.TARGETS["classes"]
    world, members = zoo.world(what), zoo.mixed(net, what, "adam")
    usual = learned(world.resident(members))
    engine = world.resident(members)
    engine.workers = threads
    others = learned(engine)
    assert all(torch.equal(*pair) for pair in zip(others, usual, strict=True))
    assert torch.get_num_threads() == 1  # what a test process has


# Members come and go


def test_members_who_join_later_are_those_who_were_there_from_the_start() -> None:
    net, what = zoo.NETWORKS["mlp relu"], zoo.TARGETS["classes"]
    world, members = zoo.world(what), zoo.mixed(net, what, "adamw")
    together, later = world.resident(members), world.resident(members[:2])  # of which no one drops units
    assert not any(map(any, later.cohort.rates.values())) or members[0].settings.dropout == 0
    learned(together)
    learned(later, 2)
    later.cohort.add(members[2:])
    for _ in range(EPOCHS - 2):
        zoo.advance(later)
    for _ in range(2):
        zoo.advance(later, [2, 3, 4, 5])
    assert torch.equal(later.cohort.state.parameters, together.cohort.state.parameters)


def test_an_epoch_that_is_broken_off_goes_on_with_the_parts_that_are_left() -> None:
    net, what = zoo.NETWORKS["residual, normalized"], zoo.TARGETS["classes"]
    world, members = zoo.world(what), zoo.mixed(net, what, "nadam")
    whole, broken = world.resident(members), world.resident(members)
    for _ in range(3):
        zoo.advance(whole)
    for finished in (0, 1, 2):
        parts = broken.parts(zoo.everyone(broken))
        epoch = broken.advance(parts)
        for _ in range(finished):
            next(epoch)
        epoch.close()
        assert broken.cohort.state.epoch.unique().numel() == (1 if finished == 0 else 2)
        for _ in broken.advance(parts[finished:]):
            pass
    for one, other in zip((whole, broken), (broken, whole), strict=True):
        assert torch.equal(one.cohort.state.parameters, other.cohort.state.parameters)
    buffers = zip(whole.cohort.state.buffers.values(), broken.cohort.state.buffers.values(), strict=True)
    assert all(torch.equal(*pair) for pair in buffers)


def test_a_state_goes_on_in_a_fresh_engine_or_in_the_stacked_one() -> None:
    net, what = zoo.NETWORKS["residual, normalized"], zoo.TARGETS["classes"]
    world, members = zoo.world(what), zoo.mixed(net, what, "nadam")
    first, second = world.resident(members), world.resident(members)
    stacked = world.engine(members)
    learned(first, 2)
    for engine in (second, stacked):
        put(engine.cohort.state, slice(None), take(first.cohort.state, slice(None)))
    for engine in (first, second, stacked):
        zoo.advance(engine)
    assert torch.equal(second.cohort.state.parameters, first.cohort.state.parameters)
    assert difference(stacked.cohort.state.parameters, first.cohort.state.parameters) < TOLERANCE


# However it is laid out


@pytest.mark.parametrize("recipe", ["plain", "noise", "weights, sums, noise", "accumulation"])
def test_blocks_of_rows_make_no_difference(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, what, doing = zoo.NETWORKS["mlp tanh"], zoo.TARGETS["two numbers"], zoo.RECIPES[recipe]
    world, members = zoo.world(what, recipe=doing), zoo.mixed(net, what, "sgd", recipe=doing)
    usual = world.resident(members)
    small = world.resident(members)
    monkeypatch.setattr(small, "_space", lambda size: 3)
    for one, other in zip(learned(usual), learned(small), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_rows_prepared_ahead_and_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, what = zoo.NETWORKS["mlp relu"], zoo.TARGETS["classes"]
    members = zoo.mixed(net, what, "adamw")
    ahead = zoo.world(what).resident(members)
    monkeypatch.setattr(inputs, "PREPARED_BYTES", 0)
    needed = zoo.world(what).resident(members)
    assert ahead.data.prepared.size > 0 == needed.data.prepared.size
    for one, other in zip(learned(ahead), learned(needed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_extreme_cells_are_bounded_row_by_row_too(monkeypatch: pytest.MonkeyPatch) -> None:
    what = zoo.TARGETS["classes"]
    world = zoo.world(what)
    cells = world.features.copy()
    cells[3, 0], cells[5, 0], cells[7, 1] = 1e150, -1e12, 1e60
    members = [m for m in zoo.mixed(zoo.NETWORKS["linear"], what, "sgd") if m.settings.scaling == "robust"]
    ahead = world.with_rows(cells, world.targets).resident(members)
    monkeypatch.setattr(inputs, "PREPARED_BYTES", 0)
    needed = world.with_rows(cells, world.targets).resident(members)
    for one, other in zip(learned(ahead), learned(needed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


SHAPES = [(32, 10, 32), (33, 7, 2), (1, 1, 1), (5, 64, 10), (13, 20, 33), (8, 0, 5), (3, 9, 70)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products(shape: tuple[int, int, int], dtype: Any) -> None:
    rows, terms, columns = shape
    numbers = np.random.default_rng(0)
    left, right, start = (
        numbers.normal(size=s).astype(dtype) for s in ((rows, terms), (terms, columns), columns)
    )
    row = -(-columns // 32) * 32
    parts = [
        left.ravel(),
        right.ravel(),
        np.zeros(PADDING),
        start,
        np.zeros(PADDING),
        np.full(rows * row, 7.0),
    ]
    parts += [np.ones(rows * columns + 1), np.zeros(8 * PADDING)]
    places = np.cumsum([0, *map(len, parts)])
    work = np.concatenate(parts).astype(dtype)
    _multiplied(work, places, row, rows, columns, terms)
    out = work[places[5] : places[6]].reshape(rows, row)[:, :columns]
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out, left @ right + start, rtol=tolerance, atol=tolerance)
    added = work[places[6] : places[7]]
    np.testing.assert_allclose(
        added[:-1].reshape(rows, columns), left @ right + 1, rtol=tolerance, atol=tolerance
    )
    assert added[-1] == 1  # nothing behind the end was touched


@njit
def _multiplied(work: np.ndarray, places: np.ndarray, row: int, rows: int, columns: int, terms: int) -> None:
    numbers = memory(work)
    left, right, _, start, _, out, added, side, _ = places
    multiply(numbers, out, row, left, terms, 1, right, columns, start, rows, columns, terms)
    add_product(numbers, added, left, terms, 1, right, columns, rows, columns, terms, side)
    work[0] = work[0]  # it is needed until here


# The same numbers


@pytest.mark.parametrize("seed", [0, 7, -3, 2**40 + 5])
def test_draws_are_the_same_bits(seed: int) -> None:
    own, number = torch.tensor(seed), 12345678901
    for purpose, others in (
        ("dropout", (3, number)),
        ("mix", (number, 1)),
        ("noise", (number,)),
        ("order", (9,)),
    ):
        kept, normals = np.zeros(1000, np.float32), np.zeros(50)
        found = _drawn(seed, random.PURPOSES[purpose], *(*others, draws.NOTHING)[:2], kept, 1 << 23, normals)
        words = random.key(own, purpose, *others)
        assert list(found) == words.numpy().view(np.uint32).tolist()
        assert np.array_equal(kept == 0, random.draws24(words, 1003)[3:].numpy() < 1 << 23)
        np.testing.assert_allclose(normals, random.normal(words, 50).numpy(), rtol=1e-13, atol=1e-13)
    for rows in (1, 2, 7, 3000):
        partners, order = _ordered(seed, number, 20, rows)
        assert partners.tolist() == mix_partners(own, torch.tensor(number), rows).tolist()
        assert order.tolist() == epoch_order(rows, seed, 20).tolist()


@njit
def _drawn(
    seed: int, purpose: int, one: int, other: int, kept: np.ndarray, limit: int, normals: np.ndarray
) -> Any:
    first, second = draws.key(seed, purpose, one, other)
    draws.mask(memory(kept), 0, first, second, 3, len(kept), limit)
    for i in range(len(normals)):
        normals[i] = draws.normal(first, second, i)
    kept[0] = kept[0]  # it is needed until here
    return first, second


@njit
def _ordered(seed: int, batch: int, epoch: int, rows: int) -> Any:
    first, second = draws.key(seed, draws.MIX, batch, 1)
    return draws.permutation(first, second, rows), draws.row_order(seed, epoch, rows)


@pytest.mark.parametrize(
    ("which", "true", "ulps"),
    [(0, np.exp, 2), (1, np.tanh, 2), (2, special.erf, 8), (3, special.expit, 3)],
)
def test_functions_in_float32(which: int, true: Callable[[np.ndarray], np.ndarray], ulps: int) -> None:
    x = np.concatenate([np.linspace(-20, 20, 200_001), np.geomspace(1e-30, 1, 1000), [-200, 0, 200]])
    x = (-np.abs(x) if which == 0 else x).astype(np.float32)
    out = np.empty_like(x)
    _applied(which, x, out)
    exact = true(x.astype(np.float64))
    unit = np.maximum(np.spacing(np.abs(exact).astype(np.float32)), np.float32(1e-38))
    assert (np.abs(out - exact) / unit).max() <= ulps
    ends = np.array([-np.inf, np.inf][: 1 if which == 0 else 2], np.float32)
    _applied(which, ends, out[:2])
    assert out[: len(ends)].tolist() == true(ends.astype(np.float64)).tolist()
    nothing = np.full(1, np.nan, np.float32)
    _applied(which, nothing, out[:1])
    assert np.isnan(out[0])


@njit(error_model="numpy")
def _applied(which: int, x: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(x)):
        if which == 0:
            out[i] = functions.exp_below(x[i])
        elif which == 1:
            out[i] = functions.tanh(x[i])
        elif which == 2:
            out[i] = functions.erf(x[i])
        else:
            out[i] = functions.sigmoid(x[i])


# Which engine


def test_it_knows_all_that_can_be_chosen() -> None:
    assert set(LOSSES) == {t.loss for t in zoo.TARGETS.values()} - {"custom"}
    assert set(OPTIMIZERS) == {rule.name for rule in zoo.OPTIMIZERS.values()}
    assert set(ACTIVATIONS) == set(activations.ACTIVATIONS.values())
    assert set(ACTIVATIONS) <= set(BATCHED)


def engine_of(network: str, target: str = "classes", recipe: str = "plain", **changed: Any) -> Any:
    """Let the engine be chosen for a combination."""
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS[target], zoo.RECIPES[recipe]
    dtype = torch.float32 if changed else torch.float64
    world = zoo.world(what, net.net, recipe=doing, dtype=dtype)
    members = zoo.mixed(net, what, "adamw", recipe=doing)
    changed_members = [replace(m, settings=m.settings.model_copy(update=changed)) for m in members]
    cohort = world.cohort(changed_members)
    return choose_engine(cohort), why_not_resident(cohort), cohort


@pytest.mark.parametrize("network", NETWORKS)
def test_it_takes_every_chain(network: str) -> None:
    assert isinstance(engine_of(network)[0], ResidentEngine)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"network": "Normalized"}, "no chain of known layers"),
        ({"network": "mlp relu", "target": "own, classes"}, "loss is your own"),
        ({"network": "mlp relu", "recipe": "links of one's own"}, "links of your own"),
        ({"network": "mlp relu", "precision": "bfloat16"}, "not in bfloat16"),
    ],
)
def test_what_it_cannot_take_is_stacked_and_it_says_why(asked: dict[str, str], reason: str) -> None:
    engine, why, cohort = engine_of(**asked)
    assert isinstance(engine, StackedEngine)
    assert reason in why
    with pytest.raises(SettingsError, match=reason):
        choose_engine(cohort, wanted="resident")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.GELU(approximate="tanh"), "approximate"),
        (nn.LeakyReLU(-0.1), "leak"),
        (nn.Linear(4, 4).requires_grad_(False), "frozen"),
    ],
)
def test_unusual_layers_are_not_mistaken_for_known_ones(layer: nn.Module, reason: str) -> None:
    what = zoo.TARGETS["classes"]

    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 4), layer, nn.Linear(4, outputs))

    settings = make_settings({}, base={"network": "custom", "initialization": "own", "loss": what.loss})
    assert reason in why_not_resident(zoo.world(what, net).cohort([Member(0, 0, 0, settings)]))


def custom(*layers: Callable[[int, int], nn.Module]) -> Callable[..., nn.Module]:
    """Chain layers that are made from the number of inputs and outputs."""

    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(*(make(inputs, outputs) for make in layers))

    return net


def members_of(what: zoo.Target, count: int = 2) -> list[Member]:
    """Give members of a network of one's own."""
    base = {
        "network": "custom",
        "initialization": "own",
        "loss": what.loss,
        "optimizer": "adam",
        "epochs": EPOCHS,
    }
    settings = make_settings({"learning_rate": 0.02, "batch_size": 8}, base=base)
    return [Member(0, fold, fold, settings) for fold in range(count)]


def first(inputs: int, outputs: int) -> nn.Module:
    """Begin a network."""
    return nn.Linear(inputs, 6)


def last(inputs: int, outputs: int) -> nn.Module:
    """End a network."""
    return nn.Linear(6, outputs)


EVERY_ACTIVATION = {kind.__name__: kind for kind in ACTIVATIONS}


@pytest.mark.parametrize("second", EVERY_ACTIVATION)
@pytest.mark.parametrize("one", ["ReLU", "LeakyReLU", "Tanh"])
@pytest.mark.parametrize("between", [None, 0.0, 0.4])
def test_one_activation_behind_another(one: str, second: str, between: float | None) -> None:
    what = zoo.TARGETS["classes"]
    drop = [] if between is None else [lambda i, o: nn.Dropout(between)]

    def made(name: str) -> Callable[[int, int], nn.Module]:
        return lambda inputs, outputs: EVERY_ACTIVATION[name]()

    both = [made(one), *drop, made(second)]
    compare(zoo.world(what, custom(first, *both, last)), members_of(what), TOLERANCE)


@pytest.mark.parametrize("one", [nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("other", [nn.ReLU, nn.Sigmoid])
def test_residual_blocks_around_activations(one: type[nn.Module], other: type[nn.Module]) -> None:
    what = zoo.TARGETS["two numbers"]

    def block(inputs: int, outputs: int) -> nn.Module:
        return Residual(one(), nn.Linear(6, 6), other())

    compare(zoo.world(what, custom(first, block, block, last)), members_of(what), TOLERANCE)


def test_layers_without_a_gradient_stand_only_at_the_beginning() -> None:
    what = zoo.TARGETS["classes"]
    late = custom(lambda i, o: nn.Linear(i, 3), lambda i, o: Polynomial(3, 2), lambda i, o: nn.Linear(9, o))
    inside = custom(lambda i, o: Residual(Polynomial(i, 1)), nn.Linear)
    behind = custom(lambda inputs, outputs: Constant(6), last)
    for net, name in ((late, "Polynomial"), (inside, "Polynomial"), (behind, "Constant")):
        why = why_not_resident(zoo.world(what, net).cohort(members_of(what)))
        assert f"a {name} only at the beginning" in why


def test_a_parameter_of_two_layers_is_no_chain() -> None:
    what = zoo.TARGETS["classes"]

    def tied(inputs: int, outputs: int) -> nn.Module:
        one, other = nn.Linear(6, 6), nn.Linear(6, 6)
        other.weight = one.weight
        return nn.Sequential(nn.Linear(inputs, 6), one, nn.Tanh(), other, nn.Linear(6, outputs))

    world, members = zoo.world(what, tied), members_of(what)
    assert "share a parameter" in why_not_resident(world.cohort(members))
    engine = choose_engine(world.cohort(members))
    for _ in range(EPOCHS):
        zoo.advance(engine)
    for place, m in enumerate(members):
        assert difference(engine.cohort.state.parameters[place], last_weights(world, m)) < TOLERANCE


def test_what_it_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldwise.engine.resident.engine.OPTIMIZERS", ("sgd",))
    monkeypatch.setattr("foldwise.engine.resident.engine.LOSSES", ())
    engine, why, _ = engine_of("mlp relu")
    assert isinstance(engine, StackedEngine)
    assert why == "it has no cross_entropy and no adamw"


def test_an_engine_can_be_asked_for() -> None:
    engine, _, cohort = engine_of("mlp relu")
    assert isinstance(engine, ResidentEngine)
    assert isinstance(choose_engine(cohort, wanted="stacked"), StackedEngine)
    assert isinstance(choose_engine(cohort, chunk=3), StackedEngine)


def test_time_and_memory_are_estimated_without_a_trace() -> None:
    net, what = zoo.NETWORKS["mlp, batch normalization"], zoo.TARGETS["classes"]
    world, members = zoo.world(what), zoo.mixed(net, what, "adamw")
    looked, other = world.resident(members), world.resident(members)
    assert looked.seconds() > 0
    assert looked.bytes() > looked.cohort.state.parameters.numel() * 8
    assert all(torch.equal(*pair) for pair in zip(learned(looked), learned(other), strict=True))


# What is compiled


def test_it_is_kept_on_disk_until_a_file_of_the_engine_changes() -> None:
    file = member.train._cache._cache_file
    assert file._source_stamp == tiles.SOURCES
    engine = zoo.world(zoo.TARGETS["classes"]).resident(
        zoo.mixed(zoo.NETWORKS["linear"], zoo.TARGETS["classes"], "sgd")
    )
    zoo.advance(engine)
    assert file._load_index()
    other = IndexDataCacheFile(file._cache_path, file._index_name.removesuffix(".nbi"), "another stamp")
    assert not other._load_index()


def test_it_is_compiled_once_for_each_number_type() -> None:
    for dtype in (torch.float32, torch.float64):
        for recipe in ("plain", "noise", "weights, sums, noise", "blocks", "limits"):
            for target in ("two numbers", "classes", "soft classes"):
                what, doing = zoo.TARGETS[target], zoo.RECIPES[recipe]
                members = zoo.mixed(zoo.NETWORKS["residual, normalized"], what, "nadam", recipe=doing)
                learned(zoo.world(what, recipe=doing, dtype=dtype).resident(members), 1)
    assert len(member.train.signatures) <= 2
    assert len(member.evaluate.signatures) <= 2
