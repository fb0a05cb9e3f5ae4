"""What a linear classifier has learnt: its scores are those of the network, its images the weights of pixels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import foldwise
from foldwise.errors import StoreError
from foldwise.linear import Linear, images_of, problems
from foldwise.terminal import Display

LINE = {"network": "linear", "epochs": 8}


def fitted(example: str, **more: object) -> foldwise.Study:
    given = {"search": LINE, "folds": 3, "checks": False, "display": Display(), **more}
    return foldwise.fit(example=example, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def wine() -> foldwise.Study:
    return fitted("wine")


def of(study: foldwise.Study) -> Linear:
    assert study.linear is not None
    return study.linear


@pytest.mark.parametrize("example", ["wine", "breast_cancer"])
def test_on_average_the_planes_score_as_the_network_does(example: str) -> None:
    """Scores are linear: over the drawn rows their mean from the named features is that of the network's logits."""
    study = fitted(example)
    own = of(study)
    assert study.table is not None
    x, w = np.array(own.points), np.array(own.weights)
    planes = (x @ w.T + np.array(own.bias)).mean(axis=0)
    models = next(m for m in study.models if m.of_trial(own.trial - 1))
    place = models.of_trial(own.trial - 1)[0]
    fold = models.members[place].fold
    network = models.parameters[place].double().numpy()
    inputs = study.table.features.shape[1]
    drawn = (
        np.arange(len(study.table.features))
        if len(own.points) == len(study.table.features)
        else np.sort(
            np.random.default_rng(0).choice(len(study.table.features), len(own.points), replace=False)
        )
    )
    at = study.scalings.index(study.plan.trials[own.trial - 1].scaling) * len(study.folds) + fold
    c = study.constants
    rows = study.table.features[drawn]
    z = (np.where(np.isnan(rows), c.fill[at], rows) - c.shift[at].numpy()) * c.scale[at].numpy()
    z = z / np.hypot(1, z / c.bound[at].numpy())
    scores = len(network) // (inputs + 1)
    logits = z @ network[: scores * inputs].reshape(scores, inputs).T + network[scores * inputs :]
    if scores > 1:
        logits -= logits.mean(axis=1, keepdims=True)
    assert planes == pytest.approx(logits.mean(axis=0), abs=2e-2)
    assert list(own.labels) == study.table.targets[drawn].tolist()


def test_pixels_are_laid_out_as_an_image_and_constant_ones_are_left_out() -> None:
    study = fitted("digits")
    own = of(study)
    assert len(own.images) == len(own.classes) == 10
    image = np.array([[np.nan if v is None else v for v in row] for row in own.images]).reshape(10, 8, 8)
    assert np.argwhere(np.isnan(image[0])).tolist() == [[0, 0], [4, 0], [4, 7]]
    assert np.nansum(image, axis=0) == pytest.approx(0.0, abs=5e-3)  # what all scores share is taken off
    largest = np.abs(np.nan_to_num(image)).max(axis=0)
    row, column = np.unravel_index(largest.argmax(), largest.shape)
    assert own.names[0] == f"pixel_{row}_{column}"


def test_columns_that_are_no_pixels_have_no_images(wine: foldwise.Study) -> None:
    assert of(wine).images == ()
    assert images_of(wine.columns, np.zeros((3, len(wine.columns.features)))) == ()


def test_of_numbers_there_are_no_planes() -> None:
    assert fitted("diabetes").linear is None


def test_it_stays_with_the_run_and_the_page_is_the_same(wine: foldwise.Study, tmp_path: Path) -> None:
    wine.save(tmp_path / "run")
    again = foldwise.load(tmp_path / "run")
    assert again.linear == wine.linear
    assert again.report(tmp_path / "page.html").read_text() == (tmp_path / "run" / "report.html").read_text()


def test_one_of_an_older_run_is_none(wine: foldwise.Study, tmp_path: Path) -> None:
    wine.save(tmp_path / "run")
    (tmp_path / "run" / "findings.json").write_text('{"warnings": [], "findings": []}')
    again = foldwise.load(tmp_path / "run")
    assert (again.linear, again.looks, again.checked) == (None, None, False)


CHANGES: list[Callable[[Linear], Linear]] = [
    lambda own: dataclasses.replace(own, trial=99),
    lambda own: dataclasses.replace(own, names=own.names[:2]),
    lambda own: dataclasses.replace(own, labels=own.labels[:-1]),
    lambda own: dataclasses.replace(own, labels=(7, *own.labels[1:])),
    lambda own: dataclasses.replace(own, bias=own.bias[:-1]),
    lambda own: dataclasses.replace(own, images=((0.0, 1.0, 2.0),) * 3),
    lambda own: dataclasses.replace(own, classes=own.classes[:1]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_refused(
    wine: foldwise.Study, change: Callable[[Linear], Linear], tmp_path: Path
) -> None:
    assert list(problems(of(wine), len(wine.plan.trials))) == []
    wrong = change(of(wine))
    assert list(problems(wrong, len(wine.plan.trials)))
    wine.save(tmp_path / "run")
    file = tmp_path / "run" / "findings.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps(written | {"linear": dataclasses.asdict(wrong)}))
    with pytest.raises(StoreError, match=r"is damaged: .*linear classifier"):
        foldwise.load(tmp_path / "run")


def test_with_missing_cells_points_are_numbers() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=90), random.normal(size=90)
    table = pl.DataFrame({"a": a, "b": b, "y": np.where(a > 0, "yes", "no")})
    table = table.with_columns(b=pl.when(pl.int_range(90) % 7 == 0).then(None).otherwise(pl.col("b")))
    study = foldwise.fit(table, target="y", search=LINE, folds=3, checks=False, display=Display())
    assert np.isfinite(np.array(of(study).points)).all()
