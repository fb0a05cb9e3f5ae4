"""What a run folder says of findings may be anybody's: it is refused, or shown as text, and never more than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import foldwise
import studies
from foldwise.errors import StoreError
from foldwise.store.findings import findings_from_plain

TRIED: dict[str, Any] = {
    "what": "learning rate ÷ 10", "settings": {"learning_rate": 0.1}, "before": 0.5, "after": 0.3,
    "before_deviation": 0.1, "after_deviation": 0.1, "better_in": 3, "folds": 3, "p": 0.01, "helps": True,
    "aim": "better",
}  # fmt: skip
REMEDY: dict[str, Any] = {"what": "by hand", "settings": {}, "aim": "better"}
FINDING: dict[str, Any] = {
    "code": "rate-too-high", "sure": "likely", "evidence": "it jumps", "step": 3, "trials": [1], "where": ["a"],
    "symptoms": ["jitter"], "remedies": [REMEDY], "tried": [TRIED],
}  # fmt: skip
TAMPERED: dict[str, dict[str, Any]] = {
    "code": {"code": "../../etc/passwd"},
    "code that is long": {"code": "a" * 100},
    "symptom": {"symptoms": ["\x1b[31m"]},
    "sure": {"sure": "certain"},
    "trial": {"trials": [2]},
    "trial before the first": {"trials": [0]},
    "step": {"step": -1},
    "long text": {"evidence": "x" * 100_000},
    "many": {"where": ["a"] * 20_000},
    "p": {"tried": [{**TRIED, "p": 1.5}]},
    "p that is none": {"tried": [{**TRIED, "p": float("nan")}]},
    "better in": {"tried": [{**TRIED, "better_in": 4}]},
    "infinite": {"tried": [{**TRIED, "after": float("inf")}]},
    "deviation": {"tried": [{**TRIED, "after_deviation": -1.0}]},
    "helps though it diverged": {"tried": [{**TRIED, "after": None}]},
    "option that is a command": {"remedies": [{**REMEDY, "options": {"drop a; reboot #": "x"}}]},
    "option of no plain value": {"remedies": [{**REMEDY, "options": {"missing": {"a": {"b": 1}}}}]},
    "option with a long text": {"remedies": [{**REMEDY, "options": {"drop": ["x" * 100_000]}}]},
    "option with many values": {"remedies": [{**REMEDY, "options": {"drop": ["a"] * 20_000}}]},
    "settings": {"tried": [{**TRIED, "settings": {"width": {"a": 1}}}]},
}


def test_what_is_as_it_was_written_is_read() -> None:
    (found,) = findings_from_plain([FINDING], trials=1)
    assert (found.code, found.tried[0].p) == ("rate-too-high", 0.01)


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_what_no_check_can_have_found_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"finding 1|sure"):
        findings_from_plain([{**FINDING, **change}], trials=1)


def test_a_check_of_another_version_may_be_unknown() -> None:
    (found,) = findings_from_plain([{**FINDING, "code": "of-tomorrow"}], trials=1)
    assert str(found).startswith("of-tomorrow (trial 1; likely) — it jumps.")


def test_what_steers_a_terminal_is_written_out() -> None:
    evil = "\x1b]0;title\x07\x9b2J\r\n\t\u202e\u200f\u061c\u2028"
    told = {"evidence": evil, "where": [evil], "tried": [{**TRIED, "what": evil}]}
    (found,) = findings_from_plain([{**FINDING, **told}], trials=1)
    shown = f"{found}{found.where}"
    assert "\\x1b]0;title" in shown
    assert not (set(evil) - set("]0;title2J")) & set(shown)


def test_a_tampered_folder_says_what_is_wrong(tmp_path: Path) -> None:
    study = studies.study(studies.job(studies.table("multiclass"), "multiclass"))
    folder = study.save(tmp_path / "run")
    said = json.loads((folder / "findings.json").read_text())
    (folder / "findings.json").write_text(json.dumps({**said, "findings": [{**FINDING, "trials": [99]}]}))
    with pytest.raises(StoreError, match="damaged: finding 1 is about a trial that the study does not have"):
        foldwise.load(folder)
