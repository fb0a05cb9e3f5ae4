"""The network to go on with: the ensemble of the winner's fold members, or a refit on all rows; what each is worth."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from foldwise.data.table import Table, open_again
from foldwise.engine.loop import Progress
from foldwise.engine.predict import MODELS, Models, Refit
from foldwise.errors import PlanError
from foldwise.judge.verdict import TrialResult, decimals
from foldwise.outcome import member_outputs
from foldwise.recall import frame_again
from foldwise.refit import Means, settings_on_all, train_on_all

if TYPE_CHECKING:
    from foldwise.study import Study

FEW, MANY = 1, 1000  # rows by which latency is measured
TRIES = 5
FEWEST = 3  # networks of a refit that average out what seeds do


@dataclass(frozen=True)
class Candidate:
    """One of the two, and what it costs.

    `bytes` is the size of its weights. Latencies are milliseconds to apply it to encoded rows, on the CPU, as measured
    when the refit was made: the median of a few tries. `test` is its score on the sealed test rows when they were
    first opened for it, else None.
    """

    model: str
    networks: int
    parameters: int
    bytes: int
    one_row_ms: float
    thousand_rows_ms: float
    test: float | None


@dataclass(frozen=True)
class Final:
    """The two candidates for the network to go on with, and which one to take.

    `score` is out of fold, of single networks that learned from `learned` rows, corrected for the choice where the
    trial is the winner. It is an estimate for both: members of the ensemble were scored alone, and the refit, which
    learned from `rows`, cannot be scored on rows that it has seen.
    """

    metric: str
    score: float
    learned: int
    rows: int
    ensemble: Candidate
    refit: Candidate

    @property
    def recommended(self) -> str:
        """Name the model to take.

        On real tables a refit of three seeds and the ensemble of five folds scored alike within the noise
        (docs/guide.md), and a refit of one seed somewhat worse. So the refit is recommended where it has fewer
        networks, but three at least; where there is nothing to save, the ensemble, whose networks were scored.
        """
        return "refit" if FEWEST <= self.refit.networks < self.ensemble.networks else "ensemble"

    @property
    def sentence(self) -> str:
        """Recommend one of them, in one sentence."""
        a, b = self.refit, self.ensemble
        digits = decimals(self.score, math.nan, math.nan)
        known = (
            f"{self.metric} {self.score:.{digits}f}, out of fold, is the score of single networks that learned from "
            f"{self.learned:,} rows each"
        )
        if self.recommended == "refit":
            return (
                f"take the refit: {_networks(a)} instead of {b.networks} ({_apart(b.one_row_ms, a.one_row_ms)}). It "
                f"has learned from all {self.rows:,} rows, so none is left to score it on; as a guide, {known}"
            )
        few = {1: "one network alone varies by its seed", 2: "two still vary by their seeds"}
        why = few.get(a.networks, "it has no fewer networks")
        return (
            f"take the ensemble, not the refit ({why}): {known}, and their mean is usually a little better. The refit "
            f"has learned from all {self.rows:,} rows, so none is left to score it on"
        )

    def table(self) -> pl.DataFrame:
        """Lay the candidates out, one per row."""
        return pl.DataFrame([asdict(c) for c in (self.ensemble, self.refit)])


def _networks(candidate: Candidate) -> str:
    return f"{candidate.networks} network{'s' * (candidate.networks > 1)}"


def _apart(before: float, after: float) -> str:
    return f"{before:.2g} → {after:.2g} ms for a row"


def final_of(study: Study) -> Final | None:
    """Compare a study's refit with the ensemble of the same trial."""
    if study.refitted is None:
        return None
    number = study.refitted.trial
    result = result_of(study, number)
    models = next(m for m in study.models if m.of_trial(number - 1))
    winner = result.place == 1 and math.isfinite(study.headline_result.value)
    return Final(
        metric=study.metric.label,
        score=study.headline_result.value if winner else result.score,
        learned=round(float(study.folds.train.sum(axis=1).mean())),
        rows=study.refitted.rows,
        ensemble=_candidate(study, "ensemble", models, models.of_trial(number - 1)),
        refit=_candidate(study, "refit", study.refitted.models, [*range(len(study.refitted.models.members))]),
    )


def _candidate(study: Study, model: str, models: Models, places: list[int]) -> Candidate:
    tensors = [t[places] for t in (models.parameters, *models.buffers.values())]
    own = {} if study.refitted is None or model == "ensemble" else study.refitted.identity
    scores = [
        o["score"]
        for o in study.openings
        if o.get("model", "ensemble") == model and all(o.get(name) == value for name, value in own.items())
    ]
    of_winner = study.refitted is not None and study.refitted.trial == study.results[0].number
    one, many = study.latency[model]
    return Candidate(
        model, len(places), len(places) * models.parameters.shape[1], sum(t.nbytes for t in tensors), one, many,
        scores[0] if scores and (model == "refit" or of_winner) else None,
    )  # fmt: skip


def latencies(study: Study, refit: Refit) -> dict[str, tuple[float, float]]:
    """Measure in milliseconds how long each model takes for few and for many rows."""
    rows = np.zeros((MANY, len(study.columns.features)))

    def took(model: str, count: int) -> float:
        started = time.perf_counter()
        member_outputs(study, rows[:count], refit.trial, model=model)
        return 1000 * (time.perf_counter() - started)

    return {
        model: (
            statistics.median(took(model, FEW) for _ in range(TRIES)),
            statistics.median(took(model, MANY) for _ in range(TRIES)),
        )
        for model in MODELS
    }


def result_of(study: Study, trial: int | None) -> TrialResult:
    """Give the result of a trial, the winner's when None; raises PlanError when there is none."""
    found = [r for r in study.results if trial is None or r.number == trial]
    if not found:
        raise PlanError(f"there is no trial {trial}.", hint=f"trials are numbered 1 to {len(study.results)}")
    return found[0]


def make_refit(
    study: Study,
    trial: int | None,
    seeds: int,
    data: Any,
    means: Means,
    watch: Callable[[Progress], None],
) -> Refit:
    """Train a trial's network on all development rows."""
    if isinstance(seeds, bool) or seeds < 1:
        raise PlanError(f"`seeds` must be at least 1; got {seeds}.")
    result = result_of(study, trial)
    table = table_of(study, data)
    rows = len(table.features)
    by_fold = study.folds.train.sum(axis=1).tolist()
    settings, until = settings_on_all(result.settings, result.epoch, by_fold, rows)
    if result.settings.epochs and not result.epoch:
        raise PlanError(f"trial {result.number} {result.status}: no epoch of it can be trained again.")
    first = study.plan.seeds[0]
    own = range(first, first + seeds)
    return train_on_all(table, settings, own, means, until=until, trial=result.number, watch=watch)


def table_of(study: Study, data: Any) -> Table:
    """Give the development rows of a study: kept in memory, or read again."""
    if study.table is not None and data is None:
        return study.table
    frame = frame_again(study.source, study.task.targets, data)
    return open_again(
        frame, study.source, row=study.row, sealed_row=None, task=study.task, columns=study.columns,
        weighting=study.weighting, weights=study.weights, sealed_weights=None,
    )  # fmt: skip
