"""Probabilities that mean what they say: a map learned on out-of-fold predictions, kept only when it helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import optimize, special
from sklearn.isotonic import IsotonicRegression

from foldwise.data.target import Task
from foldwise.errors import percent
from foldwise.judge.selection import mean_losses, rows_that_count

Method = Literal["none", "temperature", "isotonic"]
LEAST_ROWS = 1000  # from which on a step function is not made of noise
PARTS = 5  # of a cross-fit, where there is but one fold
MOST_PARTS = 20
BINS, LEAST_IN_BIN = 10, 20
SURE = 1e-7  # a probability is not nearer to 0 or 1; float32 rounds 1 − 3e-8 to 1
COOLEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence: the mean of what was said, the share that was true with its 95 % limits, how many.

    A row of which several folds speak is one; of labels, each label of a row counts.
    """

    said: float
    true: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Steps:
    """An increasing function through some points, straight between them and level beyond."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """How probabilities are corrected, and what that brings, measured on rows that the correction was not learned from.

    `loss` and `error` are the cross-entropy in nats and the expected calibration error, before and after;
    `before` and `after` are the reliability curves.
    """

    method: Method
    rows: int
    loss: tuple[float, float]
    error: tuple[float, float]
    before: tuple[Bin, ...] = field(repr=False)
    after: tuple[Bin, ...] = field(repr=False)
    temperature: float = 1.0
    steps: tuple[Steps, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.sentence

    def applied(self, probabilities: Float[np.ndarray, "*axes outputs"], kind: str) -> np.ndarray:
        """Correct probabilities of a task of this kind; last axis: one per class, or per label."""
        if self.method == "temperature":
            return tempered(probabilities, kind, self.temperature)
        return probabilities if self.method == "none" else stepped(probabilities, kind, self.steps)

    @property
    def sentence(self) -> str:
        """Say what was found, by the cross-entropy that decides; the calibration error where it improves as well."""
        (before, after), (worse, better) = self.loss, self.error
        if self.method == "none":
            return (
                f"Probabilities are left as they are: no correction lowers their cross-entropy ({before:.3f}) beyond "
                f"noise, and on average they are off by {percent(worse, 1)}."
            )
        how = "by increasing steps (isotonic regression)"
        if self.method == "temperature":
            sure = "too sure" if self.temperature > 1 else "not sure enough"
            how = f"by the temperature {self.temperature:.2f}, because they were {sure}"
        digits = 3 if f"{before:.3f}" != f"{after:.3f}" else 5
        said = (
            f"Probabilities are corrected {how}: on rows that the correction has not seen, the cross-entropy falls "
            f"from {before:.{digits}f} to {after:.{digits}f}"
        )
        if round(100 * better, 1) < round(100 * worse, 1):
            said += f", and on average they are off by {percent(better, 1)} instead of {percent(worse, 1)}"
        return f"{said}."


UNCALIBRATED = Calibration("none", rows=0, loss=(0.0, 0.0), error=(0.0, 0.0), before=(), after=())
"""What is done to probabilities of which nothing is known."""


def calibrate(
    probabilities: Float[np.ndarray, "lines outputs"],
    targets: Shaped[np.ndarray, "lines ..."],
    task: Task,
    fold: Int[np.ndarray, " lines"],
    row: Int[np.ndarray, " lines"],
    weights: Float[np.ndarray, " lines"] | None = None,
) -> Calibration:
    """Choose between leaving probabilities as they are, a temperature, and isotonic regression.

    A temperature T divides logarithms of probabilities, p ∝ p^(1/T) (Guo, Pleiss, Sun & Weinberger 2017, *On
    calibration of modern neural networks*; Platt scaling without a shift); one T for all classes or labels.
    Isotonic regression (Zadrozny & Elkan 2002), from 1000 rows on, puts an increasing step function in its place; of
    several classes, one against the rest, scaled to sum 1. Each is learned on some rows and scored by
    cross-entropy on the others; in the order named, one is kept when it lowers the cross-entropy by more than the
    standard error of the difference over rows.

    Args:
        probabilities: out-of-fold, one line for each row and fold that validates it.
        targets: class numbers `[lines]`, probabilities of classes or labels 0 and 1 `[lines, outputs]`.
        task: binary, multiclass or multilabel.
        fold: the fold of each line; parts of the cross-fit are folds, joined to 20 where there are more.
        row: the row of each line; a row in several lines is one row, and always in one part.
        weights: how much each line counts; a row that is in c lines should count 1/c in each.

    >>> said = np.random.default_rng(0).random(2000)
    >>> truth = (np.random.default_rng(1).random(2000) < said).astype(int)
    >>> sure = np.stack([(1 - said) ** 3, said**3], axis=1) / ((1 - said) ** 3 + said**3)[:, None]
    >>> found = calibrate(sure, truth, Task("binary", ("y",), (("a", "b"),)), np.arange(2000) % 5, np.arange(2000))
    >>> found.method, round(found.temperature)
    ('temperature', 3)
    """
    own = np.ones(len(probabilities)) if weights is None else weights
    tried: dict[Method, np.ndarray] = {"none": probabilities}
    tried |= {method: probabilities.copy() for method in _methods(row)}
    for learnt, scored in _parts(fold, row):
        for method in _methods(row):
            found = _learned(method, probabilities[learnt], targets[learnt], task.kind, own[learnt])
            tried[method][scored] = found.applied(probabilities[scored], task.kind)
    losses = {method: cross_entropy(said, targets, task.kind) for method, said in tried.items()}
    kept: Method = "none"
    for method in _methods(row):
        if _better(losses[kept], losses[method], own, row):
            kept = method
    whole = _learned(kept, probabilities, targets, task.kind, own)
    errors = [expected_error(tried[m], targets, task.kind, own, row) for m in ("none", kept)]
    curves = [reliability(tried[m], targets, task.kind, own, row) for m in ("none", kept)]
    return Calibration(
        kept,
        rows=len(np.unique(row)),
        loss=(float(mean_losses(losses["none"], own)), float(mean_losses(losses[kept], own))),
        error=(errors[0], errors[1]),
        before=curves[0],
        after=curves[1],
        temperature=whole.temperature,
        steps=whole.steps,
    )  # fmt: skip


def _methods(row: np.ndarray) -> tuple[Method, ...]:
    return ("temperature", "isotonic") if len(np.unique(row)) >= LEAST_ROWS else ("temperature",)


def _parts(fold: np.ndarray, row: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give the lines to learn from and those to score, so that no row is on both sides."""
    rows, first, inverse = np.unique(row, return_index=True, return_inverse=True)
    # a row's first fold, so that rows of one group stay together
    folds, part = np.unique(fold[first], return_inverse=True)
    part = part % MOST_PARTS
    if len(folds) < 2:
        part = np.random.default_rng(0).permutation(len(rows)) % PARTS
    of_line = part[inverse]
    for number in np.unique(part):
        yield of_line != number, of_line == number


def _better(now: np.ndarray, then: np.ndarray, weights: np.ndarray, row: np.ndarray) -> bool:
    """Tell whether the mean over lines falls by more than the standard error of the difference over rows."""
    _, inverse = np.unique(row, return_inverse=True)
    gain = np.average(now - then, weights=weights)
    by_row = np.bincount(inverse, weights * (now - then - gain))
    return bool(gain > np.sqrt(np.square(by_row).sum()) / weights.sum())


def _learned(
    method: Method, probabilities: np.ndarray, targets: np.ndarray, kind: str, weights: np.ndarray
) -> Calibration:
    temperature, steps = 1.0, tuple[Steps, ...]()
    if method == "temperature":
        temperature = best_temperature(probabilities, targets, kind, weights)
    if method == "isotonic":
        steps = best_steps(probabilities, targets, kind, weights)
    return Calibration(method, 0, (0, 0), (0, 0), (), (), temperature, steps)


# The two maps


def tempered(probabilities: np.ndarray, kind: str, temperature: float) -> np.ndarray:
    """Divide the logarithms of probabilities by a temperature: above 1 makes them less sure.

    >>> tempered(np.array([[0.8, 0.2]]), "binary", 2.0).round(3)
    array([[0.667, 0.333]])
    """
    if kind == "multilabel":
        return special.expit(special.logit(np.clip(probabilities, SURE, 1 - SURE)) / temperature)
    return special.softmax(_logarithms(probabilities) / temperature, axis=-1)


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, 1e-30))


def best_temperature(probabilities: np.ndarray, targets: np.ndarray, kind: str, weights: np.ndarray) -> float:
    """Find the temperature, between 0.05 and 20, with the least mean cross-entropy, which is convex in 1/T."""

    def loss(inverse: float) -> float:
        said = tempered(probabilities, kind, 1 / inverse)
        return float(mean_losses(cross_entropy(said, targets, kind), weights))

    found = optimize.minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COOLEST), method="bounded")
    return float(1 / found.x)


def stepped(probabilities: np.ndarray, kind: str, steps: tuple[Steps, ...]) -> np.ndarray:
    """Send each probability through its function; those of several classes are scaled to sum 1."""
    if kind == "binary":
        second = np.interp(probabilities[..., 1], steps[0].x, steps[0].y)
        return np.stack([1 - second, second], axis=-1)
    sent = np.stack([np.interp(probabilities[..., i], s.x, s.y) for i, s in enumerate(steps)], axis=-1)
    return sent if kind == "multilabel" else sent / sent.sum(axis=-1, keepdims=True)


def best_steps(
    probabilities: np.ndarray, targets: np.ndarray, kind: str, weights: np.ndarray
) -> tuple[Steps, ...]:
    """Fit isotonic regression to each output; no value is nearer to 0 or 1 than 1/(n + 2), as n rows prove no more."""
    truth = _shares(targets, probabilities.shape[-1])
    outputs = (1,) if kind == "binary" else range(probabilities.shape[-1])
    edge = 1 / (len(probabilities) + 2)
    found = []
    for i in outputs:
        fitted = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
        fitted.fit(probabilities[:, i], truth[:, i], sample_weight=weights)
        found.append(Steps(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())))
    return tuple(found)


# What probabilities are worth


def _shares(targets: np.ndarray, outputs: int) -> Float[np.ndarray, "lines outputs"]:
    return np.eye(outputs)[targets] if targets.ndim == 1 else targets


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray, kind: str) -> Float[np.ndarray, " lines"]:
    """Give −Σ t·log p of each line; of labels, the mean of −t·log p − (1−t)·log(1−p).

    >>> cross_entropy(np.array([[0.5, 0.5]]), np.array([0]), "binary").round(3)
    array([0.693])
    """
    if kind == "multilabel":
        sure = np.clip(probabilities, SURE, 1 - SURE)
        return -(targets * np.log(sure) + (1 - targets) * np.log1p(-sure)).mean(axis=-1)
    if targets.ndim == 1:
        return -_logarithms(probabilities[np.arange(len(targets)), targets])
    return -(targets * _logarithms(probabilities)).sum(axis=-1)


def _claims(
    probabilities: np.ndarray, targets: np.ndarray, kind: str, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give what was claimed, what was true of it, and how much each claim counts.

    Of two classes, the probability of the second; of more, that of the likeliest; of labels, each.
    """
    if kind == "multilabel":
        return probabilities.ravel(), targets.ravel(), np.repeat(weights, probabilities.shape[1])
    best = np.ones(len(targets), int) if kind == "binary" else probabilities.argmax(axis=1)
    lines = np.arange(len(best))
    return probabilities[lines, best], _shares(targets, probabilities.shape[1])[lines, best], weights


def reliability(
    probabilities: np.ndarray,
    targets: np.ndarray,
    kind: str,
    weights: np.ndarray,
    row: Int[np.ndarray, " lines"] | None = None,
    bins: int = BINS,
) -> tuple[Bin, ...]:
    """Group claims into up to `bins` groups of equal weight, and say how often those of each were true.

    The limits are Wilson's (1927): (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96, where n is the
    number of equal rows that would say as much. `row` tells which lines are of one row, whose truth is one however many
    folds speak of it: their weights are added up, and it counts once; by default each line is a row.
    """
    return tuple(found for found, _ in _bins(probabilities, targets, kind, weights, row, bins))


def _bins(
    probabilities: np.ndarray,
    targets: np.ndarray,
    kind: str,
    weights: np.ndarray,
    row: np.ndarray | None,
    bins: int = BINS,
) -> list[tuple[Bin, float]]:
    """Give each bin with the sum of its weights."""
    said, true, own = _claims(probabilities, targets, kind, weights)
    truth = _truths(np.arange(len(probabilities)) if row is None else row, len(said))
    # equal claims stay together: halves of a group that says the same would differ by noise alone
    _, same = np.unique(said, return_inverse=True)
    by_value = np.bincount(same, own)
    bins = max(1, min(bins, len(np.unique(truth)) // LEAST_IN_BIN))
    group = (bins * (np.cumsum(by_value) - by_value / 2) / by_value.sum()).astype(int)[same]
    found = []
    for number in np.unique(group):
        at = np.flatnonzero(group == number)
        share, total = np.average(true[at], weights=own[at]), float(own[at].sum())
        _, place = np.unique(truth[at], return_inverse=True)
        by_row = np.bincount(place, own[at])
        middle, half = _wilson(share, rows_that_count(len(by_row), by_row))
        claim = float(np.average(said[at], weights=own[at]))
        found.append((Bin(claim, float(share), middle - half, middle + half, len(by_row)), total))
    return found


def _truths(row: np.ndarray, claims: int) -> Int[np.ndarray, " claims"]:
    """Number what each claim is about: a row, or a label of a row."""
    each = claims // len(row)
    return (np.unique(row, return_inverse=True)[1][:, None] * each + np.arange(each)).ravel()


def _wilson(share: float, rows: float, z: float = 1.959964) -> tuple[float, float]:
    scale = 1 + z**2 / rows
    middle = (share + z**2 / (2 * rows)) / scale
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / scale
    return float(middle), float(half)


def expected_error(
    probabilities: np.ndarray,
    targets: np.ndarray,
    kind: str,
    weights: np.ndarray,
    row: Int[np.ndarray, " lines"] | None = None,
) -> float:
    """Give the expected calibration error: the mean of |said − true| over the groups of `reliability`, by their weight.

    Naeini, Cooper & Hauskrecht 2015; groups of equal size as in Nixon et al. 2019.

    >>> expected_error(np.array([[0.2, 0.8]] * 4), np.array([1, 1, 1, 0]), "binary", np.ones(4)).__round__(3)
    0.05
    """
    found = _bins(probabilities, targets, kind, weights, row)
    return sum(total * abs(b.said - b.true) for b, total in found) / sum(total for _, total in found)
