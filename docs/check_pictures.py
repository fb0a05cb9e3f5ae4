"""Pictures of checks: a patient of the fault benchmark beside its healthy twin, drawn as SVG."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from foldwise.checks.series import Looks
from foldwise.errors import FoldwiseError
from foldwise.study import Study

HERE = Path(__file__).parent
PICTURES = HERE / "images" / "checks"
AREAS = ("data", "network", "training")  # whose cases are studies; loops of one's own leave none
TASKS, SEED = ("digits", "phoneme", "abalone", "spambase", "california"), 0  # the first in which it is found
MOST_LAYERS = 6
MOST_LETTERS = 42  # of a head
DRAWN = {
    "dead-units": "dead",
    "saturated-units": "saturated",
    "saturating-activation": "gradient_variance",
    "vanishing-gradients": "gradient_variance",
    "exploding-gradients": "gradient_variance",
    "vanishing-signal": "variance",
    "exploding-signal": "variance",
    "initial-scale": "variance",
    "softmax-hidden": "variance",
    "equal-weights": "moved",
    "no-gradient": "moved",
    "unused-layers": "moved",
    "uneven-layers": "moved",
    "rate-too-low": "moved",
    "decay-dominates": "moved",
    "epsilon-dominates": "moved",
    "clipped-always": "moved",
}
"""What is drawn of a check; of those that are not here, the curves of the loss."""
PLANTED: dict[str, tuple[str, dict[str, object]]] = {
    "dead-units": ("a rate of 3 with plain descent", {"learning_rate": 3.0, "optimizer": "sgd"}),
    "non-finite": ("a rate of 1000 with plain descent", {"learning_rate": 1000.0, "optimizer": "sgd"}),
    "saturated-units": (
        "tanh with initial deviation 2",
        {"activation": "tanh", "initialization": "normal", "initial_deviation": 2.0},
    ),
    "overfitting": ("512 units, 200 epochs", {"width": 512, "epochs": 200, "learning_rate": 0.01}),
    "underfitting": ("one unit", {"width": 1, "depth": 1}),
    "plateau": ("a rate of 1e-4 with plain descent", {"learning_rate": 1e-4, "optimizer": "sgd"}),
    "jitter": ("a rate of 0.1, 4 rows in a batch", {"learning_rate": 0.1, "batch_size": 4}),
    "uneven-layers": ("the first layer at a rate of 1e-7", {"hidden1.learning_rate": 1e-7}),
    "unscaled-inputs": ("inputs as they are", {"scaling": "none"}),
}
"""Patients of checks that the fault benchmark has only as a symptom of something else: settings that make them ill."""
WHAT = {
    "curves": "Training and validation loss",
    "dead": "Share of dead units by layer",
    "saturated": "Share of saturated outputs by layer",
    "gradient_variance": "Variance of gradients by layer",
    "variance": "Variance of outputs by layer",
    "moved": "Distance of weights from their start by layer",
}


@dataclass(frozen=True)
class Line:
    """A line of a picture: its name, its place between the first (0) and the last (1), its points."""

    name: str
    at: float
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


def draw(codes: Sequence[str]) -> None:
    """Draw the pictures of checks whose patient is there; says which have none."""
    sys.path.insert(0, str(HERE.parent))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for code in codes:
        done = drawn(code)
        if done is None:
            print(f"{code}: no patient", file=sys.stderr)
        else:
            (PICTURES / f"{code}.svg").write_text(done, encoding="utf-8")
            print(f"{code}: drawn", file=sys.stderr)


def drawn(code: str) -> str | None:
    """Run the patients of a check until one is found to be ill, and draw it beside its twin; None when none is."""
    from benchmarks.faults.case import tasks

    known = tasks(SEED)
    for name, case in patients(code):
        able = [task for task in TASKS if task in known and (not case.tasks or task in case.tasks)]
        for task in able:
            pair = ill_and_well(code, case, known[task])
            if pair is not None:
                return side_by_side(code, name, task, *pair)
    return None


def ill_and_well(code: str, case: Any, task: Any) -> tuple[Study, Study] | None:
    """Train a patient and its twin; None when it is not found to be ill, or they leave no studies."""
    from benchmarks.faults.case import plain, witnessed

    seen: list[Study] = []
    try:
        with witnessed(seen.append):
            found = case.run(task, SEED).findings
            if code not in {c for f in found for c in (f.code, *f.symptoms)}:
                return None
            (case.healthy or plain)(task, SEED)
    except FoldwiseError:  # it cannot be planted in this task
        return None
    return (seen[0], seen[1]) if len(seen) == 2 else None


def side_by_side(code: str, name: str, task: str, ill: Study, well: Study) -> str:
    """Draw what tells a patient from its twin."""
    kind = DRAWN.get(code, "curves")
    pair = [lines_of(study, kind) for study in (ill, well)]
    if not all(pair):
        kind, pair = "curves", [lines_of(study, "curves") for study in (ill, well)]
    said = f"Left: {name}; right: the same without it ({task}). {WHAT[kind]}, over epochs"
    return picture(pair[0], pair[1], name, said, share=kind in ("dead", "saturated"))


def patients(code: str) -> Iterator[tuple[str, Any]]:
    """List the cases of a check: what is planted for it here, then those of which it is the first cause first."""
    from benchmarks.faults.case import Case, studied

    if code in PLANTED:
        name, settings = PLANTED[code]
        yield name, Case(name, (code,), lambda task, seed: studied(task, seed, settings, remedies=False))
    found: list[Case] = []
    for area in AREAS:
        if (HERE.parent / "benchmarks" / "faults" / f"{area}.py").exists():
            found += importlib.import_module(f"benchmarks.faults.{area}").FAULTS
    own = [case for case in found if code in case.causes]
    yield from ((case.name, case) for case in sorted(own, key=lambda case: case.causes.index(code)))


def lines_of(study: Study, kind: str) -> list[Line]:
    """Take the lines of a study out of its history, or of what was measured."""
    if kind == "curves":
        return _curves(study)
    return [] if study.looks is None else _layers(study.looks, kind)


def _curves(study: Study) -> list[Line]:
    trial = study.looks.trial if study.looks is not None else max(r.number for r in study.results)
    own = study.outer_history.filter((pl.col("trial") == trial) & (pl.col("epoch") > 0))
    names = {"training": "training_loss", "validation": "validation_loss"}
    mean = own.group_by("epoch").agg(pl.col(c).mean() for c in names.values()).sort("epoch")
    found = []
    for at, (name, column) in enumerate(names.items()):
        pairs = zip(mean["epoch"].to_list(), mean[column].to_list(), strict=True)
        points = tuple((float(e), v) for e, v in pairs if v is not None and math.isfinite(v))
        found += [Line(name, float(at), points, dashed=at == 0)] if points else []
    return found


def _layers(looks: Looks, kind: str) -> list[Line]:
    role = "activation" if kind in ("dead", "saturated") else "weights"
    owners = looks.weights if kind == "moved" else [own for own in looks.layers if own.role == role]
    lines = []
    for own in owners:
        pairs = zip(looks.epochs, getattr(own, kind), strict=True)
        points = tuple((float(e), v) for e, v in pairs if v is not None)
        lines += [Line(own.name, 0.0, points)] if points else []
    if len(lines) > MOST_LAYERS:
        lines = [lines[round(i * (len(lines) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]
    return [replace(line, at=i / max(1, len(lines) - 1)) for i, line in enumerate(lines)]


WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 340, 150, 52, 44, 22, 24
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#59626d}.head{font-weight:600;fill:#1c2127}.grid{stroke:#e3e4e1}"
    "@media(prefers-color-scheme:dark){text{fill:#9ea7b2}.head{fill:#e4e6e9}.grid{stroke:#2c323a}}"
)


def picture(ill: list[Line], well: list[Line], name: str, said: str, *, share: bool = False) -> str:
    """Draw two panels on one scale: the patient on the left, its twin on the right."""
    values = [y for line in [*ill, *well] for _, y in line.points]
    scale = _scale(values, share)
    total = 2 * WIDTH + GAP
    parts = [_panel(ill, name, 0, scale), _panel(well, "healthy", WIDTH + GAP, scale)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {TOP + HEIGHT + BOTTOM}" role="img">\n'
        f"<title>{escape(said)}</title>\n<style>{STYLE}</style>\n{''.join(parts)}</svg>\n"
    )


@dataclass(frozen=True)
class Scale:
    """A vertical axis."""

    low: float
    high: float
    log: bool
    share: bool

    def place(self, y: float) -> float:
        """Give the height of a value, from the top."""
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        at = (math.log10(max(y, self.low)) if self.log else y) - low
        return TOP + HEIGHT * (1 - at / ((high - low) or 1))

    @property
    def ticks(self) -> list[float]:
        """Give three to five values on the axis."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            every = max(1, math.ceil(len(powers) / 4))
            return [10.0**p for p in powers if p % every == 0]
        step = 10 ** math.floor(math.log10(self.high or 1))
        step = next(s for s in (step / 5, step / 2, step, 2 * step) if self.high / s <= 5)
        return [step * n for n in range(math.floor(self.high / step) + 1)]

    def written(self, y: float) -> str:
        """Write a tick."""
        return (
            f"{y:.0%}"
            if self.share
            else f"{y:.3g}".replace("e+0", "e").replace("e-0", "e−").replace("e+", "e")
        )


def _scale(values: Sequence[float], share: bool) -> Scale:
    above = [v for v in values if v > 0]
    if share or not above:
        return Scale(0.0, 1.0, False, share)
    if min(values) >= 0 and max(above) > 30 * min(above):
        return Scale(min(above) / 1.3, max(above) * 1.3, True, False)
    return Scale(0.0, max(above) * 1.05, False, False)


def _panel(lines: list[Line], title: str, left: float, scale: Scale) -> str:
    x0, width = left + LEFT, WIDTH - LEFT - 8
    last = max((x for line in lines for x, _ in line.points), default=1.0) or 1.0
    short = title if len(title) <= MOST_LETTERS else f"{title[: MOST_LETTERS - 1]}…"
    parts = [f'<text class="head" x="{x0}" y="14">{escape(short)}</text>\n', _key(lines, x0)]
    for tick in scale.ticks:
        y = scale.place(tick)
        parts.append(f'<line class="grid" x1="{x0}" x2="{x0 + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{scale.written(tick)}</text>\n')
    for x in (0.0, last):
        at = x0 + width * x / last
        parts.append(f'<text x="{at:.0f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{x:.0f}</text>\n')
    for line in lines:
        path = " ".join(f"{x0 + width * x / last:.1f},{scale.place(y):.1f}" for x, y in line.points)
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        stroke = f'fill="none" stroke="{_color(line.at)}" stroke-width="2"{dash}'
        parts.append(f'<polyline points="{path}" {stroke}/>\n')
    return "".join(parts)


def _key(lines: list[Line], left: float) -> str:
    """Name the lines in their colors; where there is no room for all, the first and the last."""
    room = sum(6.6 * len(line.name) + 12 for line in lines)
    named = lines if room < WIDTH - LEFT else [lines[0], replace(lines[-1], name=f"… {lines[-1].name}")]
    parts, at = [], left
    for line in named:
        parts.append(f'<text x="{at:.0f}" y="32" style="fill:{_color(line.at)}">{escape(line.name)}</text>\n')
        at += 6.6 * len(line.name) + 12
    return "".join(parts)


def _color(at: float) -> str:
    """Blend from orange, the first layer, to blue, the last; both can be read on white and on black."""
    first, last = (0xC9, 0x6A, 0x2B), (0x3B, 0x7D, 0xD8)
    return "#" + "".join(f"{round(a + at * (b - a)):02x}" for a, b in zip(first, last, strict=True))
