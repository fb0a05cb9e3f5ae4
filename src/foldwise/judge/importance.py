"""Which settings mattered: how much of the differences between the trials of a search goes with each setting alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from foldwise.judge.verdict import TrialResult
from foldwise.plans.course import SPENT
from foldwise.plans.defaults import baselines
from foldwise.settings import Settings

Value = bool | int | float | str

FEWEST_TRIALS = 8
"""With fewer trials, no share is given: almost any order of so few scores can be had by chance."""
MOST_GROUPS = 5
GROUP_SIZE = 4  # trials that a group of numbers should have at least, so that its mean means something
CHANCE = 0.05
LOG_FROM = 30  # ratio of the largest to the smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class Group:
    """Trials that are compared as one: those whose value is `low` to `high`, and the mean of their scores."""

    low: Value
    high: Value
    trials: int
    mean: float


@dataclass(frozen=True)
class SettingImportance:
    """What became of the trials by one setting.

    `values` has one entry per trial of the search, None where the setting has no effect or is not there.
    `share` and `p_value` are None where there are too few trials to tell; `p_value` is corrected for the number
    of settings.
    """

    name: str
    values: tuple[Value | None, ...]
    numeric: bool
    log: bool
    groups: tuple[Group, ...]
    share: float | None
    p_value: float | None

    @property
    def beyond_chance(self) -> bool:
        """Whether the differences are larger than chance alone would make them."""
        return self.p_value is not None and self.p_value < CHANCE

    @property
    def verdict(self) -> str:
        """What can be said of the setting, in words."""
        if self.share is None or self.p_value is None:
            return "too few trials to tell"
        return "beyond chance" if self.beyond_chance else "no sign of an effect"


@dataclass(frozen=True)
class Importance:
    """The trials of a search, and its settings, most important first.

    Scores are compared, and drawn, from `best` to `edge`; those beyond the edge and those of trials that diverged
    count as if they were at the edge. Both are NaN when no trial has a score.
    """

    trials: tuple[TrialResult, ...]
    best: float
    edge: float
    settings: tuple[SettingImportance, ...]


def importance(results: Sequence[TrialResult], higher_is_better: bool) -> Importance:
    """Measure for each setting that varies how much of the differences between trials goes with it alone.

    What is compared are places among the trials, not scores. One analysis of variance per setting: trials
    with equal values form a group, numbers with more than five values form up to five groups of about equal
    size. The share is ε² = (SSB − (k−1)·MSW) / SST (Kelley 1935, *An unbiased correlation ratio measure*),
    the adjusted R² of the groups; of the usual measures it is the least biased (Okada 2013, *Is omega squared
    less biased?*). The p-value is that of the F-test, by Holm's method (1979) corrected for the number of
    settings. A share is an association within this search: settings that were not drawn independently of each
    other share their effects.
    """
    tried = sorted((r for r in searched(results) if _counts(r)), key=lambda r: r.number)
    best, edge = score_range([r.score for r in tried], higher_is_better)
    # a setting that makes trials diverge matters, so these count as bad, not as missing
    scores = np.array([r.score if math.isfinite(r.score) else edge for r in tried])
    scores = np.clip(scores, min(best, edge), max(best, edge))
    columns = [values_of(r.settings) for r in tried]
    names = dict.fromkeys(name for values in columns for name in values)
    by_name = {name: tuple(values.get(name) for values in columns) for name in names}
    varying = {name: v for name, v in by_name.items() if len({x for x in v if x is not None}) > 1}
    if not math.isfinite(best):
        varying = {}
    ranks = stats.rankdata(scores)  # so that a terrible trial is the worst one, and no more than that
    measured = [_measure(name, values, scores, ranks) for name, values in varying.items()]
    corrected = iter(holm([m.p_value for m in measured if m.p_value is not None]))
    settings = [
        m if m.p_value is None else SettingImportance(**{**vars(m), "p_value": next(corrected)})
        for m in measured
    ]
    return Importance(tuple(tried), best, edge, tuple(sorted(settings, key=_rank)))


def searched(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Leave out the constant and the linear models that every study has.

    A linear one stays when the user searched linear networks too and it differs from those in nothing but what was
    varied among them: else it would bring settings into the comparison that nobody searched.
    """
    always = {id(r) for r in _baselines(results)}
    asked = [r for r in results if id(r) not in always and r.settings.network != "constant"]
    return [*asked, *(r for r in results if id(r) in always and _fits(r, asked))]


def _baselines(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Find the first trial that has the values of each baseline; a plan begins with them."""
    found = []
    for values in baselines():
        matching = (r for r in results if all(getattr(r.settings, name) == v for name, v in values.items()))
        found += sorted(matching, key=lambda r: r.number)[:1]
    return found


def _fits(baseline: TrialResult, asked: Sequence[TrialResult]) -> bool:
    """Tell whether a baseline differs from the asked trials of its network only in what varies among these."""
    family = [values_of(r.settings) for r in asked if r.settings.network == baseline.settings.network]
    own = values_of(baseline.settings)
    tried = {name: {values.get(name) for values in family} for name in own}
    return bool(family) and all(len(tried[name]) > 1 or own[name] in tried[name] for name in own)


def values_of(settings: Settings) -> dict[str, Value]:
    """List the settings that have an effect; those of blocks and options as settings of their own.

    >>> values_of(Settings(network="custom", options=(("heads", 4),)))["heads"]
    4
    """
    flat: dict[str, Value] = {}
    for name, value in settings.effective().items():
        if name == "takes":  # says which settings a network of one's own is given, and is none itself
            continue
        if not isinstance(value, tuple | list):
            flat[name] = value
        elif all(isinstance(entry, tuple | list) for entry in value):
            flat |= {".".join(map(str, path)): own for *path, own in value}
        else:
            flat[name] = "×".join(map(str, value))
    return flat


def score_range(scores: Sequence[float], higher_is_better: bool) -> tuple[float, float]:
    """Give the best score, and the worst one that is not far out: terrible trials must not hide the rest.

    Far out is what lies more than 1.5 times the middle half's width beyond it (Tukey 1977).

    >>> score_range([1.0, 2.0, 3.0, 4.0, 900.0], higher_is_better=False)
    (1.0, 7.0)
    """
    sign = -1 if higher_is_better else 1
    losses = sign * np.array([s for s in scores if math.isfinite(s)])
    if not losses.size:
        return math.nan, math.nan
    lower, upper = np.quantile(losses, [0.25, 0.75])
    fence = upper + 1.5 * (upper - lower)
    edge = min(losses.max(), fence) if fence > losses.min() else losses.max()
    return float(sign * losses.min()), float(sign * edge)


def share_of_variance(groups: Sequence[Float[np.ndarray, " trials"]]) -> tuple[float | None, float | None]:
    """Give ε², not below 0, and the F-test's p-value of scores in groups; None where there are too few.

    >>> share, p_value = share_of_variance([np.array([1.0, 1.2, 1.1, 0.9]), np.array([2.0, 2.1, 1.9, 2.2])])
    >>> round(share, 3), round(p_value, 5)
    (0.944, 3e-05)
    """
    scores = np.concatenate(groups)
    k, freedom = len(groups), len(scores) - len(groups)
    if len(scores) < FEWEST_TRIALS or k < 2 or freedom < 1:
        return None, None
    total = float(((scores - scores.mean()) ** 2).sum())
    if total <= len(scores) * (1e-12 * float(np.abs(scores).max())) ** 2:
        return 0.0, 1.0  # equal but for rounding
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / freedom
    between = max(0.0, total - freedom * within) / (k - 1)
    p_value = float(stats.f.sf(between / within, k - 1, freedom)) if within > 0 else 0.0
    return max(0.0, (between - within) * (k - 1) / total), p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: Holm 1979, *A simple sequentially rejective multiple test procedure*.

    >>> holm([0.04, 0.01, 0.5])
    [0.08, 0.03, 0.5]
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = largest
    return corrected


def _counts(r: TrialResult) -> bool:
    # a trial that was stopped before it had a score says nothing; one that diverged does. One for which the budget did
    # not suffice was trained less than others; one that was halved was compared with them when they were as far.
    if r.status.startswith(SPENT):
        return False
    return math.isfinite(r.score) or r.status.startswith("diverged")


def _rank(m: SettingImportance) -> tuple[bool, bool, float, float]:
    # without an effect, chance gives the largest shares to settings that few trials have; p-values are fair to them
    share = m.share or 0.0
    return m.share is None, not m.beyond_chance, -share if m.beyond_chance else m.p_value or 0.0, -share


def _measure(
    name: str,
    values: tuple[Value | None, ...],
    scores: Float[np.ndarray, " trials"],
    ranks: Float[np.ndarray, " trials"],
) -> SettingImportance:
    there = [i for i, v in enumerate(values) if v is not None]
    own, own_scores = [values[i] for i in there], scores[there]
    numbers = [float(v) for v in own if isinstance(v, int | float) and not isinstance(v, bool)]
    numeric = len(numbers) == len(own)
    places = _number_groups(np.array(numbers)) if numeric else _word_groups(own)
    members = [np.flatnonzero(places == g) for g in np.unique(places)]
    share, p_value = share_of_variance([ranks[there][m] for m in members])
    order = float if numeric else str
    groups = [
        Group(
            min((own[i] for i in m), key=order),  # type: ignore[arg-type]
            max((own[i] for i in m), key=order),  # type: ignore[arg-type]
            len(m),
            float(own_scores[m].mean()),
        )
        for m in members
    ]
    log = numeric and _log_like(np.array(numbers))
    return SettingImportance(
        name, values, numeric, log, () if share is None else tuple(groups), share, p_value
    )


def _log_like(values: Float[np.ndarray, " trials"]) -> bool:
    """Tell whether positive values span decades and lie evenly on a logarithmic axis rather than on a linear one.

    The span alone is not enough: shares drawn evenly from 0 to 0.5 span decades as soon as one is near 0.
    """
    low, middle, high = values.min(), np.median(values), values.max()
    if low <= 0 or high / low < LOG_FROM:
        return False
    place, log_place = (middle - low) / (high - low), np.log(middle / low) / np.log(high / low)
    return bool(abs(log_place - 0.5) < abs(place - 0.5))


def _word_groups(values: Sequence[Value | None]) -> np.ndarray:
    return np.unique([str(v) for v in values], return_inverse=True)[1]


def _number_groups(values: Float[np.ndarray, " trials"]) -> np.ndarray:
    """Number the groups in which values are compared: equal ones, or up to five of about equal size."""
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) <= MOST_GROUPS:
        return place
    groups = max(2, min(MOST_GROUPS, len(values) // GROUP_SIZE))
    # by the rank in the middle of equal values, so that equal values stay together whatever their number
    middle = (np.cumsum(counts) - counts / 2) / len(values)
    return np.floor(middle * groups)[place].astype(int)
