"""What follows from a judged study: predictions of the ensemble, the rows it gets most wrong, the opened test."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldwise.data.table import Table
from foldwise.data.target import Task
from foldwise.data.weights import score_weights
from foldwise.engine.initialize import seeded
from foldwise.engine.loop import PlanSummary
from foldwise.engine.losses import outputs_by_loss
from foldwise.engine.predict import MODELS, Models, Refit, predict_outputs
from foldwise.engine.rows import Constants
from foldwise.engine.state import Layout
from foldwise.errors import DataError, NetworkError, PlanError, StoreError, percent
from foldwise.judge.importance import importance
from foldwise.judge.metrics import Metric, class_scores, natural, probabilities
from foldwise.judge.selection import bootstrap_intervals
from foldwise.judge.variance import Split, split_variance
from foldwise.judge.verdict import TrialRecord, TrialResult, decimals
from foldwise.nets.build import Net, build
from foldwise.plans.plan import Member

if TYPE_CHECKING:
    from foldwise.study import Study

MOST_POINTS = 2000
WORST_ROWS = 10


@dataclass(frozen=True)
class Opening:
    """One look at the sealed test rows."""

    metric: str
    score: float
    low: float
    high: float
    rows: int
    times_opened: int
    when: str
    model: str = "ensemble"
    trial: int | None = None
    seeds: list[int] | None = None  # of a refit, as its epochs: a later one is another model
    epochs: int | None = None

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        d = decimals(self.score, self.low, self.high)
        of = " of the refit" if self.model == "refit" else ""
        said = f"test{of}: {self.metric} {self.score:.{d}f} (95 % {self.low:.{d}f}–{self.high:.{d}f})"
        said += f" on {self.rows} rows"
        if self.times_opened > 1:
            said += f"; opened {self.times_opened} times, so this is no longer an untouched test"
        return said

    def record(self) -> dict[str, Any]:
        """Write it as plain values."""
        return asdict(self)


def number_of(study: Study, trial: int | None) -> int:
    """Give the number of the trial asked for: the winner's when None. Raises PlanError when there is none."""
    known = {r.number for r in study.results}
    if trial is not None and trial not in known:
        raise PlanError(f"there is no trial {trial}.", hint=f"trials are numbered 1 to {len(known)}")
    return study.results[0].number if trial is None else trial


def member_outputs(
    study: Study,
    frame: pl.DataFrame | Float[np.ndarray, "rows features"],
    trial: int | None,
    *,
    model: str = "ensemble",
    exact: bool = False,
) -> Float[Tensor, "members rows outputs"]:
    """Apply the members of a trial (counted from 1; the winner when None) to new rows; units of the targets.

    Rows are a table, or encoded already. `model` is "ensemble" for the members of all folds, or "refit" for the
    networks of `study.refit`, which are of one trial. `exact` computes in double precision.
    """
    if model not in MODELS:
        raise PlanError(f"`model` is one of {', '.join(MODELS)}; got {model!r}.")
    number = number_of(study, trial)
    features = study.columns.encode(frame) if isinstance(frame, pl.DataFrame) else frame
    if len(features) == 0:
        raise DataError("there are no rows to predict.")
    if model == "refit":
        return _refit_outputs(study, features, trial, exact)
    models = next(m for m in study.models if m.of_trial(number - 1))
    prepared = Prepared(study.constants, study.scalings, study.target_scale)
    places = models.of_trial(number - 1)
    return outputs_of(models.exact() if exact else models, places, prepared, features, study.task, study.net)


def _refit_outputs(
    study: Study, features: Float[np.ndarray, "rows features"], trial: int | None, exact: bool
) -> Float[Tensor, "members rows outputs"]:
    found = study.refitted
    if found is None:
        raise PlanError(
            "this study has no refit.",
            hint="study.refit(seeds=3), or foldwise refit RUN, trains networks on all rows",
        )
    if trial not in (None, found.trial):
        raise PlanError(
            f"the refit is one of trial {found.trial}, not {trial}.", hint=f"study.refit(trial={trial})"
        )
    models = found.models.exact() if exact else found.models
    places = [*range(len(models.members))]
    return outputs_of(models, places, found, features, study.task, study.net)


@dataclass(frozen=True)
class Prepared:
    """What folds learned to prepare rows with: constants by scaling and fold, and the units of targets by fold."""

    constants: Constants
    scalings: tuple[str, ...]
    target_scale: tuple[Tensor, Tensor] | None


def outputs_of(
    models: Models,
    places: list[int],
    prepared: Prepared | Refit,
    features: Float[np.ndarray, "rows features"],
    task: Task,
    net: Net | None,
) -> Float[Tensor, "members rows outputs"]:
    """Apply some members of one stack to rows that are not yet prepared; outputs in units of the targets."""
    members = [models.members[p] for p in places]
    if members[0].settings.network == "custom" and net is None:
        raise NetworkError("this study used a network of your own.", hint="foldwise.load(folder, net=MyNet)")
    outputs = outputs_by_loss(task)[members[0].settings.loss]
    folds = torch.tensor([m.fold for m in members])
    scalings = torch.tensor([prepared.scalings.index(m.settings.scaling) for m in members])
    preparations = scalings * (len(prepared.constants.fill) // len(prepared.scalings)) + folds

    def make(member: Member) -> torch.nn.Module:
        return seeded(lambda: build(member.settings, features.shape[1], outputs, net), member.seed)

    x = torch.tensor(features)
    raw = predict_outputs(models, places, make, prepared.constants, preparations, x, outputs)
    if prepared.target_scale is None:
        return raw
    shift, scale = prepared.target_scale
    return raw.double() * scale[folds].unsqueeze(1) + shift[folds].unsqueeze(1)


def refuse_other_networks(study: Study) -> None:
    """Raise an error when the stored weights do not fit the networks that the settings describe."""
    for models in [*study.models, *([] if study.refitted is None else [study.refitted.models])]:
        member = models.members[0]
        own = member.settings.network == "custom"
        if own and study.net is None:
            continue
        module = seeded(partial(_network, study, member), member.seed)
        size, stored = Layout.of(module).size, models.parameters.shape[1]
        if size != stored and own:
            raise NetworkError(
                f"the network given has {size} weights, and that of the study {stored}.",
                hint="give the network that the study was made with",
            )
        if size != stored:
            raise StoreError(
                f"the run {study.folder} is damaged: trial {member.trial + 1} has {size} weights, not {stored}.",
                hint="restore it from a copy, or train it again",
            )


def _network(study: Study, member: Member) -> torch.nn.Module:
    outputs = outputs_by_loss(study.task)[member.settings.loss]
    # the device `meta` only knows shapes; a user's constructor may want values
    with nullcontext() if member.settings.network == "custom" else torch.device("meta"):
        return build(member.settings, len(study.columns.features), outputs, study.net)


def combined(outputs: Float[Tensor, "members rows outputs"], task: Task) -> Tensor:
    """Average over members: numbers as they are learnt (a logarithm stays one), classes as probabilities."""
    outputs = outputs.double()  # the probability of a sure class would round to 1, and of the others to 0
    return outputs.mean(0) if task.kind == "regression" else probabilities(outputs, task).mean(0)


def combined_outputs(outputs: Float[Tensor, "members rows outputs"], task: Task) -> Tensor:
    """Give the outputs of a single network that would say what `combined` says, as a metric wants them.

    Probabilities p̄ are averaged as logarithms, log p̄ = logsumexp(log p) − log members, so that none becomes zero
    and no score infinite; the output of a label is log p̄ − log(1 − p̄).
    """
    outputs = outputs.double()
    if task.kind == "regression":
        return outputs.mean(0)
    if task.kind == "multilabel":
        return F.logsigmoid(outputs).logsumexp(0) - F.logsigmoid(-outputs).logsumexp(0)
    return F.log_softmax(class_scores(outputs, task), dim=-1).logsumexp(0) - math.log(len(outputs))


def open_test(study: Study, model: str = "ensemble") -> Opening:
    """Score the winner's ensemble, or the refit, on the sealed rows."""
    if study.sealed is None:
        raise PlanError("no test rows were sealed in this study.", hint="--test 0.2 when fitting")
    targets = torch.tensor(study.task.encode(study.sealed))
    outputs = member_outputs(study, study.sealed, None, model=model)
    losses = study.metric.per_row(combined_outputs(outputs, study.task), targets, study.task).numpy()
    every = np.ones(len(losses), dtype=bool)
    own = every.astype(np.float64) if study.sealed_weights is None else study.sealed_weights
    weights = score_weights(own, targets.numpy(), every, study.weighting.classes)
    interval = bootstrap_intervals(losses[None], weights=weights)[0]
    ends = sorted(study.metric.finish(x) for x in (interval.low, interval.high))
    return Opening(
        metric=study.metric.label,
        score=study.metric.finish(interval.value),
        low=ends[0],
        high=ends[1],
        rows=len(losses),
        times_opened=len(study.openings) + 1,
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=model,
        **_which(study, model),
    )


def _which(study: Study, model: str) -> dict[str, Any]:
    if model == "refit" and study.refitted is not None:
        return study.refitted.identity
    return {"trial": study.results[0].number}


def winner_means(predictions: pl.DataFrame) -> pl.DataFrame:
    """Average a trial's out-of-fold predictions over seeds and repeats: one line per row."""
    return predictions.drop("trial", "seed", "fold").group_by("row").mean().sort("row")


def outcome_of(table: Table, predictions: pl.DataFrame) -> dict[str, Any]:
    """Compare the winner's out-of-fold predictions with the truth: a confusion matrix, or the first target's points."""
    task = table.task
    means = winner_means(predictions)
    at = np.searchsorted(table.row, means["row"].to_numpy())
    values = means.drop("row").to_numpy()
    if task.kind == "regression":
        chosen = np.unique(np.linspace(0, len(at) - 1, min(MOST_POINTS, len(at))).astype(int))
        truth = natural(torch.tensor(table.targets[at]), task).numpy()[:, 0]
        return {
            "kind": "regression",
            "target": task.targets[0],
            "truth": [float(x) for x in truth[chosen]],
            "prediction": [float(x) for x in values[chosen, 0]],
            "row": [int(x) for x in means["row"].to_numpy()[chosen]],
        }
    if task.kind == "multilabel":
        classes = [
            f"{t}: {label}" for t, pair in zip(task.targets, task.classes, strict=True) for label in pair
        ]
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        for i in range(len(task.targets)):
            np.add.at(counts, (2 * i + table.targets[at, i].astype(int), 2 * i + (values[:, i] > 0.5)), 1)
    else:
        classes = [str(c) for c in task.classes[0]]
        truth = table.targets[at].argmax(1) if task.soft else table.targets[at]
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        np.add.at(counts, (truth, values.argmax(1)), 1)
    return {"kind": "classes", "classes": classes, "confusion": counts.tolist()}


def worst_rows(table: Table, losses: np.ndarray, predictions: pl.DataFrame) -> list[dict[str, Any]]:
    """List the rows that the winner gets most wrong, with their cells; values are in units of the targets."""
    task = table.task
    means = winner_means(predictions)
    places = np.searchsorted(table.row, means["row"].to_numpy())
    shown = means.drop("row").to_numpy()
    surprise = _surprise(table, shown, places, losses)
    worst = []
    for at in np.argsort(-np.where(np.isfinite(surprise), surprise, -1), kind="stable")[:WORST_ROWS]:
        place, values = int(places[at]), shown[at]
        cells = table.frame.row(place, named=True)
        worst.append(
            {
                "row": int(table.row[place]),
                "truth": ", ".join(f"{cells[t]}" for t in task.targets),
                "prediction": _said(values, task),
                "loss": float(surprise[at]),
                "cells": {k: _cell(v) for k, v in cells.items() if k not in task.targets},
            }
        )
    return worst


def _surprise(
    table: Table, shown: np.ndarray, places: np.ndarray, losses: np.ndarray
) -> Float[np.ndarray, " validated_rows"]:
    """Say how wrong each row's prediction is: the distance of numbers, −log of the true class's probability.

    Of numbers that are learned on a logarithm, the distance of the logarithms: in units, the largest values would
    always come first. A count of errors would tie all right rows and all wrong ones.
    """
    truth = table.targets[places]
    if table.task.kind == "regression":
        learned = np.log(shown) if table.task.log else shown
        return np.abs(truth - learned).mean(axis=1)
    if truth.ndim == 1:
        of_truth = shown[np.arange(len(truth)), truth].astype(np.float64)  # float32 has no 1e-300
        return -np.log(np.maximum(of_truth, 1e-300))
    return losses[places]


def _said(values: np.ndarray, task: Task) -> str:
    if task.kind == "regression":
        return ", ".join(f"{v:.4g}" for v in values)
    if task.kind == "multilabel":
        return ", ".join(f"{t}: {percent(v)}" for t, v in zip(task.targets, values, strict=True))
    best = int(values.argmax())
    return f"{task.classes[0][best]} ({percent(values[best])})"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def variance_of(
    results: Sequence[TrialResult], records: Sequence[TrialRecord], higher_is_better: bool
) -> Split | None:
    """Split the variance of members' losses, over the trials that were searched; None when there are none.

    Trials whose score is off the scale of the others, or not there, are left out: one terrible learning rate would
    make the settings all that matters.
    """
    found = importance(list(results), higher_is_better)
    ends = sorted((found.best, found.edge))
    tried = [records[r.number - 1].members for r in found.trials if ends[0] <= r.score <= ends[1]]
    # a loss of which the square is no number says that training failed, and nothing of how much scores vary
    losses = [
        own for own in tried if own is not None and np.isfinite(own).all() and np.abs(own).max() < 1e100
    ]
    return split_variance(np.stack(losses)) if losses else None


def warnings_of(
    results: list[TrialResult],
    summary: PlanSummary,
    completed: bool,
    metric: Metric,
    gains: bool | None = None,
) -> list[str]:
    """List what must be looked at; `gains` tells whether the winner is better than the constant predictor."""
    said = [f"trial {r.number} ({r.name}) {r.status}" for r in results if r.status.startswith("diverged")]
    constant = next((r for r in results if r.settings.network == "constant"), None)
    best = results[0]
    if constant is not None and (constant is best or constant.tied or gains is False):
        said.append(
            f"no trial is better than the constant predictor beyond the noise ({metric.label} {constant.score:.4g})"
        )
    if not completed:
        said.append("training was interrupted; every trial shows the best of the epochs that it finished")
    return said
