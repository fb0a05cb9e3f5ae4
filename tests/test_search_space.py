"""Search spaces: what ranges draw, what they refuse, and that a file says the same as Python."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import foldwise
from foldwise import LogRange, Range
from foldwise.arguments import read_search
from foldwise.errors import FoldwiseError, SettingsError
from foldwise.plans.draw import TRIALS
from foldwise.plans.ranges import Rounded, Whole
from foldwise.plans.search import Grid, as_grid, grid_trials
from foldwise.settings import Settings

SPACE = {
    "learning_rate": LogRange(1e-4, 1e-1),
    "dropout": Range(0, 0.5),
    "width": LogRange(16, 256),
    "depth": Range(1, 3),
    "activation": ["relu", "tanh"],
    "hidden1.l2": LogRange(1e-6, 1e-2),
}


def trials(search: Any, count: int | None = None, seed: int = 0, **more: Any) -> list[Settings]:
    """Draw trials over the defaults."""
    return grid_trials(as_grid(search), {}, trials=count, seed=seed, **more)


def said(search: Any, count: int | None = None, **more: Any) -> str:
    """Give the message with which a search is refused."""
    with pytest.raises(SettingsError) as refused:
        trials(search, count, **more)
    return str(refused.value)


# Ranges


@pytest.mark.parametrize(
    ("low", "high", "problem"),
    [
        (1, 0, "Range(low=1, high=0): low must be less than high.\nhint: the lower end comes first"),
        (1, 1, "low must be less than high."),
        (0, math.inf, "both ends must be finite numbers."),
        (math.nan, 1, "both ends must be finite numbers."),
        ("0", 1, "Range(low='0', high=1): both ends must be finite numbers."),
        (False, 1, "both ends must be finite numbers."),
        (None, 1, "both ends must be finite numbers."),
    ],
)
def test_what_is_no_range_is_refused(low: Any, high: Any, problem: str) -> None:
    for kind in (Range, LogRange):
        with pytest.raises(SettingsError, match=re.escape(problem.replace("Range(", f"{kind.__name__}("))):
            kind(low, high)


@pytest.mark.parametrize("low", [0, -1])
def test_a_logarithm_needs_positive_ends(low: float) -> None:
    with pytest.raises(SettingsError, match="low must be positive") as refused:
        LogRange(low, 1)
    assert refused.value.hint == "LogRange(0.001, 1), or a Range"


ENDS = st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)).filter(lambda ends: ends[0] < 0.999 * ends[1])


@given(ENDS, st.floats(0, 1, exclude_max=True), st.sampled_from([Range, LogRange]))
def test_drawn_numbers_are_in_their_range_and_are_what_is_shown(
    ends: tuple[float, float], share: float, kind: type[Range] | type[LogRange]
) -> None:
    drawn = Rounded(kind(*ends)).at(share)
    assert ends[0] <= drawn <= ends[1]
    assert drawn in ends or float(f"{drawn:g}") == drawn


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([Range, LogRange]))
def test_whole_numbers_reach_both_ends(low: int, more: int, kind: type[Range] | type[LogRange]) -> None:
    axis = Whole(kind(low, low + more))
    assert axis.at(0) == low
    assert axis.at(1 - 1e-12) == low + more
    assert axis.size == len(list(axis.everything())) == more + 1


def test_whole_numbers_are_equally_likely() -> None:
    drawn = Counter(Whole(Range(1, 4)).at(share) for share in np.linspace(0, 1, 4000, endpoint=False))
    assert drawn == dict.fromkeys([1, 2, 3, 4], 1000)


# Drawing


def test_every_trial_draws_every_setting() -> None:
    drawn = trials(SPACE)
    assert len(drawn) == len(set(drawn)) == TRIALS
    assert all(1e-4 <= s.learning_rate <= 1e-1 for s in drawn)
    assert all(0 <= s.dropout <= 0.5 for s in drawn)
    assert all(16 <= s.width <= 256 and isinstance(s.width, int) for s in drawn)
    assert all(1e-6 <= s.of_block("hidden1")["l2"] <= 1e-2 for s in drawn)


def test_few_trials_cover_their_ranges() -> None:
    drawn = trials(SPACE)
    assert Counter(s.activation for s in drawn) == {"relu": 16, "tanh": 16}
    assert {9 <= n <= 12 for n in Counter(s.depth for s in drawn).values()} == {True}
    decades = Counter(math.floor(math.log10(s.learning_rate)) for s in drawn)
    assert {9 <= decades[d] <= 12 for d in (-4, -3, -2)} == {True}
    assert Counter(min(3, int(s.dropout / 0.125)) for s in drawn) == dict.fromkeys(range(4), 8)
    assert Counter(min(3, int(math.log2(s.width) - 4)) for s in drawn) == dict.fromkeys(range(4), 8)


def test_the_same_seed_draws_the_same_trials() -> None:
    assert trials(SPACE) == trials(SPACE)
    assert not set(trials(SPACE)) & set(trials(SPACE, seed=1))
    assert trials(SPACE, seed=-1) != trials(SPACE, seed=1)


def test_the_order_of_settings_does_not_matter() -> None:
    turned = dict(reversed(SPACE.items()))
    assert trials(turned) == trials(SPACE)
    lists = {"width": [8, 16, 32], "depth": [1, 2, 3]}
    assert trials(lists, 4) == trials(dict(reversed(lists.items())), 4)


@pytest.mark.parametrize("count", [8, 16, 32, 48])
def test_no_two_settings_go_together(count: int) -> None:
    # then no picture could tell which of the two mattered
    names = ("beta1", "beta2", "dropout", "input_noise", "mixup", "warmup", "weight_decay")
    space = {name: Range(0.01, 0.9) for name in names}
    drawn = np.array([[getattr(s, name) for name in names] for s in trials(space, count)])
    apart = np.abs(np.corrcoef(drawn.T) - np.eye(len(names))).max()
    assert apart < {8: 0.65, 16: 0.4, 32: 0.3, 48: 0.25}[count]
    each = np.floor((drawn - 0.01) / 0.89 * count * 0.999)
    assert all(len(set(column)) >= 0.9 * count for column in each.T)  # one value in each part of the range


def test_what_is_drawn_does_not_depend_on_other_mappings() -> None:
    both = [
        trials([SPACE, {"network": "linear", "learning_rate": LogRange(1e-3, high)}]) for high in (1, 0.1)
    ]
    assert both[0][:16] == both[1][:16]


def test_a_search_too_large_to_be_meant_is_refused() -> None:
    values = [n / 1000 for n in range(1, 200)]
    space = {"learning_rate": values, "dropout": values, "weight_decay": values}
    with pytest.raises(SettingsError, match=r"the search has 7,880,599 combinations\.[\s\S]*trials=100"):
        grid_trials(Grid(space), {})


def test_several_mappings_share_the_trials() -> None:
    spaces = [{"network": "linear"}, SPACE, {"network": "residual", "width": Range(8, 64)}]
    counts = Counter(s.network for s in trials(spaces, 21))
    assert counts == {"linear": 1, "mlp": 10, "residual": 10}
    assert "`trials` is 2, but the search has 3 mappings" in said(spaces, 2)


def test_a_value_drawn_twice_is_drawn_again() -> None:
    drawn = trials({"depth": Range(1, 4), "width": [8, 16], "activation": ["relu", "relu"]}, 7)
    assert len(set(drawn)) == 7


def test_small_spaces_are_tried_whole() -> None:
    assert {s.depth for s in trials({"depth": Range(1, 5)})} == {1, 2, 3, 4, 5}
    assert "`trials` is 6, but the search has 5 combinations." in said({"depth": Range(1, 5)}, 6)


def test_a_range_that_is_too_narrow_is_told() -> None:
    assert "different trials were found in the ranges, not 2000" in said({"dropout": Range(0.4, 0.5)}, 2000)


def test_trials_without_ranges_are_a_subset_of_the_grid() -> None:
    grid = Grid({"network": "linear"}, {"width": [8, 16], "depth": [1, 2, 3]})
    whole = trials(grid)
    some = trials(grid, 4)
    assert len(whole) == 7
    assert len(set(some)) == 4
    assert set(some) < set(whole)
    assert some == sorted(some, key=lambda s: (s.network != "linear", s.depth, s.width))
    assert set(trials(grid, 7)) == set(whole)
    assert len({tuple(trials(grid, 4, seed)) for seed in range(20)}) > 10
    assert "`trials` is 8, but the search has 7 combinations.\nhint: leave `trials` out" in said(grid, 8)


def test_a_subset_of_a_grid_too_large_to_list() -> None:
    grid = {
        name: list(np.linspace(0.1, 0.9, 50))
        for name in ("dropout", "l1", "l2", "beta1", "beta2", "input_noise")
    }
    assert len(set(trials(grid, 10))) == 10


@pytest.mark.parametrize("count", [0, -3, 2.5, True, "many"])
def test_a_number_of_trials_that_is_none_is_refused(count: Any) -> None:
    assert "`trials` must be a whole number of at least 1; got " in said(SPACE, count)


def test_a_search_with_ranges_cannot_be_listed() -> None:
    with pytest.raises(SettingsError, match="a search with ranges has no list of combinations"):
        Grid(SPACE).combinations()


# What goes with what


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ({"dropout": Range(0, 1.5)}, "`dropout` must be less than 1, and Range(low=0, high=1.5) reaches 1.5.\nhint: "),
        ({"dropout": Range(0, 1)}, "`dropout` must be less than 1, and Range(low=0, high=1) reaches 1."),
        ({"dropout": Range(-0.1, 0.5)}, "`dropout` must be at least 0, and Range(low=-0.1, high=0.5) reaches -0.1."),
        ({"width": LogRange(1, 70000)}, "`width` must be at most 65536, and LogRange(low=1, high=70000) reaches 7"),
        ({"epsilon": Range(0, 1)}, "`epsilon` must be greater than 0, and Range(low=0, high=1) reaches 0."),
        ({"width": Range(8, 16.5)}, "`width` is a whole number, and the ends of Range(low=8, high=16.5) are not."),
        ({"activation": Range(0, 1)}, "`activation` is no number, so Range(low=0, high=1) is nothing to draw it from."),
        ({"nesterov": Range(0, 1)}, "`nesterov` is no number"),
        ({"hidden1.frozen": Range(0, 1)}, "`hidden1.frozen` is no number"),
        ({"hidden1.l2": Range(-1, 1)}, "`hidden1.l2` must be at least 0, and Range(low=-1, high=1) reaches -1."),
        ({"hidden1.l3": Range(0, 1)}, "`hidden1.l3`: a block has no setting `l3` (in the search)."),
        ({"lerning_rate": Range(0, 1)}, "there is no setting `lerning_rate` (in the search)\nhint: Did you mean `lear"),
        ({"learning_rate": Range(0.1, 1), "activation": ["relu"] * 9 + ["rleu"]}, "`activation`: input should be"),
    ],
)  # fmt: skip
def test_ranges_that_do_not_suit_their_setting_are_refused(search: Any, problem: str) -> None:
    assert problem in said(search)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ({"optimizer": ["sgd", "adam"], "momentum": Range(0, 0.9)},
         "`momentum` and `optimizer` adam do not go together: `momentum` has no effect with optimizer adam (in the s"),
        ({"network": ["mlp", "linear"], "dropout": Range(0, 0.9)},
         "`dropout` and `network` linear do not go together: `dropout` has no effect without a hidden layer"),
        ({"depth": Range(0, 100), "dropout": Range(0, 0.9)}, "`dropout` and `depth` 0 do not go together"),
        ({"loss": ["squared_error", "huber"], "huber_delta": LogRange(0.1, 1)},
         "`huber_delta` and `loss` squared_error do not go together"),
        ({"loss": ["quantile", "huber"], "quantile": Range(0.1, 0.9), "dropout": [0, 0.1]},
         "`quantile` and `loss` huber do not go together: `quantile` has no effect with loss huber"),
        ([SPACE, {"optimizer": ["sgd", "nadam"], "momentum": Range(0, 0.9)}],
         "`momentum` and `optimizer` nadam do not go together: `momentum` has no effect with optimizer nadam (in mapp"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_named_whatever_is_drawn(
    search: Any, problem: str, seed: int
) -> None:
    told = said(search, 2, seed=seed)
    assert problem in told
    assert "in a mapping of its own: search=[{…}, {…}]" in told


def test_drawn_values_that_contradict_each_other_name_their_trial() -> None:
    told = said({"normalization": "group", "width": Range(16, 64)})
    assert re.search(
        r"`normalization_groups` 4 does not divide the width \d+ \(trial \d+ of the search\)", told
    )


def test_what_asks_for_nothing_goes_with_everything() -> None:
    drawn = trials([{"optimizer": "sgd", "momentum": Range(0, 0.9)}, {"optimizer": "adam"}])
    assert Counter(s.optimizer for s in drawn) == {"sgd": TRIALS - 1, "adam": 1}
    assert len(trials({"network": ["mlp", "linear"], "dropout": 0.0})) == 2


# Files


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


TOML = """
learning_rate = {log_range = [1e-4, 1e-1]}
dropout = {range = [0, 0.5]}
activation = ["relu", "tanh"]
depth.range = [1, 3]
"hidden1.l2" = {log_range = [1e-6, 1e-2]}

[width]
log_range = [16, 256]
"""


def test_files_say_the_same_as_python(tmp_path: Path) -> None:
    written = {
        name: {"log_range" if isinstance(v, LogRange) else "range": [v.low, v.high]}
        if isinstance(v, Range | LogRange)
        else v
        for name, v in SPACE.items()
    }
    files = [write(tmp_path, "a.json", json.dumps(written)), write(tmp_path, "a.toml", TOML)]
    for search in (written, *map(read_search, files)):
        assert trials(search) == trials(SPACE)


def test_what_blocks_have_may_be_written_as_tables(tmp_path: Path) -> None:
    python = {"hidden1.l2": [0.1, 0.2], "hidden1.rate_factor": Range(0.5, 1), "encoder.first.frozen": True}
    toml = "hidden1.l2 = [0.1, 0.2]\n[hidden1.rate_factor]\nrange = [0.5, 1]\n[encoder.first]\nfrozen = true"
    nested = {
        "hidden1": {"l2": [0.1, 0.2], "rate_factor": {"range": [0.5, 1]}},
        "encoder": {"first": {"frozen": True}},
    }
    assert trials(read_search(write(tmp_path, "a.toml", toml))) == trials(python) == trials(nested)


def test_a_layer_may_be_called_like_a_setting() -> None:
    assert [s.blocks for s in trials({"l1": {"l2": [0.1]}})] == [(("l1", "l2", 0.1),)]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"rnge": [0, 1]}, "`dropout`: {'rnge': [0, 1]} is neither a value nor a range.\nhint: Did you mean `range`"),
        ({"range": [0, 0.5], "log": True}, "is neither a value nor a range.\nhint: a range is written"),
        ({}, "`dropout`: {} is neither a value nor a range."),
        ({"range": [0, 0.5, 1]}, "`dropout`: a range has two ends, low and high; got [0, 0.5, 1]."),
        ({"range": 0.5}, "`dropout`: a range has two ends, low and high; got 0.5."),
        ({"range": "01"}, "`dropout`: a range has two ends, low and high; got '01'."),
        ({"range": ["a", 1]}, "`dropout`: Range(low='a', high=1): both ends must be finite numbers."),
        ({"range": [0.5, 0]}, "`dropout`: Range(low=0.5, high=0): low must be less than high."),
        ({"log_range": [0, 0.5]}, "`dropout`: LogRange(low=0, high=0.5): low must be positive"),
        ({"range": [0, 2]}, "`dropout` must be less than 1, and Range(low=0, high=2) reaches 2."),
    ],
)  # fmt: skip
def test_malformed_ranges_are_explained(written: Any, problem: str) -> None:
    assert problem in said({"dropout": written})


# A network's own arguments


def test_arguments_of_ones_own_network_may_have_ranges() -> None:
    options = {"size": 3, "rate": 0.5, "flavor": "sour", "free": None}
    drawn = trials({"size": Range(1, 50), "rate": Range(0, 1), "free": Range(1, 9)}, options=options)
    for s in drawn:
        own = dict(s.options)
        assert [type(own[name]) for name in ("size", "rate", "free")] == [int, float, int]
    assert "`flavor` is no number" in said({"flavor": Range(0, 1)}, options=options)


# The whole way


def test_a_study_with_ranges() -> None:
    search = {"width": Range(4, 8), "learning_rate": LogRange(1e-3, 1e-1), "epochs": 2}
    once, again = (foldwise.fit(example="iris", search=search, folds=2, trials=4, seed=3) for _ in range(2))
    assert once.plan == again.plan
    assert once.leaderboard.equals(again.leaderboard)
    assert once.leaderboard.height == 3 + 4
    for trial in once.results:
        rate = trial.settings.learning_rate
        if trial.settings.network == "mlp":
            assert f"rate {rate:g}" in trial.name
            assert float(f"{rate:g}") == rate


def test_a_study_that_asks_for_too_many_trials_is_refused() -> None:
    with pytest.raises(FoldwiseError, match="`trials` is 3, but the search has 2 combinations"):
        foldwise.fit(example="iris", search={"width": [4, 8]}, trials=3)
