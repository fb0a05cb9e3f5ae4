"""Whether the parts of a stored run fit together: each may be readable and belong to another run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from foldwise import linear
from foldwise.checks import series
from foldwise.data.folds import Folds
from foldwise.data.target import Task
from foldwise.engine.predict import Models, Refit
from foldwise.engine.rows import Constants
from foldwise.judge.calibrate import COOLEST, HOTTEST, Calibration, Steps
from foldwise.judge.conformal import STEPS, Sureness
from foldwise.judge.metrics import Metric
from foldwise.judge.nested import Nested
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.plans.plan import Plan

MEMBER = {"trial", "seed", "fold"}


def refuse_unfit(fields: Mapping[str, Any]) -> None:
    """Raise ValueError with the first thing that is wrong with the fields of a study."""
    # one by one, because each check rests on those before it
    for problem in _problems(fields):
        raise ValueError(problem)


def _problems(fields: Mapping[str, Any]) -> Iterator[str]:
    plan, task, columns = fields["plan"], fields["task"], fields["columns"]
    yield from task_problems(task)
    yield from plan_problems(plan, task, fields["metric"])
    yield from row_problems(plan, fields["folds"], fields["row"])
    yield from _network_problems(plan, fields["models"])
    yield from _constant_problems(plan, len(columns.features), fields["scalings"], fields["constants"])
    scale, shape = fields["target_scale"], (plan.folds, len(task.targets))
    if (scale is not None) != (task.kind == "regression") or any(s.shape != shape for s in scale or ()):
        yield "the scales of its targets are not those of its folds"
    if sorted(r.number for r in fields["results"]) != [*range(1, len(plan.trials) + 1)]:
        yield "its results are not those of its trials"
    for result in fields["results"]:
        if result.settings != plan.trials[result.number - 1] or len(result.fold_scores) != plan.folds:
            yield f"the result of trial {result.number} is that of another one"
    yield from _choice_problems(fields["nested"], plan)
    if not {*MEMBER, "epoch", "training_loss", "validation_loss"} <= {*fields["history"].columns}:
        yield "its history lacks columns"
    if not {*MEMBER, "row"} < {*fields["predictions"].columns}:
        yield "its predictions lack columns"
    yield from _target_problems(task, fields["targets"], len(fields["row"]))
    if (found := fields["calibration"]) is not None:
        yield from _calibration_problems(task, found)
    if (reached := fields["sureness"]) is not None and not _reaches(task, reached):
        yield "how far its intervals reach is not of its target"
    used = {*task.targets, *(c.name for c in columns.columns if c.role == "feature")}
    sealed = fields["sealed"]
    if sealed is not None and not used <= {*sealed.columns}:
        yield "its sealed test rows lack columns"
    if fields["refitted"] is not None:
        yield from _refit_problems(plan, task, len(columns.features), fields["refitted"])
    if fields["looks"] is not None:
        yield from series.problems(fields["looks"], len(plan.trials))
    if fields["linear"] is not None:
        yield from linear.problems(fields["linear"], len(plan.trials))
    if not weigh(fields["weights"], len(fields["row"])):
        yield "its weights are not those of its rows"
    if fields["sealed_weights"] is not None and not weigh(fields["sealed_weights"], len(sealed)):
        yield "the weights of its sealed test rows are not theirs"
    by_class, classes = fields["weighting"].classes, sum(map(len, task.classes[:1]))
    if isinstance(by_class, tuple) and len(by_class) != classes:
        yield "its class weights are not those of its classes"


def _target_problems(task: Task, targets: np.ndarray | None, rows: int) -> Iterator[str]:
    if targets is None:
        return
    numbered = task.kind in ("binary", "multiclass") and not task.soft
    shape = (rows,) if numbered else (rows, task.outputs)
    fit = targets.shape == shape and targets.dtype == (np.int64 if numbered else np.float64)
    if not fit or not np.isfinite(targets).all() or (numbered and not _within(targets, len(task.classes[0]))):
        yield "its targets are not those of its rows"


def _within(numbers: np.ndarray, count: int) -> bool:
    return bool(((numbers >= 0) & (numbers < count)).all())


def _calibration_problems(task: Task, found: Calibration) -> Iterator[str]:
    outputs = 1 if task.kind == "binary" else task.outputs
    steps = [_increasing(s) for s in found.steps]
    if len(steps) != (outputs if found.method == "isotonic" else 0) or not all(steps):
        yield "its calibration is not that of its outputs"
    if not COOLEST <= found.temperature <= HOTTEST or task.kind == "regression":
        yield "its calibration is none"


def _reaches(task: Task, found: Sureness) -> bool:
    """Tell whether counts of distances, or of classes in sets, are of such a task."""
    if found.kind == "distances":
        fit = task.kind == "regression" and len(found.counts) == STEPS
        fit &= found.reach is not None and 0 < found.reach < math.inf
    else:
        fit = task.kind in ("binary", "multiclass") and len(found.counts) == len(task.classes[0])
        fit &= found.reach is None
    return fit and min(found.counts) >= 0 < sum(found.counts)


def _increasing(steps: Steps) -> bool:
    """Tell whether steps increase, from probabilities to probabilities; none of 0, whose sum over classes may be 0."""
    x, y = np.array(steps.x, dtype=float), np.array(steps.y, dtype=float)
    fit = x.shape == y.shape and x.size > 0 and bool(np.isfinite(x).all() and np.isfinite(y).all())
    return fit and bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all() and y[0] > 0 and y[-1] < 1)


def _choice_problems(nested: Nested | None, plan: Plan) -> Iterator[str]:
    if nested is None:
        return
    if [c.fold for c in nested.choices] != [*range(1, plan.folds + 1)]:
        yield "what was chosen inside its folds is not of its folds"
    if any(not 1 <= c.trial <= len(plan.trials) for c in nested.choices):
        yield "trials were chosen inside its folds that are not there"


def _refit_problems(plan: Plan, task: Task, features: int, refit: Refit) -> Iterator[str]:
    count, models = len(refit.models.members), refit.models
    if not 1 <= refit.trial <= len(plan.trials):
        yield "its refit is one of a trial that is not there"
        return
    like = plan.trials[refit.trial - 1].model_dump(exclude={"epochs", "early_stopping"})
    if refit.settings.model_dump(exclude={"epochs", "early_stopping"}) != like:
        yield "its refit has other settings than its trial"
    tensors = [models.parameters, *models.buffers.values()]
    if not count or models.parameters.ndim != 2 or any(t.ndim == 0 or len(t) != count for t in tensors):
        yield "the weights of its refit are not those of its networks"
    if models.parameters.dtype not in (torch.float32, torch.float64):
        yield f"the weights of its refit are {models.parameters.dtype}"
    shape = (len(refit.scalings), features)
    if any(getattr(refit.constants, name).shape != shape for name in ("fill", "shift", "scale", "bound")):
        yield "the constants of its refit are not those of its columns"
    if refit.settings.scaling not in refit.scalings:
        yield "the constants of a scaling of its refit are missing"
    scale = refit.target_scale
    if (scale is not None) != (task.kind == "regression") or any(
        s.shape != (1, len(task.targets)) for s in scale or ()
    ):
        yield "the scales of its refit's targets are none"


def weigh(weights: np.ndarray, rows: int) -> bool:
    """Tell whether weights are those of so many rows."""
    fit = weights.shape == (rows,) and weights.dtype == np.float64
    return fit and bool(np.isfinite(weights).all() and (weights > 0).all())


def plan_problems(plan: Plan, task: Task, metric: Metric | None) -> Iterator[str]:
    """Say what is wrong with a plan and the metric by which its trials are compared."""
    if not plan.trials or not plan.seeds or plan.folds < 1:
        yield "its plan has no members"
    if metric is None or task.kind not in metric.tasks:
        yield f"its metric is not for {task.kind}"
    if any(s.loss not in LOSSES_OF_TASK[task.kind] for s in plan.trials):
        yield f"its losses are not for {task.kind}"


def task_problems(task: Task) -> Iterator[str]:
    """Say what is wrong with a task."""
    sizes = [len(labels) for labels in task.classes]
    fit = {
        "regression": sizes == [],
        "binary": sizes == [2] and len(task.targets) == 1,
        "multiclass": len(sizes) == 1
        and sizes[0] > 1
        and len(task.targets) == (sizes[0] if task.soft else 1),
        "multilabel": sizes == [2] * len(task.targets),
    }
    if not task.targets or not fit[task.kind]:
        yield f"its classes are not those of a {task.kind} target"


def row_problems(plan: Plan, folds: Folds, row: Any) -> Iterator[str]:
    """Say what is wrong with folds."""
    parts = (folds.train, folds.validation)
    if row.ndim != 1 or any(part.shape != (plan.folds, len(row)) or part.dtype != bool for part in parts):
        yield "its folds are not those of its rows"


def nested_problems(folds: Folds) -> Iterator[str]:
    """Say what is wrong with folds inside others."""
    if (group := folds.group) is None:
        return
    if group.shape != (len(folds),) or group.dtype != np.int64 or not (np.diff(group) >= 0).all():
        yield "the groups of its folds are not theirs"
    if sorted({*group.tolist()}) != [*range(int((group == 0).sum()) + 1)] or not (group == 0).any():
        yield "its nested folds are not inside its outer ones"
    inside = group > 0
    outer = folds.train[group[inside] - 1]
    if ((folds.train[inside] | folds.validation[inside]) & ~outer).any():
        yield "its nested folds have rows that those around them do not learn from"


def _network_problems(plan: Plan, stacks: list[Models]) -> Iterator[str]:
    members = Counter((m.trial, m.fold, m.seed) for models in stacks for m in models.members)
    if members != Counter((m.trial, m.fold, m.seed) for m in plan.members()):
        yield "its networks are not those of its plan"
    for number, models in enumerate(stacks):
        weights, count = models.parameters, len(models.members)
        tensors = [weights, *models.buffers.values()]
        if weights.ndim != 2 or any(t.ndim == 0 or len(t) != count for t in tensors):
            yield f"the weights of stack {number} are not those of its {count} networks"
        if weights.dtype not in (torch.float32, torch.float64):
            yield f"the weights of stack {number} are {weights.dtype}"
        if len({m.settings.shape() for m in models.members}) != 1:
            yield f"the networks of stack {number} differ"


def _constant_problems(
    plan: Plan, features: int, scalings: tuple[str, ...], constants: Constants
) -> Iterator[str]:
    if not {s.scaling for s in plan.trials} <= {*scalings}:
        yield "the constants of a scaling are missing"
    shape = (len(scalings) * plan.folds, features)
    if any(getattr(constants, name).shape != shape for name in ("fill", "shift", "scale", "bound")):
        yield "its constants are not those of its folds and columns"
