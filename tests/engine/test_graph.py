"""Compiled steps: the graph that is captured gives what the eager step gives, and never compiles without end."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import foldwise
import zoo
from foldwise.engine.links import Link
from foldwise.engine.stacked import engine as stacked
from foldwise.engine.stacked import graph
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.state import take
from foldwise.errors import SettingsError
from foldwise.plans.plan import Member

TOLERANCE = 1e-12  # in float64; the compiler may sum in another order
CAPTURABLE = [name for name, net in zoo.NETWORKS.items() if net.way != "one by one" and name != "constant"]
INDUCTOR = graph.usable_backend(torch.device("cpu"))


def combinations(networks: list[str]) -> list[tuple[str, str, str, str]]:
    """Let each network meet a target, an optimizer and a recipe, going round."""
    targets = [name for name, t in zoo.TARGETS.items() if t.own is not zoo.branching_error]
    others = (targets, zoo.OPTIMIZERS, zoo.RECIPES)
    return list(zip(networks, *map(itertools.cycle, others), strict=False))


def made(
    network: str, target: str, optimizer: str, recipe: str = "plain", **asked: Any
) -> tuple[zoo.World, list[Member]]:
    """Make the mixed stack of a combination."""
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS[target], zoo.RECIPES[recipe]
    return zoo.world(what, net.net, recipe=doing, **asked), zoo.mixed(net, what, optimizer, recipe=doing)


def compiling(world: zoo.World, members: list[Member], backend: str | None, **asked: Any) -> StackedEngine:
    """Make an engine that compiles with another backend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked, "usable_backend", lambda device: backend)
        engine = StackedEngine(world.cohort(members), compile="on", **asked)
        engine.seconds()
    return engine


def assert_same(
    one: StackedEngine, other: StackedEngine, tolerance: float = TOLERANCE, epochs: int = 3
) -> None:
    for _ in range(epochs):
        losses = [zoo.advance(engine) for engine in (one, other)]
        torch.testing.assert_close(*losses, rtol=tolerance, atol=tolerance)
    first, second = one.cohort.state, other.cohort.state
    for name in ("parameters", "step", "epoch"):
        torch.testing.assert_close(
            getattr(first, name), getattr(second, name), rtol=tolerance, atol=tolerance
        )
    for name, tensor in {**first.moments, **first.buffers}.items():
        twin = {**second.moments, **second.buffers}[name]
        torch.testing.assert_close(tensor, twin, rtol=tolerance, atol=tolerance)


class Counting:
    """Runs a graph as it is, and counts how often one was made and run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made = self.ran = 0
        patch.setattr(torch, "compile", self.compile)

    def compile(self, captured: Any, **asked: Any) -> Any:
        """Stand in for torch.compile."""
        self.made += 1

        def run(*tensors: Tensor) -> Any:
            self.ran += 1
            return captured(*tensors)

        return run


@pytest.mark.parametrize(("network", "target", "optimizer", "recipe"), combinations(CAPTURABLE))
def test_a_captured_step_is_the_eager_step(
    network: str, target: str, optimizer: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, members = made(network, target, optimizer, recipe)
    counting = Counting(monkeypatch)
    engine = compiling(world, members, "eager")
    before = counting.ran
    assert_same(engine, world.engine(members))
    assert engine.compile == "on"
    assert counting.made >= 1
    assert counting.ran > before, engine.why


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(("network", "optimizer"), [("mlp relu", "adam"), ("Normalized", "sgd")])
def test_dynamo_takes_what_was_captured(network: str, optimizer: str, backend: str) -> None:
    world, members = made(network, "classes", optimizer)
    assert_same(compiling(world, members, backend), world.engine(members))


@pytest.mark.slow
@pytest.mark.skipif(INDUCTOR is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(
    ("network", "target", "optimizer", "recipe"),
    combinations(
        ["mlp relu", "mlp gelu", "residual, normalized", "Residual", "Normalized", "Partly", "reusing"]
    ),
)
def test_a_compiled_training_is_the_eager_one(network: str, target: str, optimizer: str, recipe: str) -> None:
    world, members = made(network, target, optimizer, recipe)
    engine = compiling(world, members, INDUCTOR)
    assert engine.graphs is not None, engine.why
    assert_same(engine, world.engine(members), tolerance=1e-10)


def test_shapes_share_a_graph_and_there_are_never_many(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = made("mlp tanh", "classes", "adam")
    counting = Counting(monkeypatch)
    # members that differ in no shape: chunks of two make one graph, and the settings are theirs all the same
    one_shape = [replace(members[0], trial=t, settings=m.settings) for t, m in enumerate(members[::2])] * 2
    one_shape = [replace(m, fold=0, seed=0) for m in one_shape]
    assert_same(compiling(world, one_shape, "eager", chunk=2), world.engine(one_shape, chunk=2))
    assert counting.made <= 2  # those whose members share all rows, and the others
    needed = []
    for most in (100, 2):  # batches grow, and with them the shapes
        monkeypatch.setattr(graph, "MOST_GRAPHS", most)
        counting.made = 0
        engine = compiling(*made("mlp tanh", "classes", "adam", "growing batches"), "eager", chunk=1)
        for _ in range(9):
            zoo.advance(engine)
        needed.append(counting.made)
    assert needed[0] > needed[1] == 2


def test_graphs_do_not_outlive_members_who_join() -> None:
    # those who join ask for a link that the graph does not have, and which members of their chunk then share
    world, members = made("mlp tanh", "classes", "adam")
    plain = [
        replace(m, trial=0, settings=m.settings.model_copy(update={"clip_norm": 0.0})) for m in members[:2]
    ]
    clipped = [
        replace(m, trial=1, settings=m.settings.model_copy(update={"clip_norm": 1e-3})) for m in members[2:4]
    ]
    engine, eager = compiling(world, plain, "eager", chunk=2), world.engine(plain, chunk=2)
    assert_same(engine, eager, epochs=1)
    for own in (engine, eager):
        own.cohort.add(clipped)
    assert_same(engine, eager, epochs=2)
    assert (engine.compile, engine.graphs) == ("off", None)
    assert "members have joined" in engine.why


def test_chunks_that_are_not_whole_take_eager_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = made("mlp tanh", "classes", "adam")
    counting = Counting(monkeypatch)
    engine = compiling(world, members, "eager", chunk=4)
    ran = counting.ran
    for _ in engine.advance([[0, 1], [2, 3, 4]]):
        pass
    assert counting.ran == ran


def test_what_cannot_be_captured_is_trained_eagerly_and_said() -> None:
    def peeking(direction: Tensor, remembered: Any, now: Any) -> Tensor:
        return direction if float(direction[0, 0]) > 0 else direction * 1.0

    world, members = made("mlp tanh", "classes", "adam")
    looking = replace(world, links=(Link(peeking),))
    engine = compiling(looking, members, "eager")
    assert (engine.compile, engine.graphs) == ("off", None)
    assert "cannot be compiled" in engine.why
    assert_same(engine, looking.engine(members))


def test_without_a_compiler_steps_are_eager_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = made("mlp tanh", "classes", "adam")
    monkeypatch.setattr(graph.shutil, "which", lambda name: None)
    world = world.on_cpu
    assert graph.usable_backend(torch.device("cpu")) is None
    engine = StackedEngine(world.cohort(members), compile="on")
    zoo.advance(engine)
    assert engine.compile == "off"
    assert "no C++ compiler" in engine.why


def test_compiling_is_refused_where_it_is_useless() -> None:
    world, members = made("Branching", "classes", "adam")
    with pytest.raises(SettingsError, match="has no effect"):
        StackedEngine(world.cohort(members), compile="on")
    world, members = made("mlp tanh", "classes", "adam")
    with pytest.raises(SettingsError, match="auto, on, off"):
        StackedEngine(world.cohort(members), compile="yes")


@pytest.mark.parametrize(("compiled", "kept"), [(0.001, True), (0.01, False)])
def test_auto_keeps_a_graph_only_if_it_is_faster(
    compiled: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, members = made("mlp tanh", "classes", "adam")
    Counting(monkeypatch)
    monkeypatch.setattr(stacked, "may_repay", lambda seconds, cuda: True)
    monkeypatch.setattr(stacked, "usable_backend", lambda device: "eager")
    engine = StackedEngine(world.cohort(members))
    pace = lambda *_: stacked.Pace(0.01 if engine.graphs is None else compiled, 6, 8)  # noqa: E731
    monkeypatch.setattr(engine, "_pace", pace)
    engine.parts(zoo.everyone(engine))
    assert (engine.compile, engine.graphs is not None) == ("on" if kept else "off", kept)
    assert "compil" in engine.why
    assert_same(engine, world.engine(members))


def test_a_short_training_is_not_compiled() -> None:
    world, members = made("mlp tanh", "classes", "adam")
    engine = StackedEngine(world.cohort(members))
    engine.parts(zoo.everyone(engine))
    assert engine.compile == "off"
    assert "would not repay" in engine.why


def test_what_a_cuda_graph_is_given_changes_as_if_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    # the copies around a CUDA graph, without one
    world, members = made("Normalized", "classes", "adam")
    engine = world.engine(members)
    turns, drawn = engine._drawn(zoo.everyone(engine))
    feeds, eager, replayed = (
        engine.stepper.feeds(turns[0], drawn),
        *(engine._copy(range(6)) for _ in range(2)),
    )
    group = turns[0].group
    captured = graph.capture(engine.stepper, group, eager, feeds)
    given: list[Tensor] = []
    graph._apart(group, given)
    first = len(given)
    graph._apart(replayed, given)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)  # imports the compiler
    changed = range(first, len(given))
    graph._apart(feeds, given)
    run = graph.replaying(captured, changed, given, lambda pure: pure)
    kept = [t.clone() for t in given]
    for _ in range(3):
        loss, _ = engine.stepper.step(group, eager, feeds)
        with torch.no_grad():
            (again,) = run(*given)
        torch.testing.assert_close(again, loss, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(replayed.parameters, eager.parameters, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(replayed.buffers, eager.buffers, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(replayed.moments, eager.moments, rtol=TOLERANCE, atol=TOLERANCE)
    assert all(torch.equal(t, k) for t, k in zip(given[:first], kept[:first], strict=True))
    assert not torch.equal(replayed.parameters, take(engine.cohort.state, slice(None)).parameters)


HOST = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy", "nonzero", "__index__")


@pytest.mark.parametrize(("network", "target", "optimizer", "recipe"), combinations(CAPTURABLE))
def test_steps_never_wait_for_the_device(
    network: str, target: str, optimizer: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, members = made(network, target, optimizer, recipe)
    if world.target.own is not None:
        pytest.skip("a loss of the user's own is looked at in its first step")
    engine = world.engine(members)
    turns, drawn = engine._drawn(zoo.everyone(engine))
    state = engine._copy(zoo.everyone(engine))

    def waits(name: str) -> Any:
        def refuse(*given: Any, **named: Any) -> Any:
            raise AssertionError(f"a step asks the device: Tensor.{name}")

        return refuse

    engine._steps(
        turns, engine._copy(zoo.everyone(engine)), drawn
    )  # what is made once per group may be looked at
    for name in HOST:
        monkeypatch.setattr(Tensor, name, waits(name))
    engine._steps(turns, state, drawn)
    monkeypatch.undo()
    assert not torch.equal(state.parameters, engine.cohort.state.parameters)


def test_fit_takes_it_as_an_argument() -> None:
    what = {"example": "iris", "folds": 3, "search": {"network": "linear", "epochs": 2}, "dtype": "float64"}
    plain, eager = foldwise.fit(**what), foldwise.fit(**what, compile="off")  # type: ignore[arg-type]
    assert plain.leaderboard.equals(eager.leaderboard)
    with pytest.raises(SettingsError, match="auto, on, off"):
        foldwise.fit(**what, compile="always")  # type: ignore[arg-type]
