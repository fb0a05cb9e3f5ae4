"""Which settings mattered: planted effects are found, useless settings are not, and nothing else decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from foldwise.judge.importance import (
    Importance,
    SettingImportance,
    holm,
    importance,
    searched,
    share_of_variance,
)
from foldwise.judge.verdict import TrialResult
from foldwise.plans.defaults import baselines
from foldwise.settings import make_settings


def result(number: int, values: dict[str, Any], score: float, status: str = "finished") -> TrialResult:
    """Make the result of a trial; what importance does not read is made up."""
    return TrialResult(
        number=number,
        name=f"trial {number}",
        settings=make_settings(values),
        place=number,
        score=score,
        low=math.nan,
        high=math.nan,
        deviation=0.01,
        fold_scores=(score, score),
        epoch=3,
        tied=False,
        status=status,
    )


def results(values: Sequence[dict[str, Any]], scores: Sequence[float]) -> list[TrialResult]:
    return [result(i, v, float(s)) for i, (v, s) in enumerate(zip(values, scores, strict=True), start=1)]


def by_name(found: Importance) -> dict[str, SettingImportance]:
    return {s.name: s for s in found.settings}


def drawn(rng: np.random.Generator, trials: int) -> list[dict[str, Any]]:
    """Draw settings of several kinds, independently of each other."""
    return [
        {
            "learning_rate": float(10 ** rng.uniform(-4, -1)),
            "width": int(rng.choice([16, 32, 64])),
            "activation": str(rng.choice(["relu", "tanh", "gelu", "silu"])),
            "dropout": float(rng.uniform(0, 0.6)),
            "scaling": str(rng.choice(["robust", "standard"])),
        }
        for _ in range(trials)
    ]


def test_planted_setting_comes_first_and_useless_ones_show_no_effect() -> None:
    rng = np.random.default_rng(0)
    flagged, first = [], []
    for _ in range(60):
        values = drawn(rng, 40)
        noise = rng.lognormal(0, 0.3, 40)
        scores = [
            0.2 * abs(math.log10(v["learning_rate"]) + 2.5) + 0.1 * n
            for v, n in zip(values, noise, strict=True)
        ]
        found = importance(results(values, scores), higher_is_better=False)
        first.append(found.settings[0].name)
        flagged += [s.beyond_chance for s in found.settings if s.name != "learning_rate"]
        planted = by_name(found)["learning_rate"]
        assert planted.verdict == "beyond chance"
        assert planted.log
        assert planted.share is not None
        assert planted.share > 0.3
    assert set(first) == {"learning_rate"}
    assert np.mean(flagged) <= 0.05


def test_without_any_effect_most_searches_show_none() -> None:
    """Holm's correction holds the chance of even one false effect in a search to 5 %."""
    rng = np.random.default_rng(1)
    searches = [
        importance(results(drawn(rng, 24), rng.normal(1, 0.1, 24)), higher_is_better=True) for _ in range(100)
    ]
    assert np.mean([any(s.beyond_chance for s in found.settings) for found in searches]) <= 0.1
    assert {s.verdict for found in searches for s in found.settings} >= {"no sign of an effect"}
    shares = [s.share for found in searches for s in found.settings]
    assert np.median(shares) < 0.03  # adjusted: a useless setting does not get (k−1)/(n−1) for nothing


def test_share_and_p_value_are_those_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(2)
    groups = [rng.normal(m, 1, n) for m, n in ((0, 5), (1, 9), (0.3, 7))]
    share, p_value = share_of_variance(groups)
    assert p_value == pytest.approx(stats.f_oneway(*groups).pvalue)
    # the adjusted R² of a regression on the groups' indicators is the same number
    values, fitted = np.concatenate(groups), np.concatenate([np.full(len(g), g.mean()) for g in groups])
    r2 = 1 - ((values - fitted) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    assert share == pytest.approx(1 - (1 - r2) * 20 / 18)


def test_p_values_are_corrected_for_the_number_of_settings() -> None:
    assert holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([]) == []
    rng = np.random.default_rng(3)
    values = drawn(rng, 30)
    scores = rng.normal(0, 1, 30) + [v["width"] / 20 for v in values]
    alone = importance(results([{"width": v["width"]} for v in values], scores), higher_is_better=False)
    among = importance(results(values, scores), higher_is_better=False)
    p_value = alone.settings[0].p_value
    assert p_value is not None
    assert by_name(among)["width"].p_value == pytest.approx(5 * p_value)


def test_direction_and_order_of_trials_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    values = drawn(rng, 25)
    given = results(values, rng.normal(0, 1, 25))
    turned = results(values, [-r.score for r in given])
    first = importance(given, higher_is_better=False)
    other = importance(turned, higher_is_better=True)
    assert (first.best, first.edge) == (-other.best, -other.edge)
    for a, b in zip(first.settings, other.settings, strict=True):
        assert (a.name, a.share, a.p_value) == (b.name, pytest.approx(b.share), pytest.approx(b.p_value))
    assert importance(given[::-1], higher_is_better=False) == first


def test_equal_scores_show_no_effect() -> None:
    values = [{"width": w} for w in (8, 16) * 6]
    found = importance(results(values, [0.3] * 12), higher_is_better=False)
    assert (found.best, found.edge) == (0.3, 0.3)
    assert (found.settings[0].share, found.settings[0].p_value) == (0.0, 1.0)


def test_few_trials_are_too_few_to_tell() -> None:
    found = importance(results([{"width": w} for w in range(1, 8)], range(7)), higher_is_better=False)
    [width] = found.settings
    assert (width.share, width.p_value, width.groups) == (None, None, ())
    assert width.verdict == "too few trials to tell"
    assert width.values == tuple(range(1, 8))


def test_a_value_of_its_own_in_every_trial_says_nothing() -> None:
    values = [{"network": "custom", "options": (("name", f"n{i}"),)} for i in range(12)]
    [name] = importance(results(values, range(12)), higher_is_better=False).settings
    assert name.verdict == "too few trials to tell"


@pytest.mark.parametrize("trials", [0, 1])
def test_nothing_varies_in_one_trial(trials: int) -> None:
    given = results([{"width": 8}] * trials, [0.1] * trials)
    assert importance(given, higher_is_better=False).settings == ()


def test_nothing_is_said_when_no_trial_has_a_score() -> None:
    given = [result(n, {"width": n}, math.nan, "diverged: fold 1") for n in range(1, 13)]
    assert importance(given, higher_is_better=False).settings == ()


def test_settings_are_compared_among_the_trials_that_have_them() -> None:
    sgd = [{"optimizer": "sgd", "momentum": m} for m in (0.5, 0.9)] * 6
    values = [*sgd, *({"optimizer": "adamw"} for _ in range(10))]
    scores = [0.2 if v.get("momentum") == 0.9 else 0.5 for v in values]
    found = by_name(importance(results(values, scores), higher_is_better=False))
    assert found["momentum"].values == (0.5, 0.9) * 6 + (None,) * 10
    assert found["momentum"].share == 1.0
    assert "optimizer" in found
    assert "beta1" not in found  # there for some trials, but the same in all of them


def test_settings_of_blocks_and_options_are_settings_of_their_own() -> None:
    blocks = [{"hidden1.rate_factor": f} for f in (0.1, 1.0) * 5] + [
        {"hidden1.rate_factor": 0.1, "hidden2.l2": 0.5}
    ]
    found = by_name(importance(results(blocks, range(11)), higher_is_better=False))
    assert found["hidden1.rate_factor"].values == (0.1, 1.0) * 5 + (0.1,)
    assert "hidden2.l2" not in found  # one value does not vary
    own = [
        {"network": "custom", "takes": ("width",) * (n % 2), "options": (("heads", n % 2),)}
        for n in range(10)
    ]
    assert list(by_name(importance(results(own, range(10)), higher_is_better=False))) == ["heads"]


def with_baselines(asked: Sequence[dict[str, Any]]) -> list[TrialResult]:
    values = [*baselines(), *asked]
    return results(values, [0.1 * i for i in range(len(values))])


def test_what_every_study_has_is_left_out() -> None:
    found = searched(with_baselines([{"width": 8}, {"width": 16}]))
    assert [r.settings.network for r in found] == ["mlp", "mlp"]


def test_a_linear_model_that_was_asked_for_stays() -> None:
    [normal] = {v["initialization"] for v in baselines() if v["network"] == "linear"}
    asked = [{"network": "linear"}, {"width": 8}]
    assert [r.number for r in searched(with_baselines(asked))] == [4, 5]
    rates = [{"network": "linear", "initialization": normal, "learning_rate": r} for r in (0.02, 0.03)]
    found = searched(with_baselines([*rates, {"width": 8}]))
    assert sorted(r.number for r in found) == [
        2,
        3,
        4,
        5,
        6,
    ]  # these differ from the asked ones in the rate alone


def test_trials_that_diverge_count_as_bad() -> None:
    rates = [0.001, 0.01] * 6 + [10.0] * 6
    given = [
        result(
            n,
            {"learning_rate": rate},
            math.nan if rate == 10 else 0.1 + 0.001 * n,
            "diverged: fold 1" * (rate == 10),
        )
        for n, rate in enumerate(rates, start=1)
    ]
    found = importance(given, higher_is_better=False)
    [rate] = found.settings
    assert rate.beyond_chance
    assert [g.trials for g in rate.groups] == [6, 6, 6]
    assert rate.groups[-1].mean == found.edge


def test_trials_stopped_before_a_score_are_left_out() -> None:
    given = [
        *results([{"width": w} for w in range(1, 11)], range(10)),
        result(11, {"width": 11}, math.nan, "epoch 0"),
    ]
    assert len(importance(given, higher_is_better=False).trials) == 10


def test_a_terrible_trial_does_not_hide_the_rest() -> None:
    values = [{"width": w, "depth": d} for w in (8, 16) for d in (1, 2, 3, 4, 5)] * 2
    scores = [v["width"] / 100 + 0.001 * i for i, v in enumerate(values)]
    calm = by_name(importance(results(values, scores), higher_is_better=False))["width"]
    scores[3] = 1e9
    found = importance(results(values, scores), higher_is_better=False)
    assert found.edge < 1
    assert by_name(found)["width"].beyond_chance
    assert calm.beyond_chance


def test_many_numbers_are_compared_in_groups_of_about_equal_size() -> None:
    rates = [10 ** (-k / 10) for k in range(40)]
    [rate] = importance(
        results([{"learning_rate": r} for r in rates], range(40)), higher_is_better=False
    ).settings
    assert [g.trials for g in rate.groups] == [8] * 5
    assert all(a.high < b.low for a, b in zip(rate.groups, rate.groups[1:], strict=False))
    assert rate.log


def test_equal_numbers_stay_in_one_group() -> None:
    decays = [0.0] * 20 + [0.1 * k for k in range(1, 11)]
    [decay] = importance(
        results([{"weight_decay": d} for d in decays], range(30)), higher_is_better=False
    ).settings
    assert decay.groups[0].low == decay.groups[0].high == 0.0
    assert sum(g.trials for g in decay.groups) == 30
    assert not decay.log


def test_axis_is_logarithmic_only_when_values_lie_evenly_on_it() -> None:
    rng = np.random.default_rng(5)
    even = [{"dropout": 0.001, "learning_rate": 1e-4}] + [
        {"dropout": float(rng.uniform(0.01, 0.9)), "learning_rate": float(10 ** rng.uniform(-4, 0))}
        for _ in range(30)
    ]
    found = by_name(importance(results(even, rng.normal(0, 1, 31)), higher_is_better=False))
    assert (found["dropout"].log, found["learning_rate"].log) == (False, True)


def test_who_was_halved_counts_and_whom_the_budget_cut_does_not() -> None:
    values = [{"width": 2**n, "epochs": 9} for n in range(3, 9)]
    statuses = ["finished", "halving: 4th of 6 at epoch 1", "budget spent at epoch 2"] * 2
    found = importance(
        [result(n, v, n / 10, s) for n, (v, s) in enumerate(zip(values, statuses, strict=True), 1)], False
    )
    assert [r.number for r in found.trials] == [1, 2, 4, 5]
