"""Every trial has its own clock: members of a chunk at different epochs, trials that join and stop, broken rounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

import studies
import zoo
from foldwise import collect
from foldwise.engine.interface import Engine
from foldwise.engine.loop import Progress
from foldwise.engine.members import tensors_of
from foldwise.engine.state import DIVERGED, FINISHED, STOPPED
from foldwise.job import Job
from foldwise.plans.course import Course
from foldwise.plans.policy import Decision
from foldwise.reference import train_alone
from foldwise.settings import Settings

TOLERANCE = 1e-10  # in float64, of the largest weight


def everything(engine: Engine) -> list[Tensor]:
    """List all tensors of the members."""
    state = engine.cohort.state
    own = [state.parameters, state.epoch, state.step, state.status, *state.buffers.values()]
    return [t.clone() for t in (*own, *state.moments.values())]


def same_bits(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Compare bit by bit; NaN equals NaN."""
    return all(torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) for a, b in zip(one, other, strict=True))


# Members of a chunk at different epochs


@pytest.mark.parametrize(
    ("network", "recipe", "optimizer"),
    [
        ("mlp relu", "plain", "adamw"),
        ("mlp, batch normalization", "noise", "sgd"),
        ("Normalized", "plain", "nadam"),
        ("Branching", "noise", "sgd"),
        ("residual", "growing batches", "adam"),
        ("mlp tanh", "accumulation", "adamw"),
    ],
)
def test_members_at_different_epochs_equal_members_alone(network: str, recipe: str, optimizer: str) -> None:
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS["classes"], zoo.RECIPES[recipe]
    world = zoo.world(what, net.net, recipe=doing)
    members = zoo.mixed(net, what, optimizer, recipe=doing)
    # two of one fold and seed, whose rows, masks and noise are the same at the same epoch alone
    members.append(replace(members[2], trial=0, settings=members[0].settings))
    engine = world.engine(members)
    losses: list[list[float]] = [[] for _ in members]
    # seeds, folds and trials meet at different epochs, and the members of a pair drift apart
    for places in ([0, 2, 4], [1, 2, 5], zoo.everyone(engine), [0, 1], [6], [2, 3, 4, 5, 6]):
        for place, loss in enumerate(zoo.advance(engine, places).tolist()):
            losses[place] += [loss] if place in places else []
    assert engine.cohort.state.epoch.tolist() == [len(own) for own in losses]
    assert len(set(engine.cohort.state.epoch.tolist())) > 1
    outputs = zoo.outputs(engine, zoo.everyone(engine))
    for place, member in enumerate(members):
        module, data, own = world.alone(member)
        epochs = list(itertools.islice(train_alone(member, module, data, own), len(losses[place])))
        assert losses[place] == pytest.approx([e.training_loss for e in epochs], rel=TOLERANCE)
        alone_of = {name: tensor.detach() for name, tensor in tensors_of(module).items()}
        for name, tensor in named(engine).items():
            torch.testing.assert_close(tensor[place].cpu(), alone_of[name], rtol=TOLERANCE, atol=TOLERANCE)
        alone = epochs[-1].outputs
        torch.testing.assert_close(
            outputs[place, : len(alone)], alone, rtol=10 * TOLERANCE, atol=10 * TOLERANCE
        )


def named(engine: Engine) -> dict[str, Tensor]:
    """Give the weights and buffers of all members by their names in the module."""
    cohort = engine.cohort
    return {**cohort.layout.split(cohort.state.parameters), **cohort.state.buffers}


def test_members_of_one_batch_size_share_a_part_and_others_do_not() -> None:
    what, doing = zoo.TARGETS["classes"], zoo.RECIPES["growing batches"]
    engine = zoo.world(what, recipe=doing).engine(
        zoo.mixed(zoo.NETWORKS["mlp relu"], what, "sgd", recipe=doing)
    )
    cohort = engine.cohort
    places = zoo.everyone(engine)
    assert engine.parts(places) == [places]
    cohort.state.epoch[[1, 4]] = 9
    assert cohort.pace.size(10) > cohort.pace.size(1)
    assert engine.parts(places) == [[0, 2, 3, 5], [1, 4]]


def test_running_members_close_ranks_in_chunks() -> None:
    what = zoo.TARGETS["classes"]
    engine = zoo.world(what).engine(zoo.mixed(zoo.NETWORKS["mlp relu"], what, "sgd"), chunk=2)
    assert engine.parts([0, 1, 2, 3, 4, 5]) == [[0, 1], [2, 3], [4, 5]]
    assert engine.parts([0, 3, 4]) == [[0, 3], [4]]


def test_orders_of_several_epochs_are_there_at_once_and_old_ones_are_forgotten() -> None:
    orders = (
        zoo.world(zoo.TARGETS["classes"])
        .cohort(zoo.mixed(zoo.NETWORKS["linear"], zoo.TARGETS["classes"], "sgd"))
        .orders
    )
    streams = [(1, 0, 0), (4, 0, 0), (2, 7, 1)]
    lines = orders.padded(streams)
    assert [line[: len(own)].tolist() for line, own in zip(lines, map(of(orders), streams), strict=True)] == [
        own.tolist() for own in map(of(orders), streams)
    ]
    assert lines[0].tolist() != lines[1].tolist()
    orders.keep({2, 5})
    assert set(orders.permutations) == {(2, 7)}
    assert orders.padded(streams).equal(lines)


def of(orders: Any) -> Any:
    """Ask for the order of one stream."""
    return lambda stream: orders.of(*stream)


# Members that join


@pytest.mark.parametrize("recipe", ["plain", "clipping", "noise"])
def test_who_joins_later_is_who_started_first(recipe: str) -> None:
    net, what, doing = zoo.NETWORKS["mlp relu"], zoo.TARGETS["classes"], zoo.RECIPES[recipe]
    world = zoo.world(what, recipe=doing)
    members = zoo.mixed(net, what, "sgd", recipe=doing)
    together, joined = world.engine(members, chunk=2), world.engine(members[:4], chunk=2)
    zoo.advance(joined), zoo.advance(joined)
    joined.cohort.add(members[4:])
    assert joined.cohort.state.epoch.tolist() == [2, 2, 2, 2, 0, 0]
    for engine in (together, joined):
        while engine.cohort.state.epoch[4:].min() < 3:
            zoo.advance(engine, [0, 1, 2, 3] if engine.cohort.state.epoch[0] < 5 else [4, 5])
            zoo.advance(engine, [4, 5])
    for one, other in zip(everything(together), everything(joined), strict=True):
        assert torch.equal(one[4:], other[4:])  # alike in parts of their own


def test_who_joins_may_ask_for_what_nobody_had() -> None:
    net, what = zoo.NETWORKS["mlp relu"], zoo.TARGETS["classes"]
    world = zoo.world(what)
    members = [
        replace(m, settings=m.settings.model_copy(update={"momentum": 0.0, "dampening": 0.0}))
        for m in zoo.mixed(net, what, "sgd")
    ]
    asking = {"momentum": 0.9, "dampening": 0.5, "clip_norm": 0.1, "l1": 0.01, "schedule": "plateau"}
    new = replace(members[5], trial=9, settings=members[5].settings.model_copy(update=asking))
    members[5] = new
    together, joined = world.engine(members, chunk=1), world.engine(members[:5], chunk=1)
    assert not joined.cohort.state.moments
    zoo.advance(together, [0, 1, 2, 3, 4]), zoo.advance(joined)
    joined.cohort.add([new])
    for engine in (together, joined):
        zoo.advance(engine), zoo.advance(engine)
    assert same_bits(everything(together)[:4], everything(joined)[:4])
    assert torch.equal(together.cohort.state.moments["clipped"], joined.cohort.state.moments["clipped"])


@dataclass
class Later:
    """Starts trials at given rounds, and stops some."""

    start: dict[int, list[Settings]] = field(default_factory=dict)
    stop: dict[int, dict[int, str]] = field(default_factory=dict)
    scalings: tuple[str, ...] = ("robust", "standard")
    rounds: int = 0
    seen: list[list[int]] = field(default_factory=list)

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Do what was planned for this round."""
        self.rounds += 1
        self.seen.append([course.epoch for course in courses])
        return Decision(self.stop.get(self.rounds, {}), self.start.get(self.rounds, []))


def job(trials: list[dict[str, Any]], **asked: Any) -> Job:
    """Make a job over unequal folds, one trial in a chunk."""
    policy = asked.pop("policy", None)
    made = studies.job(
        studies.table("multiclass"), "multiclass", trials, folds=studies.UNEQUAL, **{"chunk": 3, **asked}
    )
    if policy is not None:
        made.policy = policy
    return made


def settled(values: dict[str, Any]) -> Settings:
    """Make settings as `studies.job` does."""
    return studies.settings("cross_entropy", values)


FIRST = {"epochs": 5, "learning_rate": 0.03}
STILL = {"epochs": 5, "learning_rate": 0.0}  # keeps its first epoch, whoever joins
JOINING = {"epochs": 4, "learning_rate": 0.1, "scaling": "standard", "dropout": 0.3, "l2": 0.01}
OTHER = {"epochs": 3, "width": 3}


@pytest.mark.parametrize("chunk", [3, None])
def test_trials_that_join_are_as_if_they_had_been_there(chunk: int | None) -> None:
    policy = Later(
        {1: [settled(JOINING)], 2: [settled(OTHER), settled({"network": "constant", "epochs": 0})]}
    )
    together = job([FIRST, STILL, JOINING, OTHER, {"network": "constant", "epochs": 0}], chunk=chunk)
    joined = job([FIRST, STILL], policy=policy, chunk=chunk)
    seen: list[Progress] = []
    assert together.train(studies.quiet)
    assert joined.train(seen.append)
    assert joined.plan.trials == together.plan.trials
    assert policy.seen[:4] == [[1, 1], [2, 2, 1], [3, 3, 2, 1, 0], [4, 4, 3, 2, 0]]
    assert [c.ended for c in joined.field.courses] == ["finished"] * 5
    keys = ["trial", "seed", "fold", "epoch"]
    one, other = (collect.history(j).sort(keys) for j in (together, joined))
    numbers = ["training_loss", "validation_loss", "score", "learning_rate"]
    assert one.select(keys).equals(other.select(keys))
    if chunk == 3:
        assert one.select(numbers).equals(other.select(numbers))
        assert (
            collect.predictions(together)
            .sort("trial", "row")
            .equals(collect.predictions(joined).sort("trial", "row"))
        )
    else:
        for name in numbers:
            assert other[name].fill_null(0).to_list() == pytest.approx(
                one[name].fill_null(0).to_list(), rel=1e-11, nan_ok=True
            )
    records = [[(r.epoch, r.status) for r in collect.records(j)] for j in (together, joined)]
    assert records[0] == records[1]
    # progress knows of a trial as soon as it is there
    rows = sum(47 - n for n in (8, 12, 27))
    totals = dict.fromkeys(now.rows_total // rows for now in seen)
    assert list(totals) == [10, 14, 17]
    assert seen[-1].rows_done == seen[-1].rows_total == 17 * rows
    assert seen[-1].members == seen[-1].members_done == 15
    assert all(now.rows_done <= now.rows_total for now in seen)


def test_a_policy_that_starts_what_ends_at_once_is_asked_again() -> None:
    nothing = settled({"network": "constant", "epochs": 0})
    policy = Later({1: [nothing], 2: [settled(OTHER)]})
    made = job([{"network": "constant", "epochs": 0}], policy=policy)
    assert made.train(studies.quiet)
    assert [c.epoch for c in made.field.courses] == [0, 0, 3]


def test_a_trial_that_is_stopped_keeps_its_best_and_costs_nothing_more() -> None:
    policy = Later(stop={2: {0: "pruned: a test"}})
    seen: list[Progress] = []
    made, whole = job([FIRST, JOINING], policy=policy), job([FIRST, JOINING])
    assert made.train(seen.append)
    whole.train(studies.quiet)
    assert [c.ended for c in made.field.courses] == ["pruned: a test", "finished"]
    assert collect.records(made)[0].status == "pruned: a test"
    assert collect.history(made).filter(trial=1)["epoch"].max() == 2
    assert collect.history(made).filter(trial=2).equals(collect.history(whole).filter(trial=2))
    assert made.stacks[0].cohort.state.status.tolist() == [STOPPED] * 3 + [FINISHED] * 3
    rows = sum(47 - n for n in (8, 12, 27))
    assert seen[-1].rows_done == seen[-1].rows_total == (2 + 4) * rows
    assert seen[-1].members_done == 6
    assert studies.gather(made, made.summary(), "").results[0].score > 0


# Broken rounds


def pressed_after(parts: int) -> Any:
    """Press Ctrl-C when some parts have been learnt from."""
    reports: list[int] = []

    def watch(now: Progress) -> None:
        if now.rows_done > sum(reports[-1:]) and len(reports) <= parts:
            reports.append(now.rows_done)
            if len(reports) == parts:
                studies.interrupt(now)

    return watch


MIXED = [
    FIRST,
    {**JOINING, "normalization": "none"},
    OTHER,
    {"epochs": 4, "schedule": "plateau", "patience": 0},
]


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    """Let torch use some threads, and give it back its number."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2], indirect=True)
def test_broken_off_and_continued_is_never_broken_off(workers: int) -> None:
    whole, broken = (job(MIXED, chunk=2, policy=Later()) for _ in range(2))
    assert whole.train(studies.quiet)
    breaks = 0
    for parts in (1, 2, 4, 3, 7, 5):
        done = broken.train(pressed_after(parts))
        breaks += not done
        for stack in broken.stacks:
            begun, epochs = stack.begun, stack.cohort.state.epoch.tolist()
            ahead = (
                []
                if begun is None
                else [p for p in begun.places if [p] and not any(p in part for part in begun.left)]
            )
            for place, member in enumerate(stack.members):
                assert epochs[place] == stack.courses[member.trial].epoch + (place in ahead)
    assert breaks > 3
    seen: list[Progress] = []
    while not broken.train(seen.append):
        pass
    assert [s.engine.workers for s in broken.stacks] == [workers if studies.DEVICE.type == "cpu" else 1] * 2  # type: ignore[attr-defined]
    for one, other in zip(whole.stacks, broken.stacks, strict=True):
        assert same_bits(everything(one.engine), everything(other.engine))
        assert torch.equal(one.kept.parameters, other.kept.parameters)
    assert broken.policy == whole.policy  # which was asked after whole rounds alone
    assert collect.history(broken).equals(collect.history(whole))
    assert collect.predictions(broken).equals(collect.predictions(whole))
    assert seen[-1].rows_done == seen[-1].rows_total


@pytest.mark.parametrize("workers", [1, 2], indirect=True)
def test_parts_are_whole_or_nothing(workers: int) -> None:
    what = zoo.TARGETS["classes"]
    members = zoo.mixed(zoo.NETWORKS["mlp relu"], what, "adamw")
    whole, broken = (zoo.world(what).engine(members, chunk=1) for _ in range(2))
    zoo.advance(whole), zoo.advance(broken)
    parts, before = broken.parts(zoo.everyone(broken)), everything(broken)
    zoo.advance(whole)
    handed = broken.advance(parts)
    done = [part[0] for part, _ in itertools.islice(handed, 2)]
    handed.close()
    for now, old, after in zip(everything(broken), before, everything(whole), strict=True):
        for place in range(6):
            assert torch.equal(now[place], (after if place in done else old)[place])
    left = [part for part in parts if part[0] not in done]
    assert [part for part, _ in broken.advance(left)] == left
    assert same_bits(everything(broken), everything(whole))


# Members that diverge leave


class Fragile(torch.nn.Linear):
    """Gives NaN once its weights have moved far enough, which those of fewer rows do later."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        torch.nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Break when a weight has moved beyond a limit."""
        return super().forward(x) * torch.where(self.weight.abs().max() > 0.18, torch.nan, 1.0)


def test_a_diverged_member_leaves_and_its_companions_go_on() -> None:
    own = {"network": "custom", "initialization": "own", "learning_rate": 0.01, "epochs": 8}
    made = studies.job(studies.table("binary"), "binary", [own, {**own, "learning_rate": 1e-4}], net=Fragile,
                       folds=studies.UNEQUAL, seeds=2, chunk=1)  # fmt: skip
    assert made.train(studies.quiet)
    stack, history = made.stacks[0], collect.history(made)
    status = stack.cohort.state.status.tolist()
    gone = [p for p, s in enumerate(status) if s == DIVERGED and stack.members[p].trial == 0]
    others = [p for p in stack.places[0] if p not in gone]
    assert gone
    assert others
    for place in stack.places[0]:
        m, epoch = stack.members[place], int(stack.cohort.state.epoch[place])
        lines = history.filter(trial=1, seed=m.seed, fold=m.fold + 1).sort("epoch")
        assert lines["epoch"].to_list() == list(range(epoch + 1))
        assert (epoch == 8) == (place in others)
        assert lines["score"].null_count() == (place in gone)
    first = min(int(stack.cohort.state.epoch[p]) for p in gone)
    course = stack.courses[0]
    assert [mean < float("inf") for mean in course.curve] == [e < first for e in range(9)]
    assert course.ended == course.diverged
    assert course.lost == sorted({stack.members[p].fold for p in gone})
    # alone with those that stayed, in chunks of the same shape, they are what they are
    alone = studies.job(studies.table("binary"), "binary", [{**own, "learning_rate": 1e-4}], net=Fragile,
                        folds=studies.UNEQUAL, seeds=2, chunk=1)  # fmt: skip
    alone.train(studies.quiet)
    columns = ["seed", "fold", "epoch", "training_loss", "validation_loss", "score"]
    assert collect.history(alone).select(columns).equals(history.filter(trial=2).select(columns))


# Early stopping


def test_a_trial_that_stops_early_is_the_same_trial_cut_at_that_epoch() -> None:
    bad = {"epochs": 12, "learning_rate": 1.0, "early_stopping": 2}
    trials = [{"epochs": 9, "learning_rate": 0.01}, bad]
    stopping, whole = job(trials, seeds=2), job([trials[0], {**bad, "early_stopping": 0}], seeds=2)
    seen: list[Progress] = []
    stopping.train(seen.append)
    whole.train(studies.quiet)
    course = stopping.field.courses[1]
    end = course.epoch
    assert course.ended == f"stopped early at epoch {end}: no better fold mean for 2 epochs"
    assert collect.records(stopping)[1].status == course.ended
    assert end == course.best_epoch + 2 < 12
    cut = pl.col("epoch") <= end
    keys = ["trial", "seed", "fold", "epoch"]
    one, other = (collect.history(j).filter(pl.col("trial") == 2, cut).sort(keys) for j in (stopping, whole))
    assert one.equals(other)
    assert collect.history(stopping).filter(trial=2)["epoch"].max() == end
    # what it kept is what the whole trial had kept by then
    until = job([trials[0], {**bad, "early_stopping": 0}], seeds=2, policy=Later(stop={end: {1: "cut"}}))
    until.train(studies.quiet)
    assert torch.equal(stopping.stacks[0].kept.parameters, until.stacks[0].kept.parameters)
    assert torch.equal(stopping.stacks[0].kept.outputs, until.stacks[0].kept.outputs)
    assert collect.records(stopping)[1].epoch == collect.records(until)[1].epoch == course.best_epoch
    # companions do not notice
    assert collect.history(stopping).filter(trial=1).equals(collect.history(whole).filter(trial=1))
    mine = stopping.stacks[0].places[0]
    states = [j.stacks[0].cohort.state.parameters[j.stacks[0].places[0]] for j in (stopping, whole)]
    assert len(mine) == 6
    assert torch.equal(*states)
    rows = 2 * sum(47 - n for n in (8, 12, 27))
    assert seen[0].rows_total == (9 + 12) * rows
    assert seen[-1].rows_done == seen[-1].rows_total == (9 + end) * rows
    assert seen[-1].members_done == 12
