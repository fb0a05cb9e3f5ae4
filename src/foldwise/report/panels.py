"""The picture of which settings mattered: one small panel for each, all on one axis of scores."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from foldwise.report.numbers import decimals, drawn_at_random, number, short

Content = Mapping[str, Any]

MOST_PANELS = 16
MOST_DOTS = 300  # per panel; means are those of all trials
MOST_BANDS = 5  # numbers with more values than this stand on an axis
MOST_SPREAD = 0.6  # of the axis: whiskers longer than this on most trials would be a fence before the dots


def panels_of(importance: Content | None) -> dict[str, Any] | None:
    """Prepare what the section shows: `settings` in order, those with a `panel`, and what the charts draw.

    None when there is nothing to show. `importance` is what the content of the page has under that name.
    """
    given = importance or {}
    trials = [t for t in given.get("trials") or [] if t]
    settings = [s for s in given.get("settings") or [] if s and s.get("name") and s.get("values")]
    best, edge = given.get("best"), given.get("edge")
    if not trials or not settings or best is None or edge is None:
        return None
    shown = settings[:MOST_PANELS]
    keep = drawn_at_random(len(trials), MOST_DOTS)
    first = [i for i, t in enumerate(trials) if t.get("place") == 1]
    keep = sorted({*keep, *first})
    scores = [t.get("score") for t in trials]
    typical = statistics.median([t["deviation"] for t in trials if t.get("deviation")] or [0.0])
    whiskers = 0 < typical <= MOST_SPREAD * abs(edge - best)
    spanned = [t if whiskers else {**t, "deviation": None} for t in trials]
    return {
        "settings": [_said(s, len(trials)) for s in settings],
        "shown": len(shown),
        "rest": [s["name"] for s in settings[MOST_PANELS:]],
        "trials": len(trials),
        "drawn_trials": len(keep),
        "winner": bool(first),
        "upward": edge >= best,
        "whiskers": whiskers,
        "spread": number(typical, decimals(typical)) if typical and not whiskers else None,
        "tested": any(s.get("share") is not None for s in settings),
        "grouped": any(_on_axis(s) and s.get("groups") for s in shown),
        "diverged": sum(s is None for s in scores),
        "beyond": sum(s is not None and _beyond(s, best, edge) for s in scores),
        "drawn": {
            "domain": list(map(short, score_domain(spanned, best, edge))),
            "best": short(best),
            "edge": short(edge),
            "whiskers": whiskers,
            "trials": [_trial(trials[i]) for i in keep],
            "panels": [_panel(s, keep) for s in shown],
        },
    }


def score_domain(trials: Sequence[Content], best: float, edge: float) -> tuple[float, float]:
    """Give the axis of scores: from the best to the edge, with up to a quarter of that more on each side for whiskers.

    >>> score_domain([{"score": 1.0, "deviation": 0.2}, {"score": 2.0, "deviation": 9.0}], 1.0, 2.0)
    (0.75, 2.25)
    """
    low, high = min(best, edge), max(best, edge)
    inside = [t for t in trials if t.get("score") is not None and low <= t["score"] <= high]
    ends = [
        t["score"] + sign * t["deviation"]
        for t in inside
        if t.get("deviation") is not None
        for sign in (-1, 1)
    ]
    width = (high - low) or max(map(abs, (e - low for e in ends)), default=0.0) or abs(low) / 10 or 1.0
    most, least = 0.25 * width, 0.08 * width
    return (
        low - max(least, min(most, low - min(ends, default=low))),
        high + max(least, min(most, max(ends, default=high) - high)),
    )


def written(value: Any) -> str:
    """Write one value of a setting.

    >>> written(0.0003), written(True), written("relu"), written(65536)
    ('0.0003', 'yes', 'relu', '65536')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """Write a share as a whole percentage.

    >>> percent(0.314), percent(0.0004)
    ('31 %', 'under 1 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def _said(s: Content, trials: int) -> dict[str, Any]:
    """A setting as texts: its name, what can be said of it, and the row of the table."""
    share, p_value = s.get("share"), s.get("p_value")
    values = [v for v in s["values"] if v is not None]
    groups = _groups(s)
    return {
        "name": s["name"],
        "beyond": bool(s.get("beyond_chance")),
        "said": f"goes with {percent(share)} of the differences"
        if share is not None and s.get("beyond_chance")
        else s.get("verdict") or "",
        "part": f"{len(values)} of {trials} trials" if len(values) < trials else "",
        "trials": len(values),
        "means": [f"{_span(g)}: {number(g['mean'], decimals(g['mean']))}" for g in groups],
        "share": None if share is None else percent(share) if share else "0 %",
        "p_value": None if p_value is None else f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001",
    }


def _groups(s: Content) -> list[Content]:
    return [g for g in s.get("groups") or [] if g and None not in map(g.get, ("low", "high", "mean"))]


def _span(group: Content) -> str:
    low, high = written(group.get("low")), written(group.get("high"))
    return low if low == high else f"{low}–{high}"


def _beyond(score: float, best: float, edge: float) -> bool:
    return score > edge if edge >= best else score < edge


def _on_axis(s: Content) -> bool:
    return bool(s.get("numeric")) and len({v for v in s["values"] if v is not None}) > MOST_BANDS


def _trial(t: Content) -> list[Any]:
    name = t.get("name") or f"trial {t.get('number')}"
    return [
        t.get("number"),
        name,
        short(t.get("score")),
        short(t.get("deviation"), 3),
        int(t.get("place") == 1),
    ]


def _panel(s: Content, keep: Sequence[int]) -> dict[str, Any]:
    """What one panel draws: the value of each trial, or its place among `levels`; and the means of groups."""
    panel = {"name": s["name"], "beyond": bool(s.get("beyond_chance")), "log": bool(s.get("log"))}
    values = [s["values"][i] if i < len(s["values"]) else None for i in keep]
    groups = _groups(s)
    if _on_axis(s):
        ends = [[short(g["low"]), short(g["high"]), short(g["mean"])] for g in groups]
        return panel | {"levels": None, "values": [short(v) for v in values], "groups": ends}
    levels = sorted({v for v in s["values"] if v is not None}, key=float if s.get("numeric") else str)
    place = {repr(v): i for i, v in enumerate(levels)}
    # a group of words or of few numbers is one level
    means = [[place[repr(g["low"])]] * 2 + [short(g["mean"])] for g in groups if repr(g["low"]) in place]
    return panel | {
        "levels": [written(v) for v in levels],
        "values": [None if v is None else place[repr(v)] for v in values],
        "groups": means,
    }
