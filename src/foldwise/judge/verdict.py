"""The verdict on a study: every trial's score, its place, and the winner's score corrected for having been chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from foldwise.data.folds import Folds
from foldwise.judge.metrics import Metric
from foldwise.judge.selection import (
    Interval,
    bootstrap_intervals,
    corrected_p_value,
    corrected_winner,
    mean_losses,
)
from foldwise.settings import WRITTEN_OTHERWISE, Settings

TIED_ABOVE = 0.05


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial; `number` and folds count from 1, as users see them."""

    number: int
    name: str
    settings: Settings
    place: int
    score: float
    low: float
    high: float
    deviation: float
    fold_scores: tuple[float, ...]
    epoch: int
    tied: bool
    status: str


@dataclass(frozen=True)
class Headline:
    """The one number to believe, and how it came about."""

    sentence: str
    how: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TrialRecord:
    """What a trial left, for judging: losses per row averaged over seeds and repeats (NaN: row never validated),
    and mean losses per fold averaged over seeds."""

    losses: Float[np.ndarray, " rows"]
    fold_losses: Float[np.ndarray, " folds"]
    epoch: int
    status: str


def trial_names(trials: Sequence[Settings]) -> list[str]:
    """Name each trial by its network and the settings in which it differs from others of that network.

    >>> trial_names([Settings(network="linear"), Settings(width=32), Settings(width=64)])
    ['linear', 'mlp 32×2', 'mlp 64×2']
    """
    return [_name(s, [t for t in trials if t.network == s.network]) for s in trials]


SHORT = {
    "learning_rate": "rate",
    "weight_decay": "decay",
    "batch_size": "batch",
    "label_smoothing": "smoothing",
}
WORDS = (
    "activation",
    "optimizer",
    "schedule",
    "scaling",
    "initialization",
    "loss",
)  # that say what they are of
FIRST = ("optimizer", "learning_rate", "batch_size", "weight_decay", "dropout", "activation", "loss")
MOST_PARTS = 5  # of a name; more do not fit on a line


def _name(settings: Settings, family: Sequence[Settings]) -> str:
    built = settings.network in ("mlp", "residual")
    head = f"{settings.network} {settings.width}×{settings.depth}" if built else settings.network
    told = {"network", *WRITTEN_OTHERWISE, *(("width", "depth") if built else ())}
    varying = [
        name
        for name in settings.effective()
        if name not in told and len({getattr(t, name) for t in family}) > 1
    ]
    if len(varying) > MOST_PARTS:
        # what has many values was searched; what has two may only tell the search from the baselines
        count = {name: len({getattr(t, name) for t in family}) for name in varying}
        varying.sort(
            key=lambda name: (-min(count[name], 3), FIRST.index(name) if name in FIRST else len(FIRST))
        )
    parts = [_said(name, getattr(settings, name)) for name in varying]
    parts += [
        f"{block} frozen" if name == "frozen" else f"{block}.{name} {value:g}"
        for block, name, value in settings.blocks
        if name != "frozen" or value
    ]
    parts += [_said(name, value) for name, value in (*settings.options, *settings.knobs)]
    if len(parts) > MOST_PARTS:
        parts = [*parts[: MOST_PARTS - 1], f"{len(parts) - MOST_PARTS + 1} more"]
    return ", ".join([head, *parts])


def _said(name: str, value: Any) -> str:
    """Say a setting; a word such as relu says by itself what it is."""
    if name in WORDS:
        return str(value)
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return (
        f"{SHORT.get(name, name)} {value:g}"
        if isinstance(value, float)
        else f"{SHORT.get(name, name)} {value}"
    )


def judge(
    trials: Sequence[Settings],
    records: Sequence[TrialRecord],
    folds: Folds,
    metric: Metric,
    title: str,
    *,
    thorough: bool = True,
    caveat: str = "",
    weights: Float[np.ndarray, " rows"] | None = None,
) -> tuple[list[TrialResult], Headline]:
    """Rank the trials and write the headline; `thorough=False` leaves out intervals (while training).

    `caveat` is what else there is to know of the scores, said with the headline. `weights` say how much each row
    counts in every mean, and are above 0 where a row is validated.
    """
    names = trial_names(trials)
    losses = np.stack([r.losses for r in records])
    validated = ~np.isnan(losses).all(axis=0)
    losses = losses[:, validated]
    own = None if weights is None else weights[validated]
    means = mean_losses(losses, own)
    finished = np.isfinite(means)
    order = np.argsort(np.where(finished, means, np.inf), kind="stable")
    winner = int(order[0])
    usable = np.where(finished[:, None], losses, 0.0)
    intervals = bootstrap_intervals(usable, weights=own) if thorough else None
    results = []
    for place, t in enumerate(map(int, order), start=1):
        record = records[t]
        low, high = (
            (intervals[t].low, intervals[t].high) if intervals and finished[t] else (math.nan, math.nan)
        )
        fold_scores = tuple(_finish(metric, x) for x in record.fold_losses)
        results.append(
            TrialResult(
                number=t + 1,
                name=names[t],
                settings=trials[t],
                place=place,
                score=_finish(metric, means[t]),
                low=min(_finish(metric, low), _finish(metric, high)),
                high=max(_finish(metric, low), _finish(metric, high)),
                deviation=float(np.std(fold_scores, ddof=1)) if len(fold_scores) > 1 else math.nan,
                fold_scores=fold_scores,
                epoch=record.epoch,
                tied=t != winner
                and bool(finished[t])
                and (intervals is None or intervals[t].low <= intervals[winner].high)
                and (
                    _tied_on_rows(losses[winner], losses[t], own)
                    if len(folds) == 1
                    else _tied(records[winner], record, folds, weights)
                ),
                status=record.status,
            )
        )
    winner_again = corrected_winner(usable, finished, weights=own) if thorough and finished[winner] else None
    return results, _headline(results, winner_again, finished, metric, folds, title, thorough, caveat)


def _finish(metric: Metric, mean: float) -> float:
    return metric.finish(float(mean)) if math.isfinite(mean) else math.nan


def _tied(winner: TrialRecord, other: TrialRecord, folds: Folds, weights: np.ndarray | None) -> bool:
    every = np.ones(folds.train.shape[1]) if weights is None else weights
    train, validation = ((part @ every).mean() for part in (folds.train, folds.validation))
    return corrected_p_value(winner.fold_losses, other.fold_losses, train, validation) > TIED_ABOVE


def _tied_on_rows(winner: np.ndarray, other: np.ndarray, weights: np.ndarray | None) -> bool:
    # one hold-out has no folds to compare; its rows stand in, each as a fold of its own that overlaps with none
    return corrected_p_value(winner, other, 1, 0, weights) > TIED_ABOVE


def _headline(
    results: list[TrialResult],
    winner: Interval | None,
    finished: Bool[np.ndarray, " trials"],
    metric: Metric,
    folds: Folds,
    title: str,
    thorough: bool,
    caveat: str,
) -> Headline:
    best = results[0]
    value, ends = best.score, (math.nan, math.nan)
    if winner is not None:
        value = _finish(metric, winner.value)
        ends = _finish(metric, winner.low), _finish(metric, winner.high)
    low, high = min(ends), max(ends)
    said = sentence_of(title, metric.label, (value, low, high), results, best)
    how = f"The best so far, by {folds.how}."
    if thorough:
        share = float(folds.validation.any(axis=0).mean())
        scored = "all rows" if share == 1 else f"{share:.0%} of the rows"
        lost = int((~finished).sum())
        others = f" ({lost} more gave no finite score)" if lost else ""
        how = (
            f"The best of {int(finished.sum())} trials{others} by {folds.how}, {scored} scored by networks that had "
            "not seen them. Because the best was chosen on these same rows, its score is corrected by choosing again "
            "on 1000 resamples of the rows and scoring the choice on the rows left out (BBC-CV); the interval is that "
            "of the resamples."
        )
        how = f"{how} {caveat}".rstrip()
    return Headline(said, how, value, low, high)


def sentence_of(
    title: str,
    label: str,
    interval: tuple[float, float, float],
    results: Sequence[TrialResult],
    best: TrialResult | None,
) -> str:
    """Say a score with its interval (value, low, high), and beside it those of the baselines.

    `best` is the trial that has the score, when a single one does.
    """
    value, low, high = interval
    digits = decimals(value, low, high)
    said = f"{title}: {label} {value:.{digits}f}"
    if math.isfinite(low):
        said += f" (95 % {low:.{digits}f}–{high:.{digits}f})"
    for network, name in (("linear", "linear model"), ("constant", "constant")):
        result = next((r for r in results if r.settings.network == network), None)
        if result is not None and result is best:
            said += f" by the {name}"
        elif result is not None and math.isfinite(result.score):
            said += f", {name} {result.score:.{digits}f}"
    return said


def decimals(value: float, low: float, high: float) -> int:
    """Choose how many decimals to show: two digits of the interval's width, or three of the value without one.

    >>> decimals(0.1283, 0.121, 0.136), decimals(52314.2, 50100.0, 54700.0)
    (3, 0)
    """
    width = high - low if math.isfinite(high - low) and high > low else abs(value) / 10
    if not math.isfinite(width) or width <= 0:
        return 3
    return int(min(6, max(0, 1 - math.floor(math.log10(width)))))


def row_losses(
    rows: int,
    losses: Mapping[tuple[int, int], Float[np.ndarray, " fold_rows"]],
    places: Sequence[Int[np.ndarray, " fold_rows"]],
    weights: Float[np.ndarray, " rows"] | None = None,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " folds"]]:
    """Average losses given by (seed, fold) to one per row and one per fold; NaN for rows of no fold.

    `weights` say how much each row counts in the mean of its fold.
    """
    total, count = np.zeros((2, rows))
    by_fold: dict[int, list[float]] = {fold: [] for fold in range(len(places))}
    for (_, fold), values in losses.items():
        np.add.at(total, places[fold], values)
        np.add.at(count, places[fold], 1)
        own = None if weights is None else weights[places[fold]]
        by_fold[fold].append(float(mean_losses(values, own)))
    per_row = np.divide(total, count, out=np.full(rows, np.nan), where=count > 0)
    return per_row, np.array([np.mean(v) if v else np.nan for v in by_fold.values()])
