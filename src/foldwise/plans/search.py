"""Which settings to try: lists of values, of which every combination is a trial, and ranges to draw from."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import ValidationError

from foldwise.errors import SettingsError
from foldwise.plans.draw import Space, draw, everything, probes
from foldwise.plans.ranges import FORMS, LogRange, Range, axis_of, read_range, several
from foldwise.settings import (
    BLOCK_SETTINGS,
    HIDDEN,
    SEARCHED,
    WRITTEN_OTHERWISE,
    Settings,
    is_off,
    make_settings,
    useless,
)

Values = Mapping[str, Any]
Base = Callable[[Values], Values]
"""Says what the settings of a combination have that it does not name."""

NOTHING: Values = MappingProxyType({})


class Grid:
    """What to try of each setting: a list of values, a single value, or a range to draw from.

    Several mappings are searched apart, for settings that do not go together. Without a range, every combination
    is a trial. `hidden1.l2`, or `l2` in a mapping called `hidden1`, is what the block `hidden1` has of its own.

    >>> len(Grid(learning_rate=[1e-3, 1e-2], width=[32, 64]))
    4
    >>> Grid({"network": "linear"}, {"network": "mlp", "depth": [1, 2]}).combinations()
    [{'network': 'linear'}, {'network': 'mlp', 'depth': 1}, {'network': 'mlp', 'depth': 2}]
    >>> Grid({"dropout": {"range": [0, 0.5]}, "hidden1": {"l2": [0, 0.1]}})
    Grid({'dropout': Range(low=0, high=0.5), 'hidden1.l2': [0, 0.1]})
    """

    def __init__(self, *grids: Values, **values: Any) -> None:
        self.grids: list[Values] = [_flat(grid) for grid in [*grids, *([values] if values else [])]]
        if not self.grids:
            raise SettingsError("the search is empty.", hint="Grid(learning_rate=[1e-3, 1e-2])")

    @property
    def has_ranges(self) -> bool:
        """Whether trials must be drawn, because they cannot be listed."""
        return any(isinstance(value, Range | LogRange) for grid in self.grids for value in grid.values())

    def combinations(self) -> list[dict[str, Any]]:
        """List the combinations, the last setting varying fastest; raises SettingsError when there are ranges."""
        if self.has_ranges:
            raise SettingsError("a search with ranges has no list of combinations: its trials are drawn.")
        return [
            dict(zip(grid, values, strict=True))
            for grid in self.grids
            for values in itertools.product(*(several(v) for v in grid.values()))
        ]

    def __len__(self) -> int:
        return len(self.combinations())

    def __repr__(self) -> str:
        return f"Grid({', '.join(map(repr, self.grids))})"


def _flat(grid: Any) -> Values:
    if not isinstance(grid, Mapping):
        raise SettingsError(
            f"a grid must be a mapping from settings to values; got {type(grid).__name__}.",
            hint='{"learning_rate": [0.001, 0.01], "width": 64}',
        )
    flat: dict[str, Any] = {}
    for name, value in _entries(grid):
        if name in flat:
            raise SettingsError(f"`{name}` is given twice in the search.", hint="keep one of them")
        if not several(value):
            raise SettingsError(f"`{name}` has no values in the search.")
        flat[name] = value
    return flat


def _entries(grid: Values, block: str = "") -> Iterator[tuple[str, Any]]:
    """Give names and values; a mapping is a range as files write it, or what a block has of its own."""
    for key, value in grid.items():
        if not isinstance(key, str):
            raise SettingsError(f"the search names a setting {key!r}, which is no text.")
        name = f"{block}{key}"
        if not isinstance(value, Mapping):
            yield name, value.tolist() if isinstance(value, np.ndarray) else value
        elif _is_block(key, value):
            yield from _entries(value, f"{name}.")
        else:
            yield name, read_range(name, value)


def _is_block(key: str, value: Mapping[Any, Any]) -> bool:
    if not value or FORMS.keys() & value.keys():
        return False
    # a layer may be called l1, which is a setting too: then what it is given tells
    return key not in {*SEARCHED, *BLOCK_SETTINGS} or bool(BLOCK_SETTINGS.keys() & value.keys())


def as_grid(search: Any) -> Grid:
    """Accept a Grid, a mapping, or a list of mappings."""
    if isinstance(search, Grid):
        return search
    if isinstance(search, Mapping):
        return Grid(search)
    if isinstance(search, Sequence) and not isinstance(search, str):
        return Grid(*search)
    raise SettingsError(
        f"`search` must be a Grid, a mapping or a list of mappings; got {type(search).__name__}.",
        hint="foldwise.Grid(learning_rate=[1e-3, 1e-2], width=[32, 64])",
    )


MOST_TRIALS = 10_000
"""How many combinations are tried without being told how many."""


@dataclass(frozen=True)
class Ground:
    """A search made ready to draw from: a space for each mapping, and how values become the settings of a trial."""

    spaces: Sequence[Space]
    ranges: bool
    make: Callable[[Values, str], Settings]

    @property
    def size(self) -> float:
        """How many different trials there are; ∞ when some number is drawn from a range."""
        return sum(math.prod(axis.size for axis in space.values()) for space in self.spaces)

    def all_trials(self) -> list[Settings]:
        """Make every combination; raises SettingsError when there are too many to mean it."""
        if self.size > MOST_TRIALS:
            raise SettingsError(
                f"the search has {int(self.size):,} combinations.",
                hint="trials=100 (--trials 100) draws some of them; or give fewer values",
            )
        all_of_them = itertools.chain.from_iterable(map(everything, self.spaces))
        return [self.make(v, f"combination {n} of the search") for n, v in enumerate(all_of_them, start=1)]

    def examples(self) -> list[Settings]:
        """Make trials that show what goes together, and refuse what does not before it happens to be drawn."""
        made = []
        for number, space in enumerate(self.spaces, start=1):
            place = "in the search" if len(self.spaces) == 1 else f"in mapping {number} of the search"
            made += [self.make(values, place) for values in probes(space)]
        return list(dict.fromkeys(made))


def ground_of(grid: Grid, base: Values | Base, options: Values = NOTHING, knobs: Values = NOTHING) -> Ground:
    """Make a search ready to draw from, over a base.

    `options` and `knobs` are names that are no settings, of the user's own network and links, each with a value that
    it may have.
    """
    base_of: Base = base if callable(base) else lambda _: base

    def make(values: Values, where: str) -> Settings:
        return _settings(_sorted_out(values, options, knobs), where, base_of(values))

    own = {**options, **knobs}
    spaces = [{name: axis_of(name, v, own) for name, v in values.items()} for values in grid.grids]
    return Ground(spaces, grid.has_ranges, make)


def refuse_no_count(name: str, given: object) -> None:
    """Raise SettingsError unless a number is a count."""
    if not isinstance(given, Integral) or isinstance(given, bool) or given < 1:
        raise SettingsError(f"`{name}` must be a whole number of at least 1; got {given!r}.")


def drawn_trials(
    ground: Ground, trials: int | None = None, seed: int = 0, points: str = "latin"
) -> list[Settings]:
    """Make the settings of every combination, or of as many trials as are to be drawn.

    `trials` is how many to draw: by default 32 when there are ranges, else all combinations. The same seed draws the
    same trials, in whatever order the settings stand.
    """
    if trials is not None:
        refuse_no_count("trials", trials)
    elif not ground.ranges:
        return ground.all_trials()
    ground.examples()
    drawn = draw(ground.spaces, trials, seed, points)
    return [ground.make(v, f"trial {n} of the search") for n, v in enumerate(drawn, start=1)]


def grid_trials(
    grid: Grid, base: Values | Base, *, trials: int | None = None, seed: int = 0, **own: Values
) -> list[Settings]:
    """Draw from a search over a base; see `ground_of` and `drawn_trials`."""
    return drawn_trials(ground_of(grid, base, **own), trials, seed)


def _sorted_out(values: Values, options: Values, knobs: Values) -> dict[str, Any]:
    """Put what is no setting where Settings has it, in the order of names."""
    if kept := [name for name in WRITTEN_OTHERWISE if name in values and name not in options]:
        raise SettingsError(
            f"there is no setting `{kept[0]}`.",
            hint="what a block has of its own is written hidden1.l2; what a network or a link has, by its name",
        )
    asked = {name: value for name, value in values.items() if name not in {*options, *knobs}}
    for field, extra in (("options", options), ("knobs", knobs)):
        if own := sorted(extra.keys() & values.keys()):
            asked[field] = tuple((name, _plain(values[name], extra[name])) for name in own)
    return asked


def _plain(value: Any, like: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return float(value) if type(value) is int and isinstance(like, float) else value


def _settings(asked: Values, where: str, base: Values) -> Settings:
    try:
        return make_settings(asked, where, base)
    except SettingsError as problem:
        pairs = apart(asked, base)
        if not pairs:
            raise
        together = "; ".join(f"`{a}` and `{b}` {asked[b]} do not go together" for a, b in pairs)
        (a, b), *_ = pairs
        hint = f"leave `{a}` out, or search `{b}` {asked[b]} in a mapping of its own: search=[{{…}}, {{…}}]"
        raise SettingsError(f"{together}: {problem.problem}", hint=hint) from None


def apart(asked: Values, base: Values) -> list[tuple[str, str]]:
    """List the pairs of settings asked for of which the first has no effect beside the second's value.

    >>> apart({"optimizer": "adam", "momentum": 0.9}, {})
    [('momentum', 'optimizer')]
    """
    whole = {name: value for name, value in {**base, **asked}.items() if "." not in name}
    try:
        made = Settings.model_validate(whole, context="stored")
    except ValidationError:  # there are worse problems than this
        return []
    idle = [(name, text) for name, text in useless(made) if name in asked and not is_off(made, name)]
    pairs = [(name, _cause(text, made)) for name, text in idle]
    return [(name, cause) for name, cause in pairs if cause in asked]


def _cause(text: str, made: Settings) -> str:
    if "without a hidden layer" in text:
        return "depth" if made.network in HIDDEN else "network"
    named = re.search(r" with(?:out)? (\w+)", text)
    return named[1] if named else ""
