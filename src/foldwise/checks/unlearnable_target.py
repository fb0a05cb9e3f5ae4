"""Nothing says anything about the target: neither the network nor simpler models know more than chance.

Evidence: how far the network's predictions of rows not learned from agree with their targets, and how much a linear
model and the nearest rows explain of rows left out; each against the same with targets shuffled.

Why it hurts: there is nothing to learn, or what was there is lost: targets joined to the wrong rows, shuffled, or the
columns that matter left out. A network with room enough learns the training rows by heart all the same.

How sure: likely from 150 rows on, when all three are within chance; of classes those rows count that are not of the
most frequent one, twice. With fewer rows a weak relation may be missed, which makes it a hint.

What to try: look how targets came to their rows. Where they go with the rows before or after, this is said.

References: Ojala & Garriga 2010, *Permutation tests for studying classifier performance*; Zhang, Bengio, Hardt, Recht
& Vinyals 2017, *Understanding deep learning requires rethinking generalization*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import p_better
from foldwise.checks.sample import VOTES, Sample, explained, hat_matrix, standardized
from foldwise.checks.sight import OutOfFold, Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR, UNSURE
from foldwise.data.folds import Folds

EXPLAINS = ("wrong-labels", "few-rows", *POOR, *FITS_TOO_WELL, *UNSURE)
ENOUGH = 150  # rows: a relation that explains a tenth is then four deviations from chance
KNOWN = 0.01  # p-value of the linear model against the constant
SHUFFLES = 30
WITHIN = 3.0  # deviations of shuffled targets
MOVED = (1, -1)  # rows


def find(sight: Sight) -> Finding | None:
    """Look whether anything predicts better than chance."""
    sample, found, folds = sight.sample, sight.out_of_fold, sight.folds
    if sample is None or found is None or folds is None or sample.targets.std() == 0:
        return None
    constant, linear = sight.others.get("constant"), sight.others.get("linear")
    if constant is not None and linear is not None and p_better(sight, constant, linear) < KNOWN:
        return None
    random = sight.random()
    network = agreement(found, folds.outer, random)
    if not network < WITHIN:
        return None
    simple = simple_models(sample, random)
    if max(simple.values()) >= WITHIN:
        return None
    moved = goes_with_others(sample, random)
    said = ", ".join(f"{name} {value:.1f}" for name, value in simple.items())
    return Finding(
        "unlearnable-target",
        "likely" if _rows_that_tell(found) >= ENOUGH else "hint",
        f"no model knows more of the target than chance: in deviations of shuffled targets the network is at "
        f"{network:.1f}, {said}{moved}",
        where=sight.table.task.targets if sight.table is not None else (),
        remedies=(Remedy("look how targets were joined to rows"),),
    )


def _rows_that_tell(found: OutOfFold) -> int:
    """Count rows; where one class is more than half of them, twice those of others: so many can be told apart."""
    if found.truth.ndim != 1:
        return len(found.row)
    most = int(np.bincount(found.truth.astype(np.int64)).max())
    return min(len(found.row), 2 * (len(found.row) - most))


def agreement(found: OutOfFold, folds: Folds, random: np.random.Generator) -> float:
    """Say how far predictions agree with targets, in deviations of what they do when these are shuffled in folds."""
    said = found.said.astype(np.float64)
    truth = found.truth
    values = np.eye(said.shape[1])[truth.astype(np.int64)] if truth.ndim == 1 else truth.reshape(said.shape)
    fold = folds.validation.argmax(0)[found.row]
    order = np.lexsort((found.row, fold))
    said, values, fold = said[order], values[order].astype(np.float64), fold[order]
    ends = np.flatnonzero(np.diff(fold)) + 1
    said = np.vstack([s - s.mean(0) for s in np.split(said, ends)])
    parts = np.split(values, ends)

    def together(chosen: list[np.ndarray]) -> float:
        return float((said * np.vstack(chosen)).sum())

    by_chance = [together([random.permutation(p) for p in parts]) for _ in range(SHUFFLES)]
    spread = float(np.std(by_chance))
    return (together(parts) - float(np.mean(by_chance))) / spread if spread > 0 else 0.0


def simple_models(sample: Sample, random: np.random.Generator) -> dict[str, float]:
    """Say how much simple models explain, in deviations of what they explain of shuffled targets."""
    hat = hat_matrix(sample.inputs)
    own = np.diag(hat)[:, None]
    neighbors = sample.nearest[:, :VOTES]

    def line(targets: Float[np.ndarray, "rows outputs"]) -> float:
        return explained((hat @ targets - own * targets) / np.maximum(1 - own, 1e-6), targets)

    def near(targets: Float[np.ndarray, "rows outputs"]) -> float:
        return explained(targets[neighbors].mean(1), targets)

    found = {}
    for name, model in (("a linear model", line), ("the nearest rows", near)):
        by_chance = [model(random.permutation(sample.learned)) for _ in range(SHUFFLES)]
        spread = float(np.std(by_chance))
        found[name] = (model(sample.learned) - float(np.mean(by_chance))) / spread if spread > 0 else 0.0
    return found


def goes_with_others(sample: Sample, random: np.random.Generator) -> str:
    """Say whether targets are predicted when they are moved by a row; empty when they are not."""
    if len(sample.rows) < len(sample.table.features):
        return ""  # of a sample, the next row is not there
    for by in MOVED:
        moved = Sample(
            sample.table, sample.rows, sample.inputs, standardized(np.roll(sample.targets, by, axis=0))
        )
        if max(simple_models(moved, random).values()) > 2 * WITHIN:
            return f"; but targets are predicted by the inputs of the row {'before' if by < 0 else 'after'} their own"
    return ""
