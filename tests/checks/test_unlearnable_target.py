"""Shuffled targets; targets moved by a row; few rows are a hint."""

from dataclasses import replace

import numpy as np
import pytest

import sights
from foldwise.checks import unlearnable_target
from foldwise.checks.finding import Finding


def find(given: np.ndarray | None, seed: int = 0, rows: int = 300) -> Finding | None:
    """Let a network say something that has nothing to do with the targets, which may be others."""
    frame = sights.frame(seed, rows=rows)
    table = sights.opened(frame if given is None else frame.with_columns(y=given))
    said = np.random.default_rng(9).normal(size=(rows, 1))
    sight = sights.sight(table)
    return unlearnable_target.find(replace(sight, out_of_fold=sights.heard(table, said)))


@pytest.mark.parametrize("seed", range(4))
def test_shuffled(seed: int) -> None:
    y = sights.frame(seed)["y"].to_numpy()
    assert find(None, seed) is None
    found = find(np.random.default_rng(seed).permutation(y), seed)
    assert found is not None
    assert found.alarm


def test_moved_by_a_row() -> None:
    found = find(np.roll(sights.frame(0)["y"].to_numpy(), 1))
    assert found is not None
    assert "the row before their own" in found.evidence


def test_few_rows_are_a_hint() -> None:
    y = sights.frame(0, rows=60)["y"].to_numpy()
    found = find(np.random.default_rng(0).permutation(y), rows=60)
    assert found is None or found.sure == "hint"


def test_what_the_linear_model_learned_can_be_learned() -> None:
    frame = sights.frame(0)
    table = sights.opened(frame.with_columns(y=np.random.default_rng(0).permutation(frame["y"].to_numpy())))
    said = np.random.default_rng(9).normal(size=(sights.ROWS, 1))
    sight = replace(sights.sight(table), out_of_fold=sights.heard(table, said))
    worse, better = (
        replace(sights.curve(0.5, 0.5), fold_scores=tuple(scores))
        for scores in ([1.0, 1.1, 1.0, 1.1, 1.0], [0.5, 0.6, 0.6, 0.5, 0.5])
    )
    assert unlearnable_target.find(replace(sight, others={"constant": worse, "linear": better})) is None
    assert unlearnable_target.find(replace(sight, others={"constant": better, "linear": worse})) is not None
