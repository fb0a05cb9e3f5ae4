"""What made a study: all that `fit` was given or decided before training, as plain values and arrays, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foldwise.data.columns import ColumnPlan
from foldwise.data.folds import Folds
from foldwise.data.table import Source
from foldwise.data.target import Task
from foldwise.data.weights import Weighting
from foldwise.engine.loop import PlanSummary
from foldwise.judge.metrics import metric_called
from foldwise.plans.ask import Searched
from foldwise.plans.plan import Plan
from foldwise.store.check import nested_problems, plan_problems, row_problems, task_problems, weigh
from foldwise.store.plain import as_plain, as_record


@dataclass(frozen=True)
class Asked:
    """The plain part: nothing of it is found out anew when training goes on.

    `own_…` name a network, loss and links of the user's own, which are code and not stored. `remarks` say what has
    changed about the machine since the study began, and `openings` that test rows were scored while it was interrupted.
    """

    source: Source
    task: Task
    columns: ColumnPlan
    weighting: Weighting
    plan: Plan
    how: str  # the folds were made
    metric: str
    device: str
    dtype: str
    chunk: int | None
    engine: str
    compile: str
    policy: str
    searched: Searched | None
    own_net: str | None
    own_loss: str | None
    own_links: bool
    summary: PlanSummary
    command: str
    environment: dict[str, str]
    remarks: tuple[str, ...] = ()
    openings: tuple[dict[str, Any], ...] = ()
    # checkpoints that say nothing of them were written before there were checks
    checks: bool = True
    remedies: bool = True


@dataclass(frozen=True)
class Origin:
    """What made a study; rows are those of the table as it was read."""

    asked: Asked
    folds: Folds
    row: np.ndarray
    weights: np.ndarray
    sealed_row: np.ndarray | None
    sealed_weights: np.ndarray | None


def written(origin: Origin) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Write an origin as plain values and tensors."""
    arrays = {
        "folds.train": origin.folds.train,
        "folds.validation": origin.folds.validation,
        "folds.group": origin.folds.group,
        "row": origin.row,
        "weights": origin.weights,
        "sealed.row": origin.sealed_row,
        "sealed.weights": origin.sealed_weights,
    }
    tensors = {name: torch.tensor(own) for name, own in arrays.items() if own is not None}
    return as_plain(Asked, origin.asked), tensors


def read_origin(plain: Any, tensors: Mapping[str, Tensor]) -> Origin:
    """Read an origin; raises ValueError (or what a damaged file raises) when its parts do not fit together."""
    asked = as_record(Asked, plain)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    origin = Origin(
        asked,
        Folds(
            arrays.pop("folds.train"),
            arrays.pop("folds.validation"),
            asked.how,
            arrays.pop("folds.group", None),
        ),
        row=arrays.pop("row"),
        weights=arrays.pop("weights"),
        sealed_row=arrays.pop("sealed.row", None),
        sealed_weights=arrays.pop("sealed.weights", None),
    )
    if arrays:
        raise ValueError(f"it has rows that no study has: {sorted(arrays)[0]}")
    for problem in _problems(origin):
        raise ValueError(problem)
    return origin


def _problems(origin: Origin) -> Iterator[str]:
    asked, row, sealed = origin.asked, origin.row, origin.sealed_row
    yield from task_problems(asked.task)
    yield from plan_problems(asked.plan, asked.task, metric_called(asked.metric))
    if not asked.columns.features:
        yield "it has no features"
    if not _rows(row) or (sealed is not None and not _rows(sealed)):
        yield "its rows are not in order"
    yield from row_problems(asked.plan, origin.folds, row)
    yield from nested_problems(origin.folds)
    if not weigh(origin.weights, len(row)):
        yield "its weights are not those of its rows"
    counts = origin.sealed_weights
    if sealed is not None and np.intersect1d(sealed, row).size:
        yield "some of its test rows are among those to learn from"
    if (sealed is None) != (counts is None):
        yield "its sealed test rows and their weights do not go together"
    if sealed is not None and counts is not None and not weigh(counts, len(sealed)):
        yield "the weights of its sealed test rows are not theirs"
    if asked.dtype not in ("float32", "float64"):
        yield f"there is no dtype {asked.dtype}"
    if asked.chunk is not None and asked.chunk < 1:
        yield f"chunks of {asked.chunk} members are none"


def _rows(row: np.ndarray) -> bool:
    fit = row.ndim == 1 and row.dtype == np.int64 and len(row) > 0
    return fit and bool(row[0] >= 0 and (np.diff(row) > 0).all())
