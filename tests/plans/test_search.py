"""Searches and plans: which trials come of what the user asks for, and which requests are refused."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from foldwise.errors import PlanError, SettingsError
from foldwise.plans.ask import ask
from foldwise.plans.defaults import LOSSES_OF_TASK, base_settings, baselines, default_grid
from foldwise.plans.plan import Plan
from foldwise.plans.search import Grid, as_grid, grid_trials
from foldwise.settings import FREE, SHAPING, Settings, make_settings, useless


def asked(search: Any = None, net: Any = None, task: str = "binary", seeds: int = 1, seed: int = 0) -> Plan:
    """Plan for a table of 500 rows and five folds."""
    return ask(task, 500, search, net, 5, seeds, seed)


# Grids


def test_a_grid_is_every_combination() -> None:
    grid = Grid(learning_rate=[0.1, 0.2], width=(8, 16), activation="relu")
    assert len(grid) == 4
    assert grid.combinations() == [
        {"learning_rate": rate, "width": width, "activation": "relu"}
        for rate in (0.1, 0.2)
        for width in (8, 16)
    ]


def test_several_grids_stay_apart() -> None:
    grid = Grid({"network": "linear"}, {"network": "mlp", "depth": [1, 2]}, width=[3])
    assert [c.get("network", "-") for c in grid.combinations()] == ["linear", "mlp", "mlp", "-"]


@pytest.mark.parametrize(
    ("search", "count"),
    [
        (Grid(width=[1, 2]), 2),
        ({"width": range(1, 4)}, 3),
        ([{"width": 3}, {"depth": [1, 2]}], 3),
        (({"width": 3},), 1),
    ],
)
def test_every_form_of_a_search_is_taken(search: Any, count: int) -> None:
    assert len(as_grid(search)) == count


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("width", "`search` must be a Grid, a mapping or a list of mappings; got str."),
        (3, "`search` must be a Grid, a mapping or a list of mappings; got int."),
        ([], "the search is empty."),
        ({"width": []}, "`width` has no values in the search."),
        (["width"], "a grid must be a mapping from settings to values; got str."),
        ({"widht": 3}, "there is no setting `widht` (combination 1 of the search)\nhint: Did you mean `width`?"),
        ({"xyzzy": 3}, "there is no setting `xyzzy` (combination 1 of the search)\nhint: settings: network, width"),
        ({"width": 0}, "`width`: input should be greater than or equal to 1; got 0"),
        ({"width": "wide"}, "`width`: input should be a valid integer, unable to parse string as an"),
        ({"width": 2.5}, "`width`: input should be a valid integer, got a number with a fractional part; got 2.5"),
        ({"learning_rate": float("nan")}, "`learning_rate`: input should be a finite number; got nan"),
        ({"learning_rate": float("inf")}, "`learning_rate`: input should be a finite number; got inf"),
        ({"learning_rate": [0.1, -1]}, "got -1 (combination 2 of the search)"),
        ({"dropout": 1.0}, "`dropout`: input should be less than 1; got 1.0"),
        ({"activation": "rleu"}, "`activation`: input should be 'relu', 'leaky_relu', 'tanh'"),
        ({"epochs": -1}, "`epochs`: input should be greater than or equal to 0; got -1"),
        ({"batch_size": 0}, "`batch_size`: input should be greater than or equal to 1; got 0"),
        ({"momentum": 0.9}, "`momentum` has no effect with optimizer adamw"),
        ({"optimizer": "sgd", "beta1": 0.9}, "`beta1` has no effect with optimizer sgd"),
        ({"network": "linear", "dropout": 0.5}, "`dropout` has no effect without a hidden layer"),
        ({"network": "linear", "width": 8}, "`width` has no effect on a linear network without a hidden layer"),
        ({"network": "constant", "depth": 8}, "`depth` has no effect on a constant network"),
        ({"depth": 0, "width": [4, 8]}, "`width` has no effect on a mlp network without a hidden layer"),
        ({"depth": 0, "dropout": 0.5}, "`dropout` has no effect without a hidden layer"),
        ({"initial_deviation": 0.1}, "`initial_deviation` needs initialization normal"),
        ({"loss": "squared_error"}, "loss `squared_error` is not for a binary target.\nhint: loss: binary_cross_"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(search: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        asked(search)


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        asked({"width": 0, "epoch": 1, "dropout": 2})
    for part in ("`width`: input", "there is no setting `epoch`", "`dropout`: input"):
        assert part in caught.value.problem
    assert "Did you mean `epochs`" in caught.value.hint


def test_smoothing_of_a_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="`label_smoothing` has no effect on a squared error"):
        asked({"label_smoothing": 0.1}, task="regression")


@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seeds_are_refused(seeds: int) -> None:
    with pytest.raises(PlanError, match="`seeds` must be at least 1; got "):
        asked(seeds=seeds)


# Plans


@pytest.mark.parametrize("task", LOSSES_OF_TASK)
@pytest.mark.parametrize("net", [None, zoo.Residual])
def test_a_constant_and_a_linear_network_are_always_there(task: str, net: Any) -> None:
    networks = [s.network for s in asked({"width": [8]}, net, task).trials]
    assert {"constant", "linear"} < set(networks)
    assert networks[-1] == ("mlp" if net is None else "custom")


def test_the_default_search_is_a_dozen_perceptrons() -> None:
    plan = asked()
    assert sum(s.network == "mlp" for s in plan.trials) == len(default_grid()) == 12
    assert len(plan.trials) == 12 + len(baselines())
    assert len(set(plan.trials)) == len(plan.trials)


def test_equal_trials_are_trained_once() -> None:
    twice = asked([{"width": [8, 8]}, {"width": 8}])
    assert sum(s.network == "mlp" for s in twice.trials) == 1


def test_members_are_all_trials_on_all_folds_with_all_seeds() -> None:
    plan = asked({"width": [8, 16]}, seeds=3, seed=40)
    members = plan.members()
    assert plan.seeds == (40, 41, 42)
    assert len({(m.trial, m.fold, m.seed) for m in members}) == len(members) == len(plan.trials) * 5 * 3
    assert all(m.settings == plan.trials[m.trial] for m in members)


def test_stacks_hold_every_member_once_and_no_two_shapes() -> None:
    plan = asked({"width": [8, 16], "learning_rate": [0.1, 0.2], "batch_size": [32, 64]})
    stacks = plan.stacks()
    assert sorted((m.trial, m.fold) for s in stacks for m in s) == sorted(
        (m.trial, m.fold) for m in plan.members()
    )
    for stack in stacks:
        assert len({m.settings.shape() for m in stack}) == 1
    mlps = [s for s in stacks if s[0].settings.network == "mlp"]
    assert len(mlps) == 4  # widths and batch sizes; rates share a stack


@pytest.mark.parametrize("rows", [10, 500, 5_000, 100_000, 10_000_000])
def test_defaults_suit_every_number_of_rows(rows: int) -> None:
    for task in LOSSES_OF_TASK:
        base = base_settings(task, rows)
        assert 1 <= base["epochs"] <= 100
        assert make_settings(base).loss == LOSSES_OF_TASK[task][0]


# Networks of one's own


def net(inputs: int, outputs: int, width: int = 4, flavor: str = "plain") -> None:
    """Stand for a network with an option that foldwise does not know."""


def test_options_of_ones_own_network_can_be_searched() -> None:
    plan = asked({"flavor": ["sour", "sweet"], "width": [8], "learning_rate": [0.1]}, net)
    own = [s for s in plan.trials if s.network == "custom"]
    assert [dict(s.options) for s in own] == [{"flavor": "sour"}, {"flavor": "sweet"}]
    assert {s.takes for s in own} == {("width",)}
    assert {s.initialization for s in own} == {"own"}


def test_without_a_search_ones_own_network_is_tried_with_several_rates() -> None:
    own = [s for s in asked(None, net).trials if s.network == "custom"]
    assert len({s.learning_rate for s in own}) == len(own) > 1
    assert {s.takes for s in own} == {()}


@pytest.mark.parametrize("name", ["depth", "activation", "dropout"])
def test_a_setting_that_ones_own_network_does_not_take_is_refused(name: str) -> None:
    values = {"depth": [1, 2], "activation": ["relu"], "dropout": [0.1]}
    with pytest.raises(SettingsError, match=f"`{name}` is searched, but `net` does not take it") as caught:
        asked({name: values[name]}, net)
    assert f"add an argument `{name}`" in caught.value.hint


def test_an_unknown_name_is_refused_for_ones_own_network_too() -> None:
    with pytest.raises(SettingsError, match="there is no setting `flavour`"):
        asked({"flavour": ["sour"]}, net)


# Settings


def chosen(name: str) -> st.SearchStrategy[Any]:
    """Draw a value of a setting, from what its definition allows."""
    schema = Settings.model_json_schema()["properties"][name]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], 500)
    return st.floats(0, 0.99, exclude_min="exclusiveMinimum" in schema)


NAMES = [n for n in Settings.model_fields if n not in ("options", "takes")]


@given(st.data(), st.lists(st.sampled_from(NAMES), unique=True))
def test_settings_survive_json(data: st.DataObject, names: list[str]) -> None:
    values = {name: data.draw(chosen(name), label=name) for name in names}
    settings = Settings.model_validate(values, context="stored")  # takes useless combinations too
    idle = [field for field, _ in useless(settings) if field in names]
    if idle:
        with pytest.raises(SettingsError, match=f"`{idle[0]}`"):
            make_settings(values)
    else:
        assert make_settings(values) == settings
    stored = json.loads(json.dumps(settings.model_dump()))
    assert Settings.model_validate(stored, context="stored") == settings
    assert {name: getattr(settings, name) for name in names} == values


def test_options_survive_json() -> None:
    settings = Settings(
        network="custom", options=(("flavor", "sour"), ("size", 3), ("deep", True), ("rate", 0.5))
    )
    again = Settings.model_validate(json.loads(json.dumps(settings.model_dump())), context="stored")
    assert again == settings
    assert [type(v) for _, v in again.options] == [str, int, bool, float]


def test_every_setting_has_help_and_is_either_free_or_shaping() -> None:
    assert set(FREE) | set(SHAPING) == set(Settings.model_fields)
    assert not set(FREE) & set(SHAPING)
    assert all(field.description for field in Settings.model_fields.values())


def test_defaults_are_no_problem() -> None:
    assert make_settings({}) == Settings()
    assert grid_trials(Grid(width=[8]), {}) == [Settings(width=8)]


def test_a_setting_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().width = 3  # type: ignore[misc]


def test_numpy_numbers_are_taken() -> None:
    (only,) = grid_trials(Grid(width=[np.int64(8)], learning_rate=[np.float64(0.1)]), {})
    assert (only.width, only.learning_rate) == (8, 0.1)
    json.dumps(only.model_dump())
