"""The same settings on shuffled targets, where nothing is to be learnt: what still agrees is a leak."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.data.target import Task
from foldwise.data.variants import Variants
from foldwise.judge.metrics import probabilities
from foldwise.questions.numbers import brief, finished, points
from foldwise.questions.subject import Subject, count, few_folds, kept_losses, seen, targets_of, undisturbed
from foldwise.store.answers import Answer, Picture, Rule, Series

LEAK_BELOW = 0.01


def answer(subject: Subject, *, shuffles: int = 20, trials: int = 1) -> Answer:
    """Train on shuffled targets, on the same folds, beside the targets as they are.

    Targets are shuffled among the rows of a validation fold, so that all folds keep theirs; rows with the same
    features move together, so that copies keep sharing a target. Two things follow:

    - **A leak.** After the last epoch, predictions out of fold must not agree with shuffled targets. Their agreement,
      the correlation of both within folds, is 0 in the mean if no row was seen beforehand, however much a network
      overfits. A one-sided t-test over the shuffles says whether it is more; p < 0.01 is reported as a leak: copies of
      rows on both sides of a fold, validation rows that were learnt from, constants learnt from all rows. A column
      that holds the answer is none of these (shuffled, it does not): such a score is too good, and real.
    - **The score.** p = (1 + shuffles that score as well)/(1 + shuffles) (Ojala & Garriga 2010, *Permutation tests
      for studying classifier performance*) says whether the real score could be luck. Every shuffle keeps its own
      best epoch, as the study did, and with `trials` its own best trial.

    Args:
        subject: the trial that is asked about.
        shuffles: how many, at least 5; p-values of the score cannot be less than 1/(shuffles + 1).
        trials: how many of the best trials compete on each shuffle, as they did in the study; 1: only the one asked.
    """
    shuffles, trials = count("shuffles", shuffles, least=5), count("trials", trials)
    base, random = few_folds(subject), subject.random(3)
    order = [
        np.arange(subject.rows),
        *(shuffled(subject.table.features, base, random) for _ in range(shuffles)),
    ]
    variants = Variants.of_targets(
        np.stack([subject.table.targets[o] for o in order]), np.repeat(np.arange(shuffles + 1), len(base))
    )
    folds = Folds(
        np.tile(base.train, (shuffles + 1, 1)), np.tile(base.validation, (shuffles + 1, 1)), base.how
    )
    others = subject.ranked[:trials] if trials > 1 else ()
    rivals = [undisturbed(s) for s in dict.fromkeys((subject.settings, *others))]
    versions, k = shuffles + 1, len(base)
    trained = subject.train(
        "permuted twin",
        rivals * versions,
        folds,
        seeds=subject.seeds(1),
        folds_of=[range(v * k, v * k + k) for v in range(versions) for _ in rivals],
        variants=variants,
    )
    agreement = np.zeros(versions)
    for m in seen(trained, subject.metric):
        if m.member.trial % len(rivals) == 0:
            own = targets_of(trained, m.member.fold)[m.rows]
            agreement[variants.version[m.member.fold]] += len(m.rows) * agreement_of(
                m.outputs, own, subject.table.task
            )
    scored = np.asarray(base.validation.any(axis=0))
    rows = np.stack([base.validation @ subject.weights_of(targets, scored) for targets in variants.targets])
    losses = kept_losses(trained)["loss"].to_numpy().reshape(versions, len(rivals), k)
    best = np.einsum("vrk,vk->vr", losses, rows / rows.sum(axis=1, keepdims=True)).min(axis=1)
    return _answer(
        subject, finished(subject.metric, best), agreement / base.validation.sum(), base, len(rivals)
    )


def shuffled(
    features: Float[np.ndarray, "rows features"], base: Folds, random: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Say from which row each gets its target.

    Rows that are like no other change places within the validation fold in which they are first (those of none, among
    themselves). Rows that are alike are a group: groups of one size change places as a whole, and one of a size of its
    own takes the target of some row.
    """
    source = np.arange(len(features))
    _, alike, times = np.unique(
        np.nan_to_num(features, nan=np.finfo(float).max), axis=0, return_inverse=True, return_counts=True
    )
    alike = alike.reshape(-1)
    fold = np.where(base.validation.any(axis=0), base.validation.argmax(axis=0), len(base))
    single = times[alike] == 1
    for f in np.unique(fold):
        own = np.flatnonzero(single & (fold == f))
        source[own] = random.permutation(own)
    for size in np.unique(times[times > 1]):
        groups = np.stack([np.flatnonzero(alike == g) for g in np.flatnonzero(times == size)])
        if len(groups) > 1:
            source[groups] = groups[random.permutation(len(groups))]
        else:
            source[groups] = random.integers(len(features))
    return source


def agreement_of(outputs: Float[Tensor, "rows outputs"], targets: np.ndarray, task: Task) -> float:
    """Correlate what was predicted with the targets, all outputs together; 0 where one of them does not vary.

    Numbers as they are learnt; for classes, probabilities with 1 for the right class and 0 for the others.
    """
    if task.kind == "regression":
        said, truth = outputs.double().numpy(), targets.astype(float)
    else:
        said = probabilities(outputs.double(), task).numpy()
        truth = np.eye(said.shape[1])[targets] if targets.ndim == 1 else targets.astype(float)
    said, truth = said - said.mean(axis=0), truth - truth.mean(axis=0)
    size = np.sqrt(np.square(said).sum() * np.square(truth).sum())
    return float((said * truth).sum() / size) if size > 0 else 0.0


def _answer(
    subject: Subject,
    scores: Float[np.ndarray, " twins"],
    agreement: Float[np.ndarray, " twins"],
    base: Folds,
    rivals: int,
) -> Answer:
    metric, real, shuffles = subject.metric, float(scores[0]), len(scores) - 1
    as_good = scores[1:] >= real if metric.higher_is_better else scores[1:] <= real
    luck = (1 + int(as_good.sum())) / (1 + shuffles)
    leak = _p_above_zero(agreement[1:])
    found = leak < LEAK_BELOW
    mean = float(scores[1:].mean())
    said = (
        f"On shuffled targets, predictions still agree with them (correlation {brief(float(agreement[1:].mean()))}, "
        f"p = {leak:.2g}): something about validation rows is known beforehand, so the score is too good."
        if found
        else f"On shuffled targets nothing is predicted (correlation {agreement[1:].mean():.2g}, p = {leak:.2g}): no "
        "sign of a leak."
    )
    better = "is better than all of" if not as_good.any() else f"is no better than {int(as_good.sum())} of"
    said += (
        f" The score on real targets, {metric.label} {brief(real)}, {better} {shuffles} shuffles, which score "
        f"{brief(mean)} on average (p = {luck:.2g})."
    )
    who = f"the best of {rivals} trials" if rivals > 1 else subject.name
    how = (
        f"The targets were shuffled {shuffles} times within the validation folds ({base.how}; rows that are equal keep "
        f"equal targets), and each time {who} was trained anew, with a best epoch of its own. What is found so is that "
        "networks know validation rows beforehand, from copies among the training rows, say. A column that holds the "
        "answer is not found so: shuffling cuts its tie to the target as well."
    )
    if rivals == 1 and len(subject.ranked) > 1 and subject.settings == subject.ranked[0]:
        how += (
            f" The trial was chosen as the best of {len(subject.ranked)} trials on the real targets, and nothing was "
            "chosen on shuffled ones, so that the p of its score may be too small; with --trials 5 (trials=5), five "
            "compete on both."
        )
    table = pl.DataFrame({"shuffle": np.arange(shuffles + 1), "score": scores, "agreement": agreement})
    picture = Picture(
        "shuffle (0: targets as they are)",
        metric.label,
        (
            Series("shuffled", points(np.arange(1, shuffles + 1), scores[1:])),
            Series("targets as they are", points([0], [real])),
        ),
        (Rule(mean, f"mean of shuffles {brief(mean)}"),),
    )
    facts = {
        "p_leak": leak,
        "agreement": float(agreement[1:].mean()),
        "p_score": luck,
        "score": real,
        "shuffled": mean,
    }
    return Answer("permuted_twin", said, how, table, facts, picture, look=found)


def _p_above_zero(values: Float[np.ndarray, " values"]) -> float:
    """Test by Student's t whether a mean is above 0, one-sided; 1 where nothing varies and it is not."""
    spread = float(values.std(ddof=1))
    if spread == 0:
        return float(values.mean() <= 0)
    return float(stats.t.sf(values.mean() / spread * np.sqrt(len(values)), len(values) - 1))
