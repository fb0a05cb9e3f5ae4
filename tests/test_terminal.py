"""What is said in the terminal, and that nothing from a file can act on it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

import foldwise
import studies
from foldwise.checks.finding import Finding, Remedy, Tried
from foldwise.data.columns import plan_columns
from foldwise.engine.loop import PlanSummary, Progress, Standing
from foldwise.judge.nested import Choice, Nested
from foldwise.plans.strategy import Account
from foldwise.store.answers import Answer, Picture
from foldwise.terminal import (
    LEADERS,
    LISTED_ALONE,
    Display,
    TerminalDisplay,
    answer_table,
    columns_table,
    duration,
    findings_block,
    leaderboard_table,
    number,
    plan_facts,
    progress_line,
    seconds_left,
    share_done,
    visible,
)

SUMMARY = PlanSummary(
    rows=2930,
    features=285,
    sealed=586,
    trials=14,
    folds=5,
    seeds=1,
    members=70,
    epochs=40,
    engine="stacked, cpu",
    stacks=5,
    seconds=72.0,
    bytes=340_000_000,
    parameters=(286, 53_761),
    notes=("10 members at a time",),
)


def progress(share: float, seconds: float) -> Progress:
    return Progress(
        members=70,
        members_done=round(70 * share),
        epoch=12,
        epochs=40,
        rows_done=round(1_000_000 * share),
        rows_total=1_000_000,
        seconds=seconds,
        best=Standing("mlp 64×2", "log-RMSE", 0.1284, 0.005),
    )


@dataclasses.dataclass
class Result:
    """The part of a study that is shown."""

    headline: str
    leaderboard: pl.DataFrame
    warnings: list[str]
    metric_label: str = "log-RMSE"
    folder: Path | None = Path("runs/my run")
    command: str = "foldwise fit train.csv --target price"
    account: Account = dataclasses.field(default_factory=Account)
    resumable: bool = False
    luck: None = None
    variance_sentence: str = ""
    calibration: None = None
    headline_result: None = None
    nested: Nested | None = None
    checked: bool = True
    findings: list[Finding] = dataclasses.field(default_factory=list)
    doubt: str = ""


def board(rows: int, **changes: Any) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "place": range(1, rows + 1),
        "trial": range(1, rows + 1),
        "name": [f"mlp {n}" for n in range(rows)],
        "score": [0.1 + n / 100 for n in range(rows)],
        "low": [0.09 + n / 100 for n in range(rows)],
        "high": [0.11 + n / 100 for n in range(rows)],
        "deviation": [0.005] * rows,
        "epoch": [17] * rows,
        "tied": [n in (1, 2) for n in range(rows)],
        "status": ["finished"] * rows,
    }
    return pl.DataFrame(columns | changes)


def console(width: int = 100, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, markup=False, highlight=False, emoji=False
    )


def text_of(what: Console | RenderableType, width: int = 100) -> str:
    page = what if isinstance(what, Console) else console(width)
    if not isinstance(what, Console):
        page.print(what)
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


# Columns


@pytest.fixture
def table() -> pl.DataFrame:
    rows = 60
    return pl.DataFrame(
        {
            "[red]x[/red]": [n * 0.5 for n in range(rows)],
            "evil\x1b[2J\nname": [None if n % 7 == 0 else f"level {n % 3}" for n in range(rows)],
            "always": ["same"] * rows,
            "price": [n % 11 for n in range(rows)],
        }
    )


def test_a_remark_stands_below_the_columns_also_of_a_wide_table() -> None:
    cells = [*map(str, range(30)), "3o"]
    wide = {f"n{i}": [float(k) for k in range(31)] for i in range(40)}
    said = shown_columns(pl.DataFrame({"typed": cells, **wide, "price": [float(k % 7) for k in range(31)]}))
    assert "look at it: column `typed` looks like numbers but for '3o' in row 30" in " ".join(said.split())


def shown_columns(table: pl.DataFrame, width: int = 120) -> str:
    plan = plan_columns(table, targets=["price"])
    return text_of(columns_table(plan.columns, len(plan.features), width), width)


def test_column_names_are_shown_literally(table: pl.DataFrame) -> None:
    shown = shown_columns(table)
    assert "[red]x[/red]" in shown
    assert r"evil\x1b[2J\nname" in shown
    assert "\x1b" not in shown


def test_columns_set_aside_are_listed_with_the_reason_also_among_hundreds(table: pl.DataFrame) -> None:
    many = table.with_columns([(pl.col("[red]x[/red]") * n).alias(f"number {n}") for n in range(1, 300)])
    shown = shown_columns(many)
    assert "300 columns" in shown
    line = next(line for line in shown.splitlines() if line.startswith("always"))
    assert line.count("set aside: ") == 1
    assert len(shown.splitlines()) < LISTED_ALONE


def test_the_target_comes_first(table: pl.DataFrame) -> None:
    assert shown_columns(table).splitlines()[2].startswith("price")


def test_missing_cells_are_counted(table: pl.DataFrame) -> None:
    line = next(line for line in shown_columns(table).splitlines() if line.startswith("evil"))
    assert " 9 " in line


# The plan


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "log-RMSE is the deviation of logarithms"),
        ({"metric": "mae"}, "mean absolute error is in units of `income`"),
        ({"log_target": False}, "note RMSE is in units of `income`"),
    ],
)
def test_the_plan_says_what_is_learned_and_the_units_of_the_score(
    asked: dict[str, Any], expected: str
) -> None:
    screen = console(120)
    foldwise.fit(
        studies.table("log regression"), target="income", search={"width": 2, "epochs": 1}, folds=2,
        display=TerminalDisplay(screen), checks=False, **asked,
    )  # fmt: skip
    said = " ".join(text_of(screen).split())
    assert expected in said
    assert ("what is learned is the logarithm of `income`" in said) == asked.get("log_target", True)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_of_another_job_is_shown_from_its_beginning(terminal: bool) -> None:
    screen = console(120, terminal)
    with TerminalDisplay(screen) as display:
        display.progress(progress(1.0, 90.0))
        written = len(text_of(screen))
        display.progress(progress(0.0, 0.5))
        assert len(text_of(screen)) > written


@pytest.mark.parametrize("terminal", [False, True])
def test_what_was_trained_stays_when_remedies_are_tried(terminal: bool) -> None:
    screen = console(120, terminal)
    with TerminalDisplay(screen) as display:
        display.progress(progress(1.0, 90.0))
        display.wait("trying 2 remedies")
        display.progress(progress(1.0, 2.0))
        display.progress(progress(0.5, 1.0))  # a second job of the same remedies
        display.wait("the end")
    said = text_of(screen)
    first, trying, both = (said.rindex(s) for s in ("trained 70 of 70", "trying 2", "trained 105 of 140"))
    assert first < trying < both
    assert "in 3.0 s · 500,000 rows/s" in said[both:]


def left_out(*beyond: bool) -> Answer:
    harm = [0.3 - 0.2 * i for i in range(len(beyond))]
    table = pl.DataFrame({"row": [7 + i for i in range(len(beyond))], "harm": harm, "beyond_noise": beyond})
    return Answer("leave_one_out", "", "", table, {}, Picture("", "", ()))


def test_of_rows_left_out_those_that_hurt_are_listed() -> None:
    said = text_of(answer_table(left_out(True, False, True))).splitlines()  # the third helps
    assert [line.split() for line in said] == [
        ["row", "harm"],
        ["7", "0.3"],
        [*["2", "more", "in", "the", "run", "folder"]],
    ]
    said = text_of(answer_table(left_out(False, False))).splitlines()
    assert said == ["no row hurts beyond the noise", "2 more in the run folder"]


def test_the_plan_says_members_cost_and_notes() -> None:
    shown = text_of(plan_facts(SUMMARY))
    for fact in (
        "70 members = 14 trials × 5 folds × 1 seed, at most 40 epochs each",
        "2,930 rows × 285 features · 586 test rows sealed",
        "286–53,761 parameters each",
        "stacked, cpu · 5 stacks",
        "about 1 min 12 s · 340 MB of memory",
        "10 members at a time",
    ):
        assert fact in shown


def test_nothing_is_said_of_sealed_rows_when_there_are_none() -> None:
    assert "sealed" not in text_of(plan_facts(dataclasses.replace(SUMMARY, sealed=0)))
    nested = text_of(plan_facts(dataclasses.replace(SUMMARY, members=420, nested=25)))
    assert "420 members = 14 trials × (5 folds + 25 inside them) × 1 seed" in nested


# Progress


def test_time_left_follows_the_rows() -> None:
    assert seconds_left(progress(0.25, 10.0)) == pytest.approx(30.0)
    assert seconds_left(progress(0.0, 10.0)) is None
    assert seconds_left(progress(1.0, 10.0)) == 0.0


def test_a_plain_line_says_it_all() -> None:
    assert progress_line(progress(0.5, 20.0)) == (
        "training  50 % · 35 of 70 members · epoch 12 of 40 · best log-RMSE 0.1284 ± 0.0050  mlp 64×2 · "
        "25,000 rows/s · 20 s gone · about 20 s left"
    )


def said_over(seconds: float, steps: int = 1000) -> list[str]:
    page = console()
    display = TerminalDisplay(page)
    for step in range(steps + 1):
        display.progress(progress(step / steps, seconds * step / steps))
    return text_of(page).splitlines()


def test_plain_lines_come_about_every_tenth_of_the_work() -> None:
    assert 9 <= len(said_over(seconds=300)) <= 11


def test_plain_lines_are_seconds_apart_in_a_short_job() -> None:
    assert len(said_over(seconds=5)) <= 3


def test_a_long_job_is_not_silent_for_long() -> None:
    assert len(said_over(seconds=3600)) >= 50


def test_plain_lines_stay_whole_lines_on_a_narrow_console() -> None:
    page = console(width=40)
    TerminalDisplay(page).progress(progress(0.5, 20.0))
    assert len(text_of(page).splitlines()) == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_block_has_three_lines_and_leaves_nothing_behind(width: int) -> None:
    page = console(width, terminal=True)
    with TerminalDisplay(page) as display:
        display.progress(progress(0.5, 20.0))
        assert text_of(page).count("\n") == 2  # the cursor stays in the last of the three lines
        drawn = len(text_of(page))
    assert "\x1b[2K" in text_of(page)[drawn:]  # erased


def test_the_live_block_is_drawn_a_few_times_a_second_at_most() -> None:
    page = console(terminal=True)
    with TerminalDisplay(page) as display:
        for step in range(1000):
            display.progress(progress(step / 1000, step / 1000))
    assert text_of(page).count("rows/s") <= 12


def test_the_cursor_comes_back_when_training_fails() -> None:
    page = console(terminal=True)

    def fail_in_training() -> None:
        with TerminalDisplay(page) as display:
            display.progress(progress(0.5, 20.0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_training()
    assert text_of(page).rindex("\x1b[?25h") > text_of(page).rindex("\x1b[?25l")


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e7))
def test_progress_can_always_be_said(done: int, total: int, seconds: float) -> None:
    now = dataclasses.replace(progress(0, seconds), rows_done=done, rows_total=total, best=None)
    assert 0 <= share_done(now) <= 1
    assert "\n" not in progress_line(now)


# The result


def test_the_result_says_headline_warnings_and_places() -> None:
    page = console()
    TerminalDisplay(page).finished(Result("price: log-RMSE 0.128", board(3), ["trial 2 diverged [bold]"]))
    shown = text_of(page)
    assert shown.startswith("price: log-RMSE 0.128")
    assert "warning: trial 2 diverged [bold]" in shown
    assert "foldwise fit train.csv --target price" in shown
    assert "foldwise predict 'runs/my run' NEW.csv" in shown


def test_the_result_says_what_was_chosen_inside_the_folds() -> None:
    page, choices = console(), tuple(Choice(f, 2, "mlp [b]8×2", 3, 0.1, 0.2) for f in (1, 2))
    TerminalDisplay(page).finished(Result("x", board(3), [], nested=Nested(10, choices)))
    assert "of 2 outer folds, the folds inside chose trial 2 (mlp [b]8×2) in 2" in text_of(page)


def test_a_study_that_can_be_gone_on_with_says_how() -> None:
    page = console()
    TerminalDisplay(page).finished(Result("x", board(3), [], resumable=True))
    assert "foldwise resume 'runs/my run'" in text_of(page)


def test_warnings_are_shown_while_training_goes_on() -> None:
    page = console()
    TerminalDisplay(page).warn("the disk is full [bold]")
    assert text_of(page) == "warning: the disk is full [bold]\n"


def test_a_study_without_a_folder_names_none() -> None:
    page = console()
    TerminalDisplay(page).finished(Result("x", board(3), [], folder=None))
    assert "predict" not in text_of(page)


def test_ties_are_marked_and_explained() -> None:
    shown = text_of(leaderboard_table(Result("x", board(4), []), 100))
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2≈", "3≈", "4"]
    assert lines[5].startswith("≈ ")
    assert "≈" not in text_of(leaderboard_table(Result("x", board(4, tied=[False] * 4), []), 100))


def test_a_long_leaderboard_says_how_much_it_leaves_out() -> None:
    shown = text_of(leaderboard_table(Result("x", board(LEADERS + 7, tied=[False] * (LEADERS + 7)), []), 100))
    assert "7 more trials in the report" in shown
    assert len(shown.splitlines()) == LEADERS + 2


@pytest.mark.parametrize(("leader", "shown"), [("mlp 0", ["linear,", "constant"]), ("linear", ["constant"])])
def test_the_best_of_each_baseline_is_always_there(leader: str, shown: list[str]) -> None:
    rows = LEADERS + 5
    behind = ["mlp x", "linear, rate 0.1", "linear, rate 1", "constant", "mlp"]
    names = [leader, *(f"mlp {n}" for n in range(1, LEADERS)), *behind]
    study = Result("x", board(rows, name=names, tied=[False] * rows), [])
    lines = text_of(leaderboard_table(study, 100)).splitlines()
    assert [line.split()[1] for line in lines[LEADERS + 1 : -1]] == shown
    assert lines[-1] == f"{5 - len(shown)} more trials in the report"


def test_a_diverged_trial_says_so_beside_its_name() -> None:
    changes = {"status": ["finished", "diverged: folds 2, 3"], "score": [0.1, None], "low": [0.1, None]}
    shown = text_of(leaderboard_table(Result("x", board(2, high=[0.2, None], **changes), []), 100))
    assert "mlp 1  diverged: folds 2, 3" in shown
    assert "None" not in shown
    assert "nan" not in shown


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    page = console(width)
    names = ["mlp 128×2, rate 0.003, dropout 0.1, decay 0.01, cosine, kaiming"] * 3
    display = TerminalDisplay(page)
    display.plan(SUMMARY)
    display.finished(Result("price: " + "long " * 40, board(3, name=names), ["words " * 50]))
    assert max(map(len, text_of(page).splitlines())) <= width


def test_no_color_is_honored(monkeypatch: pytest.MonkeyPatch) -> None:
    def codes() -> str:
        page = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor")
        with TerminalDisplay(page) as display:
            display.progress(progress(0.5, 20.0))
            display.finished(Result("x", board(2, status=["finished", "diverged"]), ["look"]))
        return text_of(page)

    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in codes()
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[33m" in codes()


# Cells


@given(st.text())
def test_no_text_acts_on_the_terminal(text: str) -> None:
    assert visible(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.floats())
def test_every_number_can_be_written_and_read_back(value: float) -> None:
    written = number(value)
    assert written == "–" or float(written.replace(",", "")) == pytest.approx(value, rel=1e-3)


@given(st.floats(0, 1e9))
def test_durations_have_at_most_two_units(seconds: float) -> None:
    assert len(duration(seconds).split()) in (2, 4)


def test_the_plain_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.plan(SUMMARY)
    display.progress(progress(0.5, 1.0))
    assert capsys.readouterr() == ("", "")


def test_findings_say_what_was_found_and_what_remedies_did() -> None:
    alarm = Finding(
        "dead-units", "likely", "91 % of the 32 units of \x1b[2Jhidden are 0 for every row", trials=(4, 9),
        remedies=(Remedy("learning rate ÷ 10", {"learning_rate": 0.1}), Remedy("look at the rows")),
        tried=(Tried("learning rate ÷ 10", {"learning_rate": 0.1}, 0.52, 0.31, 0.03, 0.02, 5, 5, 0.01, True),),
        symptoms=("dead-units",),
    )  # fmt: skip
    text = text_of(findings_block([alarm, Finding("constant-columns", "hint", "`a` is constant")]), 120)
    assert "dead-units (trials 4, 9; likely) — 91 %" in text
    assert "learning rate ÷ 10 → 0.310 ± 0.020 (was 0.520 ± 0.030, better in 5 of 5 folds)" in text
    assert "Suggested: learning rate ÷ 10." in text
    assert "Also explains: dead-units." in text
    assert "constant-columns (a hint) — `a` is constant." in text
    assert "\x1b" not in text
    assert text.rstrip().endswith("1 alarm, 1 hint; `foldwise explain CODE` says more")
