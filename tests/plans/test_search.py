"""Searches and plans: which trials come of what the user asks for, and which requests are refused."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
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
from foldwise.plans.ranges import LogRange, Range
from foldwise.plans.search import Grid, as_grid, grid_trials
from foldwise.settings import FREE, SEARCHED, SHAPING, Settings, impossible, is_off, make_settings, useless


def asked(
    search: Any = None, net: Any = None, task: str = "binary", seeds: int = 1, seed: int = 0, **more: Any
) -> Plan:
    """Plan for a table of 500 rows and five folds."""
    plan, _ = ask(task, 500, search, net, 5, seeds, seed, **more)
    return plan


def searched(plan: Plan) -> list[Settings]:
    """Give the trials that are no baselines."""
    return [s for s in plan.trials if s.network not in ("constant", "linear")]


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
        ({"network": "linear", "width": 8}, "`width` has no effect without a hidden layer"),
        ({"network": "constant", "depth": 8}, "`depth` has no effect without a hidden layer"),
        ({"depth": 0, "width": [4, 8]}, "`width` has no effect without a hidden layer"),
        ({"depth": 0, "dropout": 0.5}, "`dropout` has no effect without a hidden layer"),
        ({"initial_deviation": 0.1}, "`initial_deviation` has no effect with initialization kaiming"),
        ({"loss": "squared_error"}, "loss `squared_error` is not for a binary target.\nhint: loss: binary_cross_"),
        ({"loss": "custom"}, "loss `custom` needs a function of your own.\nhint: foldwise.fit(..., loss=my_loss)"),
        ({"blocks": [1]}, "there is no setting `blocks`.\nhint: what a block has of its own is written hidden1.l2"),
        ({3: [1]}, "the search names a setting 3, which is no text."),
        ({"hidden1": {"l2": [0.1]}, "hidden1.l2": [0.2]}, "`hidden1.l2` is given twice in the search."),
        ({"hidden1": {}}, "`hidden1`: {} is neither a value nor a range."),
        ({"hidden1.l3": [1]}, "`hidden1.l3`: a block has no setting `l3` (combination 1 of the search)"),
        ({"hidden1.l2": [0, -1]}, "`hidden1.l2` must be a number of at least 0; got -1 (combination 2 of the search)"),
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
    with pytest.raises(SettingsError, match="`label_smoothing` has no effect with loss squared_error"):
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


def test_beside_ones_own_network_the_built_in_ones_are_searched() -> None:
    both = searched(asked({"network": ["custom", "mlp"], "width": [8], "learning_rate": [0.1]}, net))
    assert [(s.network, s.takes, s.initialization) for s in both] == [
        ("custom", ("width",), "own"),
        ("mlp", (), "kaiming"),
    ]


def test_arguments_of_ones_own_network_may_have_the_names_of_fields() -> None:
    def blocky(inputs: int, outputs: int, blocks: int = 1) -> None:
        """Stand for a network with an argument called blocks."""

    assert [s.options for s in searched(asked({"blocks": [1, 2]}, blocky))] == [
        (("blocks", 1),),
        (("blocks", 2),),
    ]


def test_an_unknown_name_is_refused_for_ones_own_network_too() -> None:
    with pytest.raises(SettingsError, match="there is no setting `flavour`"):
        asked({"flavour": ["sour"]}, net)


# What is minimized


def off_by(outputs: Any, targets: Any) -> Any:
    """Stand for a loss of one's own."""


def test_a_function_is_the_loss_of_every_trial_but_the_baselines() -> None:
    plan = asked({"width": [8, 16]}, loss=off_by)
    assert {s.loss for s in searched(plan)} == {"custom"}
    assert {s.loss for s in plan.trials if s not in searched(plan)} == {"binary_cross_entropy"}
    assert {s.loss for s in searched(asked(loss=off_by))} == {"custom"}
    assert {s.loss for s in searched(asked(None, net, loss=off_by))} == {"custom"}


def test_the_search_may_name_other_losses_than_ones_own() -> None:
    plan = asked({"width": 8, "loss": ["custom", "huber"]}, task="regression", loss=off_by)
    assert [s.loss for s in searched(plan)] == ["custom", "huber"]
    constant = asked([{"network": "constant"}, {"width": 8}], task="regression", loss=off_by)
    assert {s.loss for s in constant.trials if s.network == "constant"} == {"squared_error"}


def test_a_loss_by_name_is_that_of_the_search() -> None:
    assert {s.loss for s in searched(asked(task="regression", loss="huber"))} == {"huber"}
    assert {
        s.huber_delta for s in searched(asked({"huber_delta": [1, 2]}, task="regression", loss="huber"))
    } == {1, 2}


@pytest.mark.parametrize(
    ("search", "more", "said"),
    [
        (None, {"loss": "hubr"}, "there is no loss `hubr`.\nhint: Did you mean `huber`?"),
        (None, {"loss": "huber"}, "loss `huber` is not for a binary target.\nhint: loss: binary_cross_entropy or"),
        (None, {"loss": "custom"}, "loss `custom` needs a function of your own."),
        (None, {"loss": 3}, "`loss` must be a function or the name of a loss; got 3."),
        ({"loss": "hinge"}, {"loss": off_by}, "`loss` has no effect: the search gives every trial another one than c"),
        ({"loss": "hinge"}, {"loss": "binary_hinge"}, "`loss` has no effect: the search gives every trial another one"),
        ({"loss": "hinge"}, {"task": "multiclass", "soft": True}, "loss `hinge` is not for probabilities of classes."),
        (None, {"loss": "hinge", "task": "multiclass", "soft": True}, "loss `hinge` is not for probabilities of cla"),
        ({"loss": "hinge"}, {"task": "multilabel"}, "loss `hinge` is not for a multilabel target."),
    ],
)  # fmt: skip
def test_losses_that_cannot_be_had_are_refused(search: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        asked(search, **more)


@pytest.mark.parametrize("task", LOSSES_OF_TASK)
def test_every_loss_of_a_task_can_be_searched(task: str) -> None:
    losses = list(LOSSES_OF_TASK[task])
    assert [s.loss for s in searched(asked({"loss": losses}, task=task, loss=off_by))] == losses


# Links of one's own


@dataclass
class Knobbed:
    """Stand for a link."""

    knobs: dict[str, float]


def test_knobs_of_links_can_be_searched() -> None:
    plan = asked({"pull": [1, 2.5], "width": 8}, links=[Knobbed({"pull": 0.5}), Knobbed({"push": 1.0})])
    assert [s.knobs for s in searched(plan)] == [(("pull", 1.0),), (("pull", 2.5),)]
    drawn = searched(asked({"push": LogRange(1, 100)}, links=[Knobbed({"push": 1.0})], trials=8))
    assert len({s.knobs for s in drawn}) == 8
    assert all(isinstance(dict(s.knobs)["push"], float) for s in drawn)


@pytest.mark.parametrize(
    ("links", "search", "said"),
    [
        ([Knobbed({"width": 1.0})], None, "the knob `width` of a link is also a setting and an"),
        ([Knobbed({"pull": 1.0})] * 2, None, "the knob `pull` of a link is also a knob of another link."),
        (
            [Knobbed({"flavor": 1.0})],
            None,
            "the knob `flavor` of a link is also an argument of your network.",
        ),
        (
            [Knobbed({"pull": 1.0})],
            {"pull": "hard"},
            "`pull`, a knob of a link, must be a number; got 'hard'.",
        ),
        ([Knobbed({"pull": 1.0})], {"pull": [float("inf")]}, "`knobs`: input should be a finite number"),
        (["link"], None, "`links` must be a list of foldwise.Link.\nhint: links=[foldwise.Link(…)]"),
        (Knobbed({}), None, "`links` must be a list of foldwise.Link."),
    ],
)
def test_links_that_make_no_sense_are_refused(links: Any, search: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        asked(search, net, links=links)


# Settings


def chosen(name: str) -> st.SearchStrategy[Any]:
    """Draw a value of a setting, from what its definition allows."""
    schema = Settings.model_json_schema()["properties"][name]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "boolean":
        return st.booleans()
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    if schema["type"] == "integer":
        return st.integers(low, schema.get("maximum", 500))
    return st.floats(low, low + 0.99, exclude_min="exclusiveMinimum" in schema)


@given(st.data(), st.lists(st.sampled_from(SEARCHED), unique=True))
def test_settings_survive_json(data: st.DataObject, names: list[str]) -> None:
    values = {name: data.draw(chosen(name), label=name) for name in names}
    settings = Settings.model_validate(values, context="stored")  # takes useless combinations too
    idle = [field for field, _ in useless(settings) if field in names and not is_off(settings, field)]
    problems = [f"`{field}`" for field in idle] + impossible(settings)
    if problems:
        with pytest.raises(SettingsError, match=re.escape(problems[0])):
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


def test_mappings_draw_points_of_their_own() -> None:
    space = {"dropout": Range(0.0, 0.9), "width": 4}
    drawn = [s.dropout for s in grid_trials(Grid(space, {**space, "width": 5}), {}, trials=16)]
    assert drawn[:8] != drawn[8:]
