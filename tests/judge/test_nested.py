"""What is chosen by curves inside outer folds, and how the choices are scored."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foldwise.judge.nested import Choice, Nested, choose, inner_means, interval_of


@given(st.integers(0, 10_000))
def test_choices_are_those_of_plain_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    trials, outer, inner, epochs = random.integers(1, 5, size=4)
    losses = random.integers(0, 6, size=(trials, outer, inner, epochs)).astype(
        float
    )  # so that there are ties
    losses[random.random(losses.shape) < 0.1] = np.nan
    counts = random.integers(1, 9, size=(outer, inner)).astype(float)
    chosen = choose(inner_means(losses, counts))
    for fold in range(outer):
        best, found = math.inf, (0, 0)
        for trial in range(trials):
            for epoch in range(epochs):
                rows = total = 0.0
                for i in range(inner):
                    loss = losses[trial, fold, i, epoch]
                    total += (math.inf if math.isnan(loss) else loss) * counts[fold, i]
                    rows += counts[fold, i]
                if total / rows < best - 1e-12:
                    best, found = total / rows, (trial, epoch)
        means = inner_means(losses, counts)[:, fold]
        assert means[found] == means.min()
        assert means[chosen[0][fold], chosen[1][fold]] == means.min()


def test_of_equal_means_the_first_trial_and_epoch_are_chosen() -> None:
    trial, epoch = choose(np.array([[[2.0, 1.0, 1.0]], [[1.0, 2.0, 1.0]]]))
    assert (trial.item(), epoch.item()) == (0, 1)


def test_an_inner_fold_that_is_not_there_does_not_count() -> None:
    losses = np.array([[[[1.0], [5.0], [np.nan]]]])
    assert inner_means(losses, np.array([[1.0, 3.0, 0.0]])).item() == 4.0


def test_the_interval_is_that_of_the_rows_that_are_scored() -> None:
    losses = np.random.default_rng(0).normal(3, 1, 400)
    found = interval_of(np.append(losses, np.nan))
    half = 1.96 * losses.std() / math.sqrt(400)
    assert found.value == losses.mean()
    np.testing.assert_allclose([found.low, found.high], [found.value - half, found.value + half], atol=0.02)
    assert math.isnan(interval_of(np.array([1.0, np.inf])).value)


def test_choices_are_counted() -> None:
    def choice(fold: int, trial: int) -> Choice:
        return Choice(fold, trial, "ab"[trial - 1], 3, 0.5, 0.6)

    nested = Nested(15, (choice(1, 2), choice(2, 1), choice(3, 2)))
    assert nested.chosen == [(2, "b", 2), (1, "a", 1)]
    assert nested.sentence == "of 3 outer folds, the folds inside chose trial 2 (b) in 2, trial 1 (a) in 1"
    assert "trial 2 (b)" in Nested(5, (choice(1, 2),)).sentence
