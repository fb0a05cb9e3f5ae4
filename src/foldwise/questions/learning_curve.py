"""How the score grows with the rows, and what twice as many would bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from foldwise.data.folds import Folds
from foldwise.engine.pace import stretched
from foldwise.errors import PlanError
from foldwise.judge.selection import inflation
from foldwise.questions.numbers import brief, finished, points, spoken
from foldwise.questions.subject import Subject, count, kept_epochs, kept_losses
from foldwise.settings import Settings
from foldwise.store.answers import Answer, Picture, Series

RESAMPLES = 1000
EXPONENTS = np.concatenate([np.geomspace(0.02, 0.2, 20), np.linspace(0.22, 3.0, 140)])
FEWEST = 8  # rows to learn from, where no sizes are asked for


def answer(
    subject: Subject,
    *,
    sizes: Sequence[float] | None = None,
    repeats: int = 2,
    seeds: int = 1,
) -> Answer:
    """Train on some of the training rows of each fold, fewer and more, and score on all its validation rows.

    The mean loss over sizes n is fitted by a power law a + b·n^(−c) with a, b ≥ 0 (Cortes et al. 1993, *Learning
    curves: asymptotic values and rate of convergence*), each size counting by its precision; intervals are those of
    the fit repeated on folds and repeats drawn with replacement, as much wider as Nadeau & Bengio (2003) ask for means
    over folds that share rows. Rows of smaller sizes are among those of larger
    ones, and have all classes in their shares. Every size takes about as many steps as the whole, so it has more
    epochs, of which the best is kept as in a study.

    Args:
        subject: the trial that is asked about.
        sizes: numbers of training rows, or shares of them up to 1; by default six from a thirty-second to all.
        repeats: how often rows are drawn anew in each fold.
        seeds: how many seeds each is trained with.

    Raises:
        PlanError: fewer than three sizes, or one that the folds do not have.
    """
    repeats, seeds = count("repeats", repeats), count("seeds", seeds)
    folds = subject.folds
    most = int(folds.train.sum(axis=1).min())
    rows = _sizes(sizes, most)
    units = len(folds) * repeats
    drawn = Folds(
        np.concatenate([_nested(subject, most, n, repeats) for n in rows]),
        np.tile(folds.validation, (len(rows) * repeats, 1)),
        folds.how,
    )
    trials = [_settings(subject.settings, n, most) for n in rows]
    job = subject.train(
        "learning curve",
        trials,
        drawn,
        seeds=subject.seeds(seeds),
        folds_of=[range(s * units, (s + 1) * units) for s in range(len(rows))],
    )
    by_unit = kept_losses(job).group_by("trial", "fold", maintain_order=True).agg(pl.col("loss").mean())
    losses = by_unit.sort("trial", "fold")["loss"].to_numpy().reshape(len(rows), units)
    scored = folds.validation @ subject.weights_of(
        subject.table.targets, np.asarray(folds.validation.any(axis=0))
    )
    return _answer(subject, np.array(rows), losses, np.tile(scored, repeats), kept_epochs(job))


def _sizes(asked: Sequence[float] | None, most: int) -> list[int]:
    if asked is None:
        least = min(most, max(FEWEST, most // 32))
        rows = sorted({round(n) for n in np.geomspace(least, most, 6)})
    else:
        rows = sorted({_size(n, most) for n in asked})
    if len(rows) < 3:
        raise PlanError(
            f"a learning curve needs at least 3 different sizes; got {', '.join(map(str, rows))}.",
            hint="sizes=[0.1, 0.3, 1.0] are shares of the training rows",
        )
    return rows


def _size(asked: float, most: int) -> int:
    whole = isinstance(asked, int | np.integer) and not isinstance(asked, bool) and asked > 1
    rows = int(asked) if whole or asked > 1 else round(float(asked) * most)
    if not 2 <= rows <= most:
        raise PlanError(
            f"`sizes` must be from 2 rows to {most}, which every fold has to learn from; got {asked}.",
            hint="a share such as 0.5, or 1.0 for all, is one of the training rows of a fold",
        )
    return rows


def _settings(settings: Settings, rows: int, most: int) -> Settings:
    """Give settings the epochs in which so few rows make about as many steps as all of them."""
    size = settings.batch_size
    longer = math.ceil(most / size) / math.ceil(rows / size)
    return stretched(settings, longer)


def _nested(subject: Subject, most: int, rows: int, repeats: int) -> Bool[np.ndarray, "units rows"]:
    """Choose rows of each fold; the first of an order that depends on fold and repeat alone."""
    masks = np.zeros((repeats * len(subject.folds), subject.rows), dtype=bool)
    for unit in range(len(masks)):
        repeat, fold = divmod(unit, len(subject.folds))
        own = np.flatnonzero(subject.folds.train[fold])
        random = np.random.default_rng([subject.seed, repeat, fold])
        masks[unit, own[drawing_order(own, subject.classes, random)[:rows]]] = True
    return masks


def drawing_order(
    own: Int[np.ndarray, " rows"], classes: Int[np.ndarray, " all"] | None, random: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Order rows at random, such that the first so many of them have all classes in about their shares.

    >>> order = drawing_order(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), np.random.default_rng(0))
    >>> int(np.array([0, 0, 0, 0, 1, 1])[order][:3].sum())
    1
    """
    if classes is None:
        return random.permutation(len(own))
    place = np.empty(len(own))
    for name in np.unique(classes[own]):
        of_class = np.flatnonzero(classes[own] == name)
        # the k-th of n rows of a class stands at (k + ½)/n, so that classes alternate
        place[of_class] = (random.permutation(len(of_class)) + 0.5) / len(of_class)
    return np.lexsort((random.random(len(own)), place))


# The power law


@dataclass(frozen=True)
class PowerLaw:
    """A loss of a + b·n^(−c) for n rows."""

    a: float
    b: float
    c: float

    def at(self, rows: Float[np.ndarray, " sizes"] | float) -> Float[np.ndarray, " sizes"]:
        """Give the loss for numbers of rows."""
        return self.a + self.b * np.asarray(rows, dtype=float) ** -self.c


def fit_power_law(
    rows: Float[np.ndarray, " sizes"],
    losses: Float[np.ndarray, " sizes"],
    precision: Float[np.ndarray, " sizes"],
) -> PowerLaw:
    """Fit a + b·n^(−c) with a, b ≥ 0 by weighted least squares: for each c of a grid a and b are solved for.

    >>> law = fit_power_law(np.array([10.0, 40.0, 160.0]), np.array([1.1, 0.6, 0.35]), np.ones(3))
    >>> round(law.a, 2), round(law.c, 2)
    (0.1, 0.5)
    """
    scale = float(rows[-1])
    x = (np.asarray(rows, dtype=float)[None] / scale) ** -EXPONENTS[:, None]
    w = precision / precision.sum()
    mean_x, mean_y = x @ w, float(losses @ w)
    spread = np.square(x - mean_x[:, None]) @ w
    slope = ((x - mean_x[:, None]) * (losses - mean_y)) @ w / spread
    through_zero = (x * losses) @ w / (np.square(x) @ w)
    inner = mean_y - slope * mean_x
    b = np.where(slope <= 0, 0.0, np.where(inner < 0, through_zero, slope))
    a = np.where(slope <= 0, mean_y, np.where(inner < 0, 0.0, inner))
    misfit = np.square(a[:, None] + b[:, None] * x - losses) @ w
    best = int(np.argmin(misfit))
    c = float(EXPONENTS[best])
    return PowerLaw(float(a[best]), float(b[best] * scale**c), c)


def _answer(
    subject: Subject,
    rows: Int[np.ndarray, " sizes"],
    losses: Float[np.ndarray, "sizes units"],
    weights: Float[np.ndarray, " units"],
    epochs: Sequence[int],
) -> Answer:
    metric, twice = subject.metric, 2 * int(rows[-1])
    means = losses @ weights / weights.sum()
    wider = inflation(losses.shape[1], *subject.parts)
    resampled = means + wider * (_resampled(losses, weights, subject.random(1)) - means)
    deviation = np.maximum(resampled.std(axis=0), 1e-3 * losses.mean() + 1e-300)
    law = fit_power_law(rows, means, deviation**-2)
    laws = [fit_power_law(rows, own, deviation**-2) for own in resampled]
    score, fitted = finished(metric, means), finished(metric, law.at(rows))
    low, high = (
        finished(metric, np.quantile(resampled, q, axis=0))
        for q in ((0.025, 0.975) if not metric.higher_is_better else (0.975, 0.025))
    )
    ends_at = np.array([float(rows[-1]), float(twice)])
    now, then = finished(metric, law.at(ends_at))
    both = np.array([finished(metric, other.at(ends_at)) for other in laws])
    ends = np.quantile(both[:, 1], [0.025, 0.975])
    gains = np.quantile((both[:, 1] - both[:, 0]) * (1 if metric.higher_is_better else -1), [0.025, 0.975])
    gain = (then - now) * (1 if metric.higher_is_better else -1)
    noise = float(np.std(finished(metric, resampled[:, -1])))
    said = (
        f"Twice the rows would bring {metric.label} from {brief(now)} to about {spoken(then, *ends)}"
        + (", a gain that is lost in the noise between folds" if gain < noise else "")
        + f": {subject.name} with {int(rows[-1]):,} rows to learn from."
    )
    line = np.geomspace(rows[0], twice, 40)
    picture = Picture(
        "rows to learn from",
        metric.label,
        (
            Series("score, with 95 % interval", points(rows, score, low, high)),
            Series("fitted a + b·n^(−c)", points(line, finished(metric, law.at(line))), line=True),
            Series("twice the rows", points([twice], [then], [ends[0]], [ends[1]])),
        ),
        log_x=True,
    )
    table = pl.DataFrame(
        {"rows": rows, "score": score, "low": low, "high": high, "fitted": fitted, "epoch": list(epochs)}
    )
    facts = {
        "a": law.a, "b": law.b, "c": law.c, "now": float(now), "twice": float(then), "twice_low": float(ends[0]),
        "twice_high": float(ends[1]), "gain": float(gain), "gain_low": float(gains[0]), "gain_high": float(gains[1]),
    }  # fmt: skip
    how = (
        f"Mean loss fitted by {brief(law.a)} + {brief(law.b)}·n^(−{law.c:.2g}) over {len(rows)} sizes, each trained "
        f"on {losses.shape[1]} draws of training rows ({subject.folds.how}); intervals by {RESAMPLES:,} resamples "
        "of these draws. A power law says nothing of rows unlike those that are there."
    )
    return Answer("learning_curve", said, how, table, facts, picture)


def _resampled(
    losses: Float[np.ndarray, "sizes units"],
    weights: Float[np.ndarray, " units"],
    random: np.random.Generator,
) -> Float[np.ndarray, "resamples sizes"]:
    """Average over units drawn with replacement, the same ones for all sizes."""
    units = losses.shape[1]
    counts = random.multinomial(units, np.full(units, 1 / units), size=RESAMPLES) * weights
    return counts @ losses.T / counts.sum(axis=1, keepdims=True)
