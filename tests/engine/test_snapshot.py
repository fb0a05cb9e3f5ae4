"""A field that is stored and made again goes on bit for bit, wherever it was broken off; nothing foreign fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import studies
import zoo
from foldwise import collect
from foldwise.engine.loop import Interrupted
from foldwise.engine.snapshot import Snapshot, restore, snapshot
from foldwise.engine.stack import Stack
from foldwise.engine.state import DIVERGED
from foldwise.errors import PlanError, StoreError
from foldwise.job import Job
from foldwise.keeping import Keeper, origin_of
from foldwise.plans.course import Course
from foldwise.plans.policy import Decision
from foldwise.settings import Settings
from foldwise.store.checkpoint import checkpoints


def settled(values: dict[str, Any]) -> Settings:
    """Make settings as `studies.job` does."""
    return studies.settings("cross_entropy", values)


@dataclass
class Halving:
    """Stops the worst after the second round, and starts one trial more for each round so far; it remembers both."""

    scalings: tuple[str, ...] = ("robust", "standard")
    asked: int = 0
    seen: list[list[tuple[int, float, str, tuple[int, ...]]]] = field(default_factory=list)

    def decide(self, courses: Sequence[Course], seconds: float) -> Decision:
        """Decide by the courses, and by how often this was asked."""
        self.asked += 1
        self.seen.append([(c.epoch, c.curve[-1], c.ended, tuple(c.lost)) for c in courses])
        if self.asked == 2:
            worst = max((c for c in courses if not c.ended), key=lambda c: c.curve[-1])
            return Decision(
                {worst.trial: "the worst", 2: "has ended already"}, [settled(JOINING), settled(OTHER)]
            )
        return Decision({}, [settled({**JOINING, "learning_rate": 0.2})] if self.asked == 3 else ())


@dataclass(frozen=True)
class Case:
    """What a job is made of."""

    trials: Sequence[dict[str, Any]]
    task: str = "multiclass"
    policy: Callable[[], Any] | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    def job(self) -> Job:
        """Make the job, fresh."""
        table = studies.table(self.task)
        made = studies.job(
            table, self.task, self.trials, **{"folds": studies.UNEQUAL, "chunk": 2, **self.asked}
        )
        if self.policy is not None:
            made.policy = self.policy()
        return made


class Fragile(nn.Linear):
    """Gives NaN once its weights have moved far enough, which those of fewer rows do later."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Break when a weight has moved beyond a limit."""
        return super().forward(x) * torch.where(self.weight.abs().max() > 0.18, torch.nan, 1.0)


JOINING = {"epochs": 4, "learning_rate": 0.1, "scaling": "standard", "dropout": 0.3, "l2": 0.01}
OTHER = {"epochs": 3, "width": 3}
ENDED = {"network": "constant", "epochs": 0}
OWN = {"network": "custom", "initialization": "own", "learning_rate": 0.02, "epochs": 5}
HALF = {"precision": "float16", "loss_scale": 65536.0, "learning_rate": 0.1, "epochs": 3}
CASES = {
    "shapes, rates that watch, dropout": Case(
        [
            {"epochs": 5, "learning_rate": 0.03},
            {**JOINING, "normalization": "none"},
            OTHER,
            {"epochs": 4, "schedule": "plateau", "patience": 0},
            {"network": "constant", "epochs": 0},
        ],
        asked={"seeds": 2},
    ),
    "batch normalization, NAdam": Case(
        [
            {"normalization": "batch", "optimizer": "nadam", "epochs": 4, "dropout": 0.2},
            {"normalization": "batch", "optimizer": "nadam", "epochs": 2, "beta1": 0.5},
        ],
        "regression",
    ),
    "float16": Case([HALF, {**HALF, "loss_scale": 2.0**120}], asked={"dtype": torch.float32}),
    "growing batches, noise": Case(
        [
            {"batch_growth": 2.0, "batch_growth_every": 1, "batch_size": 4, "epochs": 4, "mixup": 0.4},
            {"batch_growth": 2.0, "batch_growth_every": 1, "batch_size": 4, "epochs": 3, "input_noise": 0.3},
        ],
        "binary",
    ),
    "stopping early": Case(
        [
            {"epochs": 5, "learning_rate": 0.01},
            {"epochs": 9, "learning_rate": 1.0, "early_stopping": 1, "clip_norm": 0.1},
        ]
    ),
    "diverging": Case(
        [OWN, {**OWN, "learning_rate": 1e-4}], "binary", asked={"net": Fragile, "seeds": 2, "chunk": 1}
    ),
    "vmap": Case(
        [{**OWN, "takes": ("width",), "epochs": 3, "optimizer": "rmsprop", "momentum": 0.5}],
        asked={"net": zoo.Normalized},
    ),
    "one by one": Case([{**OWN, "takes": ("width",), "epochs": 3}], asked={"net": zoo.Branching}),
    "a policy": Case(
        [{"epochs": 5, "learning_rate": 0.03}, {"epochs": 5, "learning_rate": 1e-4}, ENDED], policy=Halving
    ),
    "a policy, diverging": Case(
        [OWN, {**OWN, "learning_rate": 1e-4}, ENDED], policy=Halving, asked={"net": Fragile}
    ),
}


def after(parts: int) -> Callable[[], None]:
    """Break off when some parts have been learned from."""
    count = 0

    def each_part() -> None:
        nonlocal count
        count += 1
        if count == parts:
            raise Interrupted

    return each_part


def everything(stack: Stack) -> Iterator[tuple[str, Tensor]]:
    """Name all tensors of a stack."""
    for what in (stack.cohort.state, stack.kept):
        for name, value in vars(what).items():
            yield from value.items() if isinstance(value, dict) else [(name, value)]


def same(one: Job, other: Job) -> None:
    """Compare two jobs bit by bit."""
    assert other.plan == one.plan
    assert other.field.decided == one.field.decided
    for mine, theirs in zip(one.stacks, other.stacks, strict=True):
        assert mine.members == theirs.members
        for (name, a), (_, b) in zip(everything(mine), everything(theirs), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)), name
    assert [repr(c) for c in other.field.courses] == [repr(c) for c in one.field.courses]
    assert collect.history(other).equals(collect.history(one))
    assert collect.predictions(other).equals(collect.predictions(one))


def through_files(job: Job, folder: Path, fresh: Job) -> Job:
    """Store a job, and bring a fresh one to where it was."""
    folder.mkdir(exist_ok=True)
    keeper = Keeper(job, origin_of(job, SUMMARY, ""), folder, pytest.fail)
    keeper.write()
    found = next(checkpoints(folder))
    assert not isinstance(found, StoreError), found
    assert found.state is not None
    restore(fresh.field, fresh.policy, *found.state)
    return fresh


SUMMARY = CASES["float16"].job().summary()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("each", [1, 3])
def test_broken_off_and_made_again_is_never_broken_off(name: str, each: int, tmp_path: Path) -> None:
    case = CASES[name]
    whole = case.job()
    assert whole.train(studies.quiet)
    broken, breaks = case.job(), 0
    while not broken.train(studies.quiet, each_part=after(each)):
        breaks += 1
        broken = through_files(broken, tmp_path / "run", case.job())
    assert breaks > 1
    same(whole, broken)
    if case.policy is not None:
        assert broken.policy == whole.policy


def test_the_cases_are_what_they_say() -> None:
    """A case without the event that it is there for would prove nothing."""
    jobs = {name: case.job() for name, case in CASES.items()}
    for job in jobs.values():
        job.train(studies.quiet)
    statuses = jobs["diverging"].stacks[0].cohort.state.status.tolist()
    assert DIVERGED in statuses
    assert jobs["stopping early"].field.courses[1].ended.startswith("stopped early")
    assert collect.history(jobs["float16"])["skipped"].max() > 0
    assert jobs["vmap"].stacks[0].engine.how == "stacked"
    assert jobs["one by one"].stacks[0].engine.how == "one by one"
    assert len(jobs["a policy"].plan.trials) == 6
    assert "the worst" in {c.ended for c in jobs["a policy"].field.courses}
    assert any(lost for seen in jobs["a policy, diverging"].policy.seen for *_, lost in seen)  # type: ignore[attr-defined]


def test_between_two_rounds_is_a_place_to_stop_too(tmp_path: Path) -> None:
    case = CASES["shapes, rates that watch, dropout"]
    whole, broken = case.job(), case.job()
    whole.train(studies.quiet)
    broken.field.look()
    for _ in range(2):
        broken.field.round(lambda rows: None)
        broken.field.follow(Decision())
    again = through_files(broken, tmp_path / "run", case.job())
    assert again.train(studies.quiet)
    same(whole, again)


def test_storing_changes_nothing(tmp_path: Path) -> None:
    case = CASES["batch normalization, NAdam"]
    whole, stored = case.job(), case.job()
    whole.train(studies.quiet)
    keeper = Keeper(stored, origin_of(stored, SUMMARY, ""), tmp_path, pytest.fail)
    stored.train(studies.quiet, each_part=keeper.write)
    same(whole, stored)


# Policies


def test_a_policy_that_decides_otherwise_is_refused() -> None:
    case = CASES["a policy"]
    job = case.job()
    job.train(studies.quiet, each_part=after(14))
    stored = snapshot(job.field)
    fresh = case.job()
    with pytest.raises(PlanError, match="after round 2 the search decides otherwise"):
        restore(fresh.field, replace(Halving(), asked=7), *stored)


def test_a_policy_sees_again_what_it_saw() -> None:
    case = CASES["a policy, diverging"]
    job = case.job()
    job.train(studies.quiet)
    fresh, policy = case.job(), Halving()
    restore(fresh.field, policy, *snapshot(job.field))
    assert policy == job.policy


def test_another_engine_is_refused() -> None:
    case = CASES["float16"]
    job, fresh = case.job(), case.job()
    job.train(studies.quiet, each_part=after(2))
    plain, tensors = snapshot(job.field)
    with pytest.raises(PlanError, match="trained by hand would go on stacked"):
        restore(fresh.field, fresh.policy, first(plain, how="by hand"), tensors)


# What does not fit


@pytest.fixture
def broken() -> Job:
    """A job whose round was broken off."""
    job = CASES["shapes, rates that watch, dropout"].job()
    job.train(studies.quiet, each_part=after(20))
    return job


def first(plain: Snapshot, **changes: Any) -> Snapshot:
    """Change the first stack."""
    return replace(plain, stacks=(replace(plain.stacks[0], **changes), *plain.stacks[1:]))


def course(plain: Snapshot, **changes: Any) -> Snapshot:
    """Change the first course."""
    return replace(plain, courses=(replace(plain.courses[0], **changes), *plain.courses[1:]))


PLAIN: dict[str, Callable[[Snapshot], Snapshot]] = {
    "rounds": lambda s: replace(s, gone=(-1.0, *s.gone[1:])),
    "chunk": lambda s: first(s, chunk=0),
    "compile": lambda s: first(s, compile="perhaps"),
    "seconds": lambda s: replace(s, seconds=float("nan")),
    "fewer courses": lambda s: replace(s, courses=s.courses[1:]),
    "more epochs": lambda s: course(s, noted=99),
    "another epoch": lambda s: course(s, noted=s.courses[0].noted - 1),
    "lost folds": lambda s: course(s, lost=(3,)),
    "ended": lambda s: course(s, ended="finished"),
    "fewer stacks": lambda s: replace(s, stacks=s.stacks[1:]),
    "waiting": lambda s: replace(s, waiting=(9,)),
    "nobody waits": lambda s: replace(s, waiting=()),
    "members": lambda s: first(s, members=s.stacks[0].members[::-1]),
    "layout": lambda s: first(s, layout=(("weight", (3,)),)),
    "notes": lambda s: first(s, notes=s.stacks[0].notes[1:]),
    "notes of nobody": lambda s: first(s, notes=((0, ()), *s.stacks[0].notes)),
}
TENSORS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "missing": lambda t: t.pop("stack0.state.parameters"),
    "unknown": lambda t: t.update({"stack0.state.more": torch.zeros(1)}),
    "unknown stack": lambda t: t.update({"stack9.state.step": torch.zeros(1)}),
    "shape": lambda t: t.update({"stack0.state.parameters": t["stack0.state.parameters"][:, 1:]}),
    "type": lambda t: t.update({"stack0.kept.parameters": t["stack0.kept.parameters"].float()}),
    "epoch": lambda t: t["stack0.state.epoch"].add_(1),
    "step": lambda t: t["stack0.state.step"].add_(1),
    "negative step": lambda t: t["stack0.state.step"].fill_(-5),
    "status": lambda t: t["stack0.state.status"].fill_(7),
    "through": lambda t: t["stack0.state.status"].fill_(1),
    "seed": lambda t: t["stack0.state.seed"].add_(1),
    "kept epoch": lambda t: t["stack0.kept.epoch"].fill_(50),
    "gaps": lambda t: t["courses.curve"].fill_(float("nan")),
    "fewer scores": lambda t: t.update({"courses.scores": t["courses.scores"][1:]}),
    "note of nobody": lambda t: t["stack0.notes.places"].fill_(99),
    "note of the future": lambda t: t["stack0.notes.epoch"].fill_(99),
    "fewer notes": lambda t: t.update({"stack0.notes.score": t["stack0.notes.score"][1:]}),
}


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of their own, which a test may change."""
    return {name: t.clone() for name, t in tensors.items()}


@pytest.mark.parametrize("change", PLAIN)
def test_plain_values_that_do_not_fit_are_refused(broken: Job, change: str) -> None:
    plain, tensors = snapshot(broken.field)
    fresh = CASES["shapes, rates that watch, dropout"].job()
    assert PLAIN[change](plain) != plain
    with pytest.raises(ValueError, match=r"\w"):
        restore(fresh.field, fresh.policy, PLAIN[change](plain), copied(tensors))


@pytest.mark.parametrize("change", TENSORS)
def test_tensors_that_do_not_fit_are_refused(broken: Job, change: str) -> None:
    plain, tensors = snapshot(broken.field)
    fresh = CASES["shapes, rates that watch, dropout"].job()
    TENSORS[change](changed := copied(tensors))
    with pytest.raises(ValueError, match=r"\w"):
        restore(fresh.field, fresh.policy, plain, changed)


BROKEN: dict[str, Callable[[Any], Any]] = {
    "places": lambda b: replace(b, places=b.places[1:]),
    "places twice": lambda b: replace(b, places=(*b.places, b.places[0])),
    "places of nobody": lambda b: replace(b, places=(*b.places, 99)),
    "left twice": lambda b: replace(b, left=(*b.left, b.left[0])),
    "left of nobody": lambda b: replace(b, left=(*b.left, (99,))),
    "empty part": lambda b: replace(b, left=(*b.left, ())),
    "one part less": lambda b: replace(b, left=b.left[1:]),
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_broken_round_that_does_not_fit_is_refused(broken: Job, change: str) -> None:
    plain, tensors = snapshot(broken.field)
    place = next(n for n, shelf in enumerate(plain.stacks) if shelf.broken is not None)
    shelf = replace(plain.stacks[place], broken=BROKEN[change](plain.stacks[place].broken))
    fresh = CASES["shapes, rates that watch, dropout"].job()
    with pytest.raises(ValueError, match=f"stack {place}"):
        restore(
            fresh.field,
            fresh.policy,
            replace(plain, stacks=(*plain.stacks[:place], shelf, *plain.stacks[place + 1 :])),
            copied(tensors),
        )
