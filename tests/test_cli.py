"""The command line: what it prints where, its exit codes, and what it does not do."""

from __future__ import annotations

import errno
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import foldwise
from foldwise import cli
from foldwise.arguments import free_folder, read_folds, read_kinds, read_search, replacing
from foldwise.errors import FoldwiseError, SettingsError, StoreError

SMALL = {"network": "mlp", "width": [4, 8], "depth": 1, "epochs": 2}


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    """Run a command line in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small table, and a run that was fitted to it."""
    place = tmp_path_factory.mktemp("cli")
    rows = range(80)
    table = pl.DataFrame(
        {
            "[red]size[/red]": [(n * 37 % 80) / 10 for n in rows],
            "color\x1b[31m": [("red", "green", "blue")[n % 3] for n in rows],
            "price": [(n * 37 % 80) / 10 + n % 3 for n in rows],
        }
    )
    table.write_csv(place / "train.csv")
    (place / "search.json").write_text(json.dumps(SMALL))
    return place
