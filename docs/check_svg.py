"""Two small panels side by side on one scale, as SVG: a patient on the left, its healthy twin on the right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

MOST_LETTERS = 42  # of a head
LETTER = 6.6  # wide, at the most, in a text of 12 pixels
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 340, 150, 52, 44, 22, 24
INNER = WIDTH - LEFT - 8  # the width of what is drawn in a panel
ALARM, FAINT = "#d1323f", "#8a94a0"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#59626d}.head{font-weight:600;fill:#1c2127}.grid{stroke:#e3e4e1}"
    "@media(prefers-color-scheme:dark){text{fill:#9ea7b2}.head{fill:#e4e6e9}.grid{stroke:#2c323a}}"
)


@dataclass(frozen=True)
class Mark:
    """What is drawn of some points: its name in the key (empty: none), its color, its shape.

    The color is blended between orange (0) and blue (1), unless it is given. Shapes are `line`, `dashed`, `dots`,
    `bars` from the bottom (with `width`, in units of x), and, where heights are rows, `cells` so wide and `ticks`.
    """

    name: str
    at: float
    points: tuple[tuple[float, float], ...]
    shape: str = "line"
    color: str = ""
    width: float = 0.8

    @property
    def paint(self) -> str:
        """Give its color; all can be read on white and on black."""
        first, last = (0xC9, 0x6A, 0x2B), (0x3B, 0x7D, 0xD8)
        blend = (round(a + self.at * (b - a)) for a, b in zip(first, last, strict=True))
        return self.color or "#" + "".join(f"{part:02x}" for part in blend)


@dataclass(frozen=True)
class Panel:
    """What is drawn of one run. `words` stand below, each at its x; `rows` at the left, the first on top.

    Where there are no words, the first and the last x stand below; `span` is what is between left and right, by
    default from 0 to the last x.
    """

    marks: tuple[Mark, ...]
    words: tuple[tuple[float, str], ...] = ()
    rows: tuple[str, ...] = ()
    span: tuple[float, float] | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Give the first and the last x."""
        return self.span or (0.0, max((x for m in self.marks for x, _ in m.points), default=1.0) or 1.0)

    def across(self, x: float, left: float) -> float:
        """Give the place of an x in a panel that begins at the left."""
        first, last = self.ends
        return left + LEFT + INNER * (x - first) / (last - first)


@dataclass(frozen=True)
class Scale:
    """A vertical axis."""

    low: float
    high: float
    log: bool = False
    share: bool = False
    rows: tuple[str, ...] = ()

    def place(self, y: float) -> float:
        """Give the height of a value, from the top; rows count from 0 at the top."""
        if self.rows:
            return TOP + HEIGHT * (y + 0.5) / len(self.rows)
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        at = (math.log10(max(y, self.low)) if self.log else y) - low
        return TOP + HEIGHT * (1 - at / ((high - low) or 1))

    @property
    def ticks(self) -> list[float]:
        """Give three to five values on the axis."""
        if self.rows:
            return [float(n) for n in range(len(self.rows))]
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            every = max(1, math.ceil(len(powers) / 4))
            return [10.0**p for p in powers if p % every == 0]
        reach = self.high - self.low
        step = 10 ** math.floor(math.log10(reach or 1))
        step = next(s for s in (step / 5, step / 2, step, 2 * step) if reach / s <= 5)
        return [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def written(self, y: float) -> str:
        """Write a tick."""
        if self.rows:
            return self.rows[round(y)]
        return (
            f"{y:.0%}"
            if self.share
            else f"{y:.3g}".replace("e+0", "e").replace("e-0", "e−").replace("e+", "e").replace("-", "−")
        )


def picture(ill: Panel, well: Panel, name: str, said: str, *, axis: str = "") -> str:
    """Draw two panels on one scale: the patient on the left, its twin on the right.

    The `axis` is one of shares (`share`), from the lowest value to the highest (`near`), or chosen by the values.
    """
    scale = scale_of([*ill.marks, *well.marks], axis, ill.rows)
    total = 2 * WIDTH + GAP
    parts = [*drawn(ill, name, 0, scale), *drawn(well, "healthy", WIDTH + GAP, scale)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {TOP + HEIGHT + BOTTOM}" role="img">\n'
        f"<title>{escape(said)}</title>\n<style>{STYLE}</style>\n{''.join(parts)}</svg>\n"
    )


def scale_of(marks: Sequence[Mark], axis: str = "", rows: tuple[str, ...] = ()) -> Scale:
    """Choose an axis for all marks: by powers of ten where values are of very different size."""
    share, near = axis == "share", axis == "near"
    values = [y for mark in marks for _, y in mark.points]
    above = [v for v in values if v > 0]
    if share or rows or not values:
        return Scale(0.0, 1.0, share=share, rows=rows)
    if min(values) < 0 or near:
        room = 0.05 * (max(values) - min(values))
        return Scale(min(values) - room, max(values) + room)
    nothing = any(
        all(y == 0 for _, y in mark.points) for mark in marks
    )  # which has no place among powers of ten
    bars = any(mark.shape == "bars" for mark in marks) and len(above) < len(values)
    if above and max(above) > 30 * min(above) and not nothing and not bars:
        return Scale(min(above) / 1.3, max(above) * 1.3, log=True)
    return Scale(0.0, max(above, default=1.0) * 1.05)


def drawn(panel: Panel, title: str, left: float, scale: Scale) -> Iterator[str]:
    """Draw a panel: its head, its key, its axes, its marks."""
    short = title if len(title) <= MOST_LETTERS else f"{title[: MOST_LETTERS - 1]}…"
    yield f'<text class="head" x="{left + LEFT}" y="14">{escape(short)}</text>\n'
    yield _key([mark for mark in panel.marks if mark.name], left + LEFT)
    for tick in scale.ticks:
        y = scale.place(tick)
        yield f'<line class="grid" x1="{left + LEFT}" x2="{left + LEFT + INNER}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{left + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(scale.written(tick))}</text>\n'
    for x, word in panel.words or [(x, f"{x:.0f}") for x in panel.ends]:
        anchor = "end" if x == panel.ends[1] else "middle"  # the last would be cut off at the edge
        place = f'x="{panel.across(x, left):.0f}" y="{TOP + HEIGHT + 16}"'
        yield f'<text {place} text-anchor="{anchor}">{escape(word)}</text>\n'
    for mark in panel.marks:
        yield SHAPES[mark.shape](mark, panel, left, scale)


def _line(mark: Mark, panel: Panel, left: float, scale: Scale) -> str:
    path = " ".join(f"{panel.across(x, left):.1f},{scale.place(y):.1f}" for x, y in mark.points)
    dash = ' stroke-dasharray="6 4"' if mark.shape == "dashed" else ""
    return f'<polyline points="{path}" fill="none" stroke="{mark.paint}" stroke-width="2"{dash}/>\n'


def _dots(mark: Mark, panel: Panel, left: float, scale: Scale) -> str:
    places = ((panel.across(x, left), scale.place(y)) for x, y in mark.points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places)
    return f'<g fill="{mark.paint}">{dots}</g>\n'


def _boxes(mark: Mark, panel: Panel, left: float, scale: Scale) -> str:
    """Draw bars from the bottom, or cells or ticks in their rows."""
    tall = HEIGHT / len(scale.rows) * (0.76 if mark.shape == "cells" else 0.5) if scale.rows else 0.0
    boxes = []
    for x, y in mark.points:
        first, last = (panel.across(x + side * mark.width / 2, left) for side in (-1, 1))
        wide = 2.5 if mark.shape == "ticks" else max(last - first, 0.8)
        top = scale.place(y) - tall / 2
        height = tall or max(TOP + HEIGHT - top, 0)
        boxes.append(
            f'<rect x="{(first + last - wide) / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{height:.1f}"/>'
        )
    return f'<g fill="{mark.paint}">{"".join(boxes)}</g>\n'


SHAPES = {"line": _line, "dashed": _line, "dots": _dots, "bars": _boxes, "cells": _boxes, "ticks": _boxes}


def _key(marks: list[Mark], left: float) -> str:
    """Name the marks in their colors; where there is no room for all, the first and the last."""
    room = sum(LETTER * len(mark.name) + 12 for mark in marks)
    named = marks if room < WIDTH - LEFT else [marks[0], replace(marks[-1], name=f"… {marks[-1].name}")]
    parts, at = [], left
    for mark in named:
        parts.append(f'<text x="{at:.0f}" y="32" style="fill:{mark.paint}">{escape(mark.name)}</text>\n')
        at += LETTER * len(mark.name) + 12
    return "".join(parts)
