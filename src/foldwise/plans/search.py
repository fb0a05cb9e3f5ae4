"""Which settings to try: grids given by the user, and the search that runs when none is given."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from foldwise.errors import SettingsError
from foldwise.settings import Settings, make_settings

Values = Mapping[str, Any]


class Grid:
    """Every combination of the values given for each setting.

    A setting may have a list of values or one value. Several mappings give several grids, for settings that do
    not go together.

    >>> len(Grid(learning_rate=[1e-3, 1e-2], width=[32, 64]))
    4
    >>> Grid({"network": "linear"}, {"network": "mlp", "depth": [1, 2]}).combinations()
    [{'network': 'linear'}, {'network': 'mlp', 'depth': 1}, {'network': 'mlp', 'depth': 2}]
    """

    def __init__(self, *grids: Values, **values: Any) -> None:
        self.grids: list[Values] = [*grids, *([values] if values else [])]
        if not self.grids:
            raise SettingsError("the search is empty.", hint="Grid(learning_rate=[1e-3, 1e-2])")
        for grid in self.grids:
            _refuse_empty(grid)

    def combinations(self) -> list[dict[str, Any]]:
        """List the combinations, the last setting varying fastest."""
        return [
            dict(zip(grid, values, strict=True))
            for grid in self.grids
            for values in itertools.product(*(_several(v) for v in grid.values()))
        ]

    def __len__(self) -> int:
        return len(self.combinations())

    def __repr__(self) -> str:
        return f"Grid({', '.join(map(repr, self.grids))})"


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _refuse_empty(grid: Values) -> None:
    if not isinstance(grid, Mapping):
        raise SettingsError(
            f"a grid must be a mapping from settings to values; got {type(grid).__name__}.",
            hint='{"learning_rate": [0.001, 0.01], "width": 64}',
        )
    empty = [name for name, values in grid.items() if not _several(values)]
    if empty:
        raise SettingsError(f"`{empty[0]}` has no values in the search.")


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


def grid_trials(grid: Grid, base: Values, options: Sequence[str] = ()) -> list[Settings]:
    """Make settings of every combination over a base; `options` are names that the user's own network takes."""
    trials = []
    for number, values in enumerate(grid.combinations(), start=1):
        own = tuple((name, value) for name, value in values.items() if name in options)
        known = {name: value for name, value in values.items() if name not in options}
        merged = {**base, **known, **({"options": own} if own else {})}
        if known.get("network") == "constant":
            merged["epochs"] = known.get("epochs", 0)
        trials.append(make_settings(merged, where=f"combination {number} of the search"))
    return trials
