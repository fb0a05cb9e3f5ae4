"""The page of a real run: what it shows is what study.json holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import foldwise
from foldwise.report.content import content_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    search = {"width": [8, 16], "epochs": 4}
    foldwise.fit(example="wine", search=search, folds=3, out=folder / "wine", display=None)
    return folder / "wine"


def test_page_shows_the_numbers_of_study_json(run: Path, open_page: Callable[..., Any]) -> None:
    stored = json.loads((run / "study.json").read_text())
    browser = open_page(content_of(foldwise.load(run)))
    said = browser.execute_script(
        """return {
            headline: document.querySelector("#headline").textContent,
            value: +document.querySelector("#headline").dataset.value,
            scores: Object.fromEntries([...document.querySelectorAll("#leaderboard tr[data-trial]")].map(
                row => [row.dataset.trial, +row.querySelector("td.score").dataset.value])),
            drawn: [...document.querySelectorAll("[data-chart]")].map(chart => chart.dataset.drawn),
        }"""
    )
    assert stored["headline"]["sentence"] in said["headline"]
    assert said["value"] == stored["headline"]["value"]
    assert said["scores"] == {str(t["number"]): t["score"] for t in stored["trials"]}
    assert said["drawn"]
    assert set(said["drawn"]) == {"yes"}
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_page_in_the_folder_is_the_one_rendered_again(run: Path, tmp_path: Path) -> None:
    page = (run / "report.html").read_text()
    assert foldwise.load(run).report(tmp_path / "again.html").read_text() == page
