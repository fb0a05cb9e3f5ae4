"""What is drawn of the inside of networks: layers over time, and what a linear classifier has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foldwise.checks.layers import called
from foldwise.errors import percent
from foldwise.report.numbers import short

Content = Mapping[str, Any]

MOST_LINES = 10  # in a panel; of more layers some are drawn, evenly
DECADES = 30.0  # from this ratio of the largest to the smallest value on, an axis is logarithmic


@dataclass(frozen=True)
class Panel:
    """A small picture: what it shows, how to read it, and which numbers of which layers."""

    name: str
    reading: str
    number: str
    role: str  # of the layers; empty: the weights themselves
    share: bool = False


PANELS = (
    Panel(
        "Outputs, mean",
        "A layer that drifts far from its start pushes its units to the flat side of what follows.",
        "mean",
        "weights",
    ),
    Panel(
        "Outputs, variance",
        "Layers should be of one size: towards 0 nothing comes through, without end the signal explodes.",
        "variance",
        "weights",
    ),
    Panel(
        "Gradients, variance",
        "Falling by factors from the last layer to the first, gradients vanish; rising, they explode.",
        "gradient_variance",
        "weights",
    ),
    Panel(
        "Weights, moved",
        "Distance from the start, as a share of their size then: at 0, a layer has learned nothing.",
        "moved",
        "",
    ),
    Panel(
        "Weights, per step",
        "Net move per step, as a share of their size: about 0.001 is usual; far more throws them about.",
        "per_step",
        "",
    ),
    Panel(
        "Dead units",
        "Units that are 0 for every row: they get no gradient, and the network is as narrow as the rest.",
        "dead",
        "activation",
        share=True,
    ),
    Panel(
        "Saturated outputs",
        "At the flat ends of a bounded activation little gradient comes through.",
        "saturated",
        "activation",
        share=True,
    ),
)
NORM = "The length of the whole gradient: it should fall or stay, not jump."


def inside_of(looks: Content | None) -> dict[str, Any] | None:
    """Lay out the panels of what was measured over time; None when nothing was.

    Layers have a place `at` between 0, the first, and 1, the last, by which they are colored alike in all panels.
    """
    if not looks or len(looks.get("epochs") or []) < 2:
        return None
    layers, weights = looks.get("layers") or [], looks.get("weights") or []
    places = _places([*(w.get("name") for w in weights), *(own.get("name") for own in layers)], layers)
    panels = []
    for panel in PANELS:
        owners = [own for own in layers if own.get("role") == panel.role] if panel.role else weights
        lines = [
            {
                "name": called(str(own["name"])),
                "at": places.get(own["name"], 0.0),
                "values": _shown(own.get(panel.number)),
            }
            for own in owners
            if own.get("name") and any(v is not None for v in own.get(panel.number) or [])
        ]
        if lines:
            panels.append(_panel(panel.name, panel.reading, _evenly(lines), panel.share))
    clipped = looks.get("clipped") or []
    if any(v is not None for v in looks.get("gradient_norm") or []):
        line = {"name": "gradient", "at": 1.0, "values": _shown(looks["gradient_norm"])}
        panels.append(
            _panel("Gradient, norm", NORM + _clipping(clipped), [line]) | {"clipped": _shown(clipped)}
        )
    named = [own["name"] for own in layers if own.get("role") == "weights" and own.get("name")]
    return {
        "trial": looks.get("trial"),
        "epochs": looks["epochs"],
        "steps": looks.get("steps"),
        "panels": panels,
        "key": _evenly([{"name": called(str(name)), "at": places[name]} for name in dict.fromkeys(named)]),
    } if panels else None  # fmt: skip


def _places(names: Sequence[Any], layers: Sequence[Content]) -> dict[Any, float]:
    """Give each layer its place, by the order in which the forward pass meets them."""
    met = list(dict.fromkeys(own.get("name") for own in layers)) or list(dict.fromkeys(names))
    return {name: i / max(1, len(met) - 1) for i, name in enumerate(met)}


def _panel(name: str, reading: str, lines: list[dict[str, Any]], share: bool = False) -> dict[str, Any]:
    values = [v for line in lines for v in line["values"] if v is not None]
    above = [v for v in values if v > 0]
    wide = bool(above) and min(values) >= 0 and max(above) > DECADES * min(above)
    return {"name": name, "reading": reading, "lines": lines, "share": share, "log": wide and not share}


def _clipping(clipped: Sequence[float | None]) -> str:
    known = [c for c in clipped if c is not None]
    return (
        f" Bars: steps that were clipped, {percent(sum(known) / len(known))} of all looked at."
        if known
        else ""
    )


def _shown(values: Sequence[float | None] | None) -> list[float | None]:
    return [short(v, 4) for v in values or []]


def _evenly(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose at most `MOST_LINES`, the first and the last among them."""
    if len(lines) <= MOST_LINES:
        return lines
    return [lines[round(i * (len(lines) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)]


def linear_of(found: Content | None) -> dict[str, Any] | None:
    """Lay out a linear classifier; None when a part without which it cannot be drawn is missing."""
    needed = ("classes", "names", "weights", "bias", "points", "labels")
    if not found or not all(found.get(part) for part in needed) or len(found["names"]) < 2:
        return None
    if None in found["weights"] or None in found["points"]:
        return None
    names = list(map(str, found["classes"]))
    scored = names[1:] if len(names) == 2 else names
    return {
        **{part: found[part] for part in needed},
        "classes": names,
        "scored": scored,
        "trial": found.get("trial"),
        "images": None if None in (images := found.get("images") or []) else images,
    }
