"""Copies on both sides of a fold are found; rows that are alike by chance are not."""

import numpy as np
import polars as pl
import pytest

import sights
from foldwise.checks import repeated_rows
from foldwise.checks.changes import together
from foldwise.data.folds import make_folds


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_copies(kind: str) -> None:
    frame = sights.frame(0, kind=kind)
    assert repeated_rows.find(sights.sight(frame)) is None
    sight = sights.sight(pl.concat([frame, frame[:150]]))
    found = repeated_rows.find(sight)
    assert found is not None
    assert found.alarm
    assert "--groups COLUMN" in str(found)
    change = found.remedies[0].folds
    assert change is not None
    assert sight.table is not None
    assert sight.folds is not None
    folds = change(sight.table, sight.folds)
    assert (folds.validation.sum(0) == 1).all()
    assert (folds.validation[:, :150] == folds.validation[:, 300:]).all()
    assert not (folds.train & folds.validation).any()


def test_few_copies_are_a_hint() -> None:
    frame = sights.frame(0)
    found = repeated_rows.find(sights.sight(pl.concat([frame, frame[:8]])))
    assert found is not None
    assert found.sure == "hint"


def test_alike_by_chance() -> None:
    random = np.random.default_rng(0)
    flags = {f"c{i}": random.choice(["a", "b", "c"], 600) for i in range(5)}
    assert (
        repeated_rows.find(sights.sight(pl.DataFrame({**flags, "y": random.choice(["k", "m"], 600)}))) is None
    )


def test_together_keeps_rows_that_are_not_used_out() -> None:
    folds = make_folds(12, 2)
    folds.train[0, 3] = folds.validation[0, 3] = False
    changed = together(folds, np.repeat(np.arange(6), 2))
    assert changed is not None
    assert not (changed.train | changed.validation)[0, 3]
