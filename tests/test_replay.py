"""Replay: a stacked member is its plain re-training, and who asks for what cannot be had is told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import foldwise
import studies
import zoo
from foldwise.errors import DataError, NetworkError, PlanError
from foldwise.study import Study

TRIALS: list[dict[str, Any]] = [
    {"dropout": 0.3, "epochs": 4, "schedule": "cosine", "weight_decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02, "scaling": "standard", "epochs": 2},
    {"network": "linear", "initialization": "xavier"},
    {"network": "constant", "epochs": 0},
]


def made(task: str, dtype: torch.dtype = torch.float64, **asked: Any) -> Study:
    """Make a study of different networks over unequal folds."""
    asked.setdefault("trials", TRIALS)
    return studies.study(studies.job(studies.table(task), task, folds=4, seeds=2, dtype=dtype, **asked))


@pytest.mark.parametrize("task", studies.TASKS)
def test_members_are_their_plain_re_training(task: str) -> None:
    study = made(task)
    for trial, fold, seed in ((1, 1, 0), (1, 4, 1), (2, 2, 0), (3, 3, 1), (4, 4, 0)):
        replay = study.replay(trial, fold, seed, data=studies.table(task))
        by_name = {row.what: row for row in replay.rows}
        assert by_name["weights"].difference < 1e-10
        assert replay.largest < 1e-6 * max(1, by_name["predictions"].alone)  # stored in single precision
        assert ("training loss, first epoch" in by_name) == (trial != 4)
        assert replay.epochs == next(r.epoch for r in study.results if r.number == trial)
        assert replay.matches, replay.table()
        assert "matches" in replay.sentence


def test_in_single_precision_only_rounding_differs() -> None:
    study = made("multiclass", torch.float32)
    replay = study.replay(1, 2, 1, data=studies.table("multiclass"))
    assert 0 < replay.largest < 1e-5
    assert replay.matches


@pytest.mark.parametrize("network", ["Residual", "Normalized", "Branching", "reusing"])
def test_networks_of_users(network: str) -> None:
    net = zoo.NETWORKS[network]
    study = made("binary", trials=[net.settings | {"epochs": 4}], net=net.net)
    assert study.replay(1, 4, 1, data=studies.table("binary")).matches


def test_a_member_that_is_another_one_is_found_out() -> None:
    study = made("regression")
    study.models[0].parameters[0] += 1e-3
    replay = study.replay(1, 1, 0, data=studies.table("regression"))
    assert not replay.matches
    assert "DIFFERS" in replay.sentence
    assert next(r for r in replay.rows if r.what == "weights").difference == pytest.approx(1e-3)


def test_a_replay_of_sealed_and_missing_rows_finds_its_rows() -> None:
    frame = studies.table("binary").with_columns(
        ill=pl.when(pl.int_range(47) % 9 == 4).then(None).otherwise("ill")
    )
    job = studies.job(frame, "binary", TRIALS[:1], test=0.2, drop_missing_targets=True)
    assert studies.study(job).replay(1, 1, data=frame).matches


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study of a file."""
    path = tmp_path_factory.mktemp("replay") / "table.csv"
    studies.table("regression").write_csv(path)
    search = {**studies.SMALL, "epochs": 2}
    return foldwise.fit(path, target="price", search=search, folds=3), path


def test_a_table_from_a_file_is_found_again(stored: tuple[Study, Path]) -> None:
    study, _ = stored
    assert study.replay(4, 2).matches


def test_the_example_is_loaded_again() -> None:
    study = foldwise.fit(example="iris", search={**studies.SMALL, "epochs": 1}, folds=2)
    assert study.replay(1, 2).matches


@pytest.mark.parametrize(
    ("trial", "fold", "seed"), [(0, 1, None), (99, 1, None), (1, 0, None), (1, 4, None), (1, 1, 7)]
)
def test_members_that_do_not_exist(
    stored: tuple[Study, Path], trial: int, fold: int, seed: int | None
) -> None:
    with pytest.raises(
        PlanError, match=r"there is no member with trial .*\nhint: trials 1 to \d, folds 1 to 3, seeds 0"
    ):
        stored[0].replay(trial, fold, seed)


def test_a_table_that_is_gone_or_changed(stored: tuple[Study, Path], tmp_path: Path) -> None:
    study, path = stored
    moved = path.rename(tmp_path / "moved.csv")
    try:
        with pytest.raises(DataError, match="is not there any more"):
            study.replay(1, 1)
        assert study.replay(1, 1, data=moved).matches
        changed = pl.read_csv(moved).with_columns(pl.col("size") + 1)
        with pytest.raises(DataError, match="its cells differ"):
            study.replay(1, 1, data=changed)
    finally:
        moved.rename(path)


def test_a_table_in_memory_must_be_given_again() -> None:
    study = made("binary", trials=[{}])
    with pytest.raises(DataError, match="from a table in memory"):
        study.replay(1, 1)


def test_a_network_of_ones_own_must_be_given_again(tmp_path: Path) -> None:
    net = zoo.NETWORKS["Residual"]
    study = made("binary", trials=[net.settings], net=net.net)
    folder = study.save(tmp_path / "run")
    with pytest.raises(NetworkError, match="network of your own"):
        foldwise.load(folder).replay(1, 1, data=studies.table("binary"))
    again = foldwise.load(folder, net=net.net).replay(1, 1, data=studies.table("binary"))
    assert again.matches
