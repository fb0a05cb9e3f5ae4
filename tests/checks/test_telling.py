"""Findings in words: the same sentences wherever they are shown."""

from __future__ import annotations

import inspect
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import foldwise.checks
from foldwise.checks import CHECKS
from foldwise.checks.finding import Finding, Findings, Remedy, Tried
from foldwise.checks.telling import (
    GIVEN_AWAY,
    MOST_HINTS,
    doubt,
    hint_of,
    in_parentheses,
    said_hints,
    sentences,
    summary,
)
from foldwise.fitting import fit
from foldwise.store.findings import findings_as_plain, findings_from_plain

CLIP = Tried("clip norm 1", {}, 0.52, 0.31, 0.03, 0.02, 5, 5, 0.001, True)
XAVIER = Tried("Xavier", {}, 0.52, 0.53, 0.03, 0.02, 1, 5, 0.8, False)


def finding(**more: object) -> Finding:
    given = {"trials": (4, 9), **more}
    return Finding("dead-units", "sure", "the gradient grew 40×", **given)  # type: ignore[arg-type]


def test_a_finding_says_evidence_remedies_suggestion_and_symptoms() -> None:
    told = str(finding(tried=(CLIP, XAVIER), symptoms=("plateau", "underfitting", "plateau")))
    assert told == (
        "dead-units (trials 4, 9; sure) — the gradient grew 40×. Tried: clip norm 1 → 0.310 ± 0.020 "
        "(was 0.520 ± 0.030, better in 5 of 5 folds); Xavier → 0.530 ± 0.020 (better in 1 of 5 folds: no gain beyond "
        "the noise). Suggested: clip norm 1. Also explains: plateau, underfitting."
    )


def test_a_remedy_that_diverged_or_cured_is_said_to_have() -> None:
    lost = Tried("larger rate", {}, 0.52, math.nan, 0.03, math.nan, 0, 5, None, False)
    cured = Tried("smaller rate", {}, math.nan, 0.4, math.nan, 0.01, 5, 5, None, True)
    told = " ".join(sentences(finding(tried=(lost, cured))))
    assert "larger rate → diverged; smaller rate → 0.400 ± 0.010 (had diverged)." in told


def test_a_remedy_that_made_it_worse_is_said_to_have() -> None:
    worse = Tried("read them as missing", {}, 0.5, 0.4, 0.01, 0.01, 0, 5, 0.99, False, worse=True)
    said = "read them as missing → 0.400 ± 0.010 (was 0.500 ± 0.010, better in 0 of 5 folds: worse than without)."
    assert f"{said} None of them helped." in str(finding(tried=(worse,)))
    assert hint_of(replace(finding(tried=(worse,)), sure="hint")).endswith(said)


def test_an_honest_score_is_the_one_to_believe() -> None:
    honest = Tried("groups apart", {}, 0.9, 0.6, 0.01, 0.05, 0, 5, None, False, "honest")
    told = str(finding(tried=(honest,)))
    assert "Tried: groups apart → 0.60 ± 0.05 (was 0.900 ± 0.010)." in told
    assert "If it is as it looks, believe 0.60 ± 0.05: groups apart." in told


def test_what_is_done_by_hand_is_to_do() -> None:
    assert str(finding(remedies=(Remedy("look at it"),))).endswith("To do: look at it.")


def test_what_is_wrong_is_to_do_whatever_the_score_does() -> None:
    remedy = Remedy("read them as missing", options={"missing": {"hum": -999}})
    tried = Tried(remedy.what, {}, 976.0, 982.0, 72.0, 68.0, 3, 5, 0.6, False)
    told = str(Finding("missing-codes", "likely", "there are codes", remedies=(remedy,), tried=(tried,)))
    assert told.endswith(
        'To do all the same: read them as missing (--missing hum=-999, missing={"hum": -999}).'
    )
    assert "not tried" not in told


def test_a_remedy_names_the_option_that_does_it() -> None:
    remedy = Remedy("leave out `tax`", aim="honest", options={"drop": ["tax"]})
    honest = Tried(remedy.what, {}, 0.9, 0.6, 0.01, 0.05, 0, 5, 0.99, False, "honest")
    named = 'leave out `tax` (--drop tax, drop=["tax"]).'
    assert str(finding(remedies=(remedy,))).endswith(f"To do: {named}")
    assert str(finding(remedies=(remedy,), tried=(honest,))).endswith(f": {named}")
    stored = json.loads(json.dumps(findings_as_plain([finding(remedies=(remedy,), tried=(honest,))])))
    assert str(findings_from_plain(stored)[0]).endswith(f": {named}")
    del stored[0]["remedies"][0]["options"]  # as in runs made before there were any
    assert str(findings_from_plain(stored)[0]).endswith(": leave out `tax`.")
    many = finding(remedies=(Remedy("read", options={"missing": dict.fromkeys("abcd", -9)}),))
    python = 'missing={"a": -9, "b": -9, "c": -9, …}'
    assert str(many).endswith(f"read (--missing a=-9 --missing b=-9 --missing c=-9 …, {python}).")


def test_options_of_remedies_are_those_of_fit() -> None:
    sources = Path(foldwise.checks.__file__).parent.glob("*.py")
    named = {
        name
        for file in sources
        for name in re.findall(r'options=\{"(\w+)"', file.read_text(encoding="utf-8"))
    }
    assert {"drop", "missing", "class_weights", "metric"} < named <= {*inspect.signature(fit).parameters}


def test_a_list_of_findings_prints_a_line_each() -> None:
    found = Findings([finding(), Finding("constant-columns", "hint", "`a` is constant")])
    assert f"{found}".splitlines() == [str(f) for f in found]
    assert repr(found) == str(found)
    assert found.alarms == found[:1]
    assert str(Findings()) == "no findings"


def test_a_score_that_is_given_away_is_doubted() -> None:
    honest = Tried("leave out `id`", {}, 0.9, 0.6, 0.01, 0.05, 0, 5, None, False, "honest")
    leak = Finding("target-leak", "likely", "…", where=("id",), tried=(honest,))
    copies = Finding("repeated-rows", "likely", "…")
    assert doubt([finding(), leak, copies], 0.9) == (
        "do not believe this score: the answer can be read from `id` (target-leak, likely); rather believe "
        "0.60 ± 0.05 (leave out `id`); copies of the rows scored were learned from (repeated-rows, likely)"
    )
    assert doubt([finding(), Finding("target-leak", "hint", "…", where=("id",))], 0.9) == ""
    assert "rather" not in doubt([leak], 0.8)  # remedies were tried on another trial than the winner
    assert set(GIVEN_AWAY) <= set(CHECKS)


def test_many_hints_are_counted_and_those_tried_in_vain_say_so() -> None:
    hints = [Finding(f"hint-{n}", "hint", "x") for n in range(MOST_HINTS + 2)]
    shown, rest = said_hints([finding(), *hints])
    assert shown == hints[:MOST_HINTS]
    assert rest == f"and 2 more hints: hint-{MOST_HINTS}, hint-{MOST_HINTS + 1}"
    assert said_hints(hints[:2]) == (hints[:2], "")
    told = hint_of(replace(finding(tried=(XAVIER,)), sure="hint"))
    assert told.endswith("a hint) — the gradient grew 40×. Tried: Xavier; no gain beyond the noise.")


def test_a_hint_does_not_speak_of_noise_where_that_was_no_question() -> None:
    honest = Tried("groups apart", {}, 0.9, 0.91, 0.01, 0.02, 0, 5, None, False, "honest")
    told = hint_of(Finding("shared-groups", "hint", "rows are alike", tried=(honest,)))
    assert told.endswith("rows are alike. Tried: groups apart → 0.910 ± 0.020 (was 0.900 ± 0.010).")
    lost = replace(XAVIER, after=math.nan, after_deviation=math.nan)
    told = hint_of(replace(finding(tried=(CLIP, lost)), sure="hint"))
    assert "noise" not in told
    told = hint_of(replace(finding(tried=(lost,)), sure="hint"))
    assert told.endswith("Tried: Xavier → diverged.")


def test_the_summary_counts_alarms_and_hints() -> None:
    hint = Finding("constant-columns", "hint", "x")
    assert summary([finding(), finding(), hint]).startswith("checks: 2 alarms, 1 hint;")
    assert summary([hint]).startswith("checks: no alarm, 1 hint;")
    assert "nothing found" in summary([])


def test_flags_are_named_however_many_columns_there_are() -> None:
    options = {"missing": {"y": -9} | dict.fromkeys("abc", -99), "drop_missing_targets": True}
    assert in_parentheses(options) == (
        " (--missing y=-9 --missing a=-99 --missing b=-99 … --drop-missing-targets, "
        'missing={"y": -9, "a": -99, "b": -99, …}, drop_missing_targets=True)'
    )
