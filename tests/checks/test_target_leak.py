"""A column that is the target is found, alone or with others; a strong honest column is not."""

import numpy as np
import polars as pl
import pytest

import sights
from foldwise.checks import target_leak
from foldwise.checks.sample import beside, standardized


@pytest.mark.parametrize("kind", ["regression", "binary"])
@pytest.mark.parametrize("seed", range(2))
def test_copy_of_the_target(kind: str, seed: int) -> None:
    frame = sights.frame(seed, kind=kind)
    assert target_leak.find(sights.sight(frame)) is None
    answer = frame["y"] if kind == "regression" else (frame["y"] == "yes").cast(pl.String) + "!"
    found = target_leak.find(sights.sight(frame.with_columns(copy=answer)))
    assert found is not None
    assert found.where == ("copy",)
    change = found.remedies[0].table
    assert change is not None
    table = change(sights.opened(frame.with_columns(copy=answer)))
    assert "copy" not in [f.column for f in table.columns.features]
    assert table.features.shape[1] == sights.opened(frame).features.shape[1]


def test_two_leaks_do_not_hide_each_other() -> None:
    frame = sights.frame(0).with_columns(first=pl.col("y") * 3, second=-pl.col("y"))
    found = target_leak.find(sights.sight(frame))
    assert found is not None
    assert set(found.where) == {"first", "second"}


def test_number_in_the_order_of_the_target() -> None:
    frame = sights.frame(0)
    frame = frame.with_columns(number=(frame["y"].rank() * 7).cast(pl.Int64))
    found = target_leak.find(sights.sight(frame))
    assert found is not None
    assert found.where == ("number",)


def test_beside_against_a_loop() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=30), standardized(random.normal(size=(30, 1)))
    order = np.argsort(x)
    said = np.zeros(30)
    for place, row in enumerate(order):
        first = min(max(place - 2, 0), 25)
        near = [r for r in order[first : first + 5] if r != row]
        said[row] = y[near, 0].mean()
    assert beside(x[:, None], y)[0] == pytest.approx(1 - np.square(said - y[:, 0]).sum() / 30)


@pytest.mark.parametrize("cause", ["a wave", "a border", "a line, of noise alone"])
@pytest.mark.parametrize("seed", range(3))
def test_one_cause_is_a_hint(cause: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(300, 6))
    if cause != "a line, of noise alone":
        x[:, 1:] += x[:, :1]  # so that the others know something
    first = x[:, 0]
    wave = np.sin(3 * first) + 0.01 * random.normal(size=300)
    y = {"a wave": wave, "a border": np.where(first > 0, "a", "b")}.get(cause, first)
    found = target_leak.find(sights.sight(pl.DataFrame({**{f"x{i}": x[:, i] for i in range(6)}, "y": y})))
    assert found is not None
    assert found.where == ("x0",)
    assert found.sure == "hint"


@pytest.mark.parametrize("kind", ["regression", "binary"])
@pytest.mark.parametrize("form", ["copy", "noisy copy", "number"])
def test_answers_are_alarms(kind: str, form: str) -> None:
    frame, random = sights.frame(3, kind=kind), np.random.default_rng(3)
    y = (frame["y"] if kind == "regression" else frame["y"] == "yes").cast(pl.Float64).to_numpy()
    ranks = np.argsort(np.argsort(y, kind="stable")) * 3.0 + random.integers(0, 3, len(y))
    noisy = y + 0.05 * y.std() * random.normal(size=len(y))
    leak = {"copy": y, "noisy copy": noisy, "number": ranks}[form]
    found = target_leak.find(sights.sight(frame.with_columns(leak=pl.Series(leak))))
    assert found is not None
    assert found.where == ("leak",)
    assert found.alarm


@pytest.mark.parametrize("kind", ["counts", "difference", "three", "logarithm"])
@pytest.mark.parametrize("seed", range(2))
def test_sum_of_columns(kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    frame = sights.frame(seed)
    known = frame["y"].to_numpy()
    first, second = random.poisson(np.exp(2 + 0.5 * known)), random.poisson(np.exp(3 + 0.3 * known))
    third = np.round(random.normal(5, 2, sights.ROWS), 2)
    y = {
        "counts": first + second,
        "difference": 3.5 * first - second,
        "three": first + second + third,
        "logarithm": 100 * (first + 3.0 * second) ** 1.0 + 1,
    }[kind]
    given = frame.with_columns(first=pl.Series(first), second=pl.Series(second), third=pl.Series(third))
    given = given.with_columns(again=2 * pl.col("first") + 1)  # one that says the same
    found = target_leak.find(sights.sight(given.with_columns(y=pl.Series(y).cast(pl.Float64))))
    assert found is not None
    assert found.sure == "likely"
    assert len(found.where) == (3 if kind == "three" else 2)
    assert set(found.where) <= {"first", "again", "second", "third"}
    # a unit that is lost in one row of ten is no rounding, and the columns are honest
    off = y + (random.random(sights.ROWS) < 0.1) * random.choice([-30, 30], sights.ROWS)
    off = off + 0.5 * np.std(y) * random.normal(size=sights.ROWS)
    assert target_leak.find(sights.sight(given.with_columns(y=pl.Series(off)))) is None


@pytest.mark.parametrize(("informative", "sure"), [(2, "hint"), (3, "hint"), (6, None)])
def test_made_by_a_formula(informative: int, sure: str | None) -> None:
    x = np.random.default_rng(0).normal(size=(200, 10))
    y = x[:, :informative] @ np.linspace(1, 3, informative)
    found = target_leak.find(sights.sight(pl.DataFrame({**{f"x{i}": x[:, i] for i in range(10)}, "y": y})))
    assert (None if found is None else found.sure) == sure


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
def test_a_sum_is_written_as_it_is(dtype: type[pl.DataType]) -> None:
    def said(y: pl.Expr) -> str:
        found = target_leak.find(sights.sight(given.with_columns(y=y).cast({pl.Float64: dtype})))
        assert found is not None
        assert set(found.where) <= {"a", "b", "day"}
        return found.evidence

    frame, random = sights.frame(0), np.random.default_rng(0)
    a, b = pl.Series(frame["y"] + random.normal(size=300)), pl.Series(random.normal(size=300) + 20)
    given = frame.with_columns(a=a, b=b)
    assert "is exactly `a` + `b` in all" in said(pl.col("a") + pl.col("b"))
    assert "is exactly `a` − `b` + 100 in all" in said(pl.col("a") - pl.col("b") + 100)
    if dtype == pl.Float64:  # cells of 32 bits are no nearer to a third
        assert "without any error, ≈ 0.333333·`a` + `b`, in all" in said(pl.col("a") / 3 + pl.col("b"))
    weekday = pl.col("day").dt.year().cast(pl.Float64) + pl.col("a")
    assert "`day year`" in said(weekday)
