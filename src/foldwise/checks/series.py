"""What was measured of a network over time, by layer, as plain numbers: what a run folder keeps of looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from foldwise.checks.look import ACTIVATION_KINDS, LayerLook, Look, WeightsLook

Series = tuple[float | None, ...]
"""A number for each look; None where it was not measured, or is not finite."""

MOST_LOOKS = 64
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class LayerSeries:
    """A layer over time, see `LayerLook`; `role` is what it is for: weights, activation, or other."""

    name: str
    kind: str
    role: str
    units: int
    mean: Series
    variance: Series
    gradient_variance: Series
    dead: Series
    saturated: Series


@dataclass(frozen=True)
class WeightSeries:
    """A weight matrix over time: how far it is from its start, and how far it moves in a step, in parts of its norm."""

    name: str
    gradient_norm: Series
    moved: Series
    per_step: Series


@dataclass(frozen=True)
class Looks:
    """One member of a trial (numbered from 1) at some steps; `clipped` is the share of steps clipped up to each."""

    trial: int
    steps: tuple[int, ...]
    epochs: tuple[int, ...]
    layers: tuple[LayerSeries, ...]
    weights: tuple[WeightSeries, ...]
    gradient_norm: Series
    clipped: Series


def series_of(trial: int, looks: Sequence[Look], clipped: Sequence[float] = ()) -> Looks | None:
    """Lay looks out by layer; `clipped` are shares of each epoch from 1 on. None without two looks at epochs.

    Layers are those of the first look. One that is run several times is shown as it was the first time.
    """
    if len(looks) < 2 or any(look.epoch is None for look in looks):
        return None
    first = looks[0]
    weighted = {own.name for own in first.weighted}
    names = dict.fromkeys(own.name for own in first.layers)
    by_look = [{own.name: own for own in reversed(look.layers)} for look in looks]
    weights = [{own.name: own for own in look.weights} for look in looks]
    epochs = tuple(look.epoch or 0 for look in looks)
    return Looks(
        trial,
        tuple(look.step for look in looks),
        epochs,
        tuple(_layer(by_look[0][name], weighted, [known.get(name) for known in by_look]) for name in names),
        tuple(
            _weights(w.name, looks, [known.get(w.name) for known in weights])
            for w in first.weights
            if len(w.shape) >= 2
        ),
        tuple(_known(_total(look)) for look in looks),
        tuple(_clipped(clipped, before, epoch) for before, epoch in zip((0, *epochs), epochs, strict=False)),
    )


def _layer(start: LayerLook, weighted: set[str], seen: Sequence[LayerLook | None]) -> LayerSeries:
    def over_time(of: Callable[[LayerLook], float]) -> Series:
        return tuple(None if own is None else _known(of(own)) for own in seen)

    activates = start.kind in ACTIVATION_KINDS
    role = "weights" if start.name in weighted else "activation" if activates else "other"
    return LayerSeries(
        start.name,
        start.kind,
        role,
        start.units,
        mean=over_time(lambda own: own.mean),
        variance=over_time(lambda own: own.variance),
        gradient_variance=over_time(lambda own: own.gradient_variance),
        dead=over_time(lambda own: own.dead),
        saturated=over_time(lambda own: own.saturated),
    )


def _weights(name: str, looks: Sequence[Look], seen: Sequence[WeightsLook | None]) -> WeightSeries:
    steps = [look.step for look in looks]
    taken = [now - before for before, now in zip([steps[0], *steps], steps, strict=False)]
    return WeightSeries(
        name.removesuffix(".weight"),
        tuple(None if w is None or w.gradient_norm is None else _known(w.gradient_norm) for w in seen),
        tuple(None if w is None else _known(w.moved) for w in seen),
        tuple(None if w is None or not n else _known(w.last / n) for w, n in zip(seen, taken, strict=True)),
    )


def _total(look: Look) -> float:
    return math.sqrt(sum(w.gradient_norm**2 for w in look.weights if w.gradient_norm is not None))


def _clipped(shares: Sequence[float], before: int, epoch: int) -> float | None:
    """Average the shares of the epochs since the look before."""
    known = [s for s in shares[before:epoch] if math.isfinite(s)]
    return _known(sum(known) / len(known)) if known else None


def _known(value: float) -> float | None:
    # five digits are more than a chart shows, and keep files small
    return float(f"{value:.5g}") if math.isfinite(value) else None


def problems(looks: Looks, trials: int) -> Iterator[str]:
    """Say what is wrong with looks that were read from a file, for a study of so many trials."""
    count = len(looks.steps)
    lists = [looks.epochs, looks.gradient_norm, looks.clipped]
    lists += [getattr(own, n) for own in looks.layers for n in LAYER_NUMBERS]
    lists += [getattr(own, n) for own in looks.weights for n in ("gradient_norm", "moved", "per_step")]
    if not 2 <= count <= MOST_LOOKS or len(looks.layers) + len(looks.weights) > MOST_LAYERS:
        yield "its looks are too many or too few"
    if any(len(own) != count for own in lists):
        yield "its looks are not those of its steps"
    if not 1 <= looks.trial <= trials:
        yield "its looks are at a trial that is not there"
    for times in (looks.steps, looks.epochs):
        if list(times) != sorted(times) or any(t < 0 for t in times):
            yield "its looks are out of order"
    shares = [s for own in looks.layers for n in ("dead", "saturated") for s in getattr(own, n)]
    if any(s is not None and not 0 <= s <= 1 for s in [*shares, *looks.clipped]):
        yield "its looks have shares that are none"


LAYER_NUMBERS = ("mean", "variance", "gradient_variance", "dead", "saturated")
