"""Tables from figures: all of them for benchmarks/README.md, what matters most for README.md."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- benchmarks: start -->", "<!-- benchmarks: end -->"
NOTHING_YET = "No figures yet: `make bench` measures and writes them here."


@dataclass(frozen=True)
class Line:
    """One comparison as README.md shows it: what, against what, the figure, and the goal if there is one."""

    what: str
    peer: str
    figure: str
    goal: str = ""
    met: bool = True

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Lay the line out; a goal that was missed says so."""
        return self.what, self.peer, self.figure, f"{self.goal}{'' if self.met else ': **missed**'}"


def grid(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown; raises ValueError for a row of another length."""
    lines = [heads, ["---"] * len(heads), *([cell for _, cell in zip(heads, r, strict=True)] for r in rows)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def ratio(found: Mapping[str, Any]) -> str:
    """Write a ratio with its range over the pairs."""
    return f"{_short(found['ratio'])}× ({_short(found['low'])}–{_short(found['high'])})"


def times(found: Mapping[str, Any]) -> str:
    """Write a ratio alone."""
    return f"{_short(found['ratio'])}×"


def micro(seconds: float) -> str:
    """Write seconds as microseconds."""
    return _short(seconds * 1e6)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


def share(value: float) -> str:
    """Write a share in percent."""
    return f"{value:.0%}"


def write(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the tables between the two marks of both files."""
    from benchmarks.run import module_of

    importlib.invalidate_caches()
    lines = [line for name, found in results.items() for line in module_of(name).summary(found["figures"])]
    short = grid(("measured", "against", "foldwise is", "goal"), [line.cells for line in lines])
    _between_marks(ROOT / "README.md", f"{short}\n\n{_machine(results)}" if lines else NOTHING_YET)
    parts = [_part(name, module_of(name).table(found["figures"]), found) for name, found in results.items()]
    _between_marks(ROOT / "benchmarks" / "README.md", "\n\n".join(parts) or NOTHING_YET)


def _machine(results: Mapping[str, Mapping[str, Any]]) -> str:
    dates = sorted({found["date"] for found in results.values()})
    where = {_where(found) for found in results.values()}
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{'; '.join(sorted(where))}; {when}. Method, peers and all figures: [benchmarks](benchmarks/)."


def _where(found: Mapping[str, Any]) -> str:
    return f"{found['machine']['processor']}, {found['machine']['cores']} cores"


def _part(name: str, table: str, found: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    about = f"{found['date']}, {found['seconds']} s; {_where(found)}; Python {found['machine']['python']}, {packages}."
    return f"### {name}\n\n{found['method']}\n\n{table}\n\n{about}"


def _between_marks(path: Path, text: str) -> None:
    before, _, rest = path.read_text().partition(START)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}")
