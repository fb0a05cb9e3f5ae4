"""Asking: from a study, from a table, from the command line; what is kept, and what is refused."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

import foldwise
import studies
from foldwise import asking, cli
from foldwise.cli_ask import declared
from foldwise.errors import FoldwiseError, SettingsError, StoreError
from foldwise.fitting import fit
from foldwise.job import Job
from foldwise.questions import QUESTIONS
from foldwise.questions.subject import kept_losses, options_of
from foldwise.study import Study

QUICK: dict[str, dict[str, Any]] = {
    "learning_curve": {"sizes": [0.2, 0.5, 1.0], "repeats": 1},
    "seeds": {"seeds": 3},
    "leave_one_out": {"seeds": 2, "rows": 4},
    "capacity": {"labellings": 2, "steps": 20, "most": 12},
    "permuted_twin": {"shuffles": 5},
    "label_noise": {"shares": [0, 0.5]},
    "bootstrap": {"draws": 20},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small table in a file."""
    place = tmp_path_factory.mktemp("asking")
    studies.table("binary", rows=50).write_csv(place / "table.csv")
    settings = {"network": "mlp", "width": 4, "depth": 1, "epochs": 3}
    fit(place / "table.csv", target="ill", search=settings, folds=3, out=place / "run")
    return place / "run"


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered_kept_and_shown(question: str, folder: Path) -> None:
    study = foldwise.load(folder)
    answer = getattr(study, question)(4, **QUICK[question])
    assert answer.question == question
    assert answer.sentence.endswith(".")
    again = foldwise.load(folder).answers[question]
    assert (again.sentence, again.how, again.picture, again.look) == (
        answer.sentence, answer.how, answer.picture, answer.look,
    )  # fmt: skip
    assert again.table.equals(answer.table.with_columns(pl.col(pl.Float64).fill_nan(None)))
    assert answer.sentence in repr(again)
    page = (folder / "report.html").read_text()
    assert f"<h3>{question.replace('_', ' ')}" in page
    assert '"series"' in page


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_command_line_says_the_same(
    question: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["ask", str(folder), question.replace("_", "-"), "--trial", "4"]
    for name, value in QUICK[question].items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        typed += ["--" + name.replace("_", "-"), text]
    with pytest.raises(SystemExit) as ended:
        cli.main(typed)
    said = capsys.readouterr()
    answer = foldwise.load(folder).answers[question]
    assert ended.value.code == (1 if answer.look else 0)
    assert answer.sentence in said.err
    first = answer.table.columns[0].replace("_", " ")
    hurting = answer.facts.get("hurting", 1)
    assert (first if hurting else "no row hurts beyond the noise") in said.out.splitlines()[0]
    assert foldwise.load(folder).ask(question, 4, **QUICK[question]).sentence == answer.sentence


@pytest.mark.parametrize("question", QUESTIONS)
def test_options_and_help_come_from_the_function(question: str) -> None:
    does, options = declared(question)
    function = import_module(f"foldwise.questions.{question}").answer
    assert [o.name for o in options] == options_of(function)
    assert does.split("\n")[0] == (inspect.getdoc(function) or "").split("\n")[0]
    assert callable(getattr(Study, question))
    assert getattr(foldwise, question) is getattr(asking, question)


def test_options_that_fit_has_too_go_to_the_question() -> None:
    ours = {q: set(options_of(import_module(f"foldwise.questions.{q}").answer)) for q in QUESTIONS}
    both = {q: own & {*inspect.signature(fit).parameters} for q, own in ours.items()}
    assert {q: set(names) for q, names in asking.SHARED.items()} == {q: own for q, own in both.items() if own}


def test_seeds_of_a_study_are_what_the_question_trains() -> None:
    data = studies.table("regression", rows=60)
    search = {"network": "mlp", "width": 4, "depth": 1, "epochs": 4}
    study = fit(data, target="price", search=search, folds=3, seeds=4, dtype="float64")
    found = study.seeds(4, data=data, seeds=4)
    trial = next(r for r in study.results if r.number == 4)
    own = study.predictions.filter(pl.col("trial") == 4).join(
        data.with_row_index("row").select(pl.col("row").cast(pl.Int64), "price"), on="row"
    )
    by_seed = (
        own.group_by("seed").agg(((pl.col("prediction") - pl.col("price")) ** 2).mean().sqrt()).sort("seed")
    )
    np.testing.assert_allclose(found.table["score"], by_seed["prediction"], rtol=1e-6)
    assert found.facts["deviation"] == pytest.approx(float(by_seed["prediction"].std()), rel=1e-6)
    assert f"at epoch {trial.epoch}" in found.how


def test_wrong_labels_lower_the_score_and_are_counted() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 4))
    y = np.digitize(x @ [2.0, 1.0, 0.0, 0.0], [-1, 1])
    settings = {"network": "mlp", "width": 32, "depth": 1, "epochs": 40, "learning_rate": 0.02}
    found = foldwise.label_noise(x, y, settings=settings, shares=[0, 0.9], folds=3)
    plain = found.table.filter(pl.col("way") == "plain")
    assert found.table["way"].n_unique() == 4
    assert plain["wrong"].to_list() == pytest.approx([0, 0.6])
    assert plain["score"][0] > plain["score"][1] + 0.2
    decayed = found.table.filter(pl.col("way") == "weight decay")
    assert (decayed["norm"] < plain["norm"]).all()


def test_intervals_under_label_noise_allow_for_rows_that_folds_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand from the losses of the folds: Student's t, with the variance (1/k + n₂/n₁)·s² = (1/4 + 1/3)·s²."""
    jobs = []

    def kept(job: Job) -> pl.DataFrame:
        jobs.append(kept_losses(job))
        return jobs[-1]

    monkeypatch.setattr("foldwise.questions.label_noise.kept_losses", kept)
    x = np.random.default_rng(1).normal(size=(80, 3))
    settings = {"network": "linear", "epochs": 2}
    found = foldwise.label_noise(x, x.sum(axis=1), settings=settings, shares=[0, 0.5], folds=4, metric="mae")
    losses = jobs[0]["loss"].to_numpy().reshape(4, 4)
    reach = stats.t.ppf(0.975, 3) * losses.std(axis=1, ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    np.testing.assert_allclose(found.table["high"] - losses.mean(axis=1), reach, rtol=1e-9)
    np.testing.assert_allclose(found.table["low"], np.maximum(0, losses.mean(axis=1) - reach), rtol=1e-9)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: s.ask("seed"), "there is no question `seed`"),
        (lambda s: s.seeds(seed=3), "`seeds` has no option `seed`"),
        (lambda s: s.seeds(9), "there is no trial 9"),
        (lambda s: s.label_noise(4, shares=[0, 2]), "shares from 0 to 1"),
        (lambda s: s.permuted_twin(shuffles=2), "at least 5"),
        (lambda s: s.bootstrap(draws=True), "`draws` must be a whole number"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask: Callable[[Study], object], said: str, folder: Path) -> None:
    with pytest.raises(FoldwiseError, match=said):
        ask(foldwise.load(folder))


def test_a_list_that_is_none_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["ask", str(folder), "learning-curve", "--sizes", "a,b"])
    assert ended.value.code == 2
    assert "`--sizes` takes numbers separated by commas" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: "{",
        lambda a: json.dumps(a | {"table": {"seed": [[1]]}}),
        lambda a: json.dumps(a | {"picture": {"x": 1}}),
        lambda a: json.dumps(a | {"question": "capacity"}),
        lambda a: json.dumps(a | {"more": 1}),
        lambda a: json.dumps(a | {"table": {"seed": [1], "score": [1, 2]}}),
        lambda a: json.dumps(a | {"look": "yes"}),
    ],
)
def test_a_damaged_answer_is_named(damage: Callable[[dict[str, Any]], str], folder: Path) -> None:
    foldwise.load(folder).seeds(4, seeds=2)
    path = folder / "answers" / "seeds.json"
    before = path.read_text()
    try:
        path.write_text(damage(json.loads(before)))
        with pytest.raises(StoreError, match=r"seeds\.json is damaged"):
            foldwise.load(folder)
    finally:
        path.write_text(before)


def test_nothing_in_an_answer_acts_on_the_page(folder: Path) -> None:
    foldwise.load(folder).seeds(4, seeds=2)
    path = folder / "answers" / "seeds.json"
    before = path.read_text()
    try:
        path.write_text(before.replace("By the seed alone", "</script><script>alert(1)</script>"))
        page = foldwise.load(folder).report().read_text()
        assert "<script>alert(1)" not in page
    finally:
        path.write_text(before)


def test_another_study_in_the_folder_has_no_answers(tmp_path: Path) -> None:
    search = {"network": "mlp", "width": 4, "depth": 1, "epochs": 2}
    first = fit(example="iris", search=search, folds=3, out=tmp_path / "run")
    first.seeds(seeds=2)
    copy = first.save(tmp_path / "copy")
    assert set(foldwise.load(copy).answers) == {"seeds"}
    fit(example="iris", search=search, folds=3, out=tmp_path / "run", overwrite=True)
    assert not foldwise.load(tmp_path / "run").answers
    assert not os.path.exists(tmp_path / "run" / "answers")


def test_settings_of_a_baseline_are_asked_by_trial() -> None:
    with pytest.raises(SettingsError, match="those of a baseline"):
        foldwise.seeds(example="iris", settings={"network": "constant", "epochs": 0}, folds=3)
