"""fit(), the whole job on one screen: from what was asked for to a study."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from foldwise import collect, outcome, prediction
from foldwise.data.folds import Folds, make_folds, refuse_impossible
from foldwise.data.nest import nest
from foldwise.data.table import Table, is_path, open_table, read_source
from foldwise.devices import device_of, dtype_of, engine_called
from foldwise.engine.links import Link
from foldwise.engine.loop import PlanSummary
from foldwise.engine.losses import OwnLoss
from foldwise.errors import PlanError
from foldwise.examine import examined
from foldwise.job import Job
from foldwise.judge.metrics import choose_metric, scale_of
from foldwise.judge.verdict import judge
from foldwise.keeping import Keeper, origin_of
from foldwise.linear import linear_of
from foldwise.live import LivePage
from foldwise.nesting import judge_nested
from foldwise.nets.build import Net
from foldwise.plans.ask import Searched, ask
from foldwise.plans.honest import refuse_what_looks_ahead
from foldwise.store.environment import environment
from foldwise.store.lock import claimed
from foldwise.store.plain import reason
from foldwise.study import Study
from foldwise.terminal import Display, default_display


def fit(
    data: Any = None,
    y: Any = None,
    *,
    target: str | Sequence[str] | None = None,
    example: str | None = None,
    net: Net | None = None,
    search: Any = None,
    trials: int | None = None,
    sampler: Any = "latin",
    halving: int | None = None,
    budget: str | None = None,
    places: int | None = None,
    loss: OwnLoss | str | None = None,
    links: Sequence[Link] = (),
    folds: Any = 5,
    repeats: int = 1,
    seeds: int = 1,
    holdout: float | None = None,
    nested: Any = None,
    groups: str | None = None,
    time: str | None = None,
    fold_column: str | None = None,
    weights: Any = None,
    class_weights: Any = None,
    test: float | None = None,
    metric: str | None = None,
    task: str | None = None,
    log_target: bool | None = None,
    columns: Mapping[str, Any] | None = None,
    drop: str | Sequence[str] = (),
    missing: Any = None,
    drop_missing_targets: bool = False,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    chunk: int | None = None,
    engine: str = "auto",
    compile: str = "auto",  # noqa: A002
    out: str | Path | None = None,
    overwrite: bool = False,
    checkpoint: bool = True,
    checks: bool = True,
    remedies: bool = True,
    display: Display | None = None,
    command: str = "",
) -> Study:
    """Train every trial on every fold with every seed, and judge the result.

    Args:
        data: a table: path (.csv, .parquet, .arrow …), pandas, polars or Arrow frame; or an array or frame X with `y`.
        y: the targets of X, `[rows]` or `[rows, targets]`; not with `target` or `example`.
        target: the column to predict; several columns are several targets.
        example: a data set that comes with scikit-learn: digits, breast_cancer, diabetes, wine or iris.
        net: a network of your own: a class or function that gives a `torch.nn.Module`; see the guide.
        search: settings to try: a `Grid`, a mapping from settings to a value, a list of values, a `Range` or a
            `LogRange` each, or a list of such mappings, which are searched apart.
        trials: how many trials to draw from the search; by default 32 when it has ranges, else all combinations.
        sampler: how trials are drawn: "latin" (a Latin hypercube), "random", "sobol", or one of Optuna that learns
            from the trials before: "tpe", "gp", "cmaes" or an `optuna.samplers.BaseSampler`.
        halving: stop the worse trials at some epochs, so that the best of so many go on each time; see the guide.
        budget: what the search may spend, without the baselines: "2000 epochs" (of members), "300 members",
            "10 minutes", or several of them.
        places: how many trials train at a time; by default all, and with a sampler that learns an eighth of `trials`.
        loss: what trials minimize to which the search gives no loss: a name, or a function of your own from outputs
            `[rows, outputs]` and targets to one value per row, which the search calls `custom`.
        links: parts of your own that join each step; a search may name their knobs like settings.
        folds: the number of folds, "loo" for leave-one-out, or a scikit-learn splitter; beside `holdout` or
            `fold_column`, which need no number, one that is not the default is refused.
        repeats: how often to draw the folds anew.
        seeds: how many seeds each trial is trained with.
        holdout: validate once, on this share of the rows, instead of on k folds.
        nested: nested cross-validation: this many folds (True: 5) inside the training rows of each fold choose trial
            and epoch for it, and the headline is the score of these choices; or a scikit-learn splitter, see the guide.
        groups: a column whose equal values stay on one side of every fold.
        time: a column by which folds are ordered: each learns from the past of what it is scored on.
        fold_column: a column that gives each row's fold.
        weights: a column, or an array with a number for each row, that says how much a row counts in training and
            in every score: 0 as if it were absent, 2 as if it were there twice.
        class_weights: "balanced", so that every class counts alike, or a mapping from each class to the weight of
            its rows; in training and in every score (accuracy with balanced classes is the balanced accuracy).
        test: a share of rows to seal before anything is learnt; `open_test` scores the winner on them.
        metric: by which epochs and trials are chosen: accuracy, log_loss, rmse, mae, log_rmse, quantile:0.9 …
        task: regression, binary, multiclass or multilabel, when the target does not tell.
        log_target: learn the logarithm of a positive target; by default when that makes it less skewed.
        columns: kinds of columns by name (number, category, date, drop), where the plan's guess is wrong.
        drop: a column to leave out, or several.
        missing: what is to be read as a missing cell: a value or several for every column, `[-9, "unknown"]`, or a
            mapping from columns to them, `{"income": -999}`; a list may hold both. New tables are read alike.
        drop_missing_targets: set rows without a target aside instead of refusing them.
        separator, encoding, header: how to read a text file, where it is not found out; for files only.
        device: "auto", "cpu", "cuda" …
        dtype: "float32" or "float64".
        seed: from which all randomness follows; further seeds count up from it.
        chunk: how many members advance together in the stacked engine, at most; by default what is fastest, measured
            when the job is long.
        engine: what trains: "resident" (one member per core; compiled; for networks made of known layers), "stacked"
            (all members in one computation; for everything, and on a GPU), or "auto", the first where it can.
        compile: whether steps of the stacked engine are compiled: "auto" where it repays, "on" or "off". Results are
            equal up to rounding.
        out: a folder for the run; must not exist yet unless `overwrite`.
        overwrite: replace a run that is in the folder.
        checkpoint: store in the folder, now and then, all that `foldwise.resume` needs to go on; it goes when the run
            is finished.
        checks: look for faults of data, network and training; what is found is in `study.findings`.
        remedies: train what may cure a fault beside the trial that has it, and say what it did to the score.
        display: what shows columns, plan and progress; by default the terminal, if stderr is one.
        command: recorded in the run, as what made it.

    Returns:
        The study: leaderboard, headline, out-of-fold predictions and the trained networks.

    Raises:
        FoldwiseError: something about the data, settings or folder is wrong, or another process writes into the
            folder; the message says what and where.

    >>> study = fit(example="iris", search={"width": [8], "epochs": 5}, folds=3)
    >>> study.leaderboard.height  # a constant, two linear models, and the one asked for
    4
    """
    given = SimpleNamespace(**locals())
    display = display or default_display()
    with claimed(out, overwrite) as folder:
        job = job_of(given, display)
        summary = job.summary(display.wait)
        display.plan(with_scale(summary, job))
        command = command or f"foldwise.fit({data if is_path(data) else example or '…'})"
        origin = origin_of(job, summary, command, checks, remedies)
        keeper = Keeper(job, origin, folder, display.warn, wanted=checkpoint)
        keeper.begin()
        return carry_out(job, keeper, folder, display)


def with_scale(summary: PlanSummary, job: Job) -> PlanSummary:
    """Note in a plan on which scale numbers are learned, and in which units the score is."""
    return replace(summary, notes=(*scale_of(job.metric, job.task), *summary.notes))


def job_of(given: SimpleNamespace, display: Display) -> Job:
    """Make a job of the arguments of `fit`: read the table, divide its rows, plan the trials."""
    reading = {"separator": given.separator, "encoding": given.encoding, "header": given.header}
    _refuse_useless_folds(given.folds, holdout=given.holdout, fold_column=given.fold_column)
    refuse_impossible(
        given.folds, repeats=given.repeats, seeds=given.seeds, holdout=given.holdout, test=given.test
    )
    frame, targets, source = read_source(given.data, given.y, given.target, given.example, reading)
    table = open_table(
        frame, targets, source, task=given.task, log_target=given.log_target, columns=given.columns, drop=given.drop,
        missing=given.missing, test=given.test, seed=given.seed, drop_missing_targets=given.drop_missing_targets,
        groups=given.groups, time=given.time, fold_column=given.fold_column, weights=given.weights,
        class_weights=given.class_weights,
    )  # fmt: skip
    display.columns(table.columns)
    divided = folds_of(table, given.folds, given.repeats, given.holdout, given.seed, given.nested)
    asked = {
        "task": table.task.kind, "rows": len(table.features), "folds": len(divided), "seeds": given.seeds,
        "seed": given.seed, "soft": table.task.soft, "trials": given.trials, "sampler": given.sampler,
        "halving": given.halving, "budget": given.budget, "places": given.places,
    }  # fmt: skip
    plan, policy = ask(search=given.search, net=given.net, loss=given.loss, links=given.links, **asked)
    if divided.group is not None:
        refuse_what_looks_ahead(plan.trials, policy)
    job = Job(
        table, plan, divided, choose_metric(given.metric, table.task), given.net, device_of(given.device),
        dtype_of(given.dtype), given.chunk, loss=None if isinstance(given.loss, str) else given.loss,
        links=tuple(given.links), policy=policy, searched=Searched.of(policy, given.search, given.loss, **asked),
        engine=engine_called(given.engine, given.chunk, given.compile), compile=given.compile,
    )  # fmt: skip
    job.rehearse()
    return job


def carry_out(job: Job, keeper: Keeper, folder: Path | None, display: Display) -> Study:
    """Train a job that is ready, or the rest of it, judge it and save the study; after Ctrl-C, what there is of it."""
    asked = keeper.origin.asked
    page = LivePage(lambda: gather(job, asked.summary, asked.command, live=True), folder)

    def each_epoch() -> None:
        page.refresh()
        if asked.checks:
            remember(job, display)

    with contextlib.closing(display):
        completed = job.train(display.progress, each_epoch, keeper.refresh)
        if not completed:
            keeper.write()
        study = gather(job, asked.summary, asked.command, completed=completed)
        study.warnings += asked.remarks
        study.openings += asked.openings
        looking = completed and asked.checks
        if folder is not None:
            study.keep(folder, page=not looking)
        if looking:
            study.checked = True
            study.findings = examined(job, study, remedies=asked.remedies, display=display)
            study.keep_findings()
    if completed and study.folder == folder:
        keeper.end()
    display.finished(study)
    return study


def remember(job: Job, display: Display) -> None:
    """Copy what checks will want to look at; whatever fails is no reason to stop training."""
    try:
        job.field.remember().refresh(job.stacks)
    except Exception as error:
        if not job.field.blind:
            display.warn(f"checks will see less of the training ({reason(error)})")
        job.field.blind = True


def _refuse_useless_folds(folds: Any, **instead: object) -> None:
    """Refuse a number of folds beside what leaves it no effect."""
    given = [name for name, value in instead.items() if value is not None]
    default = (fit.__kwdefaults__ or {})["folds"]
    if given and isinstance(folds, int | np.integer) and folds != default:
        raise PlanError(f"`folds` has no effect beside `{given[0]}`; got {folds}.", hint="give one of them")


def folds_of(
    table: Table, folds: Any, repeats: int, holdout: float | None, seed: int, nested: Any = None
) -> Folds:
    """Divide the development rows; `nested` says how to divide once more the training rows of each fold."""
    classes = table.task.kind in ("binary", "multiclass") and not table.task.soft
    by: dict[str, Any] = {
        "classes": table.targets if classes else None,
        "class_names": table.task.classes[0] if classes else (),
        "groups": table.groups,
        "time": table.time,
        "numbers": table.fold_numbers,
        "seed": seed,
    }
    divided = make_folds(len(table.features), folds, repeats=repeats, holdout=holdout, **by)
    if (scored := int(divided.validation.any(axis=0).sum())) < 2:
        raise PlanError(
            f"{divided.how} leaves {scored} row to be scored on, which says nothing.",
            hint="give a larger share, or more folds",
        )
    return divided if nested is None or nested is False else nest(divided, nested, divided_by=folds, **by)


def gather(
    job: Job, summary: PlanSummary, command: str, *, completed: bool = True, live: bool = False
) -> Study:
    """Judge a job and collect what is worth keeping; while it is `live`, without intervals."""
    title, caveat = " and ".join(job.task.targets), f"{job.weighted} {job.caveat}".strip()
    records = collect.records(job, live)
    results, headline = judge(
        job.plan.trials, records, job.outer, job.metric, title, thorough=not live, caveat=caveat,
        weights=job.score_weights,
    )  # fmt: skip
    nested = None if live else judge_nested(job, results, title, caveat)
    predictions = collect.predictions(job)
    winner = predictions.filter(pl.col("trial") == results[0].number)
    constants, target_scale = collect.outer_constants(job)
    study = Study(
        task=job.task,
        columns=job.table.columns,
        source=job.table.source,
        plan=replace(job.plan, folds=len(job.outer)),
        plan_summary=summary,
        account=job.account(),
        folds=job.outer,
        metric=job.metric,
        results=results,
        headline_result=headline if nested is None else nested[1],
        nested=None if nested is None else nested[0],
        history=collect.history(job),
        predictions=predictions,
        outcome=outcome.outcome_of(job.table, winner),
        worst_rows=outcome.worst_rows(job.table, records[results[0].number - 1].losses, winner),
        models=collect.models(job),
        constants=constants,
        scalings=job.stacks[0].cohort.rows.scalings,
        target_scale=target_scale,
        row=job.table.row,
        sealed=job.table.sealed,
        net=job.net,
        loss=job.loss,
        links=tuple(job.links),
        warnings=[
            *outcome.warnings_of(
                results,
                summary,
                completed,
                job.metric,
                None if headline.luck is None else headline.luck.gains,
            ),
            *collect.overflowing(job),
        ],
        interrupted=not completed,
        environment=environment(str(job.device)),
        command=command,
        weighting=job.table.weighting,
        weights=job.table.weights,
        sealed_weights=job.table.sealed_weights,
        targets=job.table.targets,
        variance=None if live else outcome.variance_of(results, records, job.metric.higher_is_better),
        table=job.table,
    )
    if not live and job.task.kind != "regression":
        study.calibration = prediction.calibration_of(study, results[0].number)
    if not live:
        study.sureness = prediction.sureness(study)
        study.linear = linear_of(study)
    return study
