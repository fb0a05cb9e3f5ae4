"""`foldwise explain`, `foldwise check`, and what `foldwise fit` does about findings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import foldwise
from foldwise import cli, cli_checks
from foldwise.checks import CHECKS, GROUPS
from foldwise.checks.explain import TITLES, explain
from foldwise.terminal import Display

Ran = tuple[int, str, str]
NETS = """
from torch import nn

def line(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 8), nn.Linear(8, outputs))

def bent(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checks")
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 3))
    table = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "same": [7] * 120})
    table.with_columns(y=x[:, 0] * x[:, 1] + 0.1 * random.normal(size=120)).write_csv(place / "train.csv")
    (place / "nets.py").write_text(NETS)
    return place


def test_explain_lists_every_check_and_tells_of_one(run: Callable[..., Ran]) -> None:
    code, listed, _ = run("explain")
    assert code == 0
    lines = [line for line in listed.splitlines() if line.startswith("  ")]
    assert [line.split(maxsplit=1) for line in lines] == [[c, explain(c).what] for c in CHECKS]
    assert [line for line in listed.splitlines() if line and line not in lines] == [TITLES[g] for g in GROUPS]
    code, told, _ = run("explain", "dead-units")
    assert code == 0
    assert told.startswith("dead-units\n")
    assert [name for name in explain("dead-units").sections if f"\n\n{name}: " in told] == [
        *explain("dead-units").sections
    ]
    code, _, said = run("explain", "dead-unit")
    assert (code, "did you mean" in said.lower()) == (2, True)


def test_the_list_of_checks_fits_into_a_terminal() -> None:
    lines = cli_checks.listing(80).splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()) == " ".join(cli_checks.listing().split())


def test_explain_starts_without_torch() -> None:
    code = "import sys; from foldwise import cli; cli.app(['explain', 'dead-units'], standalone_mode=False); "
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_check_finds_what_is_wrong_with_a_network_before_training(
    run: Callable[..., Ran], desk: Path
) -> None:
    rest = ("--data", desk / "train.csv", "--target", "y", "--folds", "3")
    code, found, _ = run("check", f"{desk / 'nets.py'}:line", *rest)
    assert code == 1
    assert found.startswith("no-activation (likely)")
    code, found, _ = run("check", f"{desk / 'nets.py'}:bent", *rest)
    assert code == 0
    assert "no-activation" not in found
    assert "constant-columns (a hint) — `same`" in found


def test_check_says_at_once_what_it_does(run: Callable[..., Ran], desk: Path) -> None:
    table, net = desk / "train.csv", f"{desk / 'nets.py'}:bent"
    _, found, said = run("check", net, "--data", table, "--target", "y", "--folds", "3")
    assert f"checks {table} and {net} before training" in said
    assert "before training" not in found


def test_check_imports_no_compiler(desk: Path) -> None:
    code = f"import sys, foldwise; foldwise.check({str(desk / 'train.csv')!r}, target='y', folds=3); "
    code += "print([name for name in ('torch._dynamo', 'numba') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_check_needs_a_table(run: Callable[..., Ran]) -> None:
    code, _, said = run("check")
    assert code == 2
    assert "hint: " in said


def test_check_in_python_finds_the_same(run: Callable[..., Ran], desk: Path) -> None:
    found = foldwise.check(desk / "train.csv", target="y", folds=3)
    _, printed, _ = run("check", "--data", desk / "train.csv", "--target", "y", "--folds", "3")
    assert [f.code for f in found if f.code not in printed] == []


def test_alarms_are_said_and_exit_with_1(run: Callable[..., Ran], desk: Path) -> None:
    search = {"width": 8, "depth": 1, "epochs": 6, "learning_rate": 30.0, "optimizer": "sgd"}
    (desk / "wild.json").write_text(json.dumps(search))
    fit = ("fit", "--example", "iris", "--folds", "3", "--search", desk / "wild.json", "--out")
    code, _, said = run(*fit, desk / "loud")
    assert code == 1
    assert "rate-too-high (trial 4; " in said
    assert "Tried: learning rate 0.3 (÷ 100)" in said or "Tried: learning rate 3 (÷ 10)" in said
    code, _, said = run(*fit, desk / "quiet", "--quiet", "--remedies", "off")
    assert code == 1
    assert "warning: rate-too-high (trial 4; " in said
    assert "Tried: " not in said
    code, _, said = run(*fit, desk / "blind", "--checks", "off")
    assert "rate-too-high" not in said
    assert [foldwise.load(desk / name).checked for name in ("loud", "blind")] == [True, False]


@pytest.mark.parametrize("wrong", [("--checks", "maybe"), ("--checks", "off", "--remedies", "on")])
def test_switches_that_make_no_sense_are_refused(
    run: Callable[..., Ran], desk: Path, wrong: tuple[str, ...]
) -> None:
    code, _, said = run("fit", desk / "train.csv", "-t", "y", *wrong, "--out", desk / "never")
    assert code == 2
    assert wrong[0] in said
    assert not (desk / "never").exists()


def test_a_study_prints_its_findings() -> None:
    search = {"width": 8, "depth": 1, "epochs": 6, "learning_rate": 30.0, "optimizer": "sgd"}
    study = foldwise.fit(example="iris", search=search, folds=3, display=Display(), remedies=False)
    assert study.findings.alarms
    assert f"{study.findings}" in repr(study)
    assert all(str(f)[:20] in study._repr_html_() for f in study.findings.alarms)
    blind = foldwise.fit(example="iris", search=search, folds=3, display=Display(), checks=False)
    assert "checks: " not in repr(blind)
    assert blind.looks is None
