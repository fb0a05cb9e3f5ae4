"""An accuracy no better than that of the frequent class; other metrics and real gains are spared."""

from dataclasses import replace

import numpy as np
import polars as pl

import sights
from foldwise.checks import imbalanced_accuracy
from foldwise.judge.metrics import METRICS


def test_frequent_class() -> None:
    frame = sights.frame(0, rows=600)
    rare = frame["y"] > frame["y"].quantile(0.93)
    table = sights.opened(frame.with_columns(y=pl.when(rare).then(pl.lit("ill")).otherwise(pl.lit("well"))))
    ill = np.clip(0.15 + 0.1 * frame["y"].to_numpy(), 0.01, 0.49)
    sight = sights.sight(table, out_of_fold=sights.heard(table, np.stack([ill, 1 - ill], 1)))
    found = imbalanced_accuracy.find(sight)
    assert found is not None
    assert "class well" in found.evidence
    assert (
        "balanced accuracy, for which all classes do, is 50.0 % (saying so always: 50.0 %)" in found.evidence
    )
    change = found.remedies[0].table
    assert change is not None
    assert change(table).weighting.classes == "balanced"
    assert imbalanced_accuracy.find(replace(sight, metric=METRICS["log_loss"])) is None
    assert imbalanced_accuracy.find(replace(sight, table=change(table))) is None
    right = np.eye(2)[table.targets]
    assert imbalanced_accuracy.find(replace(sight, out_of_fold=sights.heard(table, right))) is None
