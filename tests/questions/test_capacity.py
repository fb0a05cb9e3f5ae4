"""Capacity: the theory of the linear classifier, and what makes networks able to learn more by heart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import foldwise
from foldwise.judge.metrics import METRICS
from foldwise.questions.capacity import Tried, _closer, half_point, surely
from foldwise.questions.numbers import finished
from foldwise.study import Study
from foldwise.terminal import Display

FEATURES = 3


class Told(Display):
    """Keeps what it is told to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def wait(self, why: str) -> None:
        self.lines.append(why)


def study_of(rows: int, features: int, settings: dict[str, Any], kind: str = "binary") -> tuple[Study, Any]:
    """Fit points in general position, whose real labels do not matter."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, features))
    y = x[:, 0] if kind == "regression" else (x[:, 0] > 0).astype(int)
    study = foldwise.fit(
        x, y, search={"epochs": 1, "optimizer": "adam", "scaling": "standard", **settings}, folds=2
    )
    return study, (x, y)


@pytest.mark.slow
def test_the_linear_classifier_has_the_capacity_that_theory_says() -> None:
    """VC dimension d + 1; of n points C(n, d) = 2·Σ_{k≤d} (n−1 choose k) of 2ⁿ labellings, half at n = 2(d + 1)."""
    settings = {"network": "linear", "learning_rate": 0.1, "batch_size": 16, "schedule": "constant"}
    study, data = study_of(14, FEATURES, settings)
    labellings = 100
    answer = study.capacity(trial=4, data=data, labellings=labellings, steps=1500)
    assert answer.facts["every"] == FEATURES + 1
    assert answer.facts["half"] == pytest.approx(2 * (FEATURES + 1), abs=1)
    for n, share in answer.table.select("rows", "share").iter_rows():
        known = min(1.0, 2 * sum(math.comb(n - 1, k) for k in range(FEATURES + 1)) / 2**n)
        error = math.sqrt(known * (1 - known) / labellings)
        assert (
            abs(share - known) <= 4 * error + 0.03
        )  # a margin may be too small to be found in so many steps


@pytest.mark.slow
def test_it_grows_with_width_and_falls_with_weight_decay() -> None:
    settings = {
        "network": "mlp",
        "depth": 1,
        "learning_rate": 0.02,
        "optimizer": "adamw",
        "schedule": "constant",
    }
    narrow, narrow_data = study_of(200, 5, {**settings, "width": 2})
    wide, _ = study_of(200, 5, {**settings, "width": 10})
    held, _ = study_of(200, 5, {**settings, "width": 10, "weight_decay": 3.0})
    found = [
        s.capacity(trial=4, data=narrow_data, labellings=5, steps=800).facts for s in (narrow, wide, held)
    ]
    assert found[1]["half"] > 2 * found[0]["half"]
    assert found[2]["half"] < 0.6 * found[1]["half"]
    assert found[1]["parameters"] == 10 * 6 + 11
    assert found[1]["weight_norm"] > 0


def test_a_table_that_is_too_small_says_so() -> None:
    study, data = study_of(8, 3, {"network": "mlp", "width": 64, "learning_rate": 0.01}, "regression")
    told = Told()
    answer = study.capacity(trial=4, data=data, labellings=3, steps=900, display=told)
    [said] = [line for line in told.lines if line.startswith("job")]  # all sizes are fitted at once
    assert said.startswith("job 1 of at most 4: 3 sizes × 3 labellings; at most about ")
    assert answer.facts["every"] == 8
    assert "larger than this table" in answer.sentence


def test_half_is_found_in_shares_that_go_up_and_down() -> None:
    assert half_point(np.array([2.0, 4.0, 6.0, 8.0]), np.array([1.0, 0.4, 0.6, 0.0])) == 4.0
    assert math.isnan(half_point(np.array([2.0, 4.0]), np.array([1.0, 0.9])))
    assert half_point(np.array([10.0, 20.0]), np.array([1.0, 0.0])) == 15.0


def test_a_constant_is_refused() -> None:
    study, data = study_of(8, 3, {"width": 4})
    with pytest.raises(foldwise.FoldwiseError, match="does not learn in steps"):
        study.capacity(trial=1, data=data)


def test_a_size_counts_only_when_all_labellings_were_fitted() -> None:
    tried = {n: Tried(fitted, 1.0, 1) for n, fitted in ((2, 3), (4, 3), (8, 0))}
    assert surely(tried, 3) == 4
    assert surely(tried, 10) == 1
    assert _closer(tried, 3, 8) == [5, 6, 7]
    assert not _closer(tried, 10, 8)  # five, half of ten, were fitted nowhere, and 1 and 2 have none between


def test_a_loss_that_is_none_is_no_perfect_score() -> None:
    for metric in METRICS.values():
        assert np.isnan(finished(metric, np.array([np.nan]))).all()
    assert finished(METRICS["accuracy"], np.array([-0.1, 1.2])).tolist() == [1.0, 0.0]
