"""How many members go together is measured on copies: cheap, never changing a bit, and not asked again."""

from __future__ import annotations

import pytest
import torch

import zoo
from foldwise.engine.stacked import engine as stacked
from foldwise.engine.stacked import tuning
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.engine.stacked.tuning import MOST_MEASURING, TRIES, Pace, best_chunk
from foldwise.engine.state import State

ROWS = 32


class Machine:
    """A machine whose steps take `fixed` seconds and `each` more for every member; counts what measuring costs."""

    def __init__(self, fixed: float, each: float, spills: int = 1000) -> None:
        self.fixed, self.each, self.spills = fixed, each, spills
        self.spent = 0.0

    def __call__(self, chunk: int, tries: int) -> Pace:
        """Take steps."""
        seconds = self.fixed + self.each * chunk * (3 if chunk > self.spills else 1)
        self.spent += tries * seconds
        return Pace(seconds, chunk, ROWS)


LONG, SHORT = 1e7, 1e3  # rows ahead


@pytest.mark.parametrize(
    ("machine", "best"),
    [
        (Machine(1e-3, 1e-5), 40),  # starting operations is all: the more the better
        (Machine(1e-5, 1e-4, spills=15), 10),  # what spills out of the cache is slow
        (Machine(1e-6, 1e-4, spills=1), 1),  # never slower than one by one
        (Machine(0.0, 1e-4), 20),  # no difference: what was planned
    ],
)
def test_the_fastest_chunk_is_taken(machine: Machine, best: int) -> None:
    chosen, pace, why = best_chunk(20, 100, LONG, machine)
    assert (chosen, pace.members) == (best, best)
    assert "measured" in why


def test_no_more_go_together_than_there_are_or_fit() -> None:
    assert best_chunk(20, 30, LONG, Machine(1e-3, 1e-5))[0] == 20
    assert best_chunk(1, 1, LONG, Machine(1e-3, 1e-5))[0] == 1


@pytest.mark.parametrize("rows", [SHORT, 1e4, 1e5, 1e6, LONG])
@pytest.mark.parametrize("fixed", [1e-5, 1e-3])
def test_measuring_costs_little(rows: float, fixed: float) -> None:
    machine = Machine(fixed, 1e-5)
    chosen, _, why = best_chunk(20, 100, rows, machine)
    planned = fixed + 20 * 1e-5
    # a plan of two steps is the least; all else stays below its share of the time
    assert machine.spent <= 2 * planned * 1.001 + MOST_MEASURING * rows * planned / (20 * ROWS)
    if rows == SHORT:
        assert chosen == 20
        assert "not measured" in why


def mixed() -> tuple[zoo.World, list]:
    net, what = zoo.NETWORKS["Normalized"], zoo.TARGETS["classes"]
    return zoo.world(what, net.net), zoo.mixed(net, what, "adam")


def bits(state: State) -> list[torch.Tensor]:
    tensors = [state.parameters, *state.buffers.values(), *state.moments.values(), state.epoch, state.step]
    return [t.clone() for t in tensors]


def test_measuring_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "MOST_MEASURING", 1e9)
    monkeypatch.setattr(stacked, "CACHE_BYTES", 0)  # 4 are planned, so that 2, 6 and 1 are tried
    world, members = mixed()
    engine = StackedEngine(world.cohort(members))
    start = bits(engine.cohort.state)
    engine.seconds()
    assert "measured" in engine.why
    assert all(map(torch.equal, start, bits(engine.cohort.state)))
    fresh = world.engine(members, chunk=engine.chunk)
    for own in (engine, fresh):
        for _ in range(3):
            zoo.advance(own)
    assert all(map(torch.equal, bits(engine.cohort.state), bits(fresh.cohort.state)))


def test_what_was_decided_can_be_given_back_and_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, members = mixed()
    first = StackedEngine(world.cohort(members))
    parts = first.parts(zoo.everyone(first))
    assert isinstance(first.chunk, int)
    assert first.compile in ("on", "off")
    monkeypatch.setattr(StackedEngine, "_pace", lambda *_: pytest.fail("it was measured"))
    again = StackedEngine(world.cohort(members), first.chunk, first.compile)
    assert again.parts(zoo.everyone(again)) == parts
    assert (again.chunk, again.compile) == (first.chunk, first.compile)


def test_members_that_stop_do_not_make_it_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = mixed()
    engine = StackedEngine(world.cohort(members))
    engine.parts(zoo.everyone(engine))
    monkeypatch.setattr(StackedEngine, "_pace", lambda *_: pytest.fail("it was measured"))
    assert engine.parts([4, 2]) == [[4, 2]]


def test_memory_that_runs_out_while_measuring_lowers_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = mixed()
    engine = StackedEngine(world.cohort(members))
    step = engine.stepper.step

    def greedy(group, state, *more):  # type: ignore[no-untyped-def]
        if len(state) > 3:
            raise MemoryError
        return step(group, state, *more)

    object.__setattr__(engine.stepper, "step", greedy)
    with pytest.warns(RuntimeWarning, match="memory ran out"):
        parts = engine.parts(zoo.everyone(engine))
    assert [len(p) for p in parts] == [3, 3]
    assert TRIES > 0
