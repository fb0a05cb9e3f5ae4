"""Study: what a plan produced, and what can be done with it; load() reads one back."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from foldwise import outcome, prediction, recall
from foldwise.checks.finding import Findings
from foldwise.checks.series import Looks
from foldwise.checks.telling import doubt, hint_of, said_hints, summary
from foldwise.data.columns import ColumnPlan
from foldwise.data.folds import Folds
from foldwise.data.table import Source, Table
from foldwise.data.target import Task
from foldwise.data.weights import Weighting, score_weights
from foldwise.devices import device_of, engine_called
from foldwise.engine.links import Link
from foldwise.engine.loop import PlanSummary
from foldwise.engine.losses import OwnLoss
from foldwise.engine.predict import Models, Refit
from foldwise.engine.rows import Constants
from foldwise.errors import FoldwiseError, NetworkError, SettingsError, StoreError
from foldwise.final import Final, final_of, latencies, make_refit
from foldwise.judge.calibrate import Calibration
from foldwise.judge.conformal import Sureness
from foldwise.judge.importance import values_of
from foldwise.judge.metrics import Metric
from foldwise.judge.nested import Nested
from foldwise.judge.variance import Split
from foldwise.judge.verdict import Headline, Luck, TrialResult
from foldwise.linear import Linear
from foldwise.nets.build import Net
from foldwise.outcome import Opening
from foldwise.plans.plan import Plan
from foldwise.plans.strategy import Account
from foldwise.questions import QUESTIONS, subject
from foldwise.recall import Replay
from foldwise.refit import Means
from foldwise.report.content import content_of
from foldwise.report.page import render
from foldwise.store.answers import Answer, read_answers, write_answer
from foldwise.store.files import claim, spare_folder, unfinished, write_text
from foldwise.store.folder import (
    read_openings,
    read_study,
    write_description,
    write_findings,
    write_refit,
    write_study,
)
from foldwise.store.lock import claimed
from foldwise.terminal import Display, default_display


@dataclass
class Study:
    """What a plan produced. Trials and folds are numbered from 1."""

    task: Task
    columns: ColumnPlan
    source: Source
    plan: Plan
    plan_summary: PlanSummary
    account: Account
    folds: Folds
    metric: Metric
    results: list[TrialResult]
    headline_result: Headline
    nested: Nested | None  # what the folds inside each fold chose; None when there were none
    history: pl.DataFrame
    predictions: pl.DataFrame
    outcome: dict[str, Any]
    worst_rows: list[dict[str, Any]]
    models: list[Models]
    constants: Constants
    scalings: tuple[str, ...]
    target_scale: tuple[torch.Tensor, torch.Tensor] | None
    row: np.ndarray
    sealed: pl.DataFrame | None
    net: Net | None
    loss: OwnLoss | None
    links: tuple[Link, ...]
    warnings: list[str]
    interrupted: bool
    environment: dict[str, str]
    command: str
    weighting: Weighting
    weights: np.ndarray
    sealed_weights: np.ndarray | None
    openings: list[dict[str, Any]] = field(default_factory=list)
    targets: np.ndarray | None = (
        None  # of its rows, as they are learnt; None in runs written before they were kept
    )
    calibration: Calibration | None = None  # of the winner's probabilities
    sureness: Sureness | None = None  # how far intervals reach, or how large sets are, for the page
    variance: Split | None = None  # of the scores of members, over the trials that were searched
    refitted: Refit | None = None  # the networks of `refit`
    latency: dict[str, tuple[float, float]] = field(default_factory=dict)  # by model; see `final`
    folder: Path | None = None
    table: Table | None = field(default=None, repr=False, compare=False)  # its rows, while it is in memory
    lacks_links: bool = False  # that it was trained with, because they were not given when it was loaded
    answers: dict[str, Answer] = field(default_factory=dict)  # by question
    findings: Findings = field(default_factory=Findings)  # what checks found, causes first
    checked: bool = False  # whether checks looked
    looks: Looks | None = None  # what was measured over time of the trial that the checks examined
    linear: Linear | None = None  # what its best linear classifier has learnt

    @property
    def headline(self) -> str:
        """The result in one sentence; with the doubt, where a finding says that the score is given away."""
        return " — ".join(part for part in (self.headline_result.sentence, self.doubt) if part)

    @property
    def doubt(self) -> str:
        """Why the score is not to be believed, and which may be; empty unless an alarm says that it is given away."""
        return doubt(self.findings, float(np.mean(self.results[0].fold_scores)))

    @property
    def luck(self) -> Luck | None:
        """How much of the winner's lead is luck; None while training, and in runs written before it was measured."""
        return self.headline_result.luck

    @property
    def luck_sentence(self) -> str:
        """How much of the winner's lead is luck, in words; empty where `luck` is None."""
        if self.luck is None:
            return ""
        said = self.luck.sentence(self.metric, self.headline_result.low, self.headline_result.high)
        return f"{said} This tells of the choice alone, not of what the findings say." if self.doubt else said

    @property
    def variance_sentence(self) -> str:
        """What would help most, in words; empty where it is not known, or the score says nothing by what was found."""
        nothing = any(f.alarm and f.code == "unlearnable-target" for f in self.findings)
        return "" if self.variance is None or self.doubt or nothing else self.variance.sentence

    def score_weights(self, targets: np.ndarray) -> np.ndarray | None:
        """Say what each row counts in scores, `[rows]`, from the targets of the rows; None when all count alike."""
        scored = np.asarray(self.folds.validation.any(axis=0))
        return score_weights(self.weights, targets, scored, self.weighting.classes)

    @property
    def metric_label(self) -> str:
        """The name of the score."""
        return self.metric.label

    @property
    def column_plan(self) -> ColumnPlan:
        """What is done with each column."""
        return self.columns

    @property
    def resumable(self) -> bool:
        """Whether `foldwise.resume` can go on with it: it was interrupted, and its checkpoints are there."""
        return self.interrupted and self.folder is not None and unfinished(self.folder)

    @property
    def report_path(self) -> Path | None:
        """Where the page is; None when the study is not in a folder."""
        return None if self.folder is None else self.folder / "report.html"

    @property
    def outer_history(self) -> pl.DataFrame:
        """The history without the members inside other folds."""
        if "inner" not in self.history.columns:
            return self.history
        return self.history.filter(pl.col("inner").is_null()).drop("inner")

    @property
    def leaderboard(self) -> pl.DataFrame:
        """The trials in order of their scores; `low` and `high` bound a trial's score as if it had not been chosen.

        `recommended` is the first, or of those tied with it the one that has fewer parameters than it, and the fewest.
        """
        shown = (
            "place",
            "number",
            "name",
            "score",
            "low",
            "high",
            "deviation",
            "epoch",
            "tied",
            "status",
            "recommended",
        )
        columns = {name: [getattr(r, name) for r in self.results] for name in shown}
        return pl.DataFrame(
            {("trial" if name == "number" else name): values for name, values in columns.items()}
        )

    @property
    def settings(self) -> pl.DataFrame:
        """What was tried, in the order of the leaderboard: a column for each setting in which trials differ.

        Null where a setting has no effect in a trial; settings of blocks and of links have columns of their own.
        """
        values = [values_of(r.settings) for r in self.results]
        names = list(dict.fromkeys(name for own in values for name in own))
        differ = [name for name in names if len({own[name] for own in values if name in own}) > 1]
        tried = {name: pl.Series([own.get(name) for own in values], strict=False) for name in differ}
        return pl.DataFrame(
            {"trial": [r.number for r in self.results], "score": [r.score for r in self.results], **tried}
        )

    def predict(
        self,
        new: Any,
        trial: int | None = None,
        *,
        model: str = "ensemble",
        interval: float | None = None,
        calibrated: bool = True,
        separator: str | None = None,
        encoding: str | None = None,
        header: bool | None = None,
    ) -> pl.DataFrame:
        """Predict new rows with the ensemble of a trial's fold members (the winner's, when none is named).

        Gives one row per new row: `prediction`; for classes a probability per class, the mean over folds, calibrated
        on out-of-fold predictions where that helped (`study.calibration`) unless `calibrated=False`; `spread`, the
        deviation between members, of numbers or of the probability (not calibrated) of the predicted class; and with
        `interval=0.9` what holds the truth with probability 0.9: `low` and `high` (CV+ or jackknife+ intervals), or
        `set`, a list of classes (cross-conformal). Of several targets, each has columns of its own: `low of …`.

        `model="refit"` predicts with the networks of `refit` instead, which learned from all rows; their probabilities
        are calibrated alike, and intervals, which need rows that a network has not seen, they have none.

        A text file is read by what `separator`, `encoding` and `header` say, else like that of training if this finds
        the columns, else by what is found out.

        Raises DataError when there are too few validated rows for the interval, SettingsError when it is no share
        between 0 and 1; warns when folds are in time, where the past need not be like the future,
        or grouped, because rows of one group are not independent.

        >>> from foldwise import fit
        >>> study = fit(example="iris", search={"width": 8, "epochs": 20}, folds=3)
        >>> from sklearn.datasets import load_iris
        >>> study.predict(load_iris(as_frame=True).data, interval=0.9).columns[-2:]
        ['spread', 'set']
        """
        for caution in prediction.cautions(self, interval):
            warnings.warn(caution, stacklevel=2)
        frame = prediction.read_new(self, new, separator=separator, encoding=encoding, header=header)
        return prediction.predict(self, frame, trial, interval, calibrated, model)

    def refit(
        self,
        seeds: int = 3,
        trial: int | None = None,
        data: Any = None,
        *,
        device: str = "auto",
        engine: str = "auto",
        display: Display | None = None,
    ) -> Refit:
        """Train a trial (the winner when None) anew on all development rows, with several seeds, and keep it.

        The networks take about as many steps as those of the folds took to the epoch that was chosen, and the last
        epoch is kept: no row is set apart to choose by. They are in `refitted`, and in the run folder where there is
        one; `predict(…, model="refit")` predicts with them, and `final` compares them with the ensemble. `data` is the
        table that the study was made from, or (X, y); one that came from a file is found again by itself.

        Raises FoldwiseError when the table is not to be found, or training diverges.

        >>> from foldwise import fit
        >>> study = fit(example="iris", search={"width": 8, "epochs": 20}, folds=3)
        >>> study.refit(seeds=2).rows
        150
        """
        self._refuse_what_is_missing(self.results[0].number if trial is None else trial)
        display = display or default_display()
        with contextlib.closing(display):
            how = Means(
                self.net, self.loss, self.links, device_of(device), self.models[0].parameters.dtype,
                engine_called(engine, None, "auto"),
            )  # fmt: skip
            self.refitted = make_refit(self, trial, seeds, data, how, display.progress)
        self.latency = latencies(self, self.refitted)
        if self.folder is not None:
            write_refit(self, self.folder)
            self.report()
        return self.refitted

    @property
    def final(self) -> Final | None:
        """Compare the refit with the ensemble of the same trial: score, size, latency; None without a refit."""
        return final_of(self)

    def open_test(self, model: str = "ensemble") -> Opening:
        """Score the winner's ensemble, or the refit, on the sealed test rows; the run folder records every opening."""
        if self.folder is not None and (self.folder / "study.json").exists():
            # the same run, loaded elsewhere, may have been opened meanwhile
            known = read_openings(self.folder)
            self.openings = [*known, *(own for own in self.openings if own not in known)]
        opening = outcome.open_test(self, model)
        self.openings.append(opening.record())
        if self.folder is not None:
            write_description(self, self.folder)
            self.report()
        return opening

    def replay(self, trial: int, fold: int, seed: int | None = None, data: Any = None) -> Replay:
        """Train one member alone with the plain reference loop, and show how far it is from the stacked one.

        `data` is the table that the study was made from, or (X, y); one that came from a file is found again by itself.
        """
        self._refuse_what_is_missing(trial)
        return recall.replay(self, trial, fold, self.plan.seeds[0] if seed is None else seed, data)

    def ask(
        self,
        question: str,
        trial: int | None = None,
        data: Any = None,
        *,
        device: str = "auto",
        display: Display | None = None,
        **options: Any,
    ) -> Answer:
        """Ask a question about a trial (the winner when None) on the rows of this study; see `foldwise.questions`.

        `data` is the table that the study was made from, or (X, y); one that came from a file is found again by itself.
        The answer is kept in `answers`, and in the run folder and its page where there is one. `options` are those of
        the question. Raises FoldwiseError for what cannot be asked.
        """
        self._refuse_what_is_missing(self.results[0].number if trial is None else trial)
        display = display or default_display()
        about = subject.subject_of(self, trial, data, device_of(device), display.progress, display.wait)
        with contextlib.closing(display):
            answer = subject.ask(question, about, options)
        self.answers[question] = answer
        if self.folder is not None:
            write_answer(answer, self.folder)
            self.report()
        return answer

    def learning_curve(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask how the score grows with the rows: `questions/learning_curve.py` says how, and which options it has."""
        return self.ask("learning_curve", trial, **options)

    def seeds(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask how far the score moves by the seed alone: see `questions/seeds.py`."""
        return self.ask("seeds", trial, **options)

    def leave_one_out(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask which rows hurt the model: see `questions/leave_one_out.py`."""
        return self.ask("leave_one_out", trial, **options)

    def capacity(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask how many random labels the network can learn by heart: see `questions/capacity.py`."""
        return self.ask("capacity", trial, **options)

    def permuted_twin(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask what the same settings score on shuffled targets: see `questions/permuted_twin.py`."""
        return self.ask("permuted_twin", trial, **options)

    def label_noise(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask what wrong labels do to score and weights: see `questions/label_noise.py`."""
        return self.ask("label_noise", trial, **options)

    def bootstrap(self, trial: int | None = None, **options: Any) -> Answer:
        """Ask for the .632+ estimate of the score: see `questions/bootstrap.py`."""
        return self.ask("bootstrap", trial, **options)

    def _refuse_what_is_missing(self, trial: int) -> None:
        own = any(r.number == trial and r.settings.network == "custom" for r in self.results)
        if own and self.net is None:
            raise NetworkError(
                "this trial used a network of your own.",
                hint="foldwise.load(folder, net=MyNet), or --net FILE.py:NAME",
            )
        custom = any(r.number == trial and r.settings.loss == "custom" for r in self.results)
        if custom and self.loss is None:
            raise SettingsError(
                "this trial used a loss of your own.",
                hint="foldwise.load(folder, loss=my_loss), or --loss FILE.py:NAME",
            )
        if self.lacks_links:
            raise SettingsError(
                "this study used links of your own.",
                hint="foldwise.load(folder, links=[…]), or --link FILE.py:NAME",
            )

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page; into the run folder when no path is given."""
        target = Path(path) if path is not None else self.report_path
        if target is None:
            raise StoreError("this study is in no folder.", hint='study.report("report.html")')
        return write_text(target, render(content_of(self)))

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the run folder: study.json, weights, histories, predictions and the page."""
        with claimed(folder, overwrite) as place:
            assert place is not None, "a folder is given"
            write_study(self, place)
            self.folder = place
            self.report()
        return place

    def keep(self, folder: Path, page: bool = True) -> None:
        """Save after training; whatever fails, save elsewhere and warn rather than lose the study."""
        try:
            write_study(self, claim(folder, overwrite=True))
            self.folder = folder
        except Exception as error:
            self._keep_elsewhere(f"the run could not be written to {folder} ({_said(error)})")
        try:
            if self.folder is not None and page:
                self.report()
        except Exception as error:
            self.warnings.append(f"the page could not be written ({_said(error)})")

    def keep_findings(self) -> None:
        """Save what checks found beside the rest, which is in the folder by now; whatever fails is a warning."""
        try:
            if self.folder is not None:
                write_findings(self, self.folder)
                self.report()
        except Exception as error:
            self.warnings.append(f"findings or the page could not be written ({_said(error)})")

    def _keep_elsewhere(self, failed: str) -> None:
        warnings, self.folder = self.warnings, None
        try:
            spare = spare_folder()
            self.warnings = [*warnings, f"{failed}; it is in {spare} instead"]
            write_study(self, spare)
            self.folder = spare
        except Exception as error:
            self.warnings = [*warnings, f"{failed}, nor elsewhere ({_said(error)})"]

    def __repr__(self) -> str:
        lines = [self.headline, ""]
        for r in self.results[:15]:
            mark = "≈" if r.tied else " "
            interval = f"({r.low:.4g}–{r.high:.4g})"
            lines.append(
                f"{r.number:3d} {mark} {r.name:<52} {r.score:.4g} {interval}  epoch {r.epoch}  {r.status}"
            )
        if any(r.tied for r in self.results):
            lines.append("≈ not distinguishable from the first")
        notes = [f"search: {self.account.sentence}"] if self.account.sentence else []
        notes += [f"nested: {self.nested.sentence}"] if self.nested is not None else []
        notes += [f"note: {note}" for note in self.plan_summary.notes]
        hints, rest = said_hints(self.findings)
        said = [*map(str, self.findings.alarms), *map(hint_of, hints), *([rest] if rest else [])]
        found = [*said, summary(self.findings)] if self.checked else []
        return "\n".join([*lines, *notes, *(f"warning: {w}" for w in self.warnings), *found])

    def _repr_html_(self) -> str:
        table = self.leaderboard.head(15)._repr_html_()
        warned = "".join(f"<p>⚠ {escape(w)}</p>" for w in [*self.warnings, *map(str, self.findings.alarms)])
        return f"<p><b>{escape(self.headline)}</b></p>{warned}{table}"


def _said(error: Exception) -> str:
    said = str(error).splitlines()[:1]
    return ": ".join([*([] if isinstance(error, FoldwiseError) else [type(error).__name__]), *said])


def load(
    folder: str | Path, net: Net | None = None, loss: OwnLoss | None = None, links: Sequence[Link] = ()
) -> Study:
    """Read a study from its run folder; `net`, `loss` and `links` are those of your own, when the study used some.

    `replay` needs them all, `predict` and `open_test` the network. Raises StoreError when there is no study, or it is
    damaged; NetworkError when the network is another one; SettingsError for a loss or links that it did not use.
    """
    study = Study(**read_study(Path(folder), net), folder=Path(folder))
    if loss is not None and all(s.loss != "custom" for s in study.plan.trials):
        raise SettingsError("`loss` has no effect: this study used no loss of your own.", hint="leave it out")
    if links and not study.lacks_links:
        raise SettingsError(
            "`links` have no effect: this study used none of your own.", hint="leave them out"
        )
    study.answers = read_answers(Path(folder), QUESTIONS)
    study.loss, study.links, study.lacks_links = loss, tuple(links), study.lacks_links and not links
    outcome.refuse_other_networks(study)
    return study
