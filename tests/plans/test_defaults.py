"""The default search is the one that was measured."""

from __future__ import annotations

import json
from pathlib import Path

from foldwise.plans.defaults import DOZEN
from foldwise.settings import Settings

MEASURED = Path(__file__).parents[2] / "benchmarks" / "defaults" / "defaults.json"


def test_default_search_is_what_the_measurement_chose() -> None:
    sizes = {"batch_size", "epochs", "schedule"}  # those of the measurement; a study's own depend on its rows
    chosen = [
        Settings(**{name: value for name, value in found.items() if name not in sizes})
        for found in json.loads(MEASURED.read_text())["chosen"]
    ]
    assert {Settings(**own) for own in DOZEN} == set(chosen)
    assert len(DOZEN) == 12
