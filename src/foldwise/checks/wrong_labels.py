"""Labels that are wrong: a share of them says something else than the inputs do, also where all else is clear.

Evidence: predictions of rows not learned from, by the network and by the nearest rows, averaged where that is
right as often. Rows are ordered by how sure these are. Where classes merely overlap, the surest quarter is nearly
always right, and where the surer half errs, the label given is a class that comes close; where labels were mixed up, a
part of them is wrong everywhere: the surest quarter errs nearly as often as the next, though far less often than
guessing would, and the label given may be a class that is nowhere near. Which rows they are is told by confident
learning: rows to whose given class less than usual, and to another as much as usual, is given.

Why it hurts: a network that has room enough learns wrong labels by heart, and says of rows like them what they say.
The score suffers twice, for the wrong labels are in the validation rows too.

How sure: likely, when the surest quarter errs more than chance allows for classes that overlap, which is at most 55 %
of what the middle half errs; or when, of at least four classes, more labels than chance allows are among the less
probable half of the other classes, which is at most 15 % of errors where classes overlap. A hint, when the quarter errs
more than overlap explains, but perhaps by chance. Less is not mentioned: in two classes a tenth of wrong labels can
hardly be told from overlap. Wrong numbers of a regression are not looked for.

What to try: label smoothing; and looking at these rows. Not to learn them may help, but cannot be tried on the same
folds: the labels that make a row suspicious are those by which its neighbors are scored.

References: Northcutt, Jiang & Chuang 2021, *Confident learning: estimating uncertainty in dataset labels*; Zhang,
Bengio, Hardt, Recht & Vinyals 2017, *Understanding deep learning requires rethinking generalization*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sample import VOTES
from foldwise.checks.sight import OutOfFold, Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR
from foldwise.errors import listed, percent

EXPLAINS = (*POOR, *FITS_TOO_WELL)
LEAST_ROWS = 100
RIGHT = 0.02  # of the surest quarter errs on real tables whose labels are as they should be
OVERLAP = 0.55
"""Where classes merely overlap the surest quarter errs at most so much of what the middle half does, as long as it errs
less than `CLEAR` of guessing: that is what a logistic relation with one normal input gives."""
CLEAR = 0.4
FAR_OFF = (
    0.15  # of the errors of the surer half have a label of the less probable half: real tables have up to 0.1
)
HALF = 0.5  # as probable as the second, at most: classes that cannot be told apart are alike probable
LEAST_CLASSES, LEAST_FAR_OFF = 4, 5  # to have a less probable half, and rows to believe in it
SURE = 0.01  # chance that so many err with the share given
PRIOR = 1.0  # vote for the frequencies of the classes


def find(sight: Sight) -> Finding | None:
    """Look how often what is surest is wrong."""
    found, table = sight.out_of_fold, sight.table
    if found is None or table is None or found.truth.ndim != 1 or table.task.kind == "regression":
        return None
    if len(found.row) < LEAST_ROWS:
        return None
    said = with_neighbors(sight, found)
    truth = found.truth.astype(np.int64)
    wrong = (said.argmax(1) != truth) & (found.said.argmax(1) != truth)  # the nearest rows alone prove little
    surest = np.argsort(-said.max(1), kind="stable")
    quarters = np.array_split(wrong[surest], 4)
    first, middle = float(quarters[0].mean()), float(np.concatenate(quarters[1:3]).mean())
    guessing = 1 - float(np.square(np.bincount(truth) / len(truth)).sum())
    errors, rows = int(quarters[0].sum()), len(quarters[0])
    if _chance(errors, rows, RIGHT) > SURE or first > CLEAR * guessing:
        return None
    half = surest[: len(surest) // 2]
    likely = _chance(errors, rows, max(RIGHT, OVERLAP * middle)) < SURE or _far_off(
        said[half][wrong[half]], truth[half][wrong[half]]
    )
    suspects = suspicious(said, truth)
    worst = found.row[suspects][np.argsort(said[suspects, truth[suspects]], kind="stable")][:3]
    return Finding(
        "wrong-labels",
        "likely" if likely else "hint",
        f"of the quarter of rows whose labels seem surest, {percent(first)} are labeled "
        f"differently; {suspects.sum()} labels are suspicious (rows {listed(table.row[worst].tolist())} …)",
        trials=sight.about,
        remedies=_remedies(sight),
        slight=first <= OVERLAP * middle,
    )


def _chance(errors: int, rows: int, share: float) -> float:
    return float(stats.binom.sf(errors - 1, rows, share))


def _far_off(said: Float[np.ndarray, "errors classes"], truth: Int[np.ndarray, " errors"]) -> bool:
    """Tell whether more labels than overlap explains are among the less probable half of the classes not predicted.

    The class that is predicted most is left out: several rare ones may be hidden in it that nothing tells apart.
    """
    classes = said.shape[1]
    if classes < LEAST_CLASSES or not len(said):
        return False
    others = said.argmax(1) != np.bincount(said.argmax(1)).argmax()
    said, truth = said[others], truth[others]
    if not len(said):
        return False
    own = said[np.arange(len(truth)), truth]
    nearer = (said > own[:, None]).sum(1) - 1  # and less probable than the first
    second = np.sort(said, axis=1)[:, -2]
    far = int(((nearer >= (classes - 1) / 2) & (own < HALF * second)).sum())
    return far >= LEAST_FAR_OFF and _chance(far, len(said), FAR_OFF) < SURE


def with_neighbors(sight: Sight, found: OutOfFold) -> Float[np.ndarray, "rows classes"]:
    """Average what the network says of rows not learned from with how their nearest others are labeled.

    Where that is right less often, what the network says is left as it is.
    """
    said, sample = found.said.astype(np.float64).copy(), sight.sample
    assert sample is not None
    frequent = sample.targets.mean(0)
    votes = (sample.targets[sample.nearest[:, :VOTES]].sum(1) + PRIOR * frequent) / (
        min(VOTES, sample.nearest.shape[1]) + PRIOR
    )
    place = {row: number for number, row in enumerate(sample.rows.tolist())}
    at = np.array([place.get(row, -1) for row in found.row.tolist()])
    known = at >= 0
    own, truth = said[known], found.truth[known].astype(np.int64)
    both = (own + votes[at[known]]) / 2
    if (both.argmax(1) == truth).sum() >= (own.argmax(1) == truth).sum():
        said[known] = both
    return said


def suspicious(
    said: Float[np.ndarray, "rows classes"], truth: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Mark rows by confident learning: another class has at least the mean probability that its own rows give it.

    Of several such classes the most probable counts (Northcutt et al. 2021, equation 2); a row whose own class is
    that one is not suspicious.

    >>> said = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.9, 0.1]])
    >>> suspicious(said, np.array([0, 0, 1, 1])).tolist()
    [False, False, False, True]
    """
    classes = said.shape[1]
    usual = np.array([said[truth == c, c].mean() if (truth == c).any() else np.inf for c in range(classes)])
    able = np.where(said >= usual, said, -1.0)
    best = able.argmax(1)
    return np.asarray((able.max(1) >= 0) & (best != truth))


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    # Leaving suspicious rows out cannot be tried on these folds: the labels that make a row suspicious are also those
    # that validate its neighbors.
    found = []
    s = sight.settings
    if s is not None and s.loss in ("cross_entropy", "binary_cross_entropy") and s.label_smoothing < 0.1:
        found.append(Remedy("label smoothing 0.2", {"label_smoothing": 0.2}))
    return (*found, Remedy("look at these rows"))
