"""All benchmarks, side by side with peers, each in a process of its own.

    python -m benchmarks.run [NAME …] [--quick] [--again]

Every benchmark writes benchmarks/results/NAME.json, and then the tables in benchmarks/README.md and README.md are
made anew from all that lie there. A run that was interrupted goes on where it was when it is started again: what was
measured with the same source is not measured again, unless `--again` says so. `--quick` shows that everything works,
in minutes; its figures mean nothing, go to benchmarks/results/quick/ and into no table.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import render
from benchmarks.measure import Missing, machine, versions

HERE = Path(__file__).parent
BENCHMARKS = {
    "step": "benchmarks.engine.step",
    "growth": "benchmarks.engine.growth",
    "gpu": "benchmarks.engine.gpu",
    "search": "benchmarks.studies.search",
    "leave_one_out": "benchmarks.studies.leave_one_out",
    "stopping": "benchmarks.studies.stopping",
    "halving": "benchmarks.studies.halving",
    "nested": "benchmarks.believing.nested",
    "soak": "benchmarks.studies.soak",
    "coverage": "benchmarks.believing.coverage",
}
SKIPPED = 3


def module_of(name: str) -> ModuleType:
    """Import a benchmark."""
    return importlib.import_module(BENCHMARKS[name])


def source_of(name: str) -> str:
    """Identify the code that a figure was measured with: foldwise, and the benchmark's own folder."""
    own = HERE / BENCHMARKS[name].split(".")[1]
    files = [
        *(HERE.parent / "src").rglob("*.py"),
        *own.rglob("*.py"),
        HERE / "subject.py",
        HERE / "measure.py",
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def path_of(name: str, quick: bool) -> Path:
    """Say where figures are written."""
    return HERE / "results" / ("quick" if quick else "") / f"{name}.json"


def is_done(name: str, quick: bool) -> bool:
    """Tell whether this was measured with the source as it is."""
    path = path_of(name, quick)
    return path.exists() and json.loads(path.read_text())["source"] == source_of(name)


def measure_here(name: str, quick: bool) -> int:
    """Run one benchmark in this process and write what it found."""
    module, before, started = module_of(name), machine(), time.perf_counter()
    try:
        figures: dict[str, Any] = module.run(quick)
    except Missing as missing:
        print(f"{name}: {missing}")
        return SKIPPED
    found = {
        "name": name,
        "method": module.METHOD,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.perf_counter() - started),
        "source": source_of(name),
        "machine": before,
        "versions": versions(),
        "figures": figures,
    }
    path = path_of(name, quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(module.table(figures))
    return 0


def main() -> int:
    """Run what was asked for and is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--again", action="store_true", help="also what is done already")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if given.here:
        return measure_here(given.names[0], given.quick)
    failed = []
    for name in given.names or BENCHMARKS:
        if is_done(name, given.quick) and not given.again:
            print(f"== {name}: done before, with this source; --again measures anew", flush=True)
            continue
        print(f"== {name}", flush=True)
        options = ["--quick"] if given.quick else []
        command = [sys.executable, "-m", "benchmarks.run", "--here", name, *options]
        if subprocess.run(command, cwd=HERE.parent, check=False).returncode not in (0, SKIPPED):
            failed.append(name)
    if not given.quick:
        render.write(
            {name: json.loads(p.read_text()) for name in BENCHMARKS if (p := path_of(name, False)).exists()}
        )
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
