"""Two who write the same run: the second is told, and one who was killed stands in nobody's way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import foldwise
import studies
from foldwise.engine.loop import Progress
from foldwise.errors import StoreError
from foldwise.store.lock import LOCK, sole_writer
from foldwise.terminal import Display

HOLD = """
import sys, time
from pathlib import Path
from foldwise.store.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""
BUSY = r"the run in .*run is being written by another process \(process \d+ on .+\)\.\nhint: wait until it is done"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def other(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the run."""
    with subprocess.Popen([sys.executable, "-c", HOLD, run], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def fit(run: Path) -> foldwise.Study:
    search = {"network": "linear", "epochs": 1}
    return foldwise.fit(
        studies.table("regression"), target="price", search=search, folds=2, out=run, overwrite=True
    )


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(
    run: Path, other: subprocess.Popen[str]
) -> None:
    study = fit(run.with_name("elsewhere"))
    (run / "checkpoint").mkdir()  # as if it was training
    doing: list[Callable[[], object]] = [
        lambda: fit(run),
        lambda: foldwise.resume(run),
        lambda: study.save(run, overwrite=True),
    ]
    for do in doing:
        with pytest.raises(StoreError, match=BUSY):
            do()
    assert [p.name for p in run.iterdir() if p.name != LOCK] == ["checkpoint"]
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (run / LOCK).exists()
    fit(run)
    assert not (run / LOCK).exists()
    assert foldwise.load(run).headline == study.headline


def test_a_study_that_trains_has_its_folder_for_itself(run: Path) -> None:
    """From the first epoch to the page: a second fit is refused, and the first one ends well."""
    tried = []

    class Second(Display):
        def progress(self, now: Progress) -> None:
            with pytest.raises(StoreError, match=BUSY):
                fit(run)
            tried.append(now.epoch)

    search = {"network": "linear", "epochs": 2}
    table = studies.table("regression")
    study = foldwise.fit(table, target="price", search=search, folds=2, out=run, display=Second())
    assert len(tried) > 1
    assert foldwise.load(run).headline == study.headline
    assert not (run / LOCK).exists()


def test_an_error_leaves_no_lock(run: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_writer(run):
        1 / 0  # noqa: B018
    with sole_writer(run):
        pass
    assert not [*run.iterdir()]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run"):
        foldwise.resume(tmp_path / "nothing")
    assert not [*tmp_path.iterdir()]
