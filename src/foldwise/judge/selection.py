"""How good the winner is once it is known that it was chosen, and which trials are not worse than the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats


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
) -> Interval:
    """Estimate the winner's loss without the luck of having been chosen.

    BBC-CV (Tsamardinos, Greasidou & Borboudakis 2018, *Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation*): rows are drawn with replacement; the trial that is best on the rows drawn is scored
    on the rows not drawn; value and interval are the mean and the 2.5 % and 97.5 % points over the resamples.
    `losses` holds each trial's out-of-fold loss of each row.
    """
    chosen_among = np.ascontiguousarray(losses[candidates].T)
    rows, trials = chosen_among.shape
    scores = np.full(resamples, np.nan)
    for i, counts in enumerate(_drawn(rows, resamples, seed)):
        outside = counts == 0
        if outside.any():
            best = np.argmin(counts @ chosen_among) if trials > 1 else 0
            scores[i] = chosen_among[outside, best].mean()
    low, high = np.nanquantile(scores, [0.025, 0.975])
    return Interval(float(np.nanmean(scores)), float(low), max(float(high), _unseen(chosen_among, rows)))


def _unseen(losses: np.ndarray, rows: int) -> float:
    """Bound the mean of losses from 0 to 1 that were 0 in every row, where a bootstrap sees nothing but zeros.

    The largest share of errors p under which n rows without error have a probability of 2.5 %: 1 − 0.025^(1/n).
    """
    return 0.0 if losses.any() else 1 - 0.025 ** (1 / rows)


def bootstrap_intervals(
    losses: Float[np.ndarray, "trials rows"], resamples: int = 1000, seed: int = 0
) -> list[Interval]:
    """Give each trial's mean loss and the 2.5 % and 97.5 % points of its mean over rows drawn with replacement."""
    by_row = np.ascontiguousarray(losses.T)
    means = np.stack([counts @ by_row for counts in _drawn(len(by_row), resamples, seed)]) / len(by_row)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    high = np.maximum(high, [_unseen(own, len(by_row)) for own in losses])
    return [Interval(*map(float, v)) for v in zip(losses.mean(axis=1), low, high, strict=True)]


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
) -> float:
    """Test whether two trials differ, from their losses fold by fold.

    Nadeau & Bengio 2003, *Inference for the generalization error*: t = d̄ / √((1/J + n₂/n₁)·s²) with J−1 degrees of
    freedom, where folds overlap in their n₁ training rows and s² is the variance of the J differences. Two-sided.

    >>> round(corrected_p_value(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.4, 3.6]), 8, 4), 3)
    0.032
    """
    difference = first - second
    folds = len(difference)
    if folds < 2:
        return 1.0
    variance = difference.var(ddof=1) * (1 / folds + validation_rows / train_rows)
    if variance == 0:
        return 1.0 if difference.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.mean()) / np.sqrt(variance), folds - 1))
