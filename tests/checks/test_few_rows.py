"""Folds that leave rows out alarm; few rows are a hint; what is not learned by heart is neither."""

import numpy as np

import sights
from foldwise.checks import few_rows
from foldwise.data.folds import Folds, make_folds


def test_rows_left_out() -> None:
    folds = make_folds(sights.ROWS, 5)
    thin = Folds(folds.train & (np.arange(sights.ROWS) % 10 == 0), folds.validation, "thin")
    sight = sights.sight(sights.frame(0), thin, curve=sights.curve(0.1, 0.8))
    found = few_rows.find(sight)
    assert found is not None
    assert found.alarm
    change = found.remedies[0].folds
    assert change is not None
    assert sight.table is not None
    assert change(sight.table, thin).same_as(folds)
    assert few_rows.find(sights.sight(sights.frame(0), thin, curve=sights.curve(0.7, 0.8))) is None


def test_few_rows_are_a_hint() -> None:
    found = few_rows.find(sights.sight(sights.frame(0, rows=60), curve=sights.curve(0.1, 0.8)))
    assert found is not None
    assert found.sure == "hint"
    assert few_rows.find(sights.sight(sights.frame(0, rows=600), curve=sights.curve(0.1, 0.8))) is None
