"""A fold that is scored on what it learned from."""

import sights
from foldwise.checks import overlapping_folds
from foldwise.data.folds import Folds, make_folds


def test_rows_on_both_sides() -> None:
    folds = make_folds(sights.ROWS, 5)
    assert overlapping_folds.find(sights.sight(sights.frame(0), folds)) is None
    train = folds.train.copy()
    train[2] |= folds.validation[2]
    sight = sights.sight(sights.frame(0), Folds(train, folds.validation, "by hand"))
    found = overlapping_folds.find(sight)
    assert found is not None
    assert found.sure == "sure"
    assert "fold 3 learns from 60 of the 60" in found.evidence
    change = found.remedies[0].folds
    assert change is not None
    assert sight.table is not None
    assert change(sight.table, folds).same_as(folds)
