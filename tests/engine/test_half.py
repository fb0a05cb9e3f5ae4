"""Half precision: each member has a loss scale of its own, and skips its own steps alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import studies
import zoo
from foldwise import collect
from foldwise.engine.half import GROWTH_INTERVAL, SCALING, rescale
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.errors import SettingsError
from foldwise.plans.plan import Member
from foldwise.reference import train_alone

pytestmark = pytest.mark.slow  # together they take minutes

# One rounding to 8 or 11 bits, a few times over, is what a step may be off; a skipped step is off by whole steps.
TOLERANCE = {"bfloat16": 3e-2, "float16": 4e-3}


def members(network: str, optimizer: str, precision: str, **more: object) -> list[Member]:
    """Make a mixed stack in half precision."""
    own = zoo.mixed(zoo.NETWORKS[network], zoo.TARGETS["classes"], optimizer)
    return [replace(m, settings=m.settings.model_copy(update={"precision": precision, **more})) for m in own]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        ("mlp tanh", "adamw"),
        ("mlp, layer normalization", "sgd"),
        ("residual", "nadam"),
        ("Normalized", "sgd"),
        ("Branching", "rmsprop"),
    ],
)
@pytest.mark.parametrize("scale", [2.0**10, 2.0**40])
def test_a_member_is_what_torch_makes_of_it_alone(
    network: str, optimizer: str, precision: str, scale: float
) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net, dtype=torch.float32)
    stack = members(network, optimizer, precision, loss_scale=scale)
    engine = world.engine(stack)
    for _epoch in range(1, 4):
        zoo.advance(engine)
    for place, member in enumerate(stack):
        module, data, own = world.alone(member)
        for _ in itertools.islice(train_alone(member, module, data, own), 3):
            pass
        theirs = torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])
        apart = (engine.cohort.state.parameters[place] - theirs).abs().max() / theirs.abs().max()
        assert apart < TOLERANCE[precision]


def learnt(engine: StackedEngine) -> torch.Tensor:
    """Train two epochs."""
    for _epoch in (1, 2):
        zoo.advance(engine)
    return engine.cohort.state.parameters


def test_an_overflow_skips_the_step_of_its_member_alone() -> None:
    world = zoo.world(zoo.TARGETS["classes"], dtype=torch.float32)
    healthy = members("mlp tanh", "adamw", "float16", loss_scale=2.0**8)
    scaled = healthy[2].settings.model_copy(update={"loss_scale": 2.0**60})
    ill = [replace(m, settings=scaled, trial=9) if place == 2 else m for place, m in enumerate(healthy)]
    one, other = world.engine(healthy), world.engine(ill)
    both = learnt(one), learnt(other)
    same = [torch.equal(a, b) for a, b in zip(*both, strict=True)]
    assert same == [True, True, False, True, True, True]
    skipped = other.cohort.counted(zoo.everyone(other))["skipped"]
    assert skipped[2] > 0
    assert skipped[[0, 1, 3, 4, 5]].eq(0).all()
    assert torch.isfinite(other.cohort.state.parameters).all()
    assert one.cohort.counted(zoo.everyone(one))["skipped"].eq(0).all()


def test_a_skipped_step_changes_nothing() -> None:
    world = zoo.world(zoo.TARGETS["classes"], dtype=torch.float32)
    engine = world.engine(members("mlp tanh", "adamw", "float16", loss_scale=2.0**120, clip_norm=0.1))
    before = engine.cohort.state.parameters.clone()
    losses = zoo.advance(engine)
    assert torch.equal(engine.cohort.state.parameters, before)
    assert all(engine.cohort.state.moments[name].eq(0).all() for name in ("first", "second", "clipped"))
    assert torch.isnan(losses).all()  # no step was learnt from
    assert engine.cohort.counted(zoo.everyone(engine))["skipped"].gt(0).all()
    assert engine.cohort.state.step.gt(0).all()


def test_scales_follow_the_rules_of_torch() -> None:
    ours = {name: torch.full((1, 1), value, dtype=torch.float64) for name, value in SCALING.items()}
    ours["loss_scale"].fill_(65536)
    theirs = torch.amp.GradScaler("cpu", init_scale=65536)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    overflows = {3, 4, 100, GROWTH_INTERVAL + 200}
    for step in range(3 * GROWTH_INTERVAL):
        parameter.grad = torch.tensor([float("inf") if step in overflows else 1.0])
        theirs.scale(torch.zeros(1))
        theirs.unscale_(optimizer)
        theirs.step(optimizer)
        theirs.update()
        rescale(ours, torch.tensor([[step not in overflows]]))
        assert ours["loss_scale"].item() == theirs.get_scale()
    assert ours["skipped"].item() == len(overflows)
    assert ours["loss_scale"].item() > 65536 / 2 ** len(overflows)


def test_the_share_of_skipped_steps_is_in_the_history() -> None:
    job = studies.job(
        studies.table("multiclass"),
        "multiclass",
        [{"precision": "float16", "loss_scale": 2.0**18, "clip_norm": 0.01}, {}],
        dtype=torch.float32,
    )
    job.train(studies.quiet)
    first = collect.history(job).filter(trial=1, epoch=1)
    assert first["skipped"].min() > 0
    assert first["clipped"].max() > 0
    assert collect.history(job).filter(trial=2)["skipped"].null_count() == len(
        collect.history(job).filter(trial=2)
    )


def test_a_member_that_recovers_from_overflows_has_not_diverged() -> None:
    # all rows are one batch, so the first epochs have no step at all that does not overflow
    trial = {"precision": "float16", "loss_scale": 2.0**21, "batch_size": 1000, "epochs": 12}
    job = studies.job(studies.table("multiclass"), "multiclass", [trial], dtype=torch.float32)
    job.train(studies.quiet)
    history = collect.history(job)
    assert history.filter(epoch=1)["skipped"].to_list() == [1, 1, 1]
    assert history.filter(epoch=12)["skipped"].to_list() == [0, 0, 0]
    assert collect.records(job)[0].status == "finished"


def test_half_precision_of_doubles_is_refused() -> None:
    world = zoo.world(zoo.TARGETS["classes"])
    with pytest.raises(SettingsError, match="has no effect with dtype float64"):
        world.engine(members("mlp tanh", "sgd", "bfloat16"))


@pytest.mark.parametrize("attempt", range(3))
def test_scales_of_chunks_in_two_threads_do_not_meet(attempt: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trials = [
            {"precision": "float16", "label_noise": 0.1 * n, "epochs": 3, "batch_size": 4} for n in range(4)
        ]
        job = studies.job(studies.table("regression"), "regression", trials, dtype=torch.float32, chunk=4)
        assert job.stacks[0].engine.workers == 2
        assert job.train(studies.quiet)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "sgd", "adagrad"])
def test_a_member_that_skips_some_steps_then_learns_as_torch_does(optimizer: str) -> None:
    world = zoo.world(zoo.TARGETS["classes"], dtype=torch.float32)
    stack = members("mlp tanh", optimizer, "float16", loss_scale=2.0**20)
    engine = world.engine(stack)
    for _epoch in range(1, 6):
        zoo.advance(engine)
    skipped = engine.cohort.counted(zoo.everyone(engine))["skipped"]
    assert ((skipped > 0) & (skipped < engine.cohort.state.step)).all()
    for place, member in enumerate(stack):
        module, data, own = world.alone(member)
        for _ in itertools.islice(train_alone(member, module, data, own), 5):
            pass
        theirs = torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])
        apart = (engine.cohort.state.parameters[place] - theirs).abs().max() / theirs.abs().max()
        assert apart < 4e-3


def test_the_scale_doubles_after_good_steps() -> None:
    ours = {name: torch.full((1, 1), value, dtype=torch.float64) for name, value in SCALING.items()}
    for _ in range(GROWTH_INTERVAL):
        rescale(ours, torch.tensor([[True]]))
    assert ours["loss_scale"].item() == 2


def test_shares_of_clipped_steps_are_of_the_steps_of_one_epoch() -> None:
    trials = [{"clip_norm": 1e-9, "accumulation": 2, "batch_size": 8}]
    job = studies.job(studies.table("multiclass"), "multiclass", trials)
    job.train(studies.quiet)
    history = collect.history(job)
    assert history.filter(history["epoch"] > 0)["clipped"].to_list() == [1.0] * 9


def test_a_trial_that_overflows_to_the_end_is_named() -> None:
    trials = [{"precision": "float16", "loss_scale": 2.0**100}, {"precision": "float16"}]
    job = studies.job(studies.table("multiclass"), "multiclass", trials, dtype=torch.float32)
    job.train(studies.quiet)
    assert collect.overflowing(job) == [
        "trial 1 learned nothing in the end: every step overflowed in float16"
    ]
