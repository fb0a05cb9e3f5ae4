"""A trial's predictions of rows that its networks had not seen, and which folds said them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from foldwise.data.folds import Folds

FEW = 50  # folds that are enough to tell whether they are in time
MEMBER = ("trial", "seed", "fold", "row")


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold predictions, averaged over seeds: a line for each fold and row that it validates.

    `place` is the row's place among those of the study, `values` are probabilities, or numbers as they are learnt.
    """

    fold: Int[np.ndarray, " lines"]
    place: Int[np.ndarray, " lines"]
    values: Float[np.ndarray, "lines outputs"]


@dataclass(frozen=True)
class Judges:
    """Which folds judge which rows: a row is predicted by the mean over the folds that validate it.

    `places` are the rows that any fold validates, `which` the set of folds of each, `sets` those sets.
    """

    places: Int[np.ndarray, " validated"]
    which: Int[np.ndarray, " validated"]
    sets: Bool[np.ndarray, "sets folds"]

    def over(self, by_fold: Float[np.ndarray, "folds ..."]) -> Float[np.ndarray, "sets ..."]:
        """Average what each fold says over the folds of each set."""
        shares = self.sets / self.sets.sum(axis=1, keepdims=True)
        return np.tensordot(shares, by_fold, axes=1)


def held_out(
    predictions: pl.DataFrame, trial: int, row: Int[np.ndarray, " rows"], *, log: bool = False
) -> HeldOut:
    """Collect a trial's (counted from 1) lines of `study.predictions`; `row` numbers the study's rows.

    With `log`, predictions are means of logarithms: those of a target that is learnt on the logarithm.

    >>> lines = pl.DataFrame({"trial": [1, 1], "seed": [0, 1], "fold": [1, 1], "row": [7, 7], "prediction": [1.0, 3.0]})
    >>> held_out(lines, 1, np.array([5, 7])).place, held_out(lines, 1, np.array([5, 7])).values
    (array([1]), array([[2.]]))
    """
    own = predictions.filter(pl.col("trial") == trial)
    shown = [name for name in own.columns if name not in MEMBER]
    values = pl.col(shown).cast(pl.Float64)
    learnt = values.log() if log else values
    means = own.group_by("fold", "row").agg(learnt.mean()).sort("fold", "row")
    return HeldOut(
        means["fold"].to_numpy() - 1,
        np.searchsorted(row, means["row"].to_numpy()),
        means.select(shown).to_numpy(),
    )


def judges_of(folds: Folds) -> Judges:
    """Group the validated rows by the folds that validate them.

    >>> from foldwise.data.folds import make_folds
    >>> judges_of(make_folds(4, 2)).sets.sum(axis=1)
    array([1, 1])
    """
    places = np.flatnonzero(folds.validation.any(axis=0))
    sets, which = np.unique(folds.validation[:, places], axis=1, return_inverse=True)
    return Judges(places, which.reshape(-1), sets.T)


def over_folds(held: HeldOut, rows: int) -> Float[np.ndarray, "rows outputs"]:
    """Average each row's predictions over the folds that validate it; NaN for rows of no fold."""
    total, count = np.zeros((rows, held.values.shape[1])), np.zeros((rows, 1))
    np.add.at(total, held.place, held.values)
    np.add.at(count, held.place, 1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def in_time(folds: Folds) -> bool:
    """Tell whether folds are ordered: of no two does each learn from rows that the other is scored on.

    >>> from foldwise.data.folds import make_folds
    >>> in_time(make_folds(9, 3)), in_time(make_folds(9, 2, time=np.arange(9)))
    (False, True)
    """
    if len(folds) < 2:
        return False
    train, validation = (part[:FEW].astype(np.float32) for part in (folds.train, folds.validation))
    meets = validation @ train.T > 0
    return not bool((meets & meets.T).any())
