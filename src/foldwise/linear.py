"""What a linear classifier has learnt: its weights as templates, and the rows that its planes separate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from foldwise.data.columns import ColumnPlan

if TYPE_CHECKING:
    from foldwise.study import Study

MOST_CLASSES = 12
MOST_PLANE_FEATURES = 8  # from which two are chosen
MOST_ROWS = 150
MOST_SIDE = 64  # of an image, in pixels


@dataclass(frozen=True)
class Linear:
    """A linear classifier: the first member of a trial, on inputs as they are prepared for it.

    A score of a class is w·x + b. With two classes there is one score, that of the second. With more, a common number
    added to all scores changes nothing, so their mean over classes is taken off: a score of 0 is that of an average
    class. `images` are rows of weights laid out as square images, one for each score, where the features are pixels.
    `names` are the features of the largest weights, `weights` theirs, and `points` some rows: their values of these
    features, and the class. `bias` is that of a plane through the mean of all features that are not named: b plus
    what they add on average.
    """

    trial: int  # from 1
    classes: tuple[str, ...]
    names: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    points: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    images: tuple[tuple[float | None, ...], ...] = ()


def linear_of(study: Study) -> Linear | None:
    """Take the best linear classifier of a study apart; None where there is none, or its rows are not at hand."""
    task, table = study.task, study.table
    numbered = task.kind in ("binary", "multiclass") and not task.soft
    plain = (r for r in study.results if r.settings.network == "linear" and r.settings.feature_map == "none")
    best = next((r for r in plain if math.isfinite(r.score)), None)
    if best is None or table is None or not numbered or len(task.classes[0]) > MOST_CLASSES:
        return None
    models = next(m for m in study.models if m.of_trial(best.number - 1))
    place = models.of_trial(best.number - 1)[0]
    inputs = table.features.shape[1]
    weights, bias = scores_of(models.parameters[place].double().cpu().numpy(), inputs)
    fold = study.scalings.index(best.settings.scaling) * len(study.folds) + models.members[place].fold
    rows = _some(len(table.features))
    given = torch.from_numpy(table.features[rows]).double()[None]
    x = study.constants.to(torch.device("cpu")).of(torch.tensor([fold])).apply(given)[0].numpy()
    chosen = np.argsort(-np.abs(weights).max(axis=0), kind="stable")[:MOST_PLANE_FEATURES]
    rest = np.setdiff1d(np.arange(inputs), chosen)
    return Linear(
        best.number,
        tuple(map(str, task.classes[0])),
        tuple(study.columns.features[i].name for i in chosen),
        _plain(weights[:, chosen]),
        _plain((bias + weights[:, rest] @ x[:, rest].mean(axis=0))[None])[0],
        _plain(x[:, chosen]),
        tuple(table.targets[rows].astype(int).tolist()),
        images_of(study.columns, weights),
    )


def scores_of(
    parameters: Float[np.ndarray, " parameters"], inputs: int
) -> tuple[Float[np.ndarray, "scores inputs"], Float[np.ndarray, " scores"]]:
    """Take weights and biases out of the parameters of a linear layer, without what all scores have in common.

    >>> scores_of(np.array([1.0, 2.0, 3.0, 6.0, 0.5, 1.5]), 2)[0].tolist()
    [[-1.0, -2.0], [1.0, 2.0]]
    """
    scores = len(parameters) // (inputs + 1)
    weights, bias = parameters[: scores * inputs].reshape(scores, inputs), parameters[scores * inputs :]
    if scores > 1:
        weights, bias = weights - weights.mean(axis=0), bias - bias.mean()
    return weights, bias


def images_of(columns: ColumnPlan, weights: np.ndarray) -> tuple[tuple[float | None, ...], ...]:
    """Lay rows of weights out as square images; empty where the features are not the pixels of one.

    A pixel that is constant has no weight, and is None.
    """
    own = [c.name for c in columns.columns if c.role in ("feature", "set aside")]
    places = pixel_places(own)
    by_name = {f.name: i for i, f in enumerate(columns.features)}
    if places is None or any(name not in own for name in by_name):
        return ()
    laid: list[list[float | None]] = [[None] * len(own) for _ in weights]
    for name, place in zip(own, places, strict=True):
        if name in by_name:
            for image, row in zip(laid, weights, strict=True):
                image[place] = float(f"{row[by_name[name]]:.4g}")
    return tuple(map(tuple, laid))


def pixel_places(names: Sequence[str]) -> list[int] | None:
    """Give the place of each pixel in a square image, row by row, from their names; None when they are none.

    Pixels have one name and a number, p0, p1, …, or a row and a column, pixel_0_0, pixel_0_1, …, from 0 or 1.

    >>> pixel_places(["p0", "p1", "p2", "p3"]), pixel_places(["x_1_2", "x_1_1", "x_2_1", "x_2_2"])
    ([0, 1, 2, 3], [1, 0, 2, 3])
    >>> pixel_places(["a0", "b1", "a2", "a3"])
    """
    side = math.isqrt(len(names))
    if not 2 <= side <= MOST_SIDE or side * side != len(names):
        return None
    for pattern in (r"(.*?)(\d+)[_x,](\d+)$", r"(.*?)(\d+)$"):
        found = [re.match(pattern, name) for name in names]
        parts = [m.groups() for m in found if m is not None]
        if len(parts) == len(names) and len({p[0] for p in parts}) == 1:
            numbers = np.array([[int(n) for n in p[1:]] for p in parts])
            numbers -= numbers.min(axis=0)
            places = numbers @ ([side, 1] if numbers.shape[1] == 2 else [1])
            if numbers.max() < (side if numbers.shape[1] == 2 else side * side):
                return places.tolist() if len({*places.tolist()}) == len(names) else None
    return None


def _some(rows: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.arange(rows) if rows <= MOST_ROWS else np.sort(random.choice(rows, MOST_ROWS, replace=False))


def _plain(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{v:.4g}") for v in row) for row in values.tolist())


def problems(found: Linear, trials: int) -> Iterator[str]:
    """Say what is wrong with a linear classifier that was read from a file, for a study of so many trials."""
    scores = 1 if len(found.classes) == 2 else len(found.classes)
    names, images = len(found.names), {len(image) for image in found.images}
    if not 1 <= found.trial <= trials or not 2 <= len(found.classes) <= MOST_CLASSES:
        yield "its linear classifier is of another study"
    if len(found.weights) != scores or len(found.bias) != scores or len(found.points) > MOST_ROWS:
        yield "the planes of its linear classifier are not those of its classes"
    if not 1 <= names <= MOST_PLANE_FEATURES or any(
        len(own) != names for own in (*found.weights, *found.points)
    ):
        yield "the planes of its linear classifier are not those of its features"
    if len(found.labels) != len(found.points) or any(not 0 <= n < len(found.classes) for n in found.labels):
        yield "the points of its linear classifier have no classes"
    if any(math.isqrt(n) ** 2 != n or not 4 <= n <= MOST_SIDE**2 for n in images):
        yield "the images of its linear classifier are none"
    if found.images and (len(found.images) != scores or len(images) != 1):
        yield "the images of its linear classifier are not those of its classes"
