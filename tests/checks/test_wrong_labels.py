"""Labels mixed up are found where the rest is clear; classes that overlap are no more than a hint."""

import numpy as np
import pytest

import sights
from foldwise.checks import wrong_labels
from foldwise.checks.sight import Sight

ROWS = 1500


def clear(seed: int, share: float, slope: float = 8.0) -> tuple[Sight, np.ndarray]:
    """Show what a right model says where a share of the labels are mixed up."""
    random = np.random.default_rng(seed)
    frame = sights.frame(seed, rows=ROWS, kind="binary")
    signal = frame["x0"].to_numpy()
    p = 1 / (1 + np.exp(-slope * signal))
    wrong = random.random(ROWS) < share
    truth = np.where(wrong, random.random(ROWS) < 0.5, random.random(ROWS) < p)
    table = sights.opened(frame.with_columns(y=np.where(truth, "yes", "no")))
    p = share / 2 + (1 - share) * p
    return sights.sight(table, out_of_fold=sights.heard(table, np.stack([1 - p, p], 1))), wrong


@pytest.mark.parametrize("seed", range(3))
def test_mixed_up(seed: int) -> None:
    sight, _ = clear(seed, 0.35, slope=40.0)
    found = wrong_labels.find(sight)
    assert found is not None
    assert found.alarm
    assert all(r.folds is None for r in found.remedies)  # the labels that tell would also confirm it


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_overlap(seed: int, slope: float) -> None:
    found = wrong_labels.find(clear(seed, 0.0, slope)[0])
    assert found is None or not found.alarm
