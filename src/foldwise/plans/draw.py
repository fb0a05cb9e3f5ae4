"""Trials drawn from a search, so that few of them cover it well."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import qmc

from foldwise.errors import SettingsError
from foldwise.plans.ranges import Axis, Listed

TRIALS = 32
"""How many are drawn when nobody says."""
CANDIDATES = 100
"""How many hypercubes are drawn, to take the one in which no two settings go together much."""
PATIENCE = 10_000
"""After how many draws without a new trial there are taken to be no more."""

Space = Mapping[str, Axis]
Drawn = dict[str, Any]


def draw(spaces: Sequence[Space], trials: int | None, seed: int, points: str = "latin") -> list[Drawn]:
    """Draw different trials, evenly from several spaces; all there are, when nobody says how many and they are few.

    `points` says how, by a name of `POINTS`. Raises SettingsError when more are asked for than there are.
    """
    sizes = [_size(space) for space in spaces]
    if trials is not None and trials > sum(sizes):
        raise SettingsError(
            f"`trials` is {trials}, but the search has {sum(sizes)} combinations.",
            hint="leave `trials` out to try them all, or give more values",
        )
    listed = all(isinstance(axis, Listed) for space in spaces for axis in space.values())
    if trials is not None and listed and points != "sobol":
        return _some_of_all(spaces, trials, seed)
    if trials is not None and trials < len(spaces):
        raise SettingsError(
            f"`trials` is {trials}, but the search has {len(spaces)} mappings, which share them.",
            hint=f"at least --trials {len(spaces)}, one for each mapping",
        )
    counts = shared(max(TRIALS, len(spaces)) if trials is None else trials, sizes)
    return [
        values
        for number, (space, count) in enumerate(zip(spaces, counts, strict=True))
        for values in _spread(space, count, [seed % 2**64, number], points)
    ]


def shared(trials: int, sizes: Sequence[float]) -> list[int]:
    """Share trials evenly; what a small space cannot take goes to the others.

    >>> shared(10, [math.inf, 1, math.inf]), shared(10, [2, 3])
    ([5, 1, 4], [2, 3])
    """
    counts = [0] * len(sizes)
    smallest_first = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for place, i in enumerate(smallest_first):
        counts[i] = int(min(sizes[i], math.ceil((trials - sum(counts)) / (len(sizes) - place))))
    return counts


def everything(space: Space) -> Iterator[Drawn]:
    """Give every combination, the last setting varying fastest."""
    for values in itertools.product(*(axis.everything() for axis in space.values())):
        yield dict(zip(space, values, strict=True))


def probes(space: Space) -> Iterator[Drawn]:
    """Give combinations that show whether the values go together, whichever will be drawn.

    Every typical value of each setting is among them beside the last of every other: if two values do not go
    together unless one asks for nothing, then one of its ends asks for something.
    """
    first = {name: axis.typical()[0] for name, axis in space.items()}
    yield first
    for name, axis in space.items():
        for value in axis.typical():
            yield {**first, name: value}
            for other, beside in space.items():
                if other != name and len(beside.typical()) > 1:
                    yield {**first, name: value, other: beside.typical()[-1]}


def _size(space: Space) -> float:
    return math.prod(axis.size for axis in space.values())


def _in_order(space: Space) -> Space:
    # by name, so that the order in which settings were written draws nothing else
    return {name: space[name] for name in sorted(space)}


def _some_of_all(spaces: Sequence[Space], trials: int, seed: int) -> list[Drawn]:
    ends = list(itertools.accumulate(int(_size(space)) for space in spaces))
    chosen = np.random.default_rng(seed % 2**64).choice(ends[-1], trials, replace=False)
    out = []
    for place in sorted(chosen.tolist()):
        number = next(n for n, end in enumerate(ends) if place < end)
        space = _in_order(spaces[number])
        shape = [int(axis.size) for axis in space.values()]
        index = np.unravel_index(place - (ends[number - 1] if number else 0), shape)
        values = (
            axis.values[i] for axis, i in zip(space.values(), index, strict=True) if isinstance(axis, Listed)
        )
        out.append(dict(zip(space, values, strict=True)))
    return out


def _spread(space: Space, count: int, key: Sequence[int], how: str) -> list[Drawn]:
    if count >= _size(space):
        return list(everything(space))
    fixed = {name: axis.at(0) for name, axis in space.items() if axis.size == 1}
    drawn = _in_order({name: axis for name, axis in space.items() if axis.size > 1})
    points = POINTS[how](count, len(drawn), np.random.default_rng(key))
    found: dict[str, Drawn] = {}
    draws_in_vain = 0
    while len(found) < count and draws_in_vain < PATIENCE:
        shares = zip(drawn.items(), next(points), strict=True)
        values = {**fixed, **{name: axis.at(share) for (name, axis), share in shares}}
        draws_in_vain = draws_in_vain + 1 if repr(values) in found else 0
        found[repr(values)] = values
    if len(found) == count:
        return list(found.values())
    raise SettingsError(
        f"only {len(found)} different trials were found in the ranges, not {count}.",
        hint="ask for fewer trials, or give wider ranges",
    )


Points = Iterator[list[float]]
"""Points in the unit cube, without end."""


def _random(count: int, settings: int, random: np.random.Generator) -> Points:
    while True:
        yield random.random(settings).tolist()


def _latin(count: int, settings: int, random: np.random.Generator) -> Points:
    yield from _evenly(count, settings, random)
    yield from _random(count, settings, random)  # in the place of those that were drawn before


def _sobol(count: int, settings: int, random: np.random.Generator) -> Points:
    """Give scrambled Sobol points (Owen 1998): the more there are, the more evenly they fill pairs of settings too."""
    sequence = qmc.Sobol(settings, rng=random)
    yield from sequence.random_base2(math.ceil(math.log2(max(2, count)))).tolist()
    yield from _random(count, settings, random)


POINTS: dict[str, Callable[[int, int, np.random.Generator], Points]] = {
    "latin": _latin,
    "random": _random,
    "sobol": _sobol,
}
"""How points are drawn, by the name of the sampler, for so many trials over so many settings."""


def _evenly(count: int, settings: int, random: np.random.Generator) -> list[list[float]]:
    """Draw points in the unit cube that are even in every setting, and in which no two settings go together.

    Latin hypercubes (McKay, Beckman & Conover 1979); of many, the one with the least largest correlation of two
    settings, as by Iman & Conover 1982. Sobol points, which also fill pairs evenly once there are hundreds of them,
    have pairs that correlate by 0.9 among the first 32, and then no picture tells which of the two mattered.
    """
    cubes = [qmc.LatinHypercube(settings, rng=random).random(count) for _ in range(CANDIDATES)]
    return min(cubes, key=_largest_correlation).tolist()


def _largest_correlation(points: np.ndarray) -> float:
    if len(points) < 2 or points.shape[1] < 2:
        return 0.0
    return float(np.abs(np.corrcoef(points.T) - np.eye(points.shape[1])).max())
