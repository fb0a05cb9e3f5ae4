"""Learning curves: a known power law comes back, and what a curve is made of is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

import foldwise
from foldwise.errors import PlanError
from foldwise.questions import learning_curve
from foldwise.questions.learning_curve import drawing_order, fit_power_law

ROWS = np.array([10.0, 20, 40, 80, 160, 320])


@pytest.mark.parametrize(
    ("a", "b", "c"), [(0.1, 2.0, 0.5), (0.0, 3.0, 1.0), (2.0, 0.5, 0.25), (0.02, 40.0, 1.5)]
)
def test_a_known_power_law_is_found(a: float, b: float, c: float) -> None:
    law = fit_power_law(ROWS, a + b * ROWS**-c, np.ones(6))
    assert law.c == pytest.approx(c, rel=0.06)
    np.testing.assert_allclose(law.at(ROWS), a + b * ROWS**-c, rtol=0.02)
    assert law.at(640.0) == pytest.approx(a + b * 640**-c, rel=0.05)


def test_the_fit_is_the_least_squares_fit() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        losses = 0.3 + 2 * ROWS**-0.6 + 0.01 * random.normal(size=6)
        precision = random.uniform(0.5, 2, size=6)
        law = fit_power_law(ROWS, losses, precision)

        def misfit(p: np.ndarray, y: np.ndarray = losses, w: np.ndarray = precision) -> float:
            return float(w @ np.square(p[0] + p[1] * ROWS ** -p[2] - y))

        best = optimize.minimize(
            misfit,
            [0.2, 1, 0.5],
            bounds=[(0, None), (0, None), (0.02, 3)],
            method="L-BFGS-B",
            options={"maxiter": 9999},
        )
        assert misfit(np.array([law.a, law.b, law.c])) <= best.fun * 1.02 + 1e-9


def test_rows_that_do_not_help_give_a_flat_curve() -> None:
    law = fit_power_law(ROWS, np.linspace(1, 1.2, 6), np.ones(6))
    assert law.b == 0
    assert law.a == pytest.approx(1.1)


def test_small_draws_have_all_classes_in_their_shares() -> None:
    classes = np.repeat([0, 1, 2], [60, 30, 10])
    order = drawing_order(np.arange(100), classes, np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    for rows in (10, 20, 50):
        counts = np.bincount(classes[order[:rows]], minlength=3)
        assert np.abs(counts - rows * np.array([0.6, 0.3, 0.1])).max() <= 1


def test_a_linear_model_learns_by_the_law_that_statistics_knows() -> None:
    """A linear model of d normal features has a mean square error of σ²·(1 + (d + 1)/(n − d − 2)) for noise σ²."""
    random = np.random.default_rng(1)
    features, rows, noise = 5, 600, 1.0
    x = random.normal(size=(rows, features))
    y = x @ np.arange(1.0, 6.0) + noise * random.normal(size=rows)
    settings = {
        "network": "linear",
        "learning_rate": 0.1,
        "epochs": 60,
        "batch_size": 1000,
        "scaling": "standard",
    }
    sizes = [16, 24, 48, 96, 480]
    answer = foldwise.learning_curve(x, y, settings=settings, sizes=sizes, repeats=6, dtype="float64")
    n = answer.table["rows"].to_numpy()
    expected = np.sqrt(noise * (1 + (features + 1) / (n - features - 2)))
    np.testing.assert_allclose(answer.table["score"], expected, rtol=0.1)
    low, high = answer.facts["twice_low"], answer.facts["twice_high"]
    assert low <= 1.08
    assert high >= 0.97
    assert answer.facts["twice"] == pytest.approx(np.sqrt(1 + 6 / 953), rel=0.06)


def test_the_last_size_is_the_study_itself() -> None:
    study = foldwise.fit(
        example="iris", search={"width": 8, "depth": 1, "epochs": 6}, folds=3, dtype="float64"
    )
    trial = next(r for r in study.results if r.number == 4)
    answer = study.learning_curve(trial=4, sizes=[0.1, 0.3, 1.0], repeats=1)
    last = answer.table.row(-1, named=True)
    assert last["rows"] == 100
    assert last["score"] == pytest.approx(trial.score, abs=1e-12)
    assert last["epoch"] == trial.epoch
    assert "Twice the rows" in answer.sentence


def test_intervals_allow_for_rows_that_folds_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand from the losses of every draw: the variance of their mean is (1/J + n₂/n₁)·s², with J draws."""
    seen = {}

    def kept(losses: np.ndarray, weights: np.ndarray, random: np.random.Generator) -> np.ndarray:
        seen["losses"] = losses
        return resampled(losses, weights, random)

    resampled = learning_curve._resampled
    monkeypatch.setattr(learning_curve, "_resampled", kept)
    study = foldwise.fit(example="diabetes", search={"network": "linear", "epochs": 3}, metric="mae", folds=4)
    table = study.learning_curve(trial=4, sizes=[0.2, 0.5, 1.0], repeats=3).table
    losses = seen["losses"]
    assert losses.shape == (3, 12)
    reach = 1.96 * losses.std(axis=1, ddof=1) * np.sqrt(1 / 12 + 1 / 3)
    np.testing.assert_allclose((table["high"] - table["low"]) / 2, reach, rtol=0.15)


@pytest.mark.parametrize(("options", "said"), [
    ({"sizes": [5, 10]}, "at least 3 different sizes"),
    ({"sizes": [5, 10, 1000]}, "from 2 rows to 100"),
    ({"repeats": 0}, "`repeats` must be a whole number of at least 1"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], said: str) -> None:
    study = foldwise.fit(example="iris", search={"width": 4, "epochs": 1}, folds=3)
    with pytest.raises(PlanError, match=said):
        study.learning_curve(**options)
