"""How good the winner is once it is known that it was chosen, and which trials are not worse than the best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from foldwise.data.folds import Folds


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval, as mean losses per row."""

    value: float
    low: float
    high: float


def corrected_winner(
    losses: Float[np.ndarray, "trials rows"],
    candidates: Bool[np.ndarray, " trials"],
    resamples: int = 1000,
    seed: int = 0,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> Interval:
    """Estimate the winner's loss without the luck of having been chosen.

    BBC-CV (Tsamardinos, Greasidou & Borboudakis 2018, *Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation*): rows are drawn with replacement; the trial that is best on the rows drawn is scored
    on the rows not drawn; the value is the mean over the resamples. A share f = (1 − 1/n)ⁿ of the rows is not drawn,
    so the scores vary about the value (1 − f)/f = 1.7 times as much as a mean over all n rows would; the interval is
    that of their 2.5 % and 97.5 % points, brought nearer to the value by √(f/(1 − f)).
    `losses` holds each trial's out-of-fold loss of each row; every mean is weighted by `weights`, all above 0.
    Where all scores are 0, the upper end is the share of errors that so many rows without any do not rule out.
    """
    [scores] = chosen_again(losses, [candidates], resamples, seed, weights)
    return interval_of_resamples(scores, losses.shape[1], weights)


def chosen_again(
    losses: Float[np.ndarray, "trials rows"],
    among: Sequence[Bool[np.ndarray, " trials"]],
    resamples: int = 1000,
    seed: int = 0,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> Float[np.ndarray, "choices resamples"]:
    """Choose on each resample among some trials, once for each set of them, and score each choice on the rows left out.

    All choices of a resample see the same rows, so that their differences are paired. NaN where no row was left out.
    """
    used = np.logical_or.reduce(among)
    by_row = np.ascontiguousarray(losses[used].T)
    candidates = [np.flatnonzero(own[used]) for own in among]
    scores = np.full((len(among), resamples), np.nan)
    for i, counts in enumerate(_drawn(len(by_row), resamples, seed)):
        outside = counts == 0
        if outside.any():
            total = (counts if weights is None else counts * weights) @ by_row
            own = None if weights is None else weights[outside]
            best = [places[np.argmin(total[places])] for places in candidates]
            scores[:, i] = [mean_losses(by_row[outside, t], own) for t in best]
    return scores


def interval_of_resamples(
    scores: Float[np.ndarray, " resamples"], rows: int, weights: Float[np.ndarray, " rows"] | None
) -> Interval:
    """Give the mean of scores of rows left out, with the interval that `corrected_winner` describes."""
    value, outside = np.nanmean(scores), (1 - 1 / rows) ** rows
    ends = np.nanquantile(scores, [0.025, 0.975])
    low, high = value + np.sqrt(outside / (1 - outside)) * (ends - value)
    if not np.nan_to_num(scores).any():
        high = _unseen(rows_that_count(rows, weights))
    return Interval(float(value), float(low), float(high))


def less_lucky(interval: Interval, optimism: float) -> Interval:
    """Take optimism back: the value moves up by it, and the interval grows, because it is only estimated.

    Its standard error is taken to be as large as itself: twice that joins the rest in quadrature.

    >>> less_lucky(Interval(8.0, 4.0, 12.0), 1.5)  # 5² = 4² + (2 · 1.5)²
    Interval(value=9.5, low=4.5, high=14.5)
    """
    value, own = interval.value + optimism, 2 * optimism
    below, above = interval.value - interval.low, interval.high - interval.value
    return Interval(value, value - math.hypot(below, own), value + math.hypot(above, own))


def epoch_optimism(
    curves: Sequence[Float[np.ndarray, "epochs folds"]],
    kept: Sequence[int],
    rows: Float[np.ndarray, " folds"],
    together: Bool[np.ndarray, "folds folds"] | None = None,
) -> float:
    """Estimate by how much the choice of epochs makes the winner's loss look better than it is; at least 0.

    For each fold, trial and epoch are chosen once more by the mean loss over the other folds, and scored on that
    fold; then the same among the epochs kept, which were chosen with that fold. The difference between the means over
    folds is what a choice of epochs that has seen a fold owes to it. (Varma & Simon 2006 choose without the rows scored
    on; Tibshirani & Tibshirani 2009 use curves of folds, as here, so that nothing is trained again.)

    Args:
        curves: the mean loss of each trial at each epoch that it might have kept, on each fold.
        kept: the place of the epoch that each trial kept.
        rows: how much each fold counts.
        together: which folds score the same rows, as with repeats; by default each is alone.

    >>> curve = np.array([[0.2, 0.6], [0.6, 0.2], [0.39, 0.39]])
    >>> round(epoch_optimism([curve], [2], np.ones(2)), 2)  # each fold alone likes an epoch that fails on the other
    0.21
    """
    same = np.eye(len(rows), dtype=bool) if together is None else together
    asked = np.flatnonzero((~same).any(axis=1))
    chosen = np.stack([curve[at] for curve, at in zip(curves, kept, strict=True)])
    every = np.concatenate([*curves, chosen])
    usable = [part[np.isfinite(part).all(axis=1)] for part in (every, chosen)]
    if not len(asked) or not all(map(len, usable)):
        return 0.0
    again, before = (_chosen_without(part, rows, same, asked) for part in usable)
    return max(0.0, float(np.average(again - before, weights=rows[asked])))


def _chosen_without(losses: np.ndarray, rows: np.ndarray, same: np.ndarray, asked: np.ndarray) -> np.ndarray:
    others = losses @ (rows[:, None] * ~same[:, asked]) / (rows @ ~same[:, asked])
    return losses[others.argmin(axis=0), asked]


def look_bound(looks: int, rows: float) -> float:
    """Bound how far any of so many means of losses between 0 and 1 may be from the truth, with probability 95 %.

    Hoeffding's inequality (1963) for each of k looks at n rows, and a union bound: √(ln(2k/0.05) / 2n). It holds for
    independent rows and networks that have not learned from them. Rows pooled over folds are not so: networks of one
    fold learn from rows that score another. But a mean over folds is bounded with n the rows of the smallest one,
    because the exponential in Hoeffding's proof is convex.

    >>> round(look_bound(1, 1000), 3), round(look_bound(1000, 1000), 3)
    (0.043, 0.073)
    """
    return float(np.sqrt(np.log(2 * looks / 0.05) / (2 * rows)))


def mean_losses(
    losses: Float[np.ndarray, "*trials rows"], weights: Float[np.ndarray, " rows"] | None
) -> Float[np.ndarray, "*trials"]:
    """Average losses over rows, Σ w·l / Σ w; all rows count alike without weights."""
    return losses.mean(axis=-1) if weights is None else np.average(losses, axis=-1, weights=weights)


def rows_that_count(rows: int, weights: Float[np.ndarray, " rows"] | None) -> float:
    """Give the number of equal rows that would say as much as weighted ones: (Σ w)² / Σ w² (Kish 1965).

    >>> rows_that_count(4, None), rows_that_count(3, np.array([3.0, 1.0, 0.0]))
    (4.0, 1.6)
    """
    return float(rows if weights is None else weights.sum() ** 2 / np.square(weights).sum())


def _unseen(rows: float) -> float:
    """Bound the mean of losses from 0 to 1 that were 0 in every row, where a bootstrap sees nothing but zeros.

    The largest share of errors p under which n rows without error have a probability of 2.5 %: 1 − 0.025^(1/n).
    """
    return 1 - 0.025 ** (1 / rows)


def bootstrap_intervals(
    losses: Float[np.ndarray, "trials rows"],
    resamples: int = 1000,
    seed: int = 0,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> list[Interval]:
    """Give each trial's mean loss and the 2.5 % and 97.5 % points of its mean over rows drawn with replacement.

    With `weights`, all above 0, the mean of rows drawn cᵢ times is Σ c·w·l / Σ c·w: which rows there are is left to
    chance, so that few heavy rows make a wide interval.
    """
    by_row = np.ascontiguousarray(losses.T)
    means = np.stack([_resampled(counts, by_row, weights) for counts in _drawn(len(by_row), resamples, seed)])
    if weights is not None:  # no mean is beyond what it is a mean of, though rounding may make it so
        means = np.clip(means, losses.min(axis=1), losses.max(axis=1))
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    high = np.where(losses.any(axis=1), high, _unseen(rows_that_count(len(by_row), weights)))
    values = mean_losses(losses, weights)
    return [Interval(*map(float, v)) for v in zip(values, low, high, strict=True)]


def _resampled(
    counts: Int[np.ndarray, " rows"],
    by_row: Float[np.ndarray, "rows trials"],
    weights: Float[np.ndarray, " rows"] | None,
) -> Float[np.ndarray, " trials"]:
    if weights is None:
        return counts @ by_row / len(by_row)
    drawn = counts * weights
    return drawn @ by_row / drawn.sum()


def _drawn(rows: int, resamples: int, seed: int) -> Iterator[Int[np.ndarray, " rows"]]:
    """Draw rows with replacement, and say how often each was drawn."""
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(random.integers(0, rows, rows), minlength=rows)


def corrected_p_value(
    first: Float[np.ndarray, " folds"],
    second: Float[np.ndarray, " folds"],
    train_rows: float,
    validation_rows: float,
    weights: Float[np.ndarray, " folds"] | None = None,
) -> float:
    """Test whether two trials differ, from their losses fold by fold.

    Nadeau & Bengio 2003, *Inference for the generalization error*: t = d̄ / √((1/J + n₂/n₁)·s²) with J−1 degrees of
    freedom, where folds overlap in their n₁ training rows and s² is the variance of the J differences. Two-sided.
    With weights v that sum to 1, d̄ = Σ v·d and s² = J²/(J−1) · Σ v²·(d − d̄)², the variance of a weighted mean.

    >>> round(corrected_p_value(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.4, 3.6]), 8, 4), 3)
    0.032
    """
    difference = first - second
    folds = len(difference)
    if folds < 2:
        return 1.0
    mean, variance = _corrected(difference, train_rows, validation_rows, weights)
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), folds - 1))


def one_sided_p_value(
    scores: Float[np.ndarray, " folds"],
    than: Float[np.ndarray, " folds"],
    folds: Folds,
    *,
    higher_is_better: bool,
) -> float:
    """Test whether scores by fold are no better than others: the one-sided test of `corrected_p_value`."""
    train, validation = (float(part.sum(1).mean()) for part in (folds.train, folds.validation))
    two_sided = corrected_p_value(scores, than, train, validation)
    gain = (scores - than).mean() * (1 if higher_is_better else -1)
    return two_sided / 2 if gain > 0 else 1 - two_sided / 2


def corrected_interval(
    losses: Float[np.ndarray, " folds"],
    train_rows: float,
    validation_rows: float,
    weights: Float[np.ndarray, " folds"] | None = None,
) -> Interval:
    """Give the mean of a trial's losses over folds and its 95 % interval, with the variance of `corrected_p_value`.

    Folds learn from the same rows, so their losses vary less than those of folds that had rows of their own. The mean
    three times for a single fold.

    >>> found = corrected_interval(np.array([1.0, 2.0, 3.0]), 8, 4)
    >>> round(found.low, 2), found.value, round(found.high, 2)
    (-1.93, 2.0, 5.93)
    """
    if len(losses) < 2:
        return Interval(*[float(losses[0])] * 3)
    mean, variance = _corrected(losses, train_rows, validation_rows, weights)
    reach = float(stats.t.ppf(0.975, len(losses) - 1)) * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach)


def inflation(folds: int, train_rows: float, validation_rows: float) -> float:
    """Give by what deviations of a mean over folds grow that were drawn with replacement as if they were independent.

    Such a mean has the variance (J−1)/J · s²/J, and `corrected_p_value` one of (1/J + n₂/n₁)·s².

    >>> round(inflation(5, 80, 20), 3)
    1.677
    """
    if folds < 2:
        return 1.0
    return math.sqrt((1 / folds + validation_rows / train_rows) * folds**2 / (folds - 1))


def _corrected(
    values: Float[np.ndarray, " folds"],
    train_rows: float,
    validation_rows: float,
    weights: Float[np.ndarray, " folds"] | None,
) -> tuple[float, float]:
    """Give the mean over folds and its variance."""
    folds = len(values)
    mean, spread = mean_losses(values, weights), values.var(ddof=1)
    if weights is not None:
        shares = weights / weights.sum()
        spread = folds**2 / (folds - 1) * np.square(shares * (values - mean)).sum()
    return float(mean), float(spread * (1 / folds + validation_rows / train_rows))
