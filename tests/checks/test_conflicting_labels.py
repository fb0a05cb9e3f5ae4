"""Copies with another target; coarse tables in which rows are alike by chance do not alarm."""

import numpy as np
import polars as pl
import pytest

import sights
from foldwise.checks import conflicting_labels
from foldwise.checks.order import findings_of


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_two_labels(kind: str) -> None:
    frame = sights.frame(0, kind=kind)
    again = frame[:90].with_columns(y=frame["y"][100:190])
    assert conflicting_labels.find(sights.sight(frame)) is None
    sight = sights.sight(pl.concat([frame, again]))
    found = conflicting_labels.find(sight)
    assert found is not None
    assert found.alarm
    assert findings_of(sight)[0].code == "conflicting-labels"
    assert all(r.by_hand for r in found.remedies)  # the labels that tell would also confirm it


@pytest.mark.parametrize("seed", range(3))
def test_coarse_tables(seed: int) -> None:
    random = np.random.default_rng(seed)
    common = random.normal(size=600)
    columns = {
        f"c{i}": [f"q{v}" for v in np.digitize(common + 0.3 * random.normal(size=600), [-0.7, 0, 0.7])]
        for i in range(8)
    }
    frame = pl.DataFrame({**columns, "y": common + random.normal(size=600)})
    found = conflicting_labels.find(sights.sight(frame))
    assert found is None or not found.alarm
