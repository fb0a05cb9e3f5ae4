"""The loop: which epoch a trial keeps, what becomes of members that fail, and how an interrupt ends it."""

from __future__ import annotations

import math
import signal
import threading

import numpy as np
import polars as pl
import pytest
import torch

import studies
import zoo
from foldwise import collect
from foldwise.data.folds import make_folds
from foldwise.engine.loop import Interrupt, Progress
from foldwise.engine.pace import Pace
from foldwise.engine.stack import Stack
from foldwise.job import Job
from foldwise.reference import Own, prepare_fold, train_alone
from foldwise.study import Study

UNEQUAL = studies.UNEQUAL
LEARNING = [{"epochs": 8, "learning_rate": 0.3}, {"epochs": 5, "learning_rate": 0.05}, {"epochs": 3}]


def trained(task: str = "multiclass", **asked: object) -> Job:
    """Train trials of different length over unequal folds."""
    job = studies.job(studies.table(task), task, LEARNING, folds=UNEQUAL, seeds=2, **asked)  # type: ignore[arg-type]
    assert job.train(studies.quiet)
    return job


@pytest.fixture(scope="module")
def finished() -> Job:
    """Trials of different length, trained to their ends."""
    return trained()


def scores_of(stack: Stack, places: list[int]) -> list[np.ndarray]:
    """Give the scores of members, epoch by epoch, as they are noted."""
    noted: dict[int, dict[int, float]] = {}
    for notes in stack.notes:
        for place, epoch, score in zip(notes.places, notes.epoch.tolist(), notes.score, strict=True):
            noted.setdefault(epoch, {})[place] = score
    assert list(noted) == sorted(noted)
    return [np.array([own[p] for p in places]) for own in noted.values() if set(places) <= set(own)]


# The kept epoch


@pytest.mark.parametrize("task", ["multiclass", "log regression"])
def test_the_kept_epoch_is_the_best_of_the_mean_over_folds_and_seeds(task: str) -> None:
    job = trained(task)
    stack = job.stacks[0]
    rows = np.array([UNEQUAL.validation[m.fold].sum() for m in stack.members])
    for trial in stack.trials:
        places = [p for p, m in enumerate(stack.members) if m.trial == trial]
        means = [np.average(scores, weights=rows[places]) for scores in scores_of(stack, places)]
        epochs = job.plan.trials[trial].epochs
        best = 1 + int(np.argmin(means[1 : epochs + 1]))
        assert {int(stack.kept.epoch[p]) for p in places} == {best}
        assert stack.courses[trial].curve == pytest.approx(means, rel=1e-12)
        assert stack.courses[trial].best_epoch == best


def test_a_score_of_an_epoch_is_that_of_its_rows(finished: Job) -> None:
    last = collect.history(finished).filter(trial=1, seed=0, fold=3, epoch=8)["score"].item()
    stack = finished.stacks[0]
    place = next(p for p, m in enumerate(stack.members) if (m.trial, m.seed, m.fold) == (0, 0, 2))
    outputs = zoo.outputs(stack.engine, [place])[0]
    assert last == pytest.approx(
        np.mean(outputs.argmax(1).numpy() == finished.table.targets[UNEQUAL.validation[2]])
    )


def test_kept_weights_and_outputs_are_those_of_the_kept_epoch(finished: Job) -> None:
    stack = finished.stacks[0]
    for place in (0, 7, 13):
        member, epoch = stack.members[place], int(stack.kept.epoch[place])
        module = finished.nursery(member.settings.loss).start(member).cpu()
        table, folds = finished.table, finished.folds
        data = prepare_fold(
            table.features, table.targets, folds.train[member.fold], folds.validation[member.fold],
            table.numbers, member.settings.scaling, False, torch.float64,
        )  # fmt: skip
        alone = next(e for e in train_alone(member, module, data, Own()) if e.number == epoch)
        weights = torch.cat([p.detach().flatten() for p in module.parameters()])
        torch.testing.assert_close(stack.kept.parameters[place].cpu(), weights, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            stack.kept.outputs[place, : len(alone.outputs)].cpu(), alone.outputs, rtol=1e-10, atol=1e-12
        )


def test_an_untrained_network_is_never_kept(finished: Job) -> None:
    assert (finished.stacks[0].kept.epoch >= 1).all()


# Histories


def test_the_history_has_a_line_for_each_member_and_epoch(finished: Job) -> None:
    lines = collect.history(finished).group_by("trial", "seed", "fold").agg(pl.col("epoch").sort())
    assert lines.height == 18
    for line in lines.iter_rows(named=True):
        assert line["epoch"] == list(range(LEARNING[line["trial"] - 1]["epochs"] + 1))


def test_members_that_are_done_are_not_noted_any_more(finished: Job) -> None:
    stack = finished.stacks[0]
    last = stack.notes[8]
    assert last.epoch.tolist() == [8] * 6
    assert [stack.members[p].settings.epochs for p in last.places] == [8] * 6
    for values in (last.score, last.training_loss, last.validation_loss):
        assert np.isfinite(values).all()
    assert np.isnan(stack.notes[0].training_loss).all()  # nothing was learnt from yet


def test_progress_counts_rows_and_members() -> None:
    seen: list[Progress] = []
    job = studies.job(studies.table("binary"), "binary", LEARNING, folds=UNEQUAL, chunk=2)
    job.train(seen.append)
    rows = [(47 - n) for n in (8, 12, 27)]
    total = sum(rows) * (8 + 5 + 3)
    assert all(now.rows_total == total and now.members == 9 for now in seen)
    assert [now.rows_done for now in seen] == sorted(now.rows_done for now in seen)
    assert seen[-1].rows_done == total
    done = {now.epoch: now.members_done for now in seen}
    assert [done[e] for e in (0, 2, 3, 4, 5, 7, 8)] == [0, 0, 3, 3, 6, 6, 9]
    best = seen[-1].best
    assert best is not None
    result = studies.gather(job, job.summary(), "").results[0]
    assert (best.trial, best.mean) == (result.name, pytest.approx(result.score))


# Members that fail


MOSTLY = pl.Series("kind", ["a"] * 30 + ["b"] * 9 + ["c"] * 8)


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_a_diverged_trial_never_wins(metric: str) -> None:
    # NaN scores look like the first class to an argmax, and here the first class is right in most rows
    frame = studies.table("multiclass").with_columns(MOSTLY)
    wild = {"learning_rate": 1e200, "epochs": 4, "optimizer": "sgd"}
    job = studies.job(frame, "multiclass", [{"epochs": 2, "learning_rate": 1e-4}, wild], metric=metric)
    made = studies.study(job)
    assert [r.number for r in made.results] == [1, 2]
    assert made.results[1].status.startswith("diverged: folds 1, 2, 3")
    assert not math.isfinite(made.results[1].score)
    assert any("diverged" in w for w in made.warnings)
    scores = made.history.filter(pl.col("trial") == 2, pl.col("epoch") >= 1)["score"]
    assert scores.null_count() == len(scores)


def test_a_trial_that_diverges_late_keeps_its_good_epochs() -> None:
    class Breaking(torch.nn.Linear):
        """Gives NaN once its weights have moved far enough."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(inputs, outputs)
            torch.nn.init.zeros_(self.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            far = self.weight.abs().max() > 0.011
            return super().forward(x) * torch.where(far, torch.nan, 1.0)

    own = {"network": "custom", "initialization": "own", "epochs": 9, "learning_rate": 2e-3, "batch_size": 64}
    made = studies.study(studies.job(studies.table("binary"), "binary", [own], net=Breaking))
    result = made.results[0]
    assert result.status.startswith("diverged")
    assert 1 <= result.epoch < 9
    assert math.isfinite(result.score)
    assert made.predictions["probability of no"].is_finite().all()


def test_a_trial_that_is_done_keeps_its_predictions_while_others_go_on(finished: Job) -> None:
    assert (
        collect.predictions(finished).select(pl.selectors.starts_with("probability").is_finite().all()).row(0)
        == (True,) * 3
    )


@pytest.mark.parametrize("asked", [{"holdout": 0.3}, {"folds": make_folds(47, 3, time=np.arange(47.0))}])
def test_a_trial_that_fails_at_once_does_not_spoil_the_others(asked: dict[str, object]) -> None:
    # here some rows are never validated
    wild = {"learning_rate": 1e200, "optimizer": "sgd"}
    made = studies.study(
        studies.job(studies.table("regression"), "regression", [{}, wild, {"width": 3}], **asked)
    )  # type: ignore[arg-type]
    assert made.results[-1].number == 2
    assert all(math.isfinite(r.score) for r in made.results[:2])
    assert math.isfinite(made.headline_result.value)


def test_a_study_in_which_everything_fails_is_still_a_study() -> None:
    wild = {"learning_rate": 1e200, "optimizer": "sgd"}
    made = studies.study(studies.job(studies.table("regression"), "regression", [wild, {**wild, "width": 3}]))
    assert all(math.isnan(r.score) for r in made.results)
    assert len(made.warnings) >= 2
    assert "diverged" in repr(made)


# Ctrl-C


def interrupted(at: int) -> Study:
    """Press Ctrl-C at the first report of some epoch."""
    pressed: list[Progress] = []

    def watch(now: Progress) -> None:
        if now.epoch == at and not pressed:
            pressed.append(now)
            studies.interrupt(now)

    frame = studies.table("multiclass")
    return studies.study(studies.job(frame, "multiclass", LEARNING, folds=UNEQUAL, seeds=2, chunk=5), watch)


@pytest.mark.parametrize("at", [1, 4, 6])
def test_an_interrupt_keeps_everything_finished_so_far(at: int, finished: Job) -> None:
    made = interrupted(at)
    assert made.interrupted
    assert any("interrupted" in w for w in made.warnings)
    whole = collect.history(finished)
    columns = ["trial", "seed", "fold", "epoch", "score"]
    so_far = whole.filter(pl.col("epoch") <= at).select(columns)
    assert made.history["epoch"].max() == at
    assert made.history.select(columns).sort(columns).equals(so_far.sort(columns))
    for result in made.results:
        epochs = LEARNING[result.number - 1]["epochs"]
        assert result.status == ("finished" if epochs <= at else f"stopped at epoch {at}")
        assert 1 <= result.epoch <= min(at, epochs)
        assert math.isfinite(result.score)
    assert made.predict(studies.table("multiclass")).height == 47


def test_an_interrupt_before_the_first_epoch_ends_still_gives_a_study() -> None:
    made = interrupted(0)
    assert made.interrupted
    assert made.history["epoch"].max() == 0
    assert all(math.isnan(r.score) for r in made.results)
    assert repr(made)


def test_the_second_interrupt_ends_the_program() -> None:
    def watch(now: Progress) -> None:
        studies.interrupt(now)
        studies.interrupt(now)

    job = studies.job(studies.table("binary"), "binary", LEARNING)
    with pytest.raises(KeyboardInterrupt):
        job.train(watch)


def test_the_handler_of_the_caller_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as one:
        assert signal.getsignal(signal.SIGINT) is not before
        signal.raise_signal(signal.SIGINT)
        assert one.asked
    assert signal.getsignal(signal.SIGINT) is before
    studies.job(studies.table("binary"), "binary").train(studies.quiet)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_outside_the_main_thread() -> None:
    job = studies.job(studies.table("binary"), "binary")
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(job.train(studies.quiet)))
    thread.start()
    thread.join()
    assert done == [True]


def test_kept_statistics_are_those_of_the_kept_epoch() -> None:
    job = studies.job(studies.table("multiclass"), "multiclass", [{"normalization": "batch", "epochs": 3}])
    job.train(studies.quiet)
    stack = job.stacks[0]
    tracked = stack.kept.buffers["normalization1.num_batches_tracked"]
    for place, epoch in enumerate(stack.kept.epoch.tolist()):
        batches = Pace(studies.SMALL["batch_size"]).before(stack.cohort.lengths[place], epoch + 1)[1]
        assert tracked[place] == batches > 0


def test_of_equal_epochs_the_first_is_kept() -> None:
    job = studies.job(studies.table("multiclass"), "multiclass", [{"learning_rate": 0.0, "epochs": 3}])
    job.train(studies.quiet)
    assert job.stacks[0].kept.epoch.tolist() == [1, 1, 1]


def test_the_rate_in_the_history_is_the_one_that_the_epoch_used() -> None:
    trial = {
        "optimizer": "sgd",
        "learning_rate": 8.0,
        "schedule": "plateau",
        "patience": 0,
        "decay_factor": 0.5,
        "epochs": 6,
    }
    job = studies.job(studies.table("multiclass"), "multiclass", [trial])
    job.train(studies.quiet)
    history, rows = collect.history(job).sort("epoch", "fold"), job.folds.validation.sum(axis=1)
    loss = history["validation_loss"].to_numpy().reshape(7, 3) @ rows / rows.sum()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
    watching = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    assert loss[1] > loss[0]  # so that the untrained network, if it were watched, would matter
    for epoch in range(1, 7):
        rate = optimizer.param_groups[0]["lr"]
        assert history.filter(epoch=epoch)["learning_rate"].to_list() == [rate] * 3
        watching.step(loss[epoch])
    assert rate < 8


def test_the_history_has_the_rate_of_an_epochs_last_step() -> None:
    trial = {"schedule": "cosine", "epochs": 3, "batch_size": 1000, "learning_rate": 0.1}
    job = studies.job(studies.table("multiclass"), "multiclass", [trial])
    job.train(studies.quiet)
    for epoch in (1, 2, 3):
        rate = 0.1 * (1 + np.cos(np.pi * (epoch - 1) / 3)) / 2
        assert collect.history(job).filter(epoch=epoch)["learning_rate"].to_list() == pytest.approx(
            [rate] * 3
        )


def test_label_noise_is_in_training_alone() -> None:
    trials = [{"epochs": 1}, {"epochs": 1, "label_noise": 0.9}]
    job = studies.job(studies.table("multiclass"), "multiclass", trials)
    job.train(studies.quiet)
    untrained = collect.history(job).filter(epoch=0).sort("trial", "fold")["validation_loss"].to_list()
    assert untrained[:3] == untrained[3:]
