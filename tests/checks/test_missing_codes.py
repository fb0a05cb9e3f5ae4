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


@pytest.mark.parametrize("code", [-999.0, 9999.0])
def test_codes_in_the_target(code: float) -> None:
    gone = pl.Series(np.random.default_rng(0).random(sights.ROWS) < 0.05)
    frame = sights.frame(0).with_columns(y=pl.col("y") + 20)
    assert missing_codes.find(sights.sight(frame)) is None
    coded = frame.with_columns(
        y=pl.when(gone).then(code).otherwise("y"), x0=pl.when(gone).then(-99).otherwise("x0")
    )
    found = missing_codes.find(sights.sight(coded))
    assert found is not None
    assert found.sure == "likely"
    assert found.where == ("y", "x0")
    options = found.remedies[0].options
    assert options == {"missing": {"x0": -99, "y": int(code)}, "drop_missing_targets": True}
    table = sights.opened(coded, **options)
    assert len(table.features) == sights.ROWS - gone.sum()
    assert missing_codes.find(sights.sight(table)) is None


@pytest.mark.parametrize(
    ("code", "columns", "sure"), [(-9, 3, "likely"), (-9, 1, "hint"), (-1, 3, "hint"), (-1, 2, None)]
)
def test_codes_near_the_others(code: int, columns: int, sure: str | None) -> None:
    random = np.random.default_rng(1)
    asked = {
        f"q{i}": pl.Series(np.where(random.random(300) < 0.1, code, random.integers(0, 11 + i, 300)))
        for i in range(columns)
    }
    found = missing_codes.find(sights.sight(sights.frame(0).with_columns(**asked)))
    assert (None if found is None else found.sure) == sure
    assert found is None or found.where == tuple(asked)


@pytest.mark.parametrize(("code", "sure"), [(-999, "likely"), (-98, None)])
def test_few_cells_are_enough_for_a_plain_code(code: int, sure: str | None) -> None:
    frame = sights.frame(0, rows=1000).with_columns(x0=pl.col("x0").exp())
    some = frame.with_columns(x0=pl.when(pl.int_range(1000) < 6).then(code).otherwise("x0"))
    found = missing_codes.find(sights.sight(some))
    assert (None if found is None else found.sure) == sure


def test_numbers_on_both_sides_of_0() -> None:
    random = np.random.default_rng(2)
    frame = sights.frame(0).with_columns(
        balance=pl.Series(random.integers(-9, 10, 300)),
        degrees=pl.Series(random.integers(-1, 6, 300)),
        step=pl.Series(10 * random.integers(-1, 9, 300)),
        clipped=pl.Series(np.maximum(random.normal(1, 1, 300), -1)),
    )
    assert missing_codes.find(sights.sight(frame)) is None


@pytest.mark.parametrize("loss", [-100.0, -5.0, -1.0])
def test_losses_in_the_target_are_no_codes(loss: float) -> None:
    random = np.random.default_rng(1)
    won = random.integers(2, 9, sights.ROWS) + random.random(sights.ROWS)
    y = np.where(random.random(sights.ROWS) < 0.3, loss, won)
    assert missing_codes.find(sights.sight(sights.frame(0).with_columns(y=pl.Series(y)))) is None


def test_a_code_in_the_target_is_said_to_be_there() -> None:
    gone = pl.Series(np.random.default_rng(0).random(sights.ROWS) < 0.05)
    frame = sights.frame(0).with_columns(y=pl.when(gone).then(-999.0).otherwise(pl.col("y") + 20))
    found = missing_codes.find(sights.sight(frame))
    assert found is not None
    assert found.evidence.startswith("the target `y` is -999 in ")
    assert str(found).count("leave out rows whose target is such a code (--missing y=-999 ")
