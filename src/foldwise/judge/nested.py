"""Nested cross-validation: what was chosen inside each outer fold, and how good choosing like this is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldwise.data.folds import Folds
from foldwise.judge.metrics import Metric
from foldwise.judge.selection import Interval, bootstrap_intervals
from foldwise.judge.verdict import COMPARED, Baseline, Headline, TrialResult, sentence_of


@dataclass(frozen=True)
class Choice:
    """What the folds inside an outer one chose; fold and trial count from 1.

    `inner` is the score by which it was chosen, a mean over the inner folds, and so too good; `outer` that of the
    trial's networks, trained on all training rows of the outer fold up to this epoch, on its validation rows.
    """

    fold: int
    trial: int
    name: str
    epoch: int
    inner: float
    outer: float


@dataclass(frozen=True)
class Nested:
    """The choices of all outer folds; `inside` counts the folds inside them, all together."""

    inside: int
    choices: tuple[Choice, ...]

    @property
    def chosen(self) -> list[tuple[int, str, int]]:
        """List the trials that were chosen: number, name, and in how many outer folds; the most frequent first."""
        names = {c.trial: c.name for c in self.choices}
        counted = Counter(c.trial for c in self.choices)
        return [(t, names[t], n) for t, n in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))]

    @property
    def sentence(self) -> str:
        """Say which trials were chosen in how many outer folds."""
        folds = len(self.choices)
        if folds == 1:
            return f"the folds inside the training rows chose trial {self.choices[0].trial} ({self.choices[0].name})"
        said = [f"trial {trial} ({name}) in {count}" for trial, name, count in self.chosen]
        return f"of {folds} outer folds, the folds inside chose {', '.join(said)}"


def inner_means(
    losses: Float[np.ndarray, "trials outer inner epochs"], counts: Float[np.ndarray, "outer inner"]
) -> Float[np.ndarray, "trials outer epochs"]:
    """Average mean losses per row over the folds inside each outer one, every row counting once; ∞ where one is not
    finite. `counts` are the rows of each inner fold, or what they weigh; 0 for a fold that is not there.

    >>> inner_means(np.array([[[[1.0], [4.0]]]]), np.array([[2.0, 1.0]]))
    array([[[2.]]])
    """
    there = counts[None, :, :, None] > 0
    known = np.where(np.isfinite(losses), losses, np.inf)
    total = np.where(there, known * np.maximum(counts, 1e-300)[None, :, :, None], 0.0).sum(axis=2)
    return total / counts.sum(axis=1)[None, :, None]


def choose(
    curves: Float[np.ndarray, "trials outer epochs"],
) -> tuple[Int[np.ndarray, " outer"], Int[np.ndarray, " outer"]]:
    """Choose a trial and an epoch for each outer fold by the mean losses inside it: the first of the lowest.

    What is no candidate is ∞: an epoch that a trial does not have, an untrained network.

    >>> curves = np.array([[[np.inf, 0.4, 0.3], [np.inf, 0.2, 0.5]], [[np.inf, 0.6, 0.1], [np.inf, 0.4, 0.4]]])
    >>> choose(curves)
    (array([1, 0]), array([2, 1]))
    """
    by_fold = np.swapaxes(curves, 0, 1).reshape(curves.shape[1], -1)
    trials, epochs = np.unravel_index(by_fold.argmin(axis=1), (curves.shape[0], curves.shape[2]))
    return trials, epochs


def interval_of(
    losses: Float[np.ndarray, " rows"], weights: Float[np.ndarray, " rows"] | None = None
) -> Interval:
    """Average the losses of rows, each by the networks that were chosen without it, with a 95 % interval.

    The interval is the bootstrap's over rows, as that of a trial is, and takes the networks as they are: the means of
    five outer folds with four degrees of freedom would give one of about twice the width, and know no better how
    the networks would differ on other rows, since the folds share most of theirs (Nadeau & Bengio 2003). Rows of no
    outer fold are NaN and left out; NaN when a loss is not finite.
    """
    scored = ~np.isnan(losses)
    own = None if weights is None else weights[scored]
    if not np.isfinite(losses[scored]).all():
        return Interval(math.nan, math.nan, math.nan)
    return bootstrap_intervals(losses[scored][None], weights=own)[0]


def nested_headline(
    nested: Nested,
    interval: Interval,
    results: Sequence[TrialResult],
    baselines: Sequence[Baseline],
    metric: Metric,
    folds: Folds,
    title: str,
    caveat: str = "",
) -> Headline:
    """Write the headline of nested cross-validation from the mean loss with its interval.

    `baselines` are judged like it: chosen among their own trials and epochs by the folds inside.
    """
    value, *ends = (
        metric.finish(x) if math.isfinite(x) else math.nan
        for x in (interval.value, interval.low, interval.high)
    )
    low, high = min(ends), max(ends)
    said = sentence_of(title, metric.label, (value, low, high), baselines, _all_of(nested, results))
    each = nested.inside / len(folds)
    how = (
        f"The score of choosing among {len(results)} trials and their epochs, by nested cross-validation: for each of "
        f"{len(folds)} folds ({folds.how}) the choice was made by {each:g} folds inside its training rows alone, and "
        "the networks chosen were scored on the fold's own rows, which no choice had seen. "
        f"{nested.sentence[0].upper()}{nested.sentence[1:]}. "
        "The interval is that of the mean when rows are drawn again (bootstrap). The leaderboard's own scores are "
        "those of the outer folds, of which the best is too good."
    )
    if baselines:
        how += (
            " The simple models beside the score are judged in the same way, each chosen among its own trials and "
            f"epochs inside the folds, and so are not those of the leaderboard. {COMPARED}"
        )
    if len(folds) == 1:
        how = how.replace("for each of 1 folds (", "for one fold (")
    return Headline(said, f"{how} {caveat}".rstrip(), value, low, high)


def _all_of(nested: Nested, results: Sequence[TrialResult]) -> str:
    """Name the network that was chosen in every fold; empty when there were several."""
    networks = {r.number: r.settings.network for r in results}
    chosen = {networks[c.trial] for c in nested.choices}
    return chosen.pop() if len(chosen) == 1 else ""
