"""Groups are found by a column, also a set-aside one, and by rows nearly alike; categories that matter are not."""

import numpy as np
import polars as pl
import pytest

import sights
from foldwise.checks import shared_groups


def grouped(seed: int, each: int = 6) -> pl.DataFrame:
    """Draw rows of 60 groups that share inputs nearly, and the target, which no input tells."""
    random = np.random.default_rng(seed)
    names = np.repeat(np.arange(60), each)
    x, y = random.normal(size=(60, 5))[names], random.normal(size=60)[names]
    x = x + 0.05 * random.normal(size=x.shape)
    frame = pl.DataFrame({**{f"x{i}": x[:, i] for i in range(5)}, "who": [f"p{n}" for n in names], "y": y})
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_named_groups(seed: int) -> None:
    sight = sights.sight(grouped(seed))
    found = shared_groups.find(sight)
    assert found is not None
    assert found.alarm
    assert found.where == ("who",)
    change = found.remedies[0].folds
    assert change is not None
    assert sight.table is not None
    assert sight.folds is not None
    folds, who = change(sight.table, sight.folds), sight.table.frame["who"].to_numpy()
    assert not any(set(who[t]) & set(who[v]) for t, v in zip(folds.train, folds.validation, strict=True))
    assert shared_groups.find(sights.sight(sights.opened(grouped(seed), groups="who"))) is None


@pytest.mark.parametrize("seed", range(3))
def test_groups_without_a_name(seed: int) -> None:
    found = shared_groups.find(sights.sight(grouped(seed).drop("who")))
    assert found is not None
    assert "nearer" in found.evidence


@pytest.mark.parametrize("kind", ["regression", "binary"])
@pytest.mark.parametrize("seed", range(3))
def test_healthy_categories_and_counts(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    frame = sights.frame(seed, kind=kind).with_columns(
        age=(40 + 10 * pl.col("x0")).cast(pl.Int64),
        town=pl.Series([f"t{n}" for n in random.geometric(0.08, sights.ROWS)]),
    )
    assert shared_groups.find(sights.sight(frame)) is None


@pytest.mark.parametrize("kind", ["normal", "circle", "curve", "torus", "grid"])
@pytest.mark.parametrize("rows", [40, 200, 400])
@pytest.mark.parametrize("seed", range(2))
def test_smooth_targets_of_few_dimensions(kind: str, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 6, size=(rows, 2))
    inputs = {
        "normal": random.normal(size=(rows, 3)),
        "circle": np.column_stack([np.sin(angle[:, 0]), np.cos(angle[:, 0])]),
        "curve": np.sin(angle[:, :1] * np.arange(1, 5)),
        "torus": np.column_stack([np.sin(angle), np.cos(angle)]),
        "grid": random.integers(0, 9, size=(rows, 2)) / 9,
    }[kind]
    y = np.sin(inputs @ random.normal(size=inputs.shape[1])) + 0.01 * random.normal(size=rows)
    frame = pl.DataFrame({**{f"x{i}": x for i, x in enumerate(inputs.T)}, "y": y})
    assert shared_groups.find(sights.sight(frame)) is None
