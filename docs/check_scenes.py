"""What is drawn of a patient and its twin: each kind of picture takes what their runs left and gives two panels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from check_svg import ALARM, FAINT, Mark, Panel

from foldwise.checks.finding import Finding
from foldwise.checks.overfit_one_batch import RATES, ROWS, STEPS
from foldwise.checks.probe import fewer, mean_loss
from foldwise.checks.series import Looks
from foldwise.checks.sight import Sight
from foldwise.checks.start_loss import expected_loss
from foldwise.study import Study

MOST_LAYERS = 6
MOST_POINTS = 140  # of a line
FIRST_TURNS = 8  # of a loop, in which calls are shown one by one
EARLY_TURNS = 15  # in which gradients explode
FIRST_EPOCHS = 10  # of a loss at the start
SHOWN_ROWS = 60
BINS = 12
Points = tuple[tuple[float, float], ...]


@dataclass
class Turns:
    """What happened in a loop of one's own, turn by turn, heard by hooks; `calls` are in order: what, when, and whether
    the network was in training mode then."""

    rates: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)  # norms of the gradients that came back in a turn
    met: list[float] = field(default_factory=list)  # norms of those that the last step of a turn found
    moved: dict[str, list[float]] = field(default_factory=dict)
    calls: list[tuple[str, float, bool]] = field(default_factory=list)
    inputs: torch.Tensor | None = None  # of the first pass
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)
    came_back: float = 0.0
    found: float = 0.0
    since: int = 0  # the turn began with this call

    def see(self, own: Any) -> None:
        """Note a turn of a loop; at the first time, begin to listen."""
        if not self.handles:
            self._listen(own)
            return
        self.rates.append(float(own.optimizer.param_groups[0]["lr"]))
        self.came.append(math.sqrt(self.came_back))
        self.met.append(math.sqrt(self.found))
        for name, start in self.start.items():
            now = own.net.get_parameter(name).detach()
            self.moved[name.removesuffix(".weight")].append(float((now - start).norm() / start.norm()))
        self.came_back = self.found = 0.0
        self.since = len(self.calls)

    def close(self) -> None:
        """Stop listening."""
        for handle in self.handles:
            handle.remove()

    def _listen(self, own: Any) -> None:
        matrices = [(n, p) for n, p in own.net.named_parameters() if p.ndim >= 2]
        self.start = {name: p.detach().clone() for name, p in matrices}
        self.moved = {name.removesuffix(".weight"): [] for name in self.start}
        every = [p for p in own.net.parameters() if p.requires_grad]

        def called(what: str) -> None:
            place = len(self.rates) + min(0.25 * (len(self.calls) - self.since), 0.75)
            self.calls.append((what, place, own.net.training))

        def passes(net: Any, given: tuple[torch.Tensor, ...]) -> None:
            self.inputs = given[0].detach() if self.inputs is None else self.inputs
            called("run" if torch.is_grad_enabled() else "validation")

        def comes(gradient: torch.Tensor) -> None:
            self.came_back += float(gradient.square().sum())

        def steps(*given: Any) -> None:
            self.found = sum(float(p.grad.square().sum()) for p in every if p.grad is not None)
            called("step")

        self.handles = [
            own.net.register_forward_pre_hook(passes),
            own.optimizer.register_step_pre_hook(steps),
            *(p.register_hook(comes) for p in every),
            every[-1].register_hook(lambda gradient: called("back")),
        ]


@dataclass
class Seen:
    """What a run left: its findings, its score on clean rows and the one that validation claims, and a study, what
    checks saw before training, or the turns of a loop."""

    findings: Sequence[Finding] = ()
    score: float = math.nan
    claimed: float = math.nan
    study: Study | None = None
    sight: Sight | None = None
    turns: Turns = field(default_factory=Turns)

    def says(self, code: str) -> Finding | None:
        """Give the finding of a check, or the one that it is a symptom of."""
        own = [f for f in self.findings if code == f.code]
        return next(iter([*own, *(f for f in self.findings if code in f.symptoms)]), None)


Scene = tuple[Panel, Panel] | None
Kind = Callable[[Seen, Seen, str], Scene]
"""Takes patient, twin and the code of a check."""


def each(draw: Callable[[Seen], Panel | None]) -> Kind:
    """Draw patient and twin in the same way."""

    def both(ill: Seen, well: Seen, code: str) -> Scene:
        panels = draw(ill), draw(well)
        return (panels[0], panels[1]) if panels[0] and panels[1] else None

    return both


# Of studies


def curves(seen: Seen) -> Panel | None:
    """Draw training and validation loss."""
    return _curves(seen, first=1)


def from_start(seen: Seen) -> Panel | None:
    """Draw the validation loss from before the first step on, and that of the constant."""
    panel, study = _curves(seen, first=0, last=FIRST_EPOCHS), seen.study
    if panel is None or study is None:
        return None
    constant = next(r.number for r in study.results if r.settings.network == "constant")
    level = study.outer_history.filter(pl.col("trial") == constant)["validation_loss"].drop_nulls()
    if not len(level):
        return None
    validation = replace(panel.marks[-1], name="network")
    return Panel((_level("the same for all rows", float(level.min()), panel.ends), validation))  # type: ignore[arg-type]


def _curves(seen: Seen, first: int, last: int = 10**9) -> Panel | None:
    study = seen.study
    if study is None:
        return None
    trial = study.looks.trial if study.looks is not None else max(r.number for r in study.results)
    own = study.outer_history.filter((pl.col("trial") == trial) & pl.col("epoch").is_between(first, last))
    names = {"training": "training_loss", "validation": "validation_loss"}
    mean = own.group_by("epoch").agg(pl.col(c).mean() for c in names.values()).sort("epoch")
    marks = []
    for at, (name, column) in enumerate(names.items()):
        points = _points(mean["epoch"].to_list(), mean[column].to_list())
        marks += [Mark(name, float(at), points, "line" if at else "dashed")] if points else []
    return Panel(tuple(marks)) if marks else None


def by_layer(what: str) -> Kind:
    """Draw what was measured of each layer, or the curves where nothing was."""

    def layers(seen: Seen) -> Panel | None:
        looks = None if seen.study is None else seen.study.looks
        return None if looks is None else _layers(looks, what)

    return lambda ill, well, code: each(layers)(ill, well, code) or each(curves)(ill, well, code)


def _layers(looks: Looks, what: str) -> Panel | None:
    role = "activation" if what in ("dead", "saturated") else "weights"
    owners = looks.weights if what == "moved" else [own for own in looks.layers if own.role == role]
    return _lines({own.name: _points(looks.epochs, getattr(own, what)) for own in owners})


def claims(seen: Seen) -> Panel | None:
    """Draw what validation claims beside the score on rows that nobody has seen."""
    if not math.isfinite(seen.claimed + seen.score):
        return None
    return _bars([seen.claimed, max(seen.score, 0.0)], ["validation", "new rows"], name="score")


def copies(seen: Seen) -> Panel | None:
    """Draw for each fold the share of the rows it is scored on that are also among those it learns from."""
    if seen.study is None or seen.study.table is None:
        return None
    table, folds = seen.study.table, seen.study.folds.outer
    rows = np.nan_to_num(np.column_stack([table.features, table.targets]))
    _, which = np.unique(rows, axis=0, return_inverse=True)
    which = which.reshape(-1)  # some versions of NumPy give a column
    shares = [
        float(np.isin(which[own], which[learned]).mean())
        for learned, own in zip(folds.train, folds.validation, strict=True)
    ]
    return _bars(shares, [f"fold {n + 1}" for n in range(len(folds))], name="scored rows that were learned")


def sides(ill: Seen, well: Seen, code: str) -> Scene:
    """Draw the mean of a column or target in question among the rows that a fold learns from and is scored on."""
    found = ill.says(code)
    panels = [_sides(s.study, found.where[0]) for s in (ill, well) if s.study and found and found.where]
    return (panels[0], panels[1]) if len(panels) == 2 and panels[0] and panels[1] else None


def _sides(study: Study, name: str) -> Panel | None:
    table = study.table
    if table is None or name not in table.frame.columns or not table.frame[name].dtype.is_numeric():
        return None
    folds, values = study.folds.outer, table.frame[name].cast(pl.Float64).fill_null(0).to_numpy()
    marks = [
        Mark(
            side, float(at), tuple((n + 0.5, float(values[own].mean())) for n, own in enumerate(rows)), "dots"
        )
        for at, (side, rows) in enumerate((("learned", folds.train), ("scored", folds.validation)))
    ]
    words = tuple((n + 0.5, f"fold {n + 1}") for n in range(len(folds)))
    mean = replace(marks[0], name=f"mean of {name}:", points=(), color=FAINT)
    return Panel((mean, *marks), words, span=(0.0, float(len(folds))))


def right_of_each(seen: Seen) -> Panel | None:
    """Draw the share of each class that is recognized."""
    study = seen.study
    if study is None or study.table is None:
        return None
    trial = max(r.number for r in study.results)
    said = (
        study.predictions.filter(pl.col("trial") == trial)
        .drop("trial", "seed", "fold")
        .group_by("row")
        .mean()
    )
    said = said.sort("row")
    places = np.searchsorted(study.table.row, said["row"].to_numpy())
    truth, best = study.table.targets[places].astype(int), said.drop("row").to_numpy().argmax(1)
    names = study.task.classes[0]
    shares = [float((best == truth)[truth == n].mean()) for n in range(len(names))]
    words = [f"class {name}, {np.mean(truth == n):.0%} of rows" for n, name in enumerate(names)]
    return _bars(shares, words, name="recognized")


def choices(seen: Seen) -> Panel | None:
    """Draw the scores of all trials, the chosen one first, and what is left of its score once luck is taken off."""
    study = seen.study
    if study is None or study.luck is None:
        return None
    scores = [r.score for r in study.results if math.isfinite(r.score)]
    scores = scores[: max(2, len(scores) // 2)]  # the worse half is far away and says nothing
    points = _points(range(1, len(scores) + 1), scores)
    honest = _level("without luck", study.luck.value, (1.0, float(len(scores))))
    chosen = Mark("chosen", 0.0, ((1.0, study.luck.raw),), "dots", ALARM)
    return Panel(
        (Mark(f"{study.metric.name} by rank", 1.0, points), replace(honest, at=0.0), chosen),
        span=(0.0, float(len(scores))),
    )


def fold_scores(seen: Seen) -> Panel | None:
    """Draw the scores of the folds for the constant, the linear model and the network, and their means."""
    study = seen.study
    if study is None:
        return None
    by_name: dict[str, tuple[float, ...]] = {}
    for result in sorted(study.results, key=lambda r: r.number):
        kind = result.settings.network
        by_name[kind if kind in ("constant", "linear") else "network"] = result.fold_scores
    marks: list[Mark] = []
    for n, scores in enumerate(by_name.values()):
        mean, at = float(np.mean(scores)), n / max(1, len(by_name) - 1)
        marks.append(Mark("", at, tuple((n + 0.5, s) for s in scores), "dots"))
        marks.append(Mark("", at, ((n + 0.3, mean), (n + 0.7, mean))))
    return Panel(
        tuple(marks),
        tuple((n + 0.5, name) for n, name in enumerate(by_name)),
        span=(0.0, float(len(by_name))),
    )


# Of what checks see before training


def histogram(ill: Seen, well: Seen, code: str) -> Scene:
    """Draw how often values of the column in question occur; of several columns, of the one with the least range."""
    found = ill.says(code)
    tables = [s.sight.table.frame for s in (ill, well) if s.sight is not None and s.sight.table is not None]
    if found is None or len(tables) < 2:
        return None
    name = min(found.where, key=lambda name: float(np.ptp(tables[1][name].drop_nulls().to_numpy())))
    pair = [table[name].drop_nulls().to_numpy() for table in tables]
    low, high = (float(f([f(values) for values in pair])) for f in (np.min, np.max))
    edges = np.linspace(low, high, BINS + 1)
    wide = edges[1] - edges[0]
    words = tuple((end, f"{end:.3g}".replace("-", "−")) for end in (low, high))

    def bars(values: np.ndarray) -> Panel:
        points = _points(edges[:-1] + wide / 2, np.histogram(values, edges)[0])
        return Panel(
            (Mark(f"rows by {name}", 1.0, points, "bars", width=0.9 * wide),), words, span=(low, high)
        )

    return bars(pair[0]), bars(pair[1])


def fold_grid(seen: Seen) -> Panel | None:
    """Draw which rows each fold learns from and is scored on."""
    if seen.sight is None or seen.sight.folds is None:
        return None
    folds = seen.sight.folds.outer
    some = np.linspace(0, folds.train.shape[1] - 1, SHOWN_ROWS).astype(int)
    rows = some[np.argsort(folds.validation[:, some].argmax(0), kind="stable")]
    learned, scored = folds.train[:, rows], folds.validation[:, rows]

    def cells(where: np.ndarray) -> Points:
        return tuple((float(row) + 0.5, float(fold)) for fold, row in np.argwhere(where))

    marks = (
        Mark("learned", 0.0, cells(learned & ~scored), "cells", FAINT, 0.85),
        Mark("scored", 1.0, cells(scored & ~learned), "cells", width=0.85),
        Mark("both", 0.0, cells(learned & scored), "cells", ALARM, 0.85),
    )
    shown = tuple(mark for mark in marks if mark.points)
    names = tuple(f"fold {n + 1}" for n in range(len(folds.train)))
    return Panel(shown, ((SHOWN_ROWS / 2, "rows"),), names, (0.0, float(SHOWN_ROWS)))


def one_batch(seen: Seen) -> Panel | None:
    """Train a copy of the network on one batch, as the check does, and draw its loss."""
    if seen.sight is None or seen.sight.network is None:
        return None
    network = fewer(seen.sight.network, ROWS)
    expected, module = expected_loss(network).value, copy.deepcopy(network.module)
    optimizer = torch.optim.Adam(module.parameters(), RATES[0])
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = mean_loss(network, module(network.inputs))
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    level = _level("the same for all rows", expected, (0.0, float(STEPS)))
    return Panel((replace(level, at=0.0), Mark("network", 1.0, _points(range(STEPS), losses))))


# Of loops


def input_sizes(seen: Seen) -> Panel | None:
    """Draw the deviation of each input as the network gets it."""
    if seen.turns.inputs is None:
        return None
    deviations = seen.turns.inputs.double().std(0, correction=0).tolist()
    return _bars([d for d in deviations if d > 0], name="deviation of each input")


def gradients(seen: Seen) -> Panel | None:
    """Draw the norm of the gradients that come back, and of those that the step finds."""
    turns, steps = seen.turns, range(1, len(seen.turns.came) + 1)
    found = Mark("found by the step", 1.0, _points(steps, turns.met))
    came = Mark("from backward", 0.0, _points(steps, turns.came), "dashed")
    return Panel((found, came)) if turns.came else None


def first_gradients(seen: Seen) -> Panel | None:
    """Draw the norm of the gradients in the first turns; where they are no numbers any more, nothing."""
    came = [c if math.isfinite(c) else None for c in seen.turns.came[:EARLY_TURNS]]
    points = _points(range(1, len(came) + 1), came)
    return Panel((Mark("gradient", 1.0, points),), span=(0.0, float(EARLY_TURNS))) if points else None


def rate(seen: Seen) -> Panel | None:
    """Draw the learning rate as a share of its highest."""
    rates = seen.turns.rates
    steps = range(1, len(rates) + 1)
    return (
        Panel((Mark("learning rate", 1.0, _points(steps, [r / max(rates) for r in rates])),))
        if rates
        else None
    )


def distances(seen: Seen) -> Panel | None:
    """Draw how far the weights of each layer are from their start."""
    steps = range(1, len(seen.turns.rates) + 1)
    return _lines({name: _points(steps, values) for name, values in seen.turns.moved.items()})


def calls(seen: Seen) -> Panel | None:
    """Draw what is called in the first turns."""
    rows = ("run", "back", "step")
    first = [(what, when) for what, when, _ in seen.turns.calls if when < FIRST_TURNS and what in rows]
    if not first:
        return None
    marks = tuple(
        Mark("", n / 2, tuple((when + 0.1, float(n)) for what, when in first if what == row), "ticks")
        for n, row in enumerate(rows)
    )
    shown = tuple(mark for mark in marks if mark.points)
    words = tuple((n + 0.35, str(n + 1)) for n in range(FIRST_TURNS))
    return Panel(shown, words, rows, (0.0, float(FIRST_TURNS)))


def modes(seen: Seen) -> Panel | None:
    """Draw in which mode the network is while it learns and while it is validated, in the first epochs."""
    ends = [n for n, (what, _, _) in enumerate(seen.turns.calls) if what == "validation"]
    if len(ends) < 3:
        return None
    rows, first = ("learns", "tested"), seen.turns.calls[: ends[2] + 1]
    own = [
        (when, what == "validation", training)
        for what, when, training in first
        if what in ("run", "validation")
    ]
    tests = [when for when, tested, _ in own if tested]
    words = tuple((tests[0] * (n + 0.5), f"epoch {n + 1}") for n in range(3))

    def mode(training: bool) -> Points:
        return tuple((when, float(tested)) for when, tested, mode in own if mode == training)

    marks = (
        Mark("training mode", 0.0, mode(True), "ticks"),
        Mark("evaluation mode", 1.0, mode(False), "ticks"),
    )
    return Panel(tuple(mark for mark in marks if mark.points), words, rows, (-1.0, tests[-1] + 1.0))


# Parts of them


def _points(xs: Any, ys: Any) -> Points:
    """Pair numbers, without those that are none, and not more of them than can be seen."""
    pairs = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True) if y is not None and math.isfinite(y)]
    thin = pairs[:: max(1, math.ceil(len(pairs) / MOST_POINTS))]
    return tuple(thin if thin[-1:] == pairs[-1:] else [*thin, pairs[-1]])


def _level(name: str, y: float, ends: tuple[float, float]) -> Mark:
    return Mark(name, 0.0, ((ends[0], y), (ends[1], y)), "dashed")


def _lines(named: dict[str, Points]) -> Panel | None:
    """Draw a line for each layer, from the first to the last; of many layers some."""
    lines = [(name, points) for name, points in named.items() if points]
    if len(lines) > MOST_LAYERS:
        lines = [lines[round(i * (len(lines) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]
    marks = tuple(Mark(name, i / max(1, len(lines) - 1), points) for i, (name, points) in enumerate(lines))
    return Panel(marks) if marks else None


def _bars(values: Sequence[float], words: Sequence[str] = (), *, name: str) -> Panel:
    points = tuple((n + 0.5, value) for n, value in enumerate(values))
    below = tuple((n + 0.5, word) for n, word in enumerate(words)) or (
        (len(values) / 2, f"{len(values)} inputs"),
    )
    wide = 0.4 if words else 0.8
    return Panel((Mark(name, 1.0, points, "bars", width=wide),), below, span=(0.0, float(len(values))))
