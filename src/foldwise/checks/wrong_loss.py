"""A loss that does not suit what is learned.

Evidence: a gradient at the outputs that is 0 for every row and target; or, where targets are class numbers, at all
outputs but one; or numbers that are learned by squared error though they are few and whole, where a linear model that
treats them as classes names them with less than 0.7 of the squared error of one that treats them as numbers.

Why it hurts: the cross-entropy of a single output is 0 whatever it is, because a softmax over one entry is 1.
Squared error on class numbers says that class 9 is farther from class 0 than class 1 is, which means nothing for
names.

How sure: sure without a gradient; likely for outputs without one and for class numbers. Counts, grades and ratings
are in order, are learned better as numbers, and are not meant.

What to try: cross-entropy with an output for each class, by `task="multiclass"`; squared error for numbers.

References: Bishop 2006, *Pattern recognition and machine learning*, section 4.1.3 (least squares for
classification).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.losses import usual_loss
from foldwise.checks.probe import fewer, gradient_if_taken, output_gradient
from foldwise.checks.sight import Sight, run
from foldwise.checks.symptoms import BLOCKED
from foldwise.data.target import MOST_INTEGER_CLASSES

EXPLAINS = (
    "no-gradient", "unbounded-loss", "start-loss", "overconfident", "exploding-gradients", "non-finite",
    *BLOCKED,
)  # fmt: skip
ROWS = 600
LESS = 0.7  # rings of abalone, which are a number, give 1.3 to 1.6
RIDGE = 0.03  # of the mean variance of a column, so that many columns do not fit few rows by heart


def find(sight: Sight) -> Finding | None:
    """Look for a loss without gradient, and for class numbers learned as numbers."""
    return _without_gradient(sight) or _class_numbers(sight)


def _without_gradient(sight: Sight) -> Finding | None:
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network)
    outputs = run(network.module, network.inputs)
    moved = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
    elsewhere = gradient_if_taken(network, moved)
    here = output_gradient(network, outputs)
    if here.any() or (elsewhere is not None and elsewhere.any()):
        return _some_without_gradient(sight, network.targets, here, elsewhere)
    what = ": a softmax over one output is always 1" if outputs.shape[-1] == 1 else ""
    return Finding(
        "wrong-loss",
        "sure",
        f"the loss has no gradient at any of the outputs, shape {tuple(outputs.shape)}{what}",
        trials=sight.about,
        remedies=usual_loss(sight, "another loss, or an output for each class"),
    )


def _some_without_gradient(
    sight: Sight, targets: Tensor | None, here: Tensor, elsewhere: Tensor | None
) -> Finding | None:
    """Look for outputs of classes that the loss does not depend on: it takes the number of a class for a quantity."""
    if targets is None or elsewhere is None or here.ndim != 2 or targets.ndim != 1:
        return None
    if not bool((targets == targets.round()).all()):
        return None
    used, classes = (here.any(0) | elsewhere.any(0)).tolist(), here.shape[1]
    if classes <= 2 or sum(used) != 1 or not 0 <= int(targets.min()) < int(targets.max()) < classes:
        return None
    return Finding(
        "wrong-loss",
        "likely",
        f"targets are the numbers of {classes} classes and there are as many outputs, but the loss has a gradient at "
        f"output {used.index(True)} alone: it learns the number of a class as if it were a quantity",
        trials=sight.about,
        remedies=usual_loss(sight, "cross-entropy"),
    )


def _class_numbers(sight: Sight) -> Finding | None:
    table = sight.table
    if table is None or table.task.kind != "regression" or table.targets.shape[1] != 1:
        return None
    rows = sight.some_rows(ROWS)
    numbers = np.exp(table.targets[rows, 0]) if table.task.log else table.targets[rows, 0]
    classes = np.unique(np.round(numbers, 9))
    if not 3 <= len(classes) <= MOST_INTEGER_CLASSES or not np.allclose(classes, np.round(classes)):
        return None
    as_numbers, as_classes = _errors(_prepared(table.features[rows]), numbers, classes)
    if not as_classes < LESS * min(
        as_numbers, float(np.var(numbers))
    ):  # to be better than a failed fit says nothing
        return None
    return Finding(
        "wrong-loss",
        "likely",
        f"`{table.task.targets[0]}` is learned as a number, but has {len(classes)} whole values that are "
        "no order: a linear "
        f"model that takes them as classes has a squared error of {as_classes:.2g}, one that takes them as numbers "
        f"{as_numbers:.2g}",
        where=(str(table.task.targets[0]),),
        remedies=(Remedy("learn classes", options={"task": "multiclass"}),),
    )


def _prepared(features: np.ndarray) -> np.ndarray:
    x = np.where(np.isfinite(features), features, 0.0).astype(np.float64)
    deviation = x.std(0)
    x = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1.0)
    return np.column_stack([x, np.ones(len(x))])


def _errors(x: np.ndarray, numbers: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """Compare two linear models on rows that they did not see: of numbers, and of the class of highest score."""
    half = np.arange(len(x)) % 2 == 0
    one_hot = (np.round(numbers, 9)[:, None] == classes).astype(np.float64)
    own = np.zeros((2, len(x)))
    for train in (half, ~half):
        seen, test = x[train], ~train
        scale = seen.T @ seen + RIDGE * len(seen) * np.eye(x.shape[1])
        said = x[test] @ np.linalg.solve(scale, seen.T @ np.column_stack([numbers[train], one_hot[train]]))
        own[0, test], own[1, test] = said[:, 0], classes[said[:, 1:].argmax(1)]
    return float(np.square(own[0] - numbers).mean()), float(np.square(own[1] - numbers).mean())
