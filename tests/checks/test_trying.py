"""Remedies are trained, and what is said of them is what they did; looking changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import foldwise
from foldwise.checks.finding import Finding, Remedy, Tried
from foldwise.engine.album import WANTED, Album, Picture, wanted
from foldwise.store.findings import findings_as_plain, findings_from_plain
from foldwise.terminal import Display
from foldwise.trying import holm

BROKEN = {"width": 8, "depth": 1, "epochs": 6, "learning_rate": 30.0, "optimizer": "sgd", "network": "mlp"}


@pytest.fixture(scope="module")
def study() -> foldwise.Study:
    return foldwise.fit(example="iris", search={**BROKEN, "width": [8]}, folds=3, display=Display())


def test_a_remedy_scores_what_a_study_with_it_scores(study: foldwise.Study) -> None:
    found = next(f for f in study.findings if f.tried)
    tried = next(t for t in found.tried if "learning_rate" in t.settings)
    assert tried.settings["learning_rate"] < BROKEN["learning_rate"]
    again = foldwise.fit(
        example="iris", search={**BROKEN, **tried.settings}, folds=3, display=Display(), checks=False
    )
    result = next(r for r in again.results if r.settings.network == "mlp")
    assert tried.after == pytest.approx(np.mean(result.fold_scores))
    before = next(r for r in study.results if r.number == found.trials[0])
    assert tried.before == pytest.approx(np.mean(before.fold_scores))
    assert tried.better_in == sum(a > b for a, b in zip(result.fold_scores, before.fold_scores, strict=True))


def test_looking_changes_nothing(study: foldwise.Study) -> None:
    blind = foldwise.fit(
        example="iris", search={**BROKEN, "width": [8]}, folds=3, display=Display(), checks=False
    )
    assert blind.findings == []
    assert blind.history.equals(study.history)
    assert all((a.parameters == b.parameters).all() for a, b in zip(blind.models, study.models, strict=True))


def test_without_remedies_nothing_is_tried() -> None:
    found = foldwise.fit(example="iris", search=BROKEN, folds=3, display=Display(), remedies=False).findings
    assert found
    assert not any(f.tried for f in found)


def test_findings_come_back_from_plain_values(study: foldwise.Study) -> None:
    lost = [replace(f, tried=tuple(replace(t, after=float("nan"), helps=False) for t in f.tried)) for f in study.findings]
    written = findings_as_plain(study.findings)
    assert findings_as_plain(findings_from_plain(written)) == written
    for one in findings_as_plain(lost):
        for tried in one["tried"]:
            tried["after"] = None
        (back,) = findings_from_plain([one])
        assert all(np.isnan(t.after) for t in back.tried)


def test_several_remedies_of_a_finding_share_the_chance_of_a_wrong_one() -> None:
    def tried(p: float | None, aim: str = "better") -> Tried:
        return Tried("x", {}, 0.5, 0.6, 0.1, 0.1, 5, 5, p, p is not None and p < 0.05, aim)  # type: ignore[arg-type]

    found = holm([tried(0.04), tried(0.01), tried(None, "honest"), tried(0.03)])
    assert [t.p for t in found] == [pytest.approx(0.06), pytest.approx(0.03), None, pytest.approx(0.06)]
    assert [t.helps for t in found] == [False, True, False, False]
    (alone,) = holm([tried(0.04)])
    assert (alone.p, alone.helps) == (0.04, True)


def test_remedies_of_nothing_but_chance_help_for_one_finding_in_twenty() -> None:
    chance, findings = np.random.default_rng(0), 4000
    gains = chance.normal(size=(findings, 3, 10))
    p = stats.ttest_1samp(gains, 0, axis=2, alternative="greater").pvalue
    told = [holm([Tried("x", {}, 0, 1, 1, 1, 5, 5, q, q < 0.05) for q in own]) for own in p]
    assert np.mean([any(t.helps for t in own) for own in told]) < 0.06
    assert np.mean((p < 0.05).any(1)) > 0.12


def test_what_can_be_done_by_hand_only_is_not_tried() -> None:
    assert Remedy("read the table once more").by_hand
    assert not Remedy("smaller rate", {"learning_rate": 0.1}).by_hand
    assert Finding("dead-units", "hint", "x").suggested is None


def test_an_album_lets_every_other_epoch_go_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from foldwise.engine import album as module

    monkeypatch.setattr(module, "MOST_BYTES", 100)
    album = Album()
    for epoch in WANTED[:8]:
        album.add(0, Picture(epoch, epoch, torch.zeros(4), {}))
    album.refresh([])
    kept = [p.epoch for p in album.of(0)]
    assert kept == [2, 5, 13, 34]
    assert album.bytes == sum(p.bytes for p in album.of(0))
    assert wanted(13)
    assert not wanted(14)


def test_a_check_that_fails_costs_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    from foldwise.checks.order import check_module

    def fails(sight: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(check_module("few-rows"), "find", fails)
    found = foldwise.fit(example="iris", search=BROKEN, folds=3, display=Display(), remedies=False)
    assert found.findings
    assert [w for w in found.warnings if "few-rows" in w and "by nothing" in w]
