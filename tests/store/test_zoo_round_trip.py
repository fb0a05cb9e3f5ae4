"""Every network, start and recipe of the zoo is saved and loads again, and predicts the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import foldwise
import studies
import zoo

pytestmark = pytest.mark.slow  # together they take minutes

QUICK = {"epochs": 2, "batch_size": 16}


def check(tmp_path: Path, search: dict[str, Any], net: zoo.Network) -> None:
    """Save and load a study; compare what it says and predicts."""
    frame = studies.table("multiclass")
    study = foldwise.fit(frame, target="kind", search={**search, **QUICK}, net=net.net, folds=2)
    loaded = foldwise.load(study.save(tmp_path / "run"), net=net.net)
    assert loaded.plan == study.plan
    assert loaded.leaderboard.equals(study.leaderboard)
    for trial in range(1, len(study.plan.trials) + 1):
        assert loaded.predict(frame, trial=trial).equals(study.predict(frame, trial=trial))
    assert loaded.history.equals(study.history)


@pytest.mark.parametrize("network", [n for n in zoo.NETWORKS if n not in ("constant",)])
def test_every_network(tmp_path: Path, network: str) -> None:
    net = zoo.NETWORKS[network]
    own = ("network", "takes", "initialization") if net.net else ()
    search = {name: value for name, value in net.settings.items() if name not in own}
    check(tmp_path, search, net)


@pytest.mark.parametrize("scheme", zoo.INITIALIZATIONS)
def test_every_start(tmp_path: Path, scheme: str) -> None:
    if scheme != "own":
        check(tmp_path, {"width": 4, "initialization": scheme}, zoo.NETWORKS["mlp relu"])


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("recipe", [r for r in zoo.RECIPES if not zoo.RECIPES[r].links])
def test_every_recipe(tmp_path: Path, recipe: str, place: int) -> None:
    net, doing = zoo.NETWORKS["mlp relu"], zoo.RECIPES[recipe]
    own = zoo._named_blocks({**doing.trials[place], **doing.shared}, net)
    check(tmp_path, {**net.settings, **own}, net)
