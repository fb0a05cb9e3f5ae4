"""Where the differences between scores come from: settings, folds or seeds; and so what to add next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEAST = 0.5  # a part that makes up this share of the variance is said to be most of it


@dataclass(frozen=True)
class Split:
    """The parts of the variance of members' mean losses; None where the study cannot tell.

    `setting` is between trials, `fold` between folds (whatever the setting), `seed` between seeds in the same fold with
    the same settings, `rest` how differently settings do in different folds; with one seed, `rest` holds the seed too.
    """

    setting: float | None
    fold: float | None
    seed: float | None
    rest: float | None
    trials: int
    folds: int
    seeds: int

    @property
    def shares(self) -> dict[str, float]:
        """Give each part that is known as a share of their sum; empty when nothing varies."""
        parts = {n: v for n in ("setting", "fold", "seed", "rest") if (v := getattr(self, n)) is not None}
        total = sum(parts.values())
        return {name: part / total for name, part in parts.items()} if total > 0 else {}

    @property
    def sentence(self) -> str:
        """Say what would help most; empty when nothing varies or one part is all there is."""
        shares = self.shares
        if len(shares) < 2:
            return ""
        most = max(shares, key=shares.__getitem__)
        cause = {
            "setting": "the settings",
            "fold": "the rows in a fold",
            "seed": "the seed",
            "rest": "how settings suit a fold" if self.seed is not None else "seed and fold together",
        }
        advice = {
            "setting": "tuning would help most",
            "fold": "more rows would help most",
            "seed": "more seeds would help most, averaged",
            "rest": "more folds, repeats or rows would tell settings apart"
            if self.seed is not None
            else "two or more seeds would tell these apart",
        }
        much = "Most" if shares[most] >= LEAST else "The largest part"
        share = f"{100 * shares[most]:.0f} %"
        said = f"{much} of the variance between scores ({share}) comes from {cause[most]}: {advice[most]}."
        if most == "setting":
            noise = [n for n in ("fold", "seed", "rest") if n in shares]
            second = max(noise, key=shares.__getitem__)
            said = f"{said[:-1]}; next {cause[second]} ({100 * shares[second]:.0f} %)."
        return said


def split_variance(losses: Float[np.ndarray, "trials seeds folds"]) -> Split:
    """Estimate the components of variance of members' mean losses.

    The random model is y[t, f, s] = μ + T[t] + F[f] + (TF)[t, f] + e[t, f, s]: trials and folds are crossed, and seeds
    are repetitions within each pair, because what a seed does in one fold says nothing of another. With t trials, f
    folds and s seeds, the expected mean squares (Searle, Casella & McCulloch 1992, *Variance Components*, section 4.7)

        E MS_T = σ²_e + s·σ²_TF + s·f·σ²_T        E MS_F = σ²_e + s·σ²_TF + s·t·σ²_F
        E MS_TF = σ²_e + s·σ²_TF                  E MS_e = σ²_e

    are solved for the components; negative ones are 0. With one seed, σ²_e and σ²_TF are one number, `rest`. With one
    trial or one fold, its component is unknown, and the other holds the interaction.

    Args:
        losses: finite, the mean loss per validation row of each member at the epoch that its trial kept.

    >>> found = split_variance(np.array([[[1.0, 2.0], [1.0, 2.0]], [[4.0, 5.0], [4.0, 5.0]]]))
    >>> found.setting, found.fold, found.seed, found.rest
    (4.5, 0.5, 0.0, 0.0)
    """
    trials, seeds, folds = losses.shape
    cells = losses.mean(axis=1)
    mean, by_trial, by_fold = cells.mean(), cells.mean(axis=1), cells.mean(axis=0)
    within = float(losses.var(axis=1, ddof=1).mean()) if seeds > 1 else None
    between = within
    rest: float | None = None
    if trials > 1 and folds > 1:
        crossed = cells - by_trial[:, None] - by_fold + mean
        between = float(seeds * np.square(crossed).sum() / ((trials - 1) * (folds - 1)))
        rest = between if within is None else _component(between, within, seeds)
    setting = fold = None
    if trials > 1:
        setting = _component(seeds * folds * by_trial.var(ddof=1), between, seeds * folds)
    if folds > 1:
        fold = _component(seeds * trials * by_fold.var(ddof=1), between, seeds * trials)
    return Split(setting, fold, within, rest, trials, folds, seeds)


def _component(mean_square: float, below: float | None, repetitions: int) -> float:
    return max(0.0, float(mean_square - (below or 0.0)) / repetitions)
