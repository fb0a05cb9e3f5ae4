"""Remedies are trained, and what is said of them is what they did; looking changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import foldwise
from foldwise import examine, trying
from foldwise.checks.finding import Finding, Remedy, Tried
from foldwise.checks.order import in_order
from foldwise.data.folds import make_folds
from foldwise.engine.album import WANTED, Album, Picture, wanted
from foldwise.engine.stack import Stack
from foldwise.judge.metrics import METRICS
from foldwise.settings import Settings
from foldwise.store.findings import findings_as_plain, findings_from_plain
from foldwise.terminal import Display
from foldwise.trying import Trial, compared, confirmed, hochberg, trials_for

ACCURACY = METRICS["accuracy"]
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
    lost = [
        replace(f, tried=tuple(replace(t, after=float("nan"), helps=False) for t in f.tried))
        for f in study.findings
    ]
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

    found = hochberg([tried(0.2), tried(0.01), tried(None, "honest"), tried(0.03)])
    assert [t.p for t in found] == [pytest.approx(0.2), pytest.approx(0.03), None, pytest.approx(0.06)]
    assert [t.helps for t in found] == [False, True, False, False]
    found = hochberg([tried(0.04), tried(0.01), tried(0.03)])
    assert [t.p for t in found] == [pytest.approx(0.04), pytest.approx(0.03), pytest.approx(0.04)]
    assert all(t.helps for t in found)
    (alone,) = hochberg([tried(0.04)])
    assert (alone.p, alone.helps) == (0.04, True)


def test_remedies_of_nothing_but_chance_help_for_one_finding_in_twenty() -> None:
    chance, findings = np.random.default_rng(0), 4000
    gains = chance.normal(size=(findings, 3, 10))
    p = stats.ttest_1samp(gains, 0, axis=2, alternative="greater").pvalue
    told = [hochberg([Tried("x", {}, 0, 1, 1, 1, 5, 5, q, q < 0.05) for q in own]) for own in p]
    assert np.mean([any(t.helps for t in own) for own in told]) < 0.06
    assert np.mean((p < 0.05).any(1)) > 0.12


def test_a_remedy_is_worse_when_the_test_says_so() -> None:
    job: Any = SimpleNamespace(metric=ACCURACY, outer=make_folds(50, 5))
    base: Any = SimpleNamespace(fold_scores=(0.80, 0.81, 0.79, 0.80, 0.82))
    trial = Trial(0, Remedy("x", {"depth": 1}), base, Settings())

    def told(*after: float) -> tuple[bool, bool]:
        tried = compared(trial, np.array(after), job)
        return tried.helps, tried.worse

    assert told(0.60, 0.61, 0.60, 0.59, 0.62) == (False, True)
    assert told(0.80, 0.81, 0.80, 0.79, 0.81) == (False, False)
    assert told(0.90, 0.91, 0.90, 0.89, 0.92) == (True, False)
    assert told(0.60, 0.61, 0.60, 0.59, np.nan) == (False, False)  # it diverged, which is said


def test_what_can_be_done_by_hand_only_is_not_tried() -> None:
    assert Remedy("read the table once more").by_hand
    assert not Remedy("smaller rate", {"learning_rate": 0.1}).by_hand
    assert Finding("dead-units", "hint", "x").suggested is None


def test_an_alarm_that_must_cost_something_is_taken_back_when_its_remedy_costs_nothing() -> None:
    def found(after: float, **more: bool) -> str:
        tried = Tried("keep rows together", {}, 0.9, after, 0.01, 0.01, 0, 5, None, False, "honest")
        return confirmed(Finding("wrong-labels", "likely", "x", tried=(tried,), **more), ACCURACY).sure

    assert (found(0.9, must_cost=True), found(0.8, must_cost=True), found(0.9)) == (
        "hint",
        "likely",
        "likely",
    )


def test_symptoms_of_an_alarm_that_is_taken_back_are_tried_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def finding(code: str, rate: float) -> Finding:
        return Finding(code, "likely", "x", trials=(4,), remedies=(Remedy(code, {"learning_rate": rate}),))

    found = [finding("plateau", 29.0), finding("underfitting", 0.1)]
    monkeypatch.setattr(examine, "findings_of", lambda sight, broken: in_order(found))
    monkeypatch.setattr(
        trying, "confirmed", lambda f, metric: replace(f, sure="hint") if f.code == "plateau" else f
    )
    settings = {**BROKEN, "width": [8, 4]}
    first, second = foldwise.fit(example="iris", search=settings, folds=3, display=Display()).findings
    assert (first.code, first.sure, len(first.tried)) == ("underfitting", "likely", 1)
    assert (second.code, second.sure, second.symptoms) == ("plateau", "hint", ())


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 1.0])
def test_an_album_is_never_larger_than_its_limit(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    from foldwise.engine import album as module

    seen: list[tuple[int, int, dict[int, list[int]]]] = []
    right: list[tuple[bool, bool, bool]] = []
    refresh = Album.refresh

    def see(self: Album, stacks: Sequence[Stack]) -> None:
        refresh(self, stacks)
        again = Album()
        again.pictures = self.pictures
        again.thinned_as_before()
        held = sum(p.bytes for mine in self.pictures.values() for p in mine)
        # for the test to look at: training goes on whatever fails in here
        right.append((self.bytes == held, held <= module.MOST_BYTES, not held or again.sparse == self.sparse))
        epochs = {trial: [p.epoch for p in mine] for trial, mine in self.pictures.items()}
        seen.append((self.bytes, self.sparse, epochs))

    monkeypatch.setattr(Album, "refresh", see)
    settings = {"network": "mlp", "width": 8, "depth": 1, "epochs": 21, "batch_size": 32}
    foldwise.fit(example="iris", search=settings, folds=3, display=Display(), remedies=False)
    whole, _, full = seen[-1]
    assert all(epochs[:6] == [1, 2, 3, 5, 8, 13] for epochs in full.values())
    monkeypatch.setattr(module, "MOST_BYTES", int(share * whole))
    foldwise.fit(example="iris", search=settings, folds=3, display=Display(), remedies=False)
    _, sparse, kept = seen[-1]
    assert {t: e for t, e in kept.items() if e} == {
        t: e[sparse - 1 :: sparse] for t, e in full.items() if e[sparse - 1 :]
    }
    assert (sparse == 1) == (share == 1)
    assert set(right) == {(True, True, True)}


def test_an_album_that_is_full_of_what_it_must_keep_takes_nothing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from foldwise.engine import album as module

    refresh, thin, thinned = Album.refresh, Album._thin, 0
    kept: list[list[int]] = []

    def fill(self: Album, stacks: Sequence[Stack]) -> None:
        if not self.pictures:  # at the epoch where a trial ended, as a file may have it
            self.add(0, Picture(4, 4, torch.zeros(1000), {}))
        refresh(self, stacks)
        kept.append([p.epoch for mine in self.pictures.values() for p in mine])

    def count(self: Album) -> None:
        nonlocal thinned
        thinned += 1
        if thinned >= 100:
            raise RuntimeError("it would go on for ever")
        thin(self)

    monkeypatch.setattr(module, "MOST_BYTES", 2000)
    monkeypatch.setattr(Album, "refresh", fill)
    monkeypatch.setattr(Album, "_thin", count)
    settings = {"network": "mlp", "width": 8, "depth": 1, "epochs": 3}
    foldwise.fit(example="iris", search=settings, folds=3, display=Display(), remedies=False)
    assert 0 < thinned < 100
    assert all(epochs == [4] for epochs in kept)


def test_wanted_epochs() -> None:
    assert wanted(13)
    assert not wanted(14)
    assert WANTED[:4] == (1, 2, 3, 5)


def test_a_check_that_fails_costs_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    from foldwise.checks.order import check_module

    def fails(sight: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(check_module("few-rows"), "find", fails)
    found = foldwise.fit(example="iris", search=BROKEN, folds=3, display=Display(), remedies=False)
    assert found.findings
    assert [w for w in found.warnings if "few-rows" in w and "by nothing" in w]


def test_nothing_is_tried_or_taken_back_while_the_score_is_given_away() -> None:
    better = Tried("learning rate 0.1", {}, 0.5, 0.5, 0.01, 0.01, 2, 5, 0.6, False)
    rate = Remedy("learning rate 0.1", {"learning_rate": 0.1})
    keep = Remedy("keep rows together", folds=lambda table, folds: folds, aim="honest")
    copies = Finding("repeated-rows", "likely", "x", remedies=(keep,))
    found = in_order([copies, Finding("jitter", "likely", "x", trials=(4,), remedies=(rate,))])
    study: Any = SimpleNamespace(results=[SimpleNamespace(number=4, settings=Settings())])
    assert [t.remedy.what for t in trials_for(study, found, 4)] == ["keep rows together"]
    assert confirmed(replace(found[1], tried=(better,)), ACCURACY).sure == "likely"
    assert confirmed(replace(found[1], tried=(better,), given_away=""), ACCURACY).sure == "hint"


def test_what_could_not_be_judged_is_tried_when_the_score_is_not_given_away_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slower = Remedy("slower", {"learning_rate": 0.1})
    apart = Remedy("other seed", {"learning_rate": 29.0}, aim="honest")
    found = [
        Finding("shared-groups", "likely", "x", trials=(4,), remedies=(apart,)),
        Finding("jitter", "likely", "x", trials=(4,), remedies=(slower,)),
    ]
    monkeypatch.setattr(examine, "findings_of", lambda sight, broken: in_order(found))
    monkeypatch.setattr(
        trying, "confirmed", lambda f, metric: replace(f, sure="hint") if f.code == "shared-groups" else f
    )
    settings = {**BROKEN, "width": [8, 4]}
    told = foldwise.fit(example="iris", search=settings, folds=3, display=Display()).findings
    assert {f.code: len(f.tried) for f in told} == {"jitter": 1, "shared-groups": 1}
