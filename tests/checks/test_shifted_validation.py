"""Validation rows that look unlike training rows are found, and folds drawn at random never alarm."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import sights
from foldwise.checks import shifted_validation
from foldwise.data.folds import Folds


def last_fifth(rows: int) -> Folds:
    validation = np.arange(rows)[None] >= rows * 4 // 5
    return Folds(~validation, validation, "the last fifth")


@pytest.mark.parametrize("seed", range(10))
def test_random_folds(seed: int) -> None:
    frame = sights.frame(seed)
    assert shifted_validation.find(sights.sight(frame)) is None
    assert shifted_validation.find(sights.sight(frame, last_fifth(sights.ROWS))) is None


def test_other_constants() -> None:
    frame = sights.frame(0)
    late = pl.Series(np.arange(sights.ROWS) >= sights.ROWS * 4 // 5)
    moved = frame.with_columns(
        pl.when(late).then(pl.col("x0") * 0.5 + 1.5).otherwise(pl.col("x0")).alias("x0")
    )
    found = shifted_validation.find(sights.sight(moved, last_fifth(sights.ROWS)))
    assert found is not None
    assert found.sure == "likely"
    assert found.where[0] == "x0"
    assert found.remedies[0].by_hand  # these folds were chosen
    assert found.remedies[0].aim != "honest"
    assert found.evidence.endswith("unless these folds are so on purpose")
    drawn = replace(last_fifth(sights.ROWS), how="5-fold cross-validation")
    found = shifted_validation.find(sights.sight(moved, drawn))
    assert found is not None
    assert not found.remedies[0].by_hand
    assert "on purpose" not in found.evidence


def test_folds_in_time_are_a_hint() -> None:
    frame = sights.frame(0).sort("x0").with_columns(moment=np.arange(sights.ROWS))
    found = shifted_validation.find(sights.sight(sights.opened(frame, time="moment")))
    assert found is not None
    assert found.sure == "hint"


def test_auc_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    said, yes = random.integers(0, 5, 40).astype(float), random.random(40) < 0.4
    assert shifted_validation.auc(said, yes) == pytest.approx(roc_auc_score(yes, said))
