"""Ranges of numbers to draw a setting from, and what one setting may be in a search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from foldwise.errors import SettingsError, did_you_mean
from foldwise.settings import BLOCK_SETTINGS, Settings

# Values are rounded to steps of about a hundredth of their range: short in a leaderboard, and fine enough for a
# setting. A leaderboard shows six digits, so that what it shows is the very value.
FEWEST_DIGITS, MOST_DIGITS, STEPS = 3, 6, 100


@dataclass(frozen=True)
class Range:
    """Every number from `low` to `high`, each equally likely; for whole numbers, both ends included.

    Raises SettingsError unless both are finite and `low` is below `high`.

    >>> Range(0, 0.5).at(0.25)
    0.125
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _refuse_no_range(self)

    def at(self, share: float) -> float:
        """Give the number below which lies this share of the range."""
        return self.low + share * (self.high - self.low)

    @property
    def extent(self) -> float:
        """How wide the range is, relative to its larger end."""
        return (self.high - self.low) / max(abs(self.low), abs(self.high))


@dataclass(frozen=True)
class LogRange:
    """Every number from `low` to `high`, each power of ten equally likely: for rates and penalties.

    Raises SettingsError unless both are finite and positive and `low` is below `high`.

    >>> round(LogRange(1e-4, 1e-1).at(1 / 3), 6)
    0.001
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _refuse_no_range(self)
        if self.low <= 0:
            raise SettingsError(
                f"{self}: low must be positive, because zero and below have no logarithm.",
                hint=f"LogRange({self.high / 1000:g}, {self.high:g}), or a Range",
            )

    def at(self, share: float) -> float:
        """Give the number below which lies this share of the range."""
        return math.exp(math.log(self.low) + share * self.extent)

    @property
    def extent(self) -> float:
        """How wide the range is: the logarithm of high/low."""
        return math.log(self.high) - math.log(self.low)


AnyRange = Range | LogRange
FORMS: dict[str, type[AnyRange]] = {"range": Range, "log_range": LogRange}
"""How ranges are written in a search file."""
RANGE_HINT = 'a range is written {"range": [0, 0.5]} or {"log_range": [0.0001, 0.1]}'


def _refuse_no_range(given: AnyRange) -> None:
    ends = (given.low, given.high)
    if any(not isinstance(end, Real) or isinstance(end, bool) or not math.isfinite(end) for end in ends):
        raise SettingsError(f"{given}: both ends must be finite numbers.")
    if given.low >= given.high:
        raise SettingsError(
            f"{given}: low must be less than high.",
            hint="the lower end comes first; a single value is given without a range",
        )


def written(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Write a grid as a search file does, in values that JSON has.

    >>> written({"width": [8, 16], "dropout": Range(0, 0.5)})
    {'width': [8, 16], 'dropout': {'range': [0, 0.5]}}
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Range | LogRange):
            form = next(name for name, kind in FORMS.items() if isinstance(value, kind))
            return {form: [plain(value.low), plain(value.high)]}
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        return (
            [plain(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
        )

    return {name: plain(value) for name, value in grid.items()}


def read_range(name: str, written: Mapping[str, Any]) -> AnyRange:
    """Read a range as a search file writes it.

    >>> read_range("dropout", {"range": [0, 0.5]})
    Range(low=0, high=0.5)
    """
    form, ends = next(iter(written.items())) if len(written) == 1 else ("", None)
    if form not in FORMS:
        raise SettingsError(
            f"`{name}`: {dict(written)} is neither a value nor a range.",
            hint=" · ".join(filter(None, [did_you_mean(form, FORMS), RANGE_HINT])),
        )
    if isinstance(ends, str) or not isinstance(ends, Sequence) or len(ends) != 2:
        raise SettingsError(f"`{name}`: a {form} has two ends, low and high; got {ends!r}.", hint=RANGE_HINT)
    try:
        return FORMS[form](*ends)
    except SettingsError as problem:
        raise SettingsError(f"`{name}`: {problem.problem}", hint=problem.hint or RANGE_HINT) from None


# What one setting may be. A share from 0 to 1 picks a value, so that evenly spread shares give evenly spread values.


@dataclass(frozen=True)
class Listed:
    """One of a few values."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.values)

    def at(self, share: float) -> Any:
        """Pick the value at a share of the list."""
        return self.values[int(share * len(self.values))]

    def everything(self) -> Iterator[Any]:
        """Give every value."""
        return iter(self.values)

    def typical(self) -> tuple[Any, ...]:
        """Give values that show what goes with this setting."""
        return self.values


@dataclass(frozen=True)
class Whole:
    """A whole number in a range, both ends included."""

    range: AnyRange

    @property
    def size(self) -> float:
        """How many values there are."""
        return int(self.range.high) - int(self.range.low) + 1

    def at(self, share: float) -> int:
        """Pick the number at a share of the range; the number n stands for all from n to n + 1."""
        widened = type(self.range)(self.range.low, self.range.high + 1)
        return min(int(self.range.high), max(int(self.range.low), math.floor(widened.at(share))))

    def everything(self) -> Iterator[int]:
        """Give every value."""
        return iter(range(int(self.range.low), int(self.range.high) + 1))

    def typical(self) -> tuple[int, ...]:
        """Give values that show what goes with this setting: both ends are drawn."""
        return (int(self.range.low), int(self.range.high))


@dataclass(frozen=True)
class Rounded:
    """A rounded number in a range."""

    range: AnyRange

    size = math.inf

    def at(self, share: float) -> float:
        """Pick the number at a share of the range, rounded to few digits.

        >>> Rounded(Range(0, 0.5)).at(1 / 3), Rounded(Range(0.99, 0.9999)).at(1 / 3)
        (0.167, 0.9933)
        """
        return self.near(self.range.at(share))

    def near(self, number: float) -> float:
        """Round a number of the range."""
        digits = round(1 + math.log10(STEPS / self.range.extent))
        digits = min(MOST_DIGITS, max(FEWEST_DIGITS, digits))
        rounded = float(f"{number:.{digits}g}")
        return min(float(self.range.high), max(float(self.range.low), rounded))

    def everything(self) -> Iterator[float]:
        """Refuse: there is no list of all."""
        raise SettingsError(f"{self.range} has no list of all its values.")

    def typical(self) -> tuple[float]:
        """Give values that show what goes with this setting: inside, for the very ends are hardly ever drawn."""
        return (self.at(0.5),)


Axis = Listed | Whole | Rounded


def several(value: Any) -> tuple[Any, ...]:
    """List the values given for a setting: a single one is a list of one."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(value)
    return (value,)


def axis_of(name: str, given: Any, options: Mapping[str, Any]) -> Axis:
    """Say what a setting may be; `options` are names that are no settings, with a value that each may have.

    Raises SettingsError when a range does not suit the setting: it is no number, or is limited to less.
    """
    if not isinstance(given, Range | LogRange):
        values = several(given)
        return Listed(tuple(v for i, v in enumerate(values) if v not in values[:i]))
    whole = isinstance(given.low, Integral) and isinstance(given.high, Integral)
    if name in options:
        default = options[name]
        if isinstance(default, bool | str):
            raise _no_number(name, given)
        return Whole(given) if whole and not isinstance(default, float) else Rounded(given)
    block, _, setting = name.rpartition(".")
    if block:
        if setting == "frozen":
            raise _no_number(name, given)
        _refuse_beyond(name, given, BLOCK_SETTINGS.get(setting, ""), ge=0)
        return Rounded(given)
    field = Settings.model_fields.get(name)
    if field is None:  # what is wrong with the name is said where settings are made
        return Rounded(given)
    if field.annotation not in (int, float):
        raise _no_number(name, given)
    limits = {key: value for limit in field.metadata for key, value in asdict(limit).items()}
    _refuse_beyond(name, given, field.description or "", **limits)
    if field.annotation is float:
        return Rounded(given)
    if given.low != int(given.low) or given.high != int(given.high):
        raise SettingsError(
            f"`{name}` is a whole number, and the ends of {given} are not.",
            hint=f"{name}: {field.description}",
        )
    return Whole(given)


def _no_number(name: str, given: AnyRange) -> SettingsError:
    return SettingsError(f"`{name}` is no number, so {given} is nothing to draw it from.", hint="give a list")


def _refuse_beyond(name: str, given: AnyRange, says: str, **limits: float) -> None:
    for key, limit in limits.items():
        must, end, broken = {
            "ge": ("at least", given.low, given.low < limit),
            "gt": ("greater than", given.low, given.low <= limit),
            "le": ("at most", given.high, given.high > limit),
            "lt": ("less than", given.high, given.high >= limit),
        }[key]
        if broken:
            raise SettingsError(
                f"`{name}` must be {must} {limit:g}, and {given} reaches {end:g}.", hint=f"{name}: {says}"
            )
