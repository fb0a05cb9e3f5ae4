"""Classes that are rare in training only; numbers cut by their order; folds drawn at random do not alarm."""

import numpy as np
import pytest

import sights
from foldwise.checks import shifted_targets
from foldwise.data.folds import Folds, make_folds


@pytest.mark.parametrize("kind", ["regression", "binary"])
@pytest.mark.parametrize("seed", range(5))
def test_random_folds(kind: str, seed: int) -> None:
    frame = sights.frame(seed, kind=kind)
    assert shifted_targets.find(sights.sight(frame, make_folds(sights.ROWS, 5, seed=seed))) is None


def test_class_rare_in_training() -> None:
    table = sights.opened(sights.frame(0, kind="binary"))
    folds = make_folds(sights.ROWS, 5, classes=table.targets)
    rare = np.flatnonzero(table.targets == 1)
    train = folds.train.copy()
    train[:, rare[5:]] = False
    mine = shifted_targets.find(sights.sight(table, Folds(train, folds.validation, "by hand")))
    assert mine is not None
    assert mine.alarm
    assert mine.remedies[0].by_hand  # whether other folds would be honest is for those to say who chose these
    assert "on purpose" in mine.evidence
    found = shifted_targets.find(sights.sight(table, Folds(train, folds.validation, folds.how)))
    assert found is not None
    change = found.remedies[0].folds
    assert change is not None
    shares = [table.targets[v].mean() for v in change(table, folds).validation]
    assert np.ptp(shares) < 0.03


def test_numbers_cut_by_order() -> None:
    frame = sights.frame(0).sort("y")
    folds = make_folds(sights.ROWS, numbers=np.repeat(np.arange(5), 60))
    found = shifted_targets.find(sights.sight(frame, folds))
    assert found is not None
    assert "`y`" in found.evidence


@pytest.mark.parametrize("asked", ["loo", 30, 10])
@pytest.mark.parametrize("seed", range(3))
def test_folds_of_few_rows_have_no_distribution(asked: str | int, seed: int) -> None:
    frame = sights.frame(seed, rows=60)
    assert shifted_targets.find(sights.sight(frame, make_folds(60, asked, seed=seed))) is None
