"""The verdict on a study: every trial's score, its place, and the winner's score corrected for having been chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from foldwise.data.folds import Folds
from foldwise.errors import percent
from foldwise.judge.metrics import Metric
from foldwise.judge.selection import (
    Interval,
    bootstrap_intervals,
    chosen_again,
    corrected_p_value,
    epoch_optimism,
    interval_of_resamples,
    less_lucky,
    look_bound,
    mean_losses,
    rows_that_count,
)
from foldwise.settings import WRITTEN_OTHERWISE, Settings

TIED_ABOVE = 0.05
BASELINES = {"linear": "linear model", "constant": "constant"}  # networks that a headline names, and how
MOST_PARTS = 50  # into which folds are joined to choose epochs without one of them


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
    parameters: int = 0
    recommended: bool = False


@dataclass(frozen=True)
class Luck:
    """How much better the winner looks than it is, because it was chosen.

    `raw` is its score as in the leaderboard and `value` the corrected one; `of_epochs` is what the choice of epochs
    takes part in it, as a mean loss per row. Scores were looked at `looks` times, one for each trial and epoch; `rows`
    are those of the smallest fold (of equal weight that would say as much), and `bound` is how far any look may be off,
    for losses between 0 and 1, by `look_bound` with them; else, or where that is 1 or more, None. `gains` tells
    whether the winner is better than the constant predictor, beyond noise and choice; None without one.
    """

    raw: float
    value: float
    of_epochs: float
    looks: int
    rows: float
    bound: float | None
    gains: bool | None

    def sentence(self, metric: Metric, low: float, high: float) -> str:
        """Say in one sentence what was luck; `low` and `high` are the ends of the corrected interval."""
        digits = decimals(self.value, low, high)
        better = (self.raw > self.value) == metric.higher_is_better
        parted = f"{self.raw:.{digits}f}" != f"{self.value:.{digits}f}" and better
        said = (
            f"Chosen among {self.looks:,} scores (trials × epochs), the best looks like {self.raw:.{digits}f}"
        )
        said += f" and is {self.value:.{digits}f}" if parted else "; that is not luck"
        if self.bound is not None:
            said += (
                f"; of so many looks, with {self.rows:,.0f} rows in the smallest fold, none is off by more than "
                f"{self.bound:.2f} (95 %)"
            )
        return f"{said}."


@dataclass(frozen=True)
class Headline:
    """The one number to believe, and how it came about."""

    sentence: str
    how: str
    value: float
    low: float
    high: float
    luck: Luck | None = None


@dataclass(frozen=True)
class Baseline:
    """A simple model beside the headline, judged as it is; `differs` beyond the noise, None: not known."""

    network: str
    score: float
    differs: bool | None = None


@dataclass(frozen=True)
class TrialRecord:
    """What a trial left, for judging: losses per row averaged over seeds and repeats (NaN: row never validated),
    and mean losses per fold averaged over seeds.

    `curve` has the latter for each epoch that might have been kept, of which `kept` was; `members` the mean loss of
    each member at that epoch. `parameters` are those of one network.
    """

    losses: Float[np.ndarray, " rows"]
    fold_losses: Float[np.ndarray, " folds"]
    epoch: int
    status: str
    parameters: int = 0
    curve: Float[np.ndarray, "epochs folds"] | None = None
    kept: int = 0
    members: Float[np.ndarray, "seeds folds"] | None = None


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
MOST_SAID = 5  # parts of a name; more do not fit on a line


def _name(settings: Settings, family: Sequence[Settings]) -> str:
    built = settings.network in ("mlp", "residual")
    head = f"{settings.network} {settings.width}×{settings.depth}" if built else settings.network
    told = {"network", *WRITTEN_OTHERWISE, *(("width", "depth") if built else ())}
    varying = [
        name
        for name in settings.effective()
        if name not in told and len({getattr(t, name) for t in family}) > 1
    ]
    if len(varying) > MOST_SAID:
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
    if len(parts) > MOST_SAID:
        parts = [*parts[: MOST_SAID - 1], f"{len(parts) - MOST_SAID + 1} more"]
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
                    else _tied(records[winner].fold_losses, record.fold_losses, folds, weights)
                ),
                status=record.status,
                parameters=record.parameters,
            )
        )
    if not (thorough and finished[winner]):
        plain = plain_baselines(results)
        return results, _headline(
            results, None, None, plain, finished, metric, folds, title, thorough, caveat
        )
    results = _recommend(results)
    simple = _simple(trials, finished)
    optimism, *of_simple = (
        _of_epochs(records, among, folds, weights) for among in (finished, *simple.values())
    )
    scores, *others = chosen_again(usable, [finished, *simple.values()], weights=own)
    rows = usable.shape[1]
    winner_again = less_lucky(interval_of_resamples(scores, rows, own), optimism)
    luck = _luck(results, records, winner_again, optimism, metric, folds, weights)
    baselines = []
    for (network, among), other, lucky in zip(simple.items(), others, of_simple, strict=True):
        # of one trial nothing is chosen, and its mean over all rows is surer than that of resamples
        mean = float(means[among][0] if among.sum() == 1 else np.nanmean(other)) + lucky
        gap = less_lucky(interval_of_resamples(scores - other, rows, own), optimism - lucky)
        first = next(r for r in results if r.settings.network == network)
        differs = gap.low > 0 or (first.place > 1 and not first.tied and gap.high < 0)
        baselines.append(Baseline(network, _finish(metric, mean), differs))
        if network == "constant":
            luck = replace(luck, gains=first.place > 1 and gap.high < 0)
    return results, _headline(
        results, winner_again, luck, baselines, finished, metric, folds, title, thorough, caveat
    )


def _simple(trials: Sequence[Settings], finished: np.ndarray) -> dict[str, Bool[np.ndarray, " trials"]]:
    """Tell which trials each of the baselines may be chosen among; only those of which some finished."""
    own = {name: finished & np.array([t.network == name for t in trials]) for name in BASELINES}
    return {name: among for name, among in own.items() if among.any()}


def plain_baselines(results: Sequence[TrialResult]) -> list[Baseline]:
    """Give the best trial of each simple model, with its score as it is."""
    best = (next((r for r in results if r.settings.network == name), None) for name in BASELINES)
    return [Baseline(r.settings.network, r.score) for r in best if r is not None and math.isfinite(r.score)]


def _recommend(results: list[TrialResult]) -> list[TrialResult]:
    """Mark the smallest of the trials tied with the first that has fewer parameters than it, else the first.

    Of several equally small ones, the best: a twin of the same size is no simpler, and looks worse. The
    one-standard-error rule (Breiman, Friedman, Olshen & Stone 1984), with the test between trials in place of the
    standard error.
    """
    among = [r for r in results if r.place == 1 or r.tied]
    simplest = min(among, key=lambda r: (r.parameters, r.place))
    return [replace(r, recommended=r is simplest) for r in results]


def _of_epochs(
    records: Sequence[TrialRecord], finished: np.ndarray, folds: Folds, weights: np.ndarray | None
) -> float:
    """Estimate what the choice of epochs adds to the luck; 0 where nobody kept curves."""
    known = [(r.curve, r.kept) for r, ok in zip(records, finished, strict=True) if ok and r.curve is not None]
    if not known:
        return 0.0
    every = np.ones(folds.validation.shape[1]) if weights is None else np.nan_to_num(weights)
    counts = np.maximum(1, folds.validation.sum(axis=0))
    rows = folds.validation @ (every / counts)
    # hundreds of folds are joined to some: the choice hardly changes when one row less has a say
    parts = np.arange(len(folds)) * min(MOST_PARTS, len(folds)) // len(folds)
    joined = np.equal.outer(np.unique(parts), parts)
    total = joined @ rows
    curves = [_over_parts(curve, joined * rows) / total for curve, _ in known]
    scored = np.stack([folds.validation[own].any(axis=0) for own in joined]).astype(np.float32)
    return epoch_optimism(curves, [kept for _, kept in known], total, scored @ scored.T > 0)


def _over_parts(
    curve: Float[np.ndarray, "epochs folds"], rows: Float[np.ndarray, "parts folds"]
) -> Float[np.ndarray, "epochs parts"]:
    """Add up losses over the folds of each part; ∞ where a member of one of them had none."""
    lost = ~np.isfinite(curve)
    return np.where(lost @ (rows > 0).T, np.inf, np.where(lost, 0.0, curve) @ rows.T)


def _luck(
    results: Sequence[TrialResult],
    records: Sequence[TrialRecord],
    winner: Interval,
    optimism: float,
    metric: Metric,
    folds: Folds,
    weights: np.ndarray | None,
) -> Luck:
    looks = sum(1 if r.curve is None else len(r.curve) for r in records)
    # a row that several folds validate counts in each for its share of them, as in the mean over rows
    each = np.ones(folds.validation.shape[1]) if weights is None else weights
    counts = folds.validation.sum(axis=0)
    count = min(
        rows_that_count(int(own.sum()), each[own] / counts[own]) for own in folds.validation if own.any()
    )
    bound = look_bound(looks, count)
    told = bound if metric.name == "accuracy" and bound < 1 else None
    return Luck(results[0].score, _finish(metric, winner.value), optimism, looks, count, told, None)


def _finish(metric: Metric, mean: float) -> float:
    # no loss is below 0, though a correction may end there, of which an RMSE has no root; no share is above 1
    most = 1.0 if metric.higher_is_better else math.inf
    return metric.finish(min(most, max(0.0, float(mean)))) if math.isfinite(mean) else math.nan


def tied_choices(
    first: tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " folds"]],
    second: tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " folds"]],
    folds: Folds,
    weights: Float[np.ndarray, " rows"] | None,
) -> bool:
    """Tell whether two choices, each by its losses of rows and of folds, differ by no more than the noise."""
    if len(folds) > 1:
        return _tied(first[1], second[1], folds, weights)
    scored = ~np.isnan(first[0])
    own = None if weights is None else weights[scored]
    return _tied_on_rows(first[0][scored], second[0][scored], own)


def _tied(winner: np.ndarray, other: np.ndarray, folds: Folds, weights: np.ndarray | None) -> bool:
    every = np.ones(folds.train.shape[1]) if weights is None else weights
    train, validation = ((part @ every).mean() for part in (folds.train, folds.validation))
    return corrected_p_value(winner, other, train, validation) > TIED_ABOVE


def _tied_on_rows(winner: np.ndarray, other: np.ndarray, weights: np.ndarray | None) -> bool:
    # one hold-out has no folds to compare; its rows stand in, each as a fold of its own that overlaps with none
    return corrected_p_value(winner, other, 1, 0, weights) > TIED_ABOVE


def _headline(
    results: list[TrialResult],
    winner: Interval | None,
    luck: Luck | None,
    baselines: Sequence[Baseline],
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
    said = sentence_of(title, metric.label, (value, low, high), baselines, best.settings.network)
    how = f"The best so far, by {folds.how}."
    if thorough:
        share = float(folds.validation.any(axis=0).mean())
        scored = "all rows" if share == 1 else f"{percent(share)} of the rows"
        lost = int((~finished).sum())
        others = f" ({lost} more gave no finite score)" if lost else ""
        how = (
            f"The best of {int(finished.sum())} trials{others} by {folds.how}, {scored} scored by networks that had "
            "not seen them. Because the best was chosen on these same rows, its score is corrected by choosing again "
            "on 1000 resamples of the rows and scoring the choice on the rows left out (BBC-CV); the interval is that "
            "of the resamples."
        )
        if luck is not None and luck.of_epochs > 0:
            how += " The choice of epochs is corrected too, by choosing them for each fold without that fold."
        if any(b.network != best.settings.network for b in baselines):
            how += f" The simple models beside it are corrected alike, for the choice among their own. {COMPARED}"
        how = f"{how} {_said_of_simplest(results)}".rstrip()
        how = f"{how} {caveat}".rstrip()
    return Headline(said, how, value, low, high, luck)


def _said_of_simplest(results: Sequence[TrialResult]) -> str:
    """Say which trial to take, where others are tied with the first."""
    tied = [r for r in results if r.tied]
    simplest = next((r for r in results if r.recommended), None)
    if not tied or simplest is None:
        return ""
    if simplest.place == 1:
        return f"Of the {len(tied)} tied with it, none is simpler."
    size = f"{simplest.parameters:,} parameter{'s' * (simplest.parameters != 1)}"
    return (
        f"Of it and the {len(tied)} tied with it, trial {simplest.number} ({simplest.name}; {size}) is the simplest, "
        "and recommended (one-standard-error rule)."
    )


COMPARED = "“No clear difference” from one of them means: within the noise, on the same rows and folds."


def sentence_of(
    title: str,
    label: str,
    interval: tuple[float, float, float],
    baselines: Sequence[Baseline],
    best: str,
) -> str:
    """Say a score with its interval (value, low, high), and beside it those of the baselines.

    `best` is the network that has the score, when a single one does.

    >>> beside = [Baseline("linear", 0.131, differs=False), Baseline("constant", 0.39, differs=True)]
    >>> sentence_of("price", "RMSE", (0.135, 0.121, 0.149), beside, "mlp")
    'price: RMSE 0.135 (95 % 0.121–0.149), linear model 0.131 (no clear difference), constant 0.390'
    """
    value, low, high = interval
    digits = decimals(value, low, high)
    said = f"{title}: {label} {value:.{digits}f}"
    if math.isfinite(low):
        said += f" (95 % {low:.{digits}f}–{high:.{digits}f})"
    if best in BASELINES:
        said += f" by the {BASELINES[best]}"
    for b in baselines:
        if b.network != best:
            unclear = " (no clear difference)" if b.differs is False else ""
            said += f", {BASELINES[b.network]} {b.score:.{digits}f}{unclear}"
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
