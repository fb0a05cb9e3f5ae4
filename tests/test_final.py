"""A refit learns from all rows, with as many steps as the folds took; it is kept, compared and scored."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import foldwise
from foldwise.cli import app
from foldwise.data.prepare import learn_preparation, learn_target_scale
from foldwise.engine.losses import LOSSES
from foldwise.engine.members import Nursery
from foldwise.engine.pace import Pace
from foldwise.engine.rows import place_rows
from foldwise.errors import NetworkError, PlanError, StoreError
from foldwise.final import final_of
from foldwise.plans.course import Course
from foldwise.plans.plan import Member
from foldwise.reference import Own, outputs_of, prepare_fold, train_alone
from foldwise.refit import as_many_steps, settings_on_all, train_on_all
from foldwise.settings import Settings
from foldwise.study import Study

torch.set_num_threads(1)
SEARCH = {"width": [4], "depth": 1, "epochs": 6, "learning_rate": [0.01], "dropout": 0.1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a study of a file, with sealed test rows and without a refit."""
    folder = tmp_path_factory.mktemp("final")
    random = np.random.default_rng(0)
    size, color = random.normal(size=120), random.choice(["red", "blue"], 120)
    price = 10 * size + 5 * (color == "red") + random.normal(size=120)
    pl.DataFrame({"size": size, "color": color, "price": price}).write_csv(folder / "table.csv")
    foldwise.fit(
        folder / "table.csv",
        target="price",
        search=SEARCH,
        folds=4,
        test=0.25,
        dtype="float64",
        out=folder / "run",
    )
    return folder / "run"


@pytest.fixture
def study(run: Path, tmp_path: Path) -> Study:
    """The study read from a copy of its folder."""
    study = foldwise.load(run)
    study.save(tmp_path / "run")
    return foldwise.load(tmp_path / "run")


def test_what_is_kept() -> None:
    course = Course(trial=0, settings=Settings(epochs=3), keep="last")
    assert [course.note(mean, (mean,)) for mean in (9.0, 0.5, 0.7, 0.6)] == [False, True, True, True]
    assert (course.best_epoch, course.kept_epoch) == (1, 3)
    broken = Course(trial=0, settings=Settings(epochs=3), keep="last")
    assert [broken.note(mean, (mean,)) for mean in (9.0, 0.5, np.nan)] == [False, True, False]
    assert broken.kept_epoch == 0


def test_it_is_the_last_epoch_of_a_plain_training_on_all_rows(study: Study) -> None:
    refit = study.refit(seeds=2)
    settings, rows = refit.settings, len(study.row)
    assert refit.rows == rows == 90
    frame = pl.read_csv(study.source.path)[study.row]
    X, y = study.columns.encode(frame), study.task.encode(frame)
    every, ones = np.ones(rows, dtype=bool), np.ones(rows)
    numbers = np.array([f.kind == "number" for f in study.columns.features])
    data = prepare_fold(X, y, every, every, numbers, settings.scaling, True, torch.float64, ones, None)
    scale = learn_target_scale(y, every[None], ones)
    placed = place_rows(
        X, y, study.folds, {settings.scaling: learn_preparation(X, every[None], numbers, settings.scaling, ones)},
        scale, device=torch.device("cpu"), dtype=torch.float64,
    )  # fmt: skip
    said = []
    for seed in (0, 1):
        member = Member(0, 0, seed, settings)
        module = Nursery(placed, {settings.loss: 1}).start(member)
        own = Own(LOSSES[settings.loss].form, None, (), [])
        for _ in itertools.islice(train_alone(member, module, data, own), refit.epochs):
            pass
        said.append(outputs_of(module, data))
    expected = np.mean([o[:, 0].detach().numpy() for o in said], axis=0) * scale.scale[0] + scale.shift[0]
    found = study.predict(frame, model="refit")["prediction"].to_numpy()
    assert found == pytest.approx(expected, rel=1e-8)


def test_steps_are_carried_over_from_the_folds() -> None:
    settings = Settings(batch_size=10, epochs=40, early_stopping=5)
    pace = Pace.of(settings)
    made, until = settings_on_all(settings, 24, [75, 75, 75, 75], 100)
    assert (made.epochs, made.early_stopping) == (32, 0)  # 8 steps an epoch in folds, 10 here
    assert abs(pace.total_steps(100, until) - pace.total_steps(75, 24)) <= pace.total_steps(100, 1) / 2
    # the rate at the end is that of the folds: as far along the schedule
    assert until / made.epochs == pytest.approx(24 / 40, abs=0.02)
    assert as_many_steps(Settings(batch_size=1000), 7, [75], 100) == 7  # one step an epoch
    assert as_many_steps(settings, 1, [10], 100) == 1
    assert as_many_steps(settings, 0, [75], 100) == 0


def test_it_is_stored_and_read(study: Study) -> None:
    assert study.refitted is None
    assert study.final is None
    study.refit(seeds=3)
    again = foldwise.load(study.folder)
    frame = pl.read_csv(study.source.path)
    assert again.predict(frame, model="refit").equals(study.predict(frame, model="refit"))
    assert again.final == study.final
    assert again.refitted.settings.model_dump() == study.refitted.settings.model_dump()
    assert not again.predict(frame).equals(again.predict(frame, model="refit"))
    assert study.final.sentence in study.report_path.read_text(encoding="utf-8").replace("&gt;", ">")
    again.refit(seeds=1)
    assert len(foldwise.load(study.folder).refitted.models.members) == 1


def test_a_run_of_before_still_loads(study: Study) -> None:
    path = study.folder / "study.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    del described["refit"], described["latency"]
    path.write_text(json.dumps(described), encoding="utf-8")
    again = foldwise.load(study.folder)
    assert again.refitted is None
    assert again.predict(pl.read_csv(study.source.path)).height == 120


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"trial": 9}, "not there"),
        ({"seeds": [0]}, "weights of its refit"),
        ({"scalings": ["robust", "standard"]}, "constants of its refit"),
        ({"epochs": "many"}, "damaged"),
    ],
)
def test_damage_is_found(study: Study, change: dict[str, Any], match: str) -> None:
    study.refit(seeds=2)
    path = study.folder / "study.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["refit"] |= change
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(StoreError, match=match):
        foldwise.load(study.folder)


def test_weights_of_another_network_are_found(study: Study) -> None:
    study.refit(seeds=2)
    path = study.folder / "state.safetensors"
    tensors = load_file(path)
    tensors["refit.parameters"] = tensors["refit.parameters"][:, :-1].contiguous()
    save_file(tensors, path)
    with pytest.raises(StoreError, match="is damaged: trial"):
        foldwise.load(study.folder)


def test_what_it_costs(study: Study) -> None:
    study.refit(seeds=3)
    final = study.final
    size = study.models[[m.of_trial(study.refitted.trial - 1) != [] for m in study.models].index(True)]
    assert final.ensemble.networks == 4
    assert final.ensemble.parameters == 4 * size.parameters.shape[1]
    assert final.refit.bytes == 3 * 8 * size.parameters.shape[1]
    assert min(final.ensemble.one_row_ms, final.refit.thousand_rows_ms) > 0
    assert final.score == study.headline_result.value
    assert (final.learned, final.rows) == (68, 90)
    assert final.table().height == 2


def test_which_is_recommended(study: Study) -> None:
    for seeds, model in ((1, "ensemble"), (3, "refit"), (4, "ensemble")):
        study.refit(seeds=seeds)
        assert study.final.recommended == model
        assert study.final.sentence.startswith(f"take the {model}")
        assert "learned from all 90 rows, so none is left to score it on" in study.final.sentence
        assert "68 rows" in study.final.sentence


def test_test_rows_are_scored_by_either(study: Study) -> None:
    study.refit(seeds=3)
    opening = study.open_test(model="refit")
    sealed = study.sealed
    errors = study.predict(sealed, model="refit")["prediction"] - sealed["price"]
    assert opening.score == pytest.approx(float((errors**2).mean()) ** 0.5)
    assert opening.sentence.startswith("test of the refit: RMSE")
    assert study.open_test().times_opened == 2
    final = foldwise.load(study.folder).final
    assert final.refit.test == opening.score
    assert final.ensemble.test == study.openings[1]["score"]


def test_what_cannot_be_asked_for(study: Study) -> None:
    frame = pl.read_csv(study.source.path)
    with pytest.raises(PlanError, match="no refit"):
        study.predict(frame, model="refit")
    with pytest.raises(PlanError, match="one of ensemble, refit"):
        study.predict(frame, model="best")
    with pytest.raises(PlanError, match="no trial 99"):
        study.refit(trial=99)
    with pytest.raises(PlanError, match="at least 1"):
        study.refit(seeds=0)
    study.refit(seeds=1)
    with pytest.raises(PlanError, match="is one of trial"):
        study.predict(frame, trial=1 if study.refitted.trial != 1 else 2, model="refit")


def test_tables_in_memory() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 3)), random.normal(size=60)
    study = foldwise.fit(X, y, search={"width": [4], "epochs": 3}, folds=3)
    one = study.refit(seeds=1)  # the rows are still there
    study.table = None
    with pytest.raises(foldwise.FoldwiseError, match="made from a table in memory"):
        study.refit(seeds=1)
    assert torch.equal(study.refit(seeds=1, data=(X, y)).models.parameters, one.models.parameters)


def test_weights_balance_and_constants() -> None:
    random = np.random.default_rng(1)
    X, y = random.normal(size=(80, 3)), np.where(random.random(80) < 0.2, "yes", "no")
    weights = random.integers(0, 3, 80).astype(float)
    study = foldwise.fit(
        X,
        y,
        search={"width": [4], "epochs": 3},
        folds=3,
        weights=weights,
        class_weights="balanced",
        dtype="float64",
    )
    assert study.refit(seeds=1).rows == (weights > 0).sum()
    constant = next(r.number for r in study.results if r.settings.network == "constant")
    study.refit(seeds=1, trial=constant)
    shares = study.predict(X, model="refit")["probability of yes"].to_numpy()
    assert shares == pytest.approx(np.full(80, 0.5))  # balanced classes


def test_a_refit_that_diverges_says_so(study: Study) -> None:
    from foldwise.final import table_of
    from foldwise.refit import Means

    wild = study.results[0].settings.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd"})
    with pytest.raises(PlanError, match="diverged"):
        train_on_all(table_of(study, None), wild, [0], Means())
    assert final_of(study) is None


def test_the_command_line(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, folder = CliRunner(), str(study.folder)
    made = runner.invoke(app, ["refit", folder, "--seeds", "3", "--quiet"])
    assert made.exit_code == 0, made.output
    assert "take the refit" in made.stdout
    assert "ensemble" in made.stdout
    predicted = runner.invoke(app, ["predict", folder, study.source.path, "--model", "refit"])
    assert predicted.exit_code == 0
    assert pl.read_csv(predicted.stdout.encode()).height == 120
    opened = runner.invoke(app, ["open-test", folder, "--model", "refit"])
    assert opened.exit_code == 0
    assert "test of the refit" in opened.stdout


def test_schedules_that_count_epochs_end_where_they_did_in_the_folds() -> None:
    asked: dict[str, Any] = {"batch_size": 10, "epochs": 40}
    step = Settings(**asked, schedule="step", decay_every=10)
    made, until = settings_on_all(step, 40, [75] * 4, 100)  # 8 steps an epoch in folds, 10 here
    assert (made.decay_every, made.epochs, until) == (8, 32, 32)
    falling = Settings(**asked, schedule="exponential", decay_per_epoch=0.9)
    made, until = settings_on_all(falling, 40, [75] * 4, 100)
    assert made.decay_per_epoch**until == pytest.approx(0.9**40)
    waiting = Settings(**asked, schedule="plateau", patience=10)
    assert settings_on_all(waiting, 40, [75] * 4, 100)[0].patience == 8
    growing = Settings(**asked, batch_growth=2, batch_growth_every=10)
    made, until = settings_on_all(growing, 40, [75] * 4, 100)
    assert made.batch_growth_every == 8
    assert Pace.of(made).size(until) == Pace.of(growing).size(40)
    assert settings_on_all(Settings(**asked), 40, [75] * 4, 100)[0].decay_every == Settings().decay_every


def test_a_score_is_of_the_refit_that_was_tested(study: Study) -> None:
    study.refit(seeds=1)
    opening = study.open_test(model="refit")
    assert foldwise.load(study.folder).final.refit.test == opening.score
    study.refit(seeds=2)
    assert study.final.refit.test is None
    assert foldwise.load(study.folder).final.refit.test is None
    again = study.open_test(model="refit")
    assert study.final.refit.test == again.score


def test_openings_and_refits_of_another_copy_are_kept(study: Study) -> None:
    one, other, third = (foldwise.load(study.folder) for _ in range(3))
    opening = one.open_test()
    other.refit(seeds=1)
    assert foldwise.load(study.folder).openings == [opening.record()]
    third.open_test()
    again = foldwise.load(study.folder)
    assert [o["times_opened"] for o in again.openings] == [1, 2]
    frame = pl.read_csv(study.source.path)
    assert again.predict(frame, model="refit").equals(other.predict(frame, model="refit"))


def test_a_refit_needs_its_latencies(study: Study) -> None:
    study.refit(seeds=1)
    path = study.folder / "study.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    del described["latency"]["refit"]
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(StoreError, match="no latency of the refit"):
        foldwise.load(study.folder)


def test_two_networks_are_said_to_be_two(study: Study) -> None:
    study.refit(seeds=2)
    assert "two still vary by their seeds" in study.final.sentence


def test_a_network_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": np.arange(30.0), "y": np.arange(30.0) * 2})
    search = {"epochs": 2, "learning_rate": 0.01}
    study = foldwise.fit(frame, target="y", net=torch_linear, search=search, folds=2, out=tmp_path / "run")
    trial = next(r.number for r in study.results if r.settings.network == "custom")
    with pytest.raises(NetworkError, match="network of your own"):
        foldwise.load(tmp_path / "run").refit(seeds=1, trial=trial, data=frame)
    again = foldwise.load(tmp_path / "run", net=torch_linear)
    assert again.refit(seeds=1, trial=trial, data=frame).rows == 30


def torch_linear(inputs: int, outputs: int) -> torch.nn.Module:
    return torch.nn.Linear(inputs, outputs)
