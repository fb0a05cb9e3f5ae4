"""The command line: what it prints where, its exit codes, and what it refuses."""

from __future__ import annotations

import errno
import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import foldwise
from foldwise import cli
from foldwise.arguments import (
    free_folder,
    nothing_left_empty,
    read_callable,
    read_kinds,
    read_loss,
    read_search,
)
from foldwise.errors import SettingsError

COMMANDS = ("fit", "resume", "predict", "report", "open-test", "replay", "ask", "check", "explain")
CONTROL = "color\x1b[31m"


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small table, a small search and a run with sealed rows."""
    place = tmp_path_factory.mktemp("cli")
    rows = range(90)
    table = pl.DataFrame(
        {
            "[red]size[/red]": [(n * 37 % 80) / 10 for n in rows],
            CONTROL: [("red", "green", "blue")[n % 3] for n in rows],
            "price": [(n * 37 % 80) / 10 + n % 3 for n in rows],
        }
    )
    table.write_csv(place / "train.csv")
    table.drop("price").head(4).write_csv(place / "new.csv")
    search = {"network": "mlp", "width": [8], "depth": 1, "epochs": 3, "learning_rate": 0.03}
    (place / "search.json").write_text(json.dumps(search), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "foldwise", *fit_arguments(place), "--test", "0.2", "--out", "run"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    (place / "stdout").write_text(done.stdout, encoding="utf-8")
    (place / "stderr").write_text(done.stderr, encoding="utf-8")
    assert done.returncode in (0, 1), done.stderr
    return place


def fit_arguments(place: Path) -> list[str]:
    table, search = place / "train.csv", place / "search.json"
    return ["fit", str(table), "--target", "price", "--folds", "2", "--search", str(search)]


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_real_examples(run: Run, command: str) -> None:
    said = run(command, "--help")
    assert said.code == 0
    examples = [line.strip() for line in said.out.splitlines() if line.strip().startswith("foldwise ")]
    assert all(shlex.split(example)[1] == command for example in examples)
    assert examples


def test_defaults_in_help_are_those_of_fit(run: Run) -> None:
    real = {name: p.default for name, p in inspect.signature(foldwise.fit).parameters.items()}
    assert {name: real[name] for name in cli.FIT_DEFAULTS} == cli.FIT_DEFAULTS
    assert f"[default: {real['folds']}]" in run("fit", "--help").out


def test_every_option_of_fit_is_a_parameter_of_fit() -> None:
    typed = set(inspect.signature(cli.fit).parameters) - {"context", "quiet"}
    assert typed <= set(inspect.signature(foldwise.fit).parameters)


def test_no_arguments_show_the_help(run: Run) -> None:
    assert "Usage: foldwise" in "".join(vars(run()).get(stream, "") for stream in ("out", "err"))


@pytest.mark.parametrize("arguments", [["fit", "--fold", "5"], ["fitt"], ["fit", "--seeds", "many"]])
def test_what_cannot_be_understood_exits_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


# Fitting


def test_stdout_is_the_path_of_the_report_and_nothing_else(place: Path) -> None:
    assert (place / "stdout").read_text(encoding="utf-8") == f"{Path('run') / 'report.html'}\n"
    assert (place / "run" / "report.html").is_file()


def test_stderr_tells_the_story_and_no_cell_acts_on_the_terminal(place: Path) -> None:
    said = (place / "stderr").read_text(encoding="utf-8")
    for part in (
        "[red]size[/red]",
        r"color\x1b[31m",
        "trials × 2 folds × 1 seed",
        "training",
        "price: ",
        "trial",
    ):
        assert part in said
    assert "\x1b" not in said


def test_the_command_is_kept_as_it_was_typed(place: Path) -> None:
    typed = shlex.join(["foldwise", *fit_arguments(place), "--test", "0.2", "--out", "run"])
    assert typed in (place / "stderr").read_text(encoding="utf-8")
    assert foldwise.load(place / "run").command == typed


def test_a_run_is_not_written_over_unless_asked(run: Run, place: Path, tmp_path: Path) -> None:
    fit = [*fit_arguments(place), "--quiet", "--out", tmp_path / "run"]
    assert run(*fit).code in (0, 1)
    before = (tmp_path / "run" / "study.json").read_bytes()
    refused = run(*fit)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert (tmp_path / "run" / "study.json").read_bytes() == before
    assert run(*fit, "--overwrite", "--seed", "7").code in (0, 1)
    assert (tmp_path / "run" / "study.json").read_bytes() != before


def test_quiet_says_nothing_but_the_path(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*fit_arguments(place), "--quiet")
    assert said.out == f"{Path('runs') / 'train' / 'report.html'}\n"
    assert all(line.startswith("warning: ") for line in said.err.splitlines())
    assert said.code == (1 if said.err else 0)


def test_a_study_with_warnings_exits_with_1(run: Run, place: Path, tmp_path: Path) -> None:
    """What is random cannot be learned: no trial is better than the constant."""
    noise = pl.DataFrame(
        {"x": [(n * 7919) % 101 for n in range(60)], "y": [(n * 104729) % 97 for n in range(60)]}
    )
    noise.write_csv(tmp_path / "noise.csv")
    said = run(
        "fit", tmp_path / "noise.csv", "--target", "y", "--folds", "3", "--search", place / "search.json",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 1
    assert "warning: " in said.err


def test_options_reach_the_study(run: Run, place: Path, tmp_path: Path) -> None:
    said = run(
        *fit_arguments(place), "--drop", "[red]size[/red]", "--column", f"{CONTROL}=category", "--seeds", "2",
        "--repeats", "2", "--dtype", "float64", "--metric", "mae", "--no-log-target", "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code in (0, 1)
    assert "trials × 4 folds × 2 seeds" in said.err
    study = foldwise.load(tmp_path / "run")
    assert study.metric_label == "mean absolute error"
    assert {c.name: c.kind for c in study.column_plan.columns}["[red]size[/red]"] == "drop"


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        ([], "nothing to fit", "foldwise fit train.csv --target price"),
        (["missing.csv", "--target", "y"], "`missing.csv`", "check the path"),
        (["--example", "wine", "train.csv"], "both a table", "leave one out"),
        (["--example", "vine"], "vine", "wine"),
        (["{table}", "--target", "prcie"], "prcie", "Did you mean `price`?"),
        (["{table}", "--target", "price", "--folds", "five"], "five", "--folds 5"),
        (["{table}", "--target", "price", "--folds", "1000"], "1000", ""),
        (
            ["{table}", "--target", "price", "--drop", "prize"],
            "to drop (--drop) `prize`",
            "Did you mean `price`?",
        ),
        (["no.csv", "--target", "price", "--folds", "1"], "`folds` must be at least 2", "--holdout 0.2"),
        (["no.csv", "--target", "price", "--seeds", "0"], "`seeds` must be at least 1", "--seeds 1"),
        (["no.csv", "--target", "price", "--repeats", "0"], "`repeats` must be at least 1", "--repeats 1"),
        (["no.csv", "--target", "price", "--holdout", "1"], "`holdout` must be a share", "--holdout 0.2"),
        (["no.csv", "--target", "price", "--test", "20"], "`test` must be a share", "--test 0.2"),
        (["{table}", "--target", "price", "--column", "size"], "NAME=KIND", "--column zip=category"),
        (["{table}", "--target", "price", "--column", "size=number"], "`size`", "[red]size[/red]"),
        (["{table}", "--target", "price", "--metric", "rsme"], "rsme", "rmse"),
        (["{table}", "--target", "price", "--device", "cuda:99"], "cuda:99", "--device cpu"),
        (["{table}", "--target", "price", "--search", "missing.json"], "missing.json", "check the path"),
        (["{table}", "--target", "price", "--search", "search.yaml"], "search.yaml", "learning_rate"),
    ],
)
def test_what_cannot_run_says_why_and_what_helps(
    run: Run,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    problem: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("fit", *(a.replace("{table}", str(place / "train.csv")) for a in arguments))
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    error = said.err[said.err.index("error: ") :]
    assert problem in error
    assert hint in error[error.find("hint: ") :]
    assert not list(tmp_path.glob("runs/*")), "an empty run folder was left behind"


@pytest.mark.slow
def test_interrupted_training_keeps_what_is_finished(place: Path, tmp_path: Path) -> None:
    search = tmp_path / "long.json"
    search.write_text('{"width": 8, "epochs": 10000}', encoding="utf-8")
    command = [
        sys.executable,
        "-u",
        "-m",
        "foldwise",
        *fit_arguments(place)[:-1],
        str(search),
        "--out",
        "run",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as fit:
        assert fit.stderr is not None
        for line in fit.stderr:
            if line.startswith("training") and "epoch 0 " not in line:
                fit.send_signal(signal.SIGINT)
                break
        out, err = fit.communicate(timeout=300)
    assert fit.returncode == 130, err
    assert out == f"{Path('run') / 'report.html'}\n"
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "mlp 8×2" in foldwise.load(tmp_path / "run").leaderboard["name"]


# Using a run


def test_predictions_go_to_stdout_as_csv(run: Run, place: Path) -> None:
    said = run("predict", place / "run", place / "new.csv")
    assert said.code == 0
    assert said.err == ""
    table = pl.read_csv(said.out.encode())
    assert table.columns == ["row", "prediction", "spread"]
    assert table["row"].to_list() == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "read"), [("p.csv", pl.read_csv), ("p.parquet", pl.read_parquet)])
def test_predictions_go_to_a_file(
    run: Run, place: Path, tmp_path: Path, name: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    said = run("predict", place / "run", place / "new.csv", "-o", tmp_path / name)
    assert (said.code, said.out) == (0, "")
    assert read(tmp_path / name).height == 4
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_question_is_answered_with_the_nearest_one(run: Run, place: Path) -> None:
    said = run("ask", place / "run", "leave-one-ot")
    assert (said.code, said.out) == (2, "")
    assert "there is no question `leave-one-ot`" in said.err
    assert "Did you mean `leave-one-out`?" in said.err
    said = run("ask", place / "run", "xyzzy")
    assert "one of learning-curve, seeds" in said.err


def test_an_interval_in_percent_is_refused_with_the_share(run: Run, place: Path) -> None:
    said = run("predict", place / "run", place / "new.csv", "--interval", "2")
    assert (said.code, said.out) == (2, "")
    assert "0.9 for 90 %" in said.err


@pytest.mark.parametrize("name", ["p.xlsx", "p"])
def test_predictions_in_an_unknown_format_are_refused_at_once(run: Run, name: str) -> None:
    said = run("predict", "no-run", "no-table.csv", "-o", name)
    assert said.code == 2
    assert ".parquet" in said.err


def test_predictions_on_a_full_disk_end_with_a_message(place: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    command = [sys.executable, "-m", "foldwise", "predict", str(place / "run"), str(place / "new.csv")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no space left on device.")
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_early_is_no_problem(place: Path) -> None:
    command = [sys.executable, "-m", "foldwise", "predict", str(place / "run"), str(place / "new.csv")]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_report_is_written_again(run: Run, place: Path, tmp_path: Path) -> None:
    page = place / "run" / "report.html"
    page.unlink()
    said = run("report", place / "run")
    assert (said.code, said.out) == (0, f"{page}\n")
    assert page.is_file()
    assert run("report", place / "run", "-o", tmp_path / "page.html").out == f"{tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").is_file()


def test_a_second_opening_of_the_test_is_something_to_look_at(run: Run, place: Path) -> None:
    first, second = run("open-test", place / "run"), run("open-test", place / "run")
    assert (first.code, second.code) == (0, 1)
    assert first.out.startswith("test: ")
    assert "opened 2 times" in second.out


def test_replay_shows_how_far_the_stack_is_from_plain_training(run: Run, place: Path) -> None:
    trial = foldwise.load(place / "run").leaderboard["trial"][0]
    said = run("replay", place / "run", "--trial", trial, "--fold", "2")
    assert said.code == 0
    assert "fold 2 · seed 0" in said.err
    *_, predictions = said.out.splitlines()
    assert predictions.startswith("predictions")
    assert float(predictions.split()[-1]) < 1e-3


@pytest.mark.parametrize(
    "arguments",
    [["report"], ["open-test"], ["predict", "new.csv"], ["replay", "--trial", "1", "--fold", "1"]],
)
def test_a_folder_without_a_run_is_refused(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    command, *rest = arguments
    said = run(command, tmp_path, *rest)
    assert said.code == 2
    assert "error: " in said.err
    assert "hint: " in said.err


# Code of one's own

OWN = """
from torch import nn
import foldwise
from parts_of_mine import halve

class MyNet(nn.Module):
    def __init__(self, inputs, outputs, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))

    def forward(self, x):
        return self.layers(x)

def off_by(outputs, targets):
    return (outputs - targets).abs().mean(-1)

slower = foldwise.Link(halve, knobs={"share": 0.5})
number = 3
"""
PARTS = """
def halve(direction, remembered, now):
    return direction * now.settings["share"].to(direction)
"""


@pytest.fixture(scope="module")
def own(place: Path) -> tuple[Path, list[str]]:
    """A run with a network, a loss and a link of one's own, and the options that name them."""
    (place / "mine.py").write_text(OWN, encoding="utf-8")
    (place / "parts_of_mine.py").write_text(PARTS, encoding="utf-8")
    search = {"width": {"range": [3, 9]}, "share": {"log_range": [0.1, 1]}, "epochs": 2}
    (place / "own.json").write_text(json.dumps(search), encoding="utf-8")
    options = ["--net", "mine.py:MyNet", "--loss", "mine.py:off_by", "--link", "mine.py:slower"]
    fit = [*fit_arguments(place)[:-1], str(place / "own.json"), "--trials", "3", *options, "--test", "0.2"]
    done = subprocess.run(
        [sys.executable, "-m", "foldwise", *fit, "--out", "own"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert foldwise.load(place / "own").command == shlex.join(["foldwise", *fit, "--out", "own"])
    return place / "own", [o.replace("mine.py", str(place / "mine.py")) for o in options]


def test_code_of_ones_own_is_used(own: tuple[Path, list[str]]) -> None:
    trials = [s for s in foldwise.load(own[0]).plan.trials if s.network == "custom"]
    assert len(trials) == 3
    assert {s.loss for s in trials} == {"custom"}
    assert all(3 <= s.width <= 9 and 0.1 <= dict(s.knobs)["share"] <= 1 for s in trials)


def test_a_run_is_used_with_code_of_ones_own(run: Run, place: Path, own: tuple[Path, list[str]]) -> None:
    folder, options = own
    board = foldwise.load(folder).leaderboard
    trial = board.filter(pl.col("name").str.starts_with("custom"))["trial"][0]
    said = run("predict", folder, place / "new.csv", *options[:2])
    assert (said.code, said.err) == (0, "")
    assert run("open-test", folder, *options[:2]).out.startswith("test: ")
    replayed = run("replay", folder, "--trial", trial, "--fold", "1", *options)
    assert replayed.code == 0, replayed.err
    assert "matches its plain re-training" in replayed.err


@pytest.mark.parametrize(
    ("left_out", "problem"),
    [
        ("--net", "this trial used a network of your own."),
        ("--loss", "this trial used a loss of your own."),
        ("--link", "this study used links of your own."),
    ],
)
def test_a_replay_needs_all_code_of_ones_own(
    run: Run, own: tuple[Path, list[str]], left_out: str, problem: str
) -> None:
    folder, options = own
    at = options.index(left_out)
    trial = [s.network for s in foldwise.load(folder).plan.trials].index("custom") + 1
    said = run("replay", folder, "--trial", trial, "--fold", "1", *options[:at], *options[at + 2 :])
    assert said.code == 2
    assert problem in said.err


@pytest.mark.parametrize(
    ("option", "problem"), [("--loss", "`loss` has no effect"), ("--link", "`links` have no")]
)
def test_code_that_a_run_did_not_use_is_refused(
    run: Run, place: Path, own: tuple[Path, list[str]], option: str, problem: str
) -> None:
    given = own[1][own[1].index(option) :][:2]
    said = run("replay", place / "run", "--trial", "1", "--fold", "1", *given)
    assert said.code == 2
    assert problem in said.err


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("mine", "`mine` does not say what to take from which file.", "FILE.py:NAME"),
        ("mine.py", "`mine.py` does not say what to take from which file.", "FILE.py:NAME"),
        ("mine.py:", "`mine.py:` does not say what to take from which file.", "FILE.py:NAME"),
        ("torch.nn:Linear", "`torch.nn:Linear` does not say what to take from which file.", "FILE.py:NAME"),
        ("yours.py:MyNet", "there is no file `{place}/yours.py`.", "check the path"),
        ("mine.py:MyNetwork", "`mine.py` has no `MyNetwork`.", "Did you mean `MyNet`?"),
        ("mine.py:xyzzy", "`mine.py` has no `xyzzy`.", "it has `halve`, `MyNet`, `off_by`, `slower`, `number`"),
        ("mine.py:number", "`mine.py:number` is 3, which cannot be called.", "name a function or a class"),
        (
            "broken.py:MyNet",
            "`{place}/broken.py` cannot be imported: line 2, `import nothing_like_it`: ModuleNotFoundError: No module",
            "python FILE.py says more",
        ),
        ("half.py:MyNet", "`{place}/half.py` cannot be imported: line 1, `class MyNet`: SyntaxError: expected ':'", ""),
        ("leaving.py:MyNet", "`{place}/leaving.py` cannot be imported: line 1, `raise SystemExit(3)`: Sys", ""),
    ],
)  # fmt: skip
def test_code_that_cannot_be_had_says_why(
    own: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, text: str, problem: str, hint: str
) -> None:
    place = own[0].parent
    monkeypatch.chdir(place)
    write(place, "broken.py", "import json\nimport nothing_like_it\n")
    write(place, "half.py", "class MyNet\n")
    write(place, "leaving.py", "raise SystemExit(3)\n")
    with pytest.raises(SettingsError) as refused:
        read_callable(text)
    assert refused.value.problem.startswith(problem.replace("{place}", str(place)))
    assert hint in refused.value.hint


def test_a_file_is_imported_once_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, "json.py", "class A: pass\nclass B(A): pass\n")
    first, second = read_callable(f"{file}:A"), read_callable(f"{file}:B")
    assert issubclass(second, first)  # type: ignore[arg-type]
    assert sys.modules["json"] is json
    sys.path.remove(str(tmp_path))


def test_a_loss_is_a_name_or_a_function(own: tuple[Path, list[str]]) -> None:
    assert read_loss("huber") == "huber"
    assert callable(read_loss(own[1][3]))


def test_a_wrong_loss_or_number_of_trials_stops_at_once(run: Run, place: Path, tmp_path: Path) -> None:
    fit = [*fit_arguments(place), "--out", tmp_path / "run"]
    assert "there is no loss `hubber`" in run(*fit, "--loss", "hubber").err
    assert "`trials` is 5, but the search has 1 combinations." in run(*fit, "--trials", "5").err
    assert not (tmp_path / "run").exists()


# What was typed


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_searches_are_read_from_json_and_toml(tmp_path: Path) -> None:
    grids = [{"network": "linear"}, {"network": "mlp", "width": [8, 16]}]
    toml = '[[grid]]\nnetwork = "linear"\n[[grid]]\nnetwork = "mlp"\nwidth = [8, 16]'
    assert read_search(write(tmp_path, "a.json", json.dumps(grids))) == grids
    assert read_search(write(tmp_path, "a.toml", toml)) == grids
    assert read_search(write(tmp_path, "b.toml", "width = [8, 16]")) == {"width": [8, 16]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"),
        ("a.toml", "width"),
        ("a.json", "[]"),
        ("a.json", "{}"),
        ("a.json", "3"),
        ("a.json", "[3]"),
    ],
)
def test_a_search_that_makes_no_sense_names_the_file(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_search(write(tmp_path, name, text))


def test_a_search_that_is_no_text_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"a\.json"):
        read_search(tmp_path / "a.json")


def test_a_column_cannot_be_of_two_kinds() -> None:
    assert read_kinds(["a=number", "a=number"]) == {"a": "number"}
    with pytest.raises(SettingsError, match="two kinds"):
        read_kinds(["a=number", "a=category"])


def test_a_free_folder_holds_nothing(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run" / "study.json").touch()
    (tmp_path / "run-2").touch()
    assert free_folder(tmp_path / "run") == tmp_path / "run-3"


def test_only_new_and_empty_folders_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "new", "full"):
        with nothing_left_empty(tmp_path / name):
            (tmp_path / name).mkdir(exist_ok=True)
            if name == "full":
                (tmp_path / name / "study.json").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "old"]


# Problems


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT])
def test_refusals_of_the_system_have_a_hint(number: int) -> None:
    problem, hint = cli.explained(OSError(number, os.strerror(number), "runs/a"))
    assert problem.startswith("`runs/a`: ")
    assert hint


def test_problems_are_shown_literally(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.fail("[bold]no[/bold] column \x1b[2J", "try\nthis")
    said = capsys.readouterr().err
    assert said == "error: [bold]no[/bold] column \\x1b[2J\nhint: try\nthis\n"


def test_a_fault_of_foldwise_itself_exits_with_2_and_shows_where(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(foldwise, "load", broken, raising=False)
    said = run("report", "x")
    assert said.code == 2
    assert "ZeroDivisionError" in said.err
    assert "error: foldwise broke" in said.err
