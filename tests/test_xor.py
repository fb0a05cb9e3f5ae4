"""Exclusive or: what no line separates, a hidden layer or a feature map does, whatever the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import foldwise
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.study import Study

LOSSES = [loss for loss in LOSSES_OF_TASK["binary"] if loss != "custom"]
NETWORKS: dict[str, dict[str, Any]] = {
    "linear": {"network": "linear"},
    "mlp": {"network": "mlp", "width": 16, "depth": 1},
    "polynomial": {"network": "linear", "feature_map": "polynomial"},
    "fourier": {"network": "linear", "feature_map": "fourier", "feature_count": 100, "fourier_scale": 0.5},
    "residual": {"network": "residual", "width": 16, "depth": 1},
}


def corners(rows: int = 240) -> pl.DataFrame:
    """Draw points whose answer is whether their two signs differ; few lie near a border."""
    random = np.random.default_rng(0)
    signs = random.choice([-1.0, 1.0], size=(rows, 2))
    x = signs + random.normal(scale=0.25, size=signs.shape)
    return pl.DataFrame(
        {"x": x[:, 0], "y": x[:, 1], "differ": np.where(signs[:, 0] != signs[:, 1], "yes", "no")}
    )


def learnt(**own: Any) -> Study:
    """Train some networks on it."""
    rate = {"epochs": 30, "learning_rate": 0.03, "batch_size": 32}
    search = [{**network, **rate, **own} for network in NETWORKS.values()]
    return foldwise.fit(corners(), target="differ", search=search, folds=2, metric="accuracy")


def scores(study: Study) -> dict[str, float]:
    """Give the accuracy of each network, by its name here; the baselines are left out."""
    found = {}
    for result in study.results:
        s = result.settings
        if s.learning_rate == 0.03:
            found[s.network if s.feature_map == "none" else s.feature_map] = result.score
    assert set(found) == set(NETWORKS)
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_what_learns_exclusive_or(loss: str) -> None:
    found = scores(learnt(loss=loss))
    assert found.pop("linear") <= 0.75
    assert min(found.values()) > 0.95, found


def test_a_stored_run_with_feature_maps_predicts_as_before(tmp_path: Path) -> None:
    made = learnt()
    made.save(tmp_path / "run")
    again = foldwise.load(tmp_path / "run")
    table = corners(20)
    for result in made.results:
        assert again.predict(table, trial=result.number).equals(made.predict(table, trial=result.number))
