"""What must always hold, but for one: that alone = stacked is in engine/test_parity.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import foldwise
import studies
import zoo
from foldwise import collect
from foldwise.data.prepare import learn_preparation, learn_target_scale
from foldwise.engine.loop import Progress
from foldwise.engine.stacked.engine import StackedEngine
from foldwise.fitting import gather
from foldwise.job import Job
from foldwise.live import LivePage
from foldwise.plans.plan import Member
from foldwise.terminal import Display

EPOCHS = 4
STACKED = ["mlp relu", "Residual", "Normalized", "Branching"]
MIXED = [{"learning_rate": 0.01, "epochs": 5}, {"learning_rate": 0.1, "dropout": 0.3}, {"schedule": "cosine"}]


def learnt(engine: StackedEngine, epochs: int = EPOCHS) -> list[tuple[Tensor, ...]]:
    """Train a stack, and give everything that each member has become."""
    losses, outputs = [], []
    for _epoch in range(1, epochs + 1):
        losses.append(zoo.advance(engine))
        outputs.append(zoo.outputs(engine, zoo.everyone(engine)))
    state = engine.cohort.state
    kept = [state.parameters, *state.buffers.values(), *state.moments.values()]
    kept += [torch.stack(losses, 1), torch.stack(outputs, 1)]  # these two on the CPU
    return [tuple(tensor[place].clone() for tensor in kept) for place in range(len(state))]


def same_bits(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Compare bit by bit; NaN equals NaN."""
    return all(torch.equal(a.view(torch.int64), b.view(torch.int64)) for a, b in zip(one, other, strict=True))


# No companion matters


def poisoned_weights(value: float) -> Callable[[StackedEngine, int], None]:
    """Make what fills a member's weights with a value."""

    def poison(engine: StackedEngine, place: int) -> None:
        engine.cohort.state.parameters[place] = value

    return poison


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("network", STACKED)
def test_poisoned_weights_stay_where_they_are(network: str, value: float) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net)
    members = zoo.mixed(net, what, "adamw")
    healthy = learnt(world.engine(members))
    ill = world.engine(members)
    poisoned_weights(value)(ill, 2)
    after = learnt(ill)
    assert [same_bits(*pair) for pair in zip(healthy, after, strict=True)] == [p != 2 for p in range(6)]


@pytest.mark.parametrize("recipe", zoo.RECIPES)
@pytest.mark.parametrize("network", ["residual", "mlp, batch normalization"])
def test_poison_stays_where_it_is_under_every_recipe(network: str, recipe: str) -> None:
    net, what, doing = zoo.NETWORKS[network], zoo.TARGETS["classes"], zoo.RECIPES[recipe]
    world = zoo.world(what, net.net, recipe=doing)
    members = zoo.mixed(net, what, "nadam", recipe=doing)
    healthy, ill = world.engine(members), world.engine(members)
    ill.cohort.state.parameters[2] = float("nan")
    after = zip(learnt(healthy), learnt(ill), strict=True)
    assert [same_bits(*pair) for pair in after] == [p != 2 for p in range(6)]


ASKING: tuple[dict[str, object], ...] = (
    {"clip_norm": 1e-3},
    {"weight_limit": 1e-3},
    {"l1": 1e9},
    {"l2": 1e9, "regularized": "all"},
    {"input_noise": 1e9},
    {"label_noise": 0.9},
    {"mixup": 0.5},
    {"label_smoothing": 0.5},
    {"reduction": "sum"},
    {"schedule": "plateau", "patience": 0},
    {"warmup": 0.5},
    {"momentum": 0.9, "dampening": 0.5},
    {"blocks": (("hidden1", "frozen", 1.0),)},
    {"blocks": (("output", "rate_factor", 1e9),)},
)


@pytest.mark.parametrize("target", ["classes", "one number"])
@pytest.mark.parametrize("changed", ASKING, ids=" ".join)
def test_what_a_companion_asks_for_does_not_matter(changed: dict[str, object], target: str) -> None:
    # a companion that is the first to ask for something adds it to the steps of the whole stack
    net, what = zoo.NETWORKS["mlp relu"], zoo.TARGETS[target]
    if "label_smoothing" in changed and not what.smooths:
        return
    world = zoo.world(what, dtype=torch.float32)
    members = [
        replace(m, settings=m.settings.model_copy(update={"momentum": 0.0, "dampening": 0.0}))
        for m in zoo.mixed(net, what, "sgd")
    ]
    ill = replace(members[3], trial=9, settings=members[3].settings.model_copy(update=changed))
    engines = [world.engine([*members[:3], member, *members[4:]]) for member in (members[3], ill)]
    for _epoch in range(1, EPOCHS + 1):
        for engine in engines:
            zoo.advance(engine)
            curve = torch.full((6,), 1.0, dtype=torch.float64, device=zoo.DEVICE)
            engine.cohort.follow_curve(curve, zoo.everyone(engine))
    one, other = (engine.cohort.state.parameters for engine in engines)
    assert [torch.equal(a, b) for a, b in zip(one, other, strict=True)] == [p != 3 for p in range(6)]


@pytest.mark.parametrize("target", ["one number", "labels"])
@pytest.mark.parametrize("network", ["linear", *STACKED])
@pytest.mark.parametrize("changed", [{"learning_rate": 1e9}, {"weight_decay": 1e12}, {"epochs": 9}])
def test_settings_of_a_companion_do_not_matter(network: str, target: str, changed: dict[str, float]) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS[target]
    world = zoo.world(what, net.net)
    members = zoo.mixed(net, what, "sgd")
    # its companion in the trial keeps its settings, so the changed one gets a trial of its own
    ill = replace(members[3], trial=9, settings=members[3].settings.model_copy(update=changed))
    both = [learnt(world.engine([*members[:3], member, *members[4:]])) for member in (members[3], ill)]
    unmoved = [same_bits(*pair) for pair in zip(*both, strict=True)]
    assert unmoved[:3] == [True] * 3
    assert unmoved[4:] == [True] * 2
    assert not unmoved[3] or "epochs" in changed


@pytest.mark.parametrize("network", STACKED)
def test_a_companion_with_other_rows_and_seed_does_not_matter(network: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net)
    members = zoo.mixed(net, what, "adamw")
    other = replace(members[1], seed=77)
    both = [learnt(world.engine([members[0], member, *members[2:]])) for member in (members[1], other)]
    assert [same_bits(*pair) for pair in zip(*both, strict=True)] == [p != 1 for p in range(6)]


@pytest.mark.parametrize("network", ["linear", *STACKED])
def test_removing_a_companion_does_not_matter(network: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS["classes"]
    world = zoo.world(what, net.net)
    members = zoo.mixed(net, what, "adamw")
    together = learnt(world.engine(members, chunk=2))
    without_a_chunk = learnt(world.engine([*members[:2], *members[4:]], chunk=2))
    assert all(map(same_bits, without_a_chunk, [*together[:2], *together[4:]]))
    without_one = learnt(world.engine([*members[:2], *members[3:]]))
    for one, other in zip(without_one, [*together[:2], *together[3:]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11, equal_nan=True)


# No row leaks


def replaced(world: zoo.World, fold: int, how: str) -> zoo.World:
    """Change every cell of a fold's validation rows."""
    random = np.random.default_rng(9)
    rows = world.folds.validation[fold]
    features, targets = world.features.copy(), world.targets.copy()
    shape = features[rows].shape
    features[rows] = {
        "other": random.normal(size=shape),
        "extreme": random.choice([-1e12, 1e12], size=shape),
        "missing": np.where(random.random(shape) < 0.7, np.nan, 7.0),
        "equal": np.full(shape, 3.0),
    }[how]
    features[rows, -1] = random.integers(0, 2, size=rows.sum())
    if targets.dtype.kind == "f":
        targets[rows] = (
            1 - targets[rows] if world.target.smooths else 1e9 * random.normal(size=targets[rows].shape)
        )
    else:
        targets[rows] = (targets[rows] + 1) % world.target.outputs
    return world.with_rows(features, targets)


@pytest.mark.parametrize("how", ["other", "extreme", "missing", "equal"])
@pytest.mark.parametrize("target", ["two numbers", "classes", "labels"])
@pytest.mark.parametrize("network", ["mlp relu", "Normalized"])
def test_validation_rows_teach_nothing(network: str, target: str, how: str) -> None:
    net, what = zoo.NETWORKS[network], zoo.TARGETS[target]
    world = zoo.world(what, net.net)
    fold = 3  # of which two members learn
    members = [m for m in zoo.mixed(net, what, "adamw") if m.fold == fold]
    engines = [w.engine(members) for w in (world, replaced(world, fold, how))]
    losses = [torch.stack([zoo.advance(engine) for epoch in range(1, EPOCHS + 1)]) for engine in engines]
    one, other = (engine.cohort.state for engine in engines)
    assert torch.equal(*losses)
    assert torch.equal(one.parameters, other.parameters)
    assert all(torch.equal(one.buffers[name], other.buffers[name]) for name in one.buffers)
    seen = [zoo.outputs(engine, zoo.everyone(engine)) for engine in engines]
    assert not torch.equal(*seen)


@pytest.mark.parametrize("fold", range(len(zoo.VALIDATED)))
@pytest.mark.parametrize("scaling", zoo.SCALINGS)
def test_constants_of_a_fold_are_those_of_its_training_rows(scaling: str, fold: int) -> None:
    world = zoo.world(zoo.TARGETS["two numbers"])
    train = world.folds.train
    for how in ("other", "extreme", "missing", "equal"):
        changed = replaced(world, fold, how)
        constants = [learn_preparation(w.features, train, w.numbers, scaling) for w in (world, changed)]
        scales = [learn_target_scale(w.targets, train) for w in (world, changed)]
        for name in ("fill", "shift", "scale", "bound"):
            np.testing.assert_array_equal(*(getattr(c, name)[fold] for c in constants))
        for name in ("shift", "scale"):
            np.testing.assert_array_equal(*(getattr(s, name)[fold] for s in scales))
    alone = learn_preparation(
        world.features[train[fold]], np.ones((1, train[fold].sum()), bool), world.numbers, scaling
    )
    together = learn_preparation(world.features, train, world.numbers, scaling)
    np.testing.assert_array_equal(together.scale[fold], alone.scale[0])


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_validation_rows_of_a_table_teach_nothing(task: str) -> None:
    frame = studies.table(task).with_columns(fold=pl.Series(np.arange(47) % 4))
    mine = pl.col("fold") == 2
    # the column plan is made once, for all folds: the levels and their counts stay, but others have them
    color, rows = frame["color"].to_numpy().copy(), np.arange(47) % 4 == 2
    color[rows] = np.random.default_rng(1).permutation(color[rows])
    other = frame.with_columns(
        size=pl.when(mine).then(1e9).otherwise("size"),
        age=pl.when(mine).then(None).otherwise("age"),
        color=pl.Series(color),
        old=pl.when(mine).then(~pl.col("old")).otherwise("old"),
        **{t: pl.when(mine).then(pl.col(t).first()).otherwise(t) for t in studies.TASKS[task]},
    )
    jobs = [studies.job(f, task, [{"epochs": 4, "dropout": 0.2}], fold_column="fold") for f in (frame, other)]
    for job in jobs:
        job.train(studies.quiet)
    histories = [collect.history(job).filter(fold=3) for job in jobs]
    assert histories[0]["training_loss"].equals(histories[1]["training_loss"])
    assert not histories[0]["validation_loss"].equals(histories[1]["validation_loss"])
    assert torch.equal(*(job.stacks[0].cohort.state.parameters[2] for job in jobs))


@pytest.mark.parametrize("task", studies.TASKS)
def test_every_row_is_predicted_exactly_once_by_each_trial_and_seed(task: str) -> None:
    job = studies.job(studies.table(task), task, [{"epochs": 1}, {"epochs": 0}], folds=5, seeds=2)
    assert len({int(v.sum()) for v in job.folds.validation}) > 1  # 47 rows: unequal folds
    job.train(studies.quiet)
    rows = collect.predictions(job).group_by("trial", "seed").agg(pl.col("row").sort())
    assert rows.height == 4
    assert all(r == list(range(47)) for r in rows["row"].to_list())
    history = collect.history(job)
    assert history.select("trial", "seed", "fold", "epoch").is_duplicated().sum() == 0


# Looking changes nothing


def final_states(job: Job) -> list[Tensor]:
    """Give the weights after the last epoch."""
    return [stack.cohort.state.parameters for stack in job.stacks]


def trained(watch: Callable[[Progress], None] = studies.quiet, looks: bool = False, **asked: object) -> Job:
    """Train the mixed trials."""
    job = studies.job(studies.table("multiclass"), "multiclass", MIXED, folds=4, seeds=2, **asked)  # type: ignore[arg-type]
    if looks:
        job.summary()
    job.train(watch)
    return job


@pytest.fixture(scope="module")
def plain() -> Job:
    """The mixed trials, trained while nobody looks."""
    return trained()


def busy(now: Progress) -> None:
    """Look at everything, and draw from the generators that everybody shares."""
    assert now.rows_done <= now.rows_total
    torch.rand(10)
    np.random.rand(10)  # noqa: NPY002


@pytest.mark.parametrize(
    "changed",
    [{"watch": busy}, {"looks": True}, {"metric": "log_loss_bits"}],
    ids=["watched", "estimated", "metric"],
)
def test_looking_changes_nothing(plain: Job, changed: dict[str, object]) -> None:
    job = trained(**changed)  # type: ignore[arg-type]
    assert all(map(torch.equal, final_states(plain), final_states(job)))
    columns = ["trial", "seed", "fold", "epoch", "training_loss", "validation_loss"]
    assert collect.history(job).select(columns).equals(collect.history(plain).select(columns))


def test_more_epochs_do_not_change_those_before() -> None:
    long = trained()
    short = studies.job(
        studies.table("multiclass"),
        "multiclass",
        [{**MIXED[0], "epochs": 2}, {**MIXED[1], "epochs": 2}],
        folds=4,
        seeds=2,
    )
    short.train(studies.quiet)
    both = pl.col("trial").is_in([1, 2]) & (pl.col("epoch") <= 2)
    # with a constant schedule; the cosine's length is the number of epochs
    assert collect.history(short).filter(both).equals(collect.history(long).filter(both))


def test_the_page_and_the_judge_only_look() -> None:
    job = trained()
    before = [s.clone() for s in final_states(job)]
    predictions = collect.predictions(job)
    collect.records(job), collect.models(job), collect.history(job), job.summary()
    assert all(map(torch.equal, before, final_states(job)))
    assert collect.predictions(job).equals(predictions)


def test_the_page_that_is_written_while_training_only_looks(plain: Job, tmp_path: Path) -> None:
    job = studies.job(studies.table("multiclass"), "multiclass", MIXED, folds=4, seeds=2)
    page = LivePage(lambda: gather(job, job.summary(), "a test", live=True), tmp_path)
    sizes: list[int] = []

    def refresh() -> None:
        page.due = 0.0
        page.refresh()
        sizes.append((tmp_path / "report.html").stat().st_size)

    job.train(studies.quiet, refresh)
    assert len(sizes) == 6  # epochs 0 to 5
    assert min(sizes) > 10_000
    assert all(map(torch.equal, final_states(plain), final_states(job)))
    assert collect.history(job).equals(collect.history(plain))


def test_a_display_changes_nothing() -> None:
    class Drawing(Display):
        """Draws from the shared generators whenever it is told something."""

        def columns(self, plan: object) -> None:
            torch.rand(3)

        def plan(self, summary: object) -> None:
            torch.rand(3)

        def progress(self, now: Progress) -> None:
            busy(now)

    asked = {"target": "ill", "search": {**studies.SMALL, "dropout": 0.2}, "folds": 3}
    frame = studies.table("binary")
    quiet, watched = (foldwise.fit(frame, **asked, display=d) for d in (None, Drawing()))
    assert watched.history.equals(quiet.history)
    assert watched.predictions.equals(quiet.predictions)
    assert watched.headline == quiet.headline


# Same seed, same study


@pytest.mark.parametrize("chunk", [1, 3, 24])
def test_chunks_do_not_matter(plain: Job, chunk: int) -> None:
    job = trained(chunk=chunk)
    for one, other in zip(final_states(job), final_states(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    kept = [[int(e) for s in j.stacks for e in s.kept.epoch] for j in (job, plain)]
    assert kept[0] == kept[1]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch use two threads, and give it back its number."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(zoo.DEVICE.type != "cpu", reason="a GPU has one worker")
def test_the_number_of_workers_does_not_matter(plain: Job, two_threads: None) -> None:
    job = trained()
    assert job.stacks[0].engine.workers == 2
    for one, other in zip(final_states(job), final_states(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert torch.get_num_threads() == 2


def test_a_repeated_study_is_the_same_to_the_last_bit(plain: Job) -> None:
    torch.manual_seed(123)
    again = trained()
    assert all(map(torch.equal, final_states(plain), final_states(again)))
    assert collect.history(again).equals(collect.history(plain))
    assert collect.predictions(again).equals(collect.predictions(plain))


def test_another_seed_is_another_study() -> None:
    def member(seed: int) -> Member:
        return replace(zoo.mixed(zoo.NETWORKS["mlp relu"], zoo.TARGETS["classes"], "sgd")[0], seed=seed)

    engine = zoo.world(zoo.TARGETS["classes"]).engine([member(0), member(1)])
    assert not torch.equal(*engine.cohort.state.parameters)


def test_the_generators_of_the_caller_are_left_alone() -> None:
    job = studies.job(
        studies.table("binary"),
        "binary",
        [zoo.NETWORKS["Normalized"].settings],
        net=zoo.Normalized,
    )
    before = torch.get_rng_state()
    made = studies.study(job)
    made.predict(studies.table("binary"))
    assert torch.equal(torch.get_rng_state(), before)
