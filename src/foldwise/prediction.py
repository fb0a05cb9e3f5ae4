"""Predictions of new rows by a trial's networks: calibrated, with their spread, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from foldwise.collect import named_outputs
from foldwise.data.table import read_again
from foldwise.errors import DataError, PlanError, StoreError
from foldwise.judge.calibrate import UNCALIBRATED, Calibration, calibrate
from foldwise.judge.conformal import STEPS, Sureness, bound, intervals, prediction_sets, weight_below
from foldwise.judge.heldout import HeldOut, Judges, held_out, in_time, judges_of, over_folds
from foldwise.judge.metrics import natural, probabilities
from foldwise.outcome import member_outputs, number_of

if TYPE_CHECKING:
    from foldwise.study import Study

IN_TIME = (
    "the folds of this study are in time: intervals suppose that new rows are like those validated, in any order, and "
    "may cover less where things change"
)
GROUPED = (
    "the folds of this study are grouped: intervals suppose that rows are independent of each other, and rows of one "
    "group are not; with few groups they may cover less in new ones"
)
AT_ONCE = 500  # new rows; what is said of them by every set of folds lies in memory together


def predict(
    study: Study,
    frame: pl.DataFrame,
    trial: int | None,
    interval: float | None,
    calibrated: bool,
    model: str = "ensemble",
) -> pl.DataFrame:
    """Predict by the mean over a trial's members; the columns are those that `Study.predict` describes."""
    if study.task.kind == "regression" and not calibrated:
        raise PlanError(
            "`calibrated=False` has no effect: numbers have no probabilities.", hint="leave it out"
        )
    if model == "refit" and interval is not None:
        raise PlanError(
            "a refit has no intervals: its networks have seen every row, so nothing says how far off they are.",
            hint="model ensemble, or leave `interval` out",
        )
    own = Own(study, number_of(study, trial), model)
    if interval is not None:
        own.check(interval)
    outputs = member_outputs(study, frame, trial, model=model)
    if study.task.kind == "regression":
        return _numbers(own, outputs, interval)
    return _classes(own, outputs, interval, calibrated)


def read_new(study: Study, new: Any, **reading: Any) -> pl.DataFrame:
    """Read new rows like those of training if this finds the columns; `reading` is how to read a text file."""
    needed = {column.name for column in study.columns.columns if column.role == "feature"}
    return read_again(new, study.source, lambda table: needed <= {*table.columns}, **reading)


def numbered(study: Study, frame: pl.DataFrame, predicted: pl.DataFrame) -> pl.DataFrame:
    """Say first which row a prediction is of: its number in the new table, and its identifier where there is one.

    `row` counts from 0, without the header, as messages and reports do. The identifier is the first column that
    training found to be one, if the new table has it, and no column of the predictions has its name.
    """
    known = [c.name for c in study.columns.columns if (c.role, c.kind) == ("set aside", "identifier")]
    own = [name for name in known if name in frame.columns and name not in ("row", *predicted.columns)]
    return pl.concat([frame.select(own[:1]), predicted], how="horizontal").with_row_index("row")


def cautions(study: Study, interval: float | None) -> list[str]:
    """Say what must be known of intervals of this study."""
    if interval is None:
        return []
    return [IN_TIME] * in_time(study.folds) + [GROUPED] * _grouped(study)


def _grouped(study: Study) -> bool:
    return study.folds.how.startswith("grouped")


@dataclass(frozen=True)
class Own:
    """What is known of one trial's networks from rows that they had not seen."""

    study: Study
    number: int
    model: str = "ensemble"

    @property
    def trial(self) -> int:
        """Give the trial; a refit is of its own."""
        refit = self.study.refitted if self.model == "refit" else None
        return self.number if refit is None else refit.trial

    @cached_property
    def held(self) -> HeldOut:
        """Collect its out-of-fold predictions."""
        return held_out(self.study.predictions, self.trial, self.study.row, log=self.study.task.log)

    @cached_property
    def judges(self) -> Judges:
        """Group the rows by the folds that validated them."""
        return judges_of(self.study.folds)

    @property
    def targets(self) -> np.ndarray:
        """Give the targets of the study's rows, as they are learnt."""
        if self.study.targets is None:
            raise StoreError(
                "this run was written before targets were kept, which intervals and calibration need.",
                hint="train it again",
            )
        return self.study.targets

    @cached_property
    def weights(self) -> Float[np.ndarray, " validated"] | None:
        """Say how often each validated row counts; None when all count once."""
        weights = self.study.weights[self.judges.places]
        return None if (weights == 1).all() else weights

    @cached_property
    def calibration(self) -> Calibration:
        """Give the correction of its probabilities: the one kept for the winner, or one learned now."""
        study = self.study
        if study.targets is None:
            return UNCALIBRATED
        if self.trial == study.results[0].number and study.calibration is not None:
            return study.calibration
        return calibration_of(study, self.trial)

    def by_fold(self, outputs: Tensor) -> Tensor:
        """Average members over seeds, as numbers that are learnt or as probabilities: `[folds, rows, outputs]`.

        The networks of a refit are of one fold, which has all rows.
        """
        study, outputs = self.study, outputs.double()
        said = outputs if study.task.kind == "regression" else probabilities(outputs, study.task)
        if self.model == "refit":
            return said.mean(0, keepdim=True)
        members = next(m for m in study.models if m.of_trial(self.trial - 1))
        folds = np.array([members.members[p].fold for p in members.of_trial(self.trial - 1)])
        return torch.stack([said[folds == fold].mean(0) for fold in range(len(study.folds))])

    def check(self, interval: float) -> None:
        """Refuse an interval that cannot be given, before anything is computed."""
        weight_below(interval, len(self.judges.places) if self.weights is None else self.weights.sum())
        if self.study.task.soft:
            raise PlanError(
                "prediction sets hold classes, and the targets of this study are probabilities.",
                hint="leave `interval` out",
            )
        _ = self.targets


def calibration_of(study: Study, trial: int) -> Calibration:
    """Learn the correction of a trial's probabilities from its out-of-fold predictions."""
    own = Own(study, trial)
    weights = study.score_weights(own.targets)
    each = np.ones(len(own.targets)) if weights is None else weights
    counts = study.folds.validation.sum(axis=0)
    place = own.held.place
    return calibrate(
        own.held.values, own.targets[place], study.task, own.held.fold, place, each[place] / counts[place]
    )


def sureness(study: Study, interval: float = 0.9) -> Sureness | None:
    """Say how far intervals of the winner reach, or how many classes its sets hold, from rows not learned from.

    None where there are too few rows, or none can be told.
    """
    own = Own(study, study.results[0].number)
    task, places = study.task, own.judges.places
    if study.targets is None or task.soft or task.kind == "multilabel" or len(task.targets) > 1:
        return None
    try:
        own.check(interval)
    except DataError:  # too few rows
        return None
    said, truth = over_folds(own.held, len(study.row))[places], study.targets[places]
    caution = " Folds are in time: what comes may be less like these." if in_time(study.folds) else ""
    caution += " Rows of one group are alike: new groups may be less so." if _grouped(study) else ""
    if task.kind != "regression":
        of_truth = said[np.arange(len(places)), truth]
        # a class is in the set of a row when it is at least as probable as all but the surest wrong ones
        sizes = np.maximum(1, (said >= -bound(-of_truth, interval, own.weights)).sum(axis=1))
        counts: np.ndarray = np.bincount(sizes, minlength=said.shape[1] + 1)[1:]
        mean, single = (np.average(x, weights=own.weights) for x in (sizes, sizes == 1))
        sentence = (
            f"A set that holds the true class of {100 * interval:.0f} % of rows has {mean:.2f} of "
            f"{said.shape[1]} classes on average; {100 * single:.0f} % of rows need one only.{caution}"
        )
        return Sureness("sets", tuple(counts.tolist()), sentence)
    shown, true = natural(torch.tensor(said), task), natural(torch.tensor(truth), task)
    off = (shown - true).abs().numpy()[:, 0]
    reach = float(bound(off, interval, own.weights))
    if not 0 < reach < math.inf:
        return None
    counts = np.histogram(np.minimum(off, 2 * reach), bins=STEPS, range=(0, 2 * reach))[0]
    sentence = (
        f"{100 * interval:.0f} % of rows lie within ±{reach:.3g} of what networks that had not seen them predict"
        f"{' (wider where predictions are large)' if task.log else ''}; predict(…, interval={interval:g}) gives it "
        f"row by row.{caution}"
    )
    return Sureness("distances", tuple(counts.tolist()), sentence, reach)


# Numbers


def _numbers(own: Own, outputs: Tensor, interval: float | None) -> pl.DataFrame:
    task = own.study.task
    shown = natural(outputs.double(), task)
    mean = natural(outputs.double().mean(0), task).numpy()
    spread = shown.std(0, unbiased=len(outputs) > 1).numpy()
    columns = named_outputs(mean, task)
    columns |= {f"spread{end}": spread[:, i] for i, end in enumerate(_ends(own))}
    if interval is not None:
        low, high = bounds(own, own.by_fold(outputs).numpy(), interval)
        for i, end in enumerate(_ends(own)):
            columns |= {f"low{end}": low[:, i], f"high{end}": high[:, i]}
    return pl.DataFrame(columns)


def _ends(own: Own) -> list[str]:
    targets = own.study.task.targets
    return [""] if len(targets) == 1 else [f" of {target}" for target in targets]


def bounds(
    own: Own, by_fold: Float[np.ndarray, "folds new targets"], interval: float
) -> tuple[Float[np.ndarray, "new targets"], Float[np.ndarray, "new targets"]]:
    """Give the ends of intervals in natural units, target by target; found where the target is learnt."""
    judges, task = own.judges, own.study.task
    said = over_folds(own.held, len(own.study.row))
    residuals = np.abs(own.targets - said)[judges.places]
    residuals[~np.isfinite(residuals)] = np.inf
    ends = np.empty((2, *by_fold.shape[1:]))
    for part in _chunks(by_fold.shape[1]):
        center = judges.over(by_fold[:, part])
        for i in range(center.shape[-1]):
            ends[:, part, i] = intervals(center[..., i], residuals[:, i], judges.which, interval, own.weights)
    low, high = torch.tensor(ends)
    return natural(low, task).numpy(), natural(high, task).numpy()


def _chunks(new: int) -> list[slice]:
    return [slice(first, first + AT_ONCE) for first in range(0, new, AT_ONCE)]


# Classes


def _classes(own: Own, outputs: Tensor, interval: float | None, calibrated: bool) -> pl.DataFrame:
    task = own.study.task
    by_fold = own.by_fold(outputs).numpy()
    raw = by_fold.mean(axis=0)
    mean = own.calibration.applied(by_fold, task.kind).mean(axis=0) if calibrated else raw
    members = probabilities(outputs.double(), task).numpy()
    spread = members.std(axis=0, ddof=1 if len(members) > 1 else 0)
    shares = named_outputs(mean, task)
    if task.kind == "multilabel":
        return _labels(own, by_fold, mean, spread, interval, shares)
    # a step may make classes equally probable: then the networks themselves decide
    best = np.where(mean == mean.max(axis=-1, keepdims=True), raw, -1).argmax(axis=-1)
    columns = {
        "prediction": task.decode_classes(best),
        **shares,
        "spread": spread[np.arange(len(best)), best],
    }
    frame = pl.DataFrame(columns)
    if interval is None:
        return frame
    chosen = _sets(own, by_fold, best, interval)
    return frame.with_columns(set=_listed(chosen, task.classes[0]))


def _labels(
    own: Own,
    by_fold: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    interval: float | None,
    shares: dict[str, np.ndarray],
) -> pl.DataFrame:
    task = own.study.task
    best = (mean > 0.5).astype(int)
    decoded = task.decode_classes(best)
    frame = pl.DataFrame(
        {
            **{f"prediction of {t}": decoded[:, i] for i, t in enumerate(task.targets)},
            **shares,
            **{f"spread of {t}": spread[:, i] for i, t in enumerate(task.targets)},
        }
    )
    if interval is None:
        return frame
    said, truth = over_folds(own.held, len(own.study.row)), own.targets
    found = {}
    for i, (target, classes) in enumerate(zip(task.targets, task.classes, strict=True)):
        of_truth = np.where(truth[:, i] > 0.5, said[:, i], 1 - said[:, i])[own.judges.places]
        both = np.stack([1 - by_fold[..., i], by_fold[..., i]], axis=-1)
        chosen = _chosen(own, both, of_truth, best[:, i], interval)
        found[f"set of {target}"] = _listed(chosen, classes)
    return frame.with_columns(**found)


def _sets(own: Own, by_fold: np.ndarray, best: np.ndarray, interval: float) -> np.ndarray:
    places = own.judges.places
    said = over_folds(own.held, len(own.study.row))[places]
    of_truth = said[np.arange(len(places)), own.targets[places]]
    return _chosen(own, by_fold, of_truth, best, interval)


def _chosen(
    own: Own, by_fold: np.ndarray, of_truth: np.ndarray, best: np.ndarray, interval: float
) -> np.ndarray:
    chosen = np.empty(by_fold.shape[1:], dtype=bool)
    for part in _chunks(len(chosen)):
        said = own.judges.over(by_fold[:, part])
        chosen[part] = prediction_sets(said, of_truth, own.judges.which, best[part], interval, own.weights)
    return chosen


def _listed(chosen: np.ndarray, classes: tuple[object, ...]) -> pl.Series:
    return pl.Series([[label for label, there in zip(classes, row, strict=True) if there] for row in chosen])
