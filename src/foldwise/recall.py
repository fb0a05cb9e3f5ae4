"""Replay: one member trained again, alone, by the plain reference loop."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from foldwise.data.prepare import learn_preparation, learn_target_scale
from foldwise.data.read import fingerprint
from foldwise.data.table import ROW, Source, is_path, read_again, read_source
from foldwise.data.weights import training_weights
from foldwise.engine.losses import losses_for, outputs_by_loss
from foldwise.engine.members import Nursery
from foldwise.engine.predict import Models
from foldwise.engine.rows import padded_validation, place_rows
from foldwise.engine.threads import held_to_one
from foldwise.errors import DataError, NetworkError, PlanError
from foldwise.judge.metrics import natural, probabilities
from foldwise.plans.plan import Member
from foldwise.reference import Own, outputs_of, prepare_fold, train_alone

if TYPE_CHECKING:
    from foldwise.study import Study


TOLERANCE = 10  # how many times what rounding does a difference may be
# Differences, relative to the size, that are none at all: after one epoch, and after the whole training. Rounding grows
# in training: Adam divides by the size of gradients, so where they are nearly 0 rounding decides which way weights go.
AT_FIRST = {torch.float32: 1e-4, torch.float64: 1e-9}
IN_THE_END = {torch.float32: 0.02, torch.float64: 1e-6}


@dataclass(frozen=True)
class Difference:
    """One quantity of a member, trained in the stack and alone.

    `stacked` and `alone` are root mean squares; `difference` is the largest between their entries, and `rounding`
    the largest between the member alone in the study's precision and alone in double precision: what rounding by
    itself does to this training.
    """

    what: str
    stacked: float
    alone: float
    difference: float
    rounding: float
    matches: bool


@dataclass(frozen=True)
class Replay:
    """How far a stacked member is from its plain re-training."""

    trial: str
    fold: int
    seed: int
    epochs: int
    rows: list[Difference]

    @property
    def largest(self) -> float:
        """The largest difference of any prediction on the validation rows."""
        return next(r.difference for r in self.rows if r.what == "predictions")

    @property
    def matches(self) -> bool:
        """Whether no quantity differs by more than rounding does, or can grow to in training."""
        return all(r.matches for r in self.rows)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        verdict = "matches" if self.matches else "DIFFERS FROM"
        return (
            f"the stacked member {verdict} its plain re-training "
            f"(largest difference of predictions {self.largest:.1e})"
            + ("" if self.matches else "; a study with --dtype float64 tells rounding from a fault")
        )

    def table(self) -> pl.DataFrame:
        """Lay the comparison out."""
        return pl.DataFrame([vars(r) for r in self.rows])


@dataclass(frozen=True)
class Trace:
    """What one plain training left."""

    losses: np.ndarray
    weights: np.ndarray
    predictions: np.ndarray


def replay(study: Study, trial: int, fold: int, seed: int, data: Any) -> Replay:
    """Train one member alone up to the epoch that its trial kept, and compare curves, weights and predictions."""
    member, models, place = _find(study, trial, fold, seed)
    if member.settings.network == "custom" and study.net is None:
        raise NetworkError("this study used a network of your own.", hint="foldwise.load(folder, net=MyNet)")
    features, targets = _rows_again(study, data)
    dtype = models.parameters.dtype
    result = next(r for r in study.results if r.number == trial)
    start = _nursery(study, features, targets, member.settings.loss, dtype).start(member)
    with held_to_one():  # one small network: threads would only wait for each other
        alone = _trace(study, member, features, targets, copy.deepcopy(start), dtype, result.epoch)
        exact = _trace(study, member, features, targets, start, torch.float64, result.epoch)
    rows = _compare(
        _stacked_trace(study, member, models.parameters[place], result.epoch), alone, exact, dtype
    )
    return Replay(result.name, fold, seed, result.epoch, rows)


def _trace(
    study: Study,
    member: Member,
    features: np.ndarray,
    targets: np.ndarray,
    module: nn.Module,
    dtype: torch.dtype,
    epochs: int,
) -> Trace:
    module.to(dtype)
    loss = losses_for(study.task)[member.settings.loss]
    training = training_weights(study.weights, targets, study.folds.train, study.weighting.classes)
    data = prepare_fold(
        features,
        loss.shaped(targets),
        study.folds.train[member.fold],
        study.folds.validation[member.fold],
        np.array([f.kind == "number" for f in study.columns.features]),
        member.settings.scaling,
        study.task.kind == "regression",
        dtype,
        study.weights,
        None if training is None else training[member.fold],
    )
    own = Own(loss.form, study.loss, study.links, _curve(study, member, targets))
    outputs, losses = outputs_of(module, data), []
    for epoch in itertools.islice(train_alone(member, module, data, own), epochs):
        outputs = epoch.outputs
        losses.append(epoch.training_loss)
    if study.target_scale is not None:
        outputs = outputs * study.target_scale[1][member.fold] + study.target_scale[0][member.fold]
    shown = (natural if study.task.kind == "regression" else probabilities)(outputs, study.task)
    weights = torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])
    return Trace(np.array(losses), weights.double().numpy(), shown.double().numpy())


def _curve(study: Study, member: Member, targets: np.ndarray) -> list[float]:
    """Find what the schedule `plateau` looked at: the fold-mean validation loss of the member's trial."""
    if member.settings.schedule != "plateau":
        return []
    counted = study.score_weights(targets)
    _, weight = padded_validation(
        study.folds, torch.device("cpu"), None if counted is None else torch.tensor(counted)
    )
    losses = study.history.filter((pl.col("trial") == member.trial + 1) & (pl.col("epoch") > 0))
    rows = np.asarray(weight.sum(1))[losses["fold"].to_numpy() - 1]
    known = losses.with_columns(
        rows=pl.Series(rows),
        loss=pl.when(pl.col("validation_loss").is_finite()).then("validation_loss").otherwise(math.inf),
    )
    mean = (pl.col("loss") * pl.col("rows")).sum() / pl.col("rows").sum()
    return known.group_by("epoch").agg(mean=mean).sort("epoch")["mean"].to_list()


def _stacked_trace(study: Study, member: Member, weights: Tensor, epochs: int) -> Trace:
    where = (
        (pl.col("trial") == member.trial + 1)
        & (pl.col("fold") == member.fold + 1)
        & (pl.col("seed") == member.seed)
    )
    known = study.outer_history.filter(where & pl.col("epoch").is_between(1, epochs))
    curve = known.sort("epoch")["training_loss"]
    shown = study.predictions.filter(where).sort("row").drop("trial", "seed", "fold", "row").to_numpy()
    return Trace(curve.to_numpy(), weights.double().numpy(), shown.astype(np.float64))


def _compare(stacked: Trace, alone: Trace, exact: Trace, dtype: torch.dtype) -> list[Difference]:
    def of(what: str, quantity: Callable[[Trace], np.ndarray], allowed: float) -> Difference:
        return _difference(what, quantity(stacked), quantity(alone), quantity(exact), allowed)

    late = IN_THE_END[dtype]
    found = [
        of("weights", lambda trace: trace.weights, late),
        of("predictions", lambda trace: trace.predictions, late),
    ]
    if len(alone.losses) == 0:
        return found
    return [
        of("training loss, first epoch", lambda trace: trace.losses[:1], AT_FIRST[dtype]),
        of("training loss, kept epoch", lambda trace: trace.losses[-1:], late),
        *found,
    ]


def _difference(
    what: str, stacked: np.ndarray, alone: np.ndarray, exact: np.ndarray, allowed: float
) -> Difference:
    apart, rounding = _size(stacked - alone), _size(alone - exact)
    return Difference(
        what=what,
        stacked=_size(stacked),
        alone=_size(alone),
        difference=float(np.abs(stacked - alone).max()),
        rounding=float(np.abs(alone - exact).max()),
        matches=apart <= max(TOLERANCE * rounding, allowed * _size(alone)),
    )


def _size(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _find(study: Study, trial: int, fold: int, seed: int) -> tuple[Member, Models, int]:
    for models in study.models:
        for place, m in enumerate(models.members):
            if (m.trial + 1, m.fold + 1, m.seed) == (trial, fold, seed):
                return m, models, place
    seeds = ", ".join(map(str, study.plan.seeds))
    raise PlanError(
        f"there is no member with trial {trial}, fold {fold}, seed {seed}.",
        hint=f"trials 1 to {len(study.plan.trials)}, folds 1 to {len(study.folds)}, seeds {seeds}",
    )


def _rows_again(study: Study, data: Any) -> tuple[np.ndarray, np.ndarray]:
    frame = study.columns.read(frame_again(study.source, study.task.targets, data))
    frame = frame.with_row_index(ROW).filter(pl.col(ROW).is_in(study.row.tolist())).drop(ROW)
    return study.columns.encode(frame), study.task.encode(frame)


def frame_again(source: Source, targets: Sequence[str], data: Any) -> pl.DataFrame:
    """Read the table of a study again, or take it from `data`: a file, a frame or (X, y).

    Raises DataError when it is not to be found, or its cells are others.
    """
    if isinstance(data, tuple) and len(data) == 2:
        frame, _, _ = read_source(*data, None, None, source.reading if is_path(data[0]) else {})
    elif data is not None:
        frame = read_again(data, source, lambda table: fingerprint(table) == source.fingerprint)
    elif source.path is None and source.example is None:
        raise DataError(
            "this study was made from a table in memory.",
            hint="give it again: data=table, or data=(X, y)",
        )
    elif source.path is not None and not Path(source.path).expanduser().exists():
        raise DataError(
            f"the table {source.path} is not there any more.", hint="--data FILE says where it is now"
        )
    else:
        frame, _, _ = read_source(source.path, None, list(targets), source.example, source.reading)
    if fingerprint(frame) != source.fingerprint:
        raise DataError(
            "the table is not the one that the study was made from: its cells differ.",
            hint="find the old one: --data FILE",
        )
    return frame


def _nursery(
    study: Study, features: np.ndarray, targets: np.ndarray, loss: str, dtype: torch.dtype
) -> Nursery:
    numbers = np.array([f.kind == "number" for f in study.columns.features])
    regression = study.task.kind == "regression"
    rows = place_rows(
        features,
        losses_for(study.task)[loss].shaped(targets),
        study.folds,
        {
            s: learn_preparation(features, study.folds.train, numbers, s, study.weights)
            for s in study.scalings
        },
        learn_target_scale(targets, study.folds.train, study.weights) if regression else None,
        device=torch.device("cpu"),
        dtype=dtype,
        weights=training_weights(study.weights, targets, study.folds.train, study.weighting.classes),
        sample_weights=study.weights,
    )
    return Nursery(rows, outputs_by_loss(study.task), study.net)
