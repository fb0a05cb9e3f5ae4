"""Codes for missing cells are found and can be read as missing; zeros, flags and long tails are not codes."""

import numpy as np
import polars as pl
import pytest

import sights
from foldwise.checks import missing_codes


@pytest.mark.parametrize("code", [-999.0, 99999.0, -1000.0])
def test_codes(code: float) -> None:
    frame = sights.frame(0)
    assert missing_codes.find(sights.sight(frame)) is None
    gone = pl.Series(np.random.default_rng(0).random(sights.ROWS) < 0.1)
    wide = pl.col("x0").exp() * 100 + 1
    coded = frame.with_columns(pl.when(gone).then(code).otherwise(wide).alias("x0"))
    found = missing_codes.find(sights.sight(coded))
    assert found is not None
    assert found.where == ("x0",)
    assert found.remedies[0].aim == "better"
    change = found.remedies[0].table
    assert change is not None
    table = change(sights.opened(coded))
    place = [f.name for f in table.columns.features].index("x0")
    assert np.array_equal(np.isnan(table.features[:, place]), gone.to_numpy())
    assert "x0 is missing" in [f.name for f in table.columns.features]


def test_zeros_and_long_tails() -> None:
    random = np.random.default_rng(0)
    frame = sights.frame(0).with_columns(
        zeros=pl.Series(np.where(random.random(300) < 0.9, 0, random.integers(20, 30, 300))),
        tail=pl.Series(np.exp(3 * random.normal(size=300))),
        capped=pl.Series(np.minimum(random.integers(0, 130, 300), 99)),
    )
    assert missing_codes.find(sights.sight(frame)) is None


@pytest.mark.parametrize(("most", "sure"), [(40, "hint"), (8, "likely")])
def test_two_nines_may_be_the_top_of_a_form(most: int, sure: str) -> None:
    random = np.random.default_rng(0)
    values = np.where(random.random(sights.ROWS) < 0.05, 99, random.integers(0, most, sights.ROWS))
    found = missing_codes.find(sights.sight(sights.frame(0).with_columns(age=pl.Series(values))))
    assert found is not None
    assert found.sure == sure
