"""Memory: planned before the start, and when it runs out the chunk is halved and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import studies
import zoo
from foldwise.engine.links import Link
from foldwise.engine.stacked import memory
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.errors import FoldwiseError, SettingsError
from foldwise.plans.plan import Member

TOLERANCE = 1e-11  # chunks of other shapes
CPU = torch.device("cpu")


class Greedy:
    """Runs out of memory where more than some members go together; counts the epochs begun and finished."""

    def __init__(self, engine: StackedEngine, most: int, error: BaseException) -> None:
        self.engine, self.most, self.error = engine, most, error
        self.step, self.refused, self.taken = engine.stepper.step, 0, 0
        object.__setattr__(engine.stepper, "step", self)

    def __call__(self, group: Any, state: Any, *more: Any) -> Any:
        """Take a step, and then run out of memory: what it changed must be thrown away."""
        taken = self.step(group, state, *more)
        if len(state) > self.most:
            self.refused += 1
            raise self.error
        self.taken += 1
        return taken


ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
)


def mixed(network: str = "mlp tanh") -> tuple[zoo.World, list[Member]]:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    return zoo.world(what, net.net), zoo.mixed(net, what, "adam")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("network", ["mlp tanh", "Normalized", "Branching"])
def test_a_part_for_which_memory_runs_out_is_trained_in_halves(network: str, error: BaseException) -> None:
    world, members = mixed(network)
    engine, undisturbed = (world.engine(members, chunk=6) for _ in range(2))
    greedy = Greedy(engine, 2, error)
    with pytest.warns(RuntimeWarning, match="memory ran out") as told:
        losses = zoo.advance(engine)
    assert len(told) == 2  # 6 → 3 → 2
    assert engine.chunk == 2
    assert "memory ran out" in engine.why
    refused = greedy.refused
    for _ in range(2):
        zoo.advance(engine)
    assert greedy.refused == refused  # nothing tries it again
    torch.testing.assert_close(losses, zoo.advance(undisturbed), rtol=TOLERANCE, atol=TOLERANCE)
    for _ in range(2):
        zoo.advance(undisturbed)
    one, other = engine.cohort.state, undisturbed.cohort.state
    assert one.epoch.tolist() == other.epoch.tolist()
    assert one.step.tolist() == other.step.tolist()
    torch.testing.assert_close(one.parameters, other.parameters, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(one.moments, other.moments, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(one.buffers, other.buffers, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_parts_that_were_handed_over_are_not_trained_again() -> None:
    world, members = mixed()
    engine = world.engine(members, chunk=4)
    Greedy(engine, 2, MemoryError())
    handed = [part for part, _ in engine.advance([[4, 5], [0, 1, 2, 3]])]
    assert handed == [[4, 5], [0, 1], [2, 3]]
    assert engine.cohort.state.epoch.tolist() == [1] * 6


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_an_epoch_broken_off_between_two_halves_goes_on_with_the_other() -> None:
    world, members = mixed()
    engine, whole = (world.engine(members, chunk=4) for _ in range(2))
    for own in (engine, whole):
        Greedy(own, 2, MemoryError())
    with closing(engine.advance([[0, 1, 2, 3]])) as parts:
        assert next(parts)[0] == [0, 1]
    assert engine.cohort.state.epoch.tolist() == [1, 1, 0, 0, 0, 0]
    list(engine.advance([[2, 3]]))
    list(whole.advance([[0, 1, 2, 3]]))
    assert torch.equal(engine.cohort.state.parameters, whole.cohort.state.parameters)


@pytest.mark.filterwarnings("ignore:memory ran out")
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_study_goes_on_when_memory_runs_out(interrupted: bool) -> None:
    def job() -> Any:
        trials = [{"width": 5, "epochs": 3, "learning_rate": r} for r in (0.01, 0.02)]
        made = studies.job(studies.table("multiclass"), "multiclass", trials, folds=4, chunk=4)
        made.summary()
        return made

    disturbed, undisturbed = job(), job()
    for stack in disturbed.stacks:
        Greedy(stack.engine, 3, MemoryError())

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    if interrupted:
        disturbed.field.look()
        with pytest.raises(KeyboardInterrupt):
            disturbed.field.round(stop)
        begun = next(s.begun for s in disturbed.stacks if s.begun is not None)
        assert (
            sum(map(len, begun.left)) == len(begun.places) - 2
        )  # one half of the first part was handed over
        while disturbed.field.running:
            disturbed.field.round(lambda rows: None)
    else:
        disturbed.train(studies.quiet)
    undisturbed.train(studies.quiet)
    for one, other in zip(disturbed.stacks, undisturbed.stacks, strict=True):
        torch.testing.assert_close(one.kept.parameters, other.kept.parameters, rtol=TOLERANCE, atol=TOLERANCE)
        assert one.kept.epoch.tolist() == other.kept.epoch.tolist()


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_validation_is_halved_too() -> None:
    world, members = mixed("Normalized")
    engine, undisturbed = (world.engine(members, chunk=6) for _ in range(2))
    outputs = engine.stepper.outputs

    def greedy(group: Any, state: Any, rows: Tensor) -> Tensor:
        if len(state) > 2:
            raise MemoryError
        return outputs(group, state, rows)

    object.__setattr__(engine.stepper, "outputs", greedy)
    places = [5, 3, 1, 0, 2, 4]
    torch.testing.assert_close(
        zoo.outputs(engine, places), zoo.outputs(undisturbed, places), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_one_member_that_does_not_fit_ends_the_training_with_a_hint() -> None:
    world, members = mixed()
    engine = world.engine(members, chunk=6)
    before = engine.cohort.state.parameters.clone()
    Greedy(engine, 0, MemoryError())
    with pytest.raises(FoldwiseError, match="one member at a time") as problem:
        zoo.advance(engine)
    assert "fewer trials" in problem.value.hint
    assert torch.equal(engine.cohort.state.parameters, before)


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    world, members = mixed()
    engine = world.engine(members, chunk=6)
    Greedy(engine, 2, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        zoo.advance(engine)


def test_memory_that_runs_out_inside_a_link_of_ones_own_is_seen() -> None:
    def hungry(direction: Tensor, remembered: Mapping[str, Tensor], now: Any) -> Tensor:
        if len(direction) > 3:
            raise torch.OutOfMemoryError
        return direction

    net, what = zoo.NETWORKS["mlp tanh"], zoo.TARGETS["classes"]
    links = zoo.Recipe(({}, {}, {}), links=(Link(hungry),))
    engine = zoo.world(what, net.net, recipe=links).engine(zoo.mixed(net, what, "adam"), chunk=6)
    with pytest.warns(RuntimeWarning, match="3 from now on"):
        zoo.advance(engine)
    assert not memory.ran_out(SettingsError("no cause"))


# Planned before the start


def test_the_chunk_is_planned_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = mixed()
    roomy = world.engine(members)
    needed = roomy._bytes_to_come() + 3.5 * roomy._bytes_at_work()
    monkeypatch.setattr(memory, "available", lambda device: int(needed / 0.9))
    engine = world.engine(members)
    assert [len(part) for part in engine.parts(zoo.everyone(engine))] == [3, 3]
    assert "for the memory" in engine.why
    assert [len(part) for part in world.engine(members, chunk=2).parts([0, 1, 2])] == [2, 1]
    assert [len(part) for part in world.engine(members, chunk=6).parts([0, 1, 2, 3])] == [3, 1]


def test_what_cannot_fit_is_refused_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    world, members = mixed()
    monkeypatch.setattr(memory, "available", lambda device: 4000)
    with pytest.raises(FoldwiseError, match=r"members need .* are free") as problem:
        world.engine(members)
    assert "fewer trials" in problem.value.hint


def test_where_nobody_knows_the_memory_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: None)
    world, members = mixed()
    assert len(world.engine(members).parts([0, 1, 2, 3])) == 1


def test_available_memory_is_the_least_that_anyone_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000 kB\nMemAvailable:   3000 kB\n")
    monkeypatch.setattr(memory, "_control_group", lambda: 1000)
    assert memory.available(CPU, meminfo) == 1000
    monkeypatch.setattr(memory, "_control_group", lambda: None)
    assert memory.available(CPU, meminfo) == 3000 * 1024
    assert memory._system(tmp_path / "none") != 0  # asked otherwise
    monkeypatch.undo()
    assert memory.available(torch.device("meta")) is None
    measured = memory.available(CPU)
    assert measured is None or measured > 1 << 20


def test_files_that_were_read_make_way_in_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 500\n")
    assert memory._control_group(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._control_group(tmp_path) is None


MEASURE = """
    import resource, sys
    import numpy as np, torch
    torch.set_num_threads(1)
    import foldwise, polars as pl
    import studies, zoo
    from pathlib import Path

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def peak():  # not getrusage: a process inherits there what its parent once reached
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

    random = np.random.default_rng(0)
    rows, net = 4000, {net}
    frame = pl.DataFrame({{f"x{{i}}": random.normal(size=rows) for i in range(20)}})
    frame = frame.with_columns(pl.Series("price", random.normal(size=rows)))
    rates = np.linspace(0.001, 0.01, {trials})
    trials = [{{"learning_rate": r, "epochs": 2, "batch_size": 256, **{own}}} for r in rates]

    def made(trials):
        return studies.job(frame, "regression", trials, folds=4, net=net, dtype=torch.float32, chunk={chunk})

    small = made(trials[:1])
    small.summary(), small.train(studies.quiet)  # what is loaded and kept for the first time is not the cohort's
    job = made(trials)
    job.rows_for("squared_error")
    before = resident()
    engine = job.stacks[-1].engine
    job.train(studies.quiet)
    print(engine.bytes(), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("net", "own", "trials", "chunk"),
    [
        ("None", '{"network": "mlp", "width": 256, "depth": 2}', 50, "10"),
        ("None", '{"network": "mlp", "width": 256, "depth": 2}', 30, "60"),
        (
            "zoo.Residual",
            '{"network": "custom", "width": 256, "takes": ("width",), "initialization": "own"}',
            50,
            "20",
        ),
    ],
)
def test_the_estimate_is_near_what_is_measured(net: str, own: str, trials: int, chunk: str) -> None:
    program = textwrap.dedent(MEASURE.format(net=net, own=own, trials=trials, chunk=chunk))
    # what glibc keeps of memory that was given back is not what was needed: up to as much again, by its moods
    tests = str(Path(__file__).parents[1])
    tidy = {
        **os.environ,
        "PYTHONPATH": tests,
        "MALLOC_MMAP_THRESHOLD_": "200000",
        "MALLOC_TRIM_THRESHOLD_": "1000000",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=tidy
    )
    assert done.returncode == 0, done.stderr
    estimated, measured = map(int, done.stdout.split())
    assert 0.8 < estimated / measured < 1.2, (estimated >> 20, measured >> 20)
