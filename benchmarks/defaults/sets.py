"""The real data sets on which defaults are chosen, read from ../shared/data beside the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

SETS: dict[str, dict[str, Any]] = {
    "penguins": {"data": "penguins/penguins.csv", "target": "species"},
    "adult": {"data": "adult/adult-train.csv", "target": "column_14"},
    "abalone": {"data": "abalone/abalone.csv", "target": "column_8", "task": "regression"},
    "wine-quality": {"data": "wine-quality/winequality-red.csv", "target": "column_11", "task": "regression"},
    "california-housing": {"data": "california-housing/housing.csv", "target": "median_house_value"},
    "ames": {"data": "ames/ames.csv", "target": "price", "log_target": True},
    "diamonds": {"data": "diamonds/diamonds.csv", "target": "price"},
    "credit-g": {"data": "credit-g/german.csv", "target": "column_20"},
    "phoneme": {"data": "phoneme/phoneme.csv", "target": "column_5"},
    "spambase": {"data": "spambase/spambase.data", "target": "column_57"},
    "bike-sharing": {
        "data": "bike-sharing/hour.csv",
        "target": "cnt",
        "task": "regression",
        "drop": ("casual", "registered"),
    },
    "higgs-sample": {"data": "higgs-sample/binary.train", "target": "column_0", "separator": "\t"},
    "letter": {"data": "letter/letter-recognition.data", "target": "Letter"},
}


def options(name: str) -> dict[str, Any]:
    """Give the arguments of `foldwise.fit` for a set."""
    found = dict(SETS[name])
    return {**found, "data": DATA / found["data"]}
