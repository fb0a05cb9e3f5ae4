"""What is said in the terminal while a study runs: the columns, the plan, the progress and the result.

Everything here is talk and goes to the console that it is given (the command line gives it stderr). Nothing
that comes from a file is read as markup, and no cell can send a control sequence to the terminal.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from foldwise.errors import percent

if TYPE_CHECKING:
    from foldwise.data.columns import Column, ColumnPlan
    from foldwise.engine.loop import PlanSummary, Progress, Standing

LISTED_ALONE: Final = 20  # feature columns listed one by one; more are grouped by kind
LEADERS: Final = 15  # trials shown of the leaderboard
BASELINES: Final = ("linear", "constant")  # networks shown even when they are not among the leaders
BLOCK_WIDTH: Final = 100  # of the progress block, on terminals that are wider
LABEL_WIDTH: Final = 11
NAME_WIDTH: Final = 32
WIDE: Final = 100  # from here on, names of trials need not be packed tightly
REFRESH_SECONDS: Final = 0.1  # between two drawings of the progress block
QUIET_SECONDS: Final = 3.0  # least time between two plain lines
SILENT_SECONDS: Final = 60.0  # most time without a plain line while there is progress
PLAIN_STEP: Final = 0.1  # share of the work after which a plain line is due


def talk() -> Console:
    """Open the console for everything that is not data."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def data_console() -> Console:
    """Open the console for data."""
    return Console(markup=False, highlight=False, emoji=False)


class Display:
    """Watches a study and says nothing; override any of its methods to say something."""

    def columns(self, plan: ColumnPlan) -> None:
        """Show what will be done with each column."""

    def wait(self, why: str) -> None:
        """Say why nothing is to be seen for a while."""

    def plan(self, summary: PlanSummary) -> None:
        """Show what will be trained, and what it will cost."""

    def progress(self, now: Progress) -> None:
        """Show how far the study is."""

    def warn(self, text: str) -> None:
        """Show what goes wrong while the study goes on."""

    def finished(self, study: Any) -> None:
        """Show what the study found."""

    def close(self) -> None:
        """Clean up after training, also when it ended early."""


class QuietDisplay(Display):
    """Shows nothing but warnings."""

    def warn(self, text: str) -> None:
        talk().print(warning_line(text), soft_wrap=True)


class TerminalDisplay(Display):
    """Shows a study on a console: one live block on a terminal, a plain line now and then elsewhere.

    Use it as a context manager, so that the block is taken down when training ends early.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._drawn = -math.inf
        self._last: Progress | None = None
        self._before = (
            0,
            0,
            0,
            0.0,
        )  # members done, members, rows and seconds of earlier jobs that are told together
        self._said: Progress | None = None

    def __enter__(self) -> TerminalDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._take_down()

    def columns(self, plan: ColumnPlan) -> None:
        self._say(columns_table(plan.columns, len(plan.features), self.console.width))

    def wait(self, why: str) -> None:
        self._end_of_training()
        self.console.print(shown(f"{why} …", "dim"), soft_wrap=True)

    def plan(self, summary: PlanSummary) -> None:
        self._say(plan_facts(summary))

    def progress(self, now: Progress) -> None:
        if self._last is not None and now.seconds < self._last.seconds:  # another job of the same question
            self._drawn, self._said = -math.inf, None
            self._before = self._together(self._last)
        self._last = now
        if self.console.is_interactive:
            self._draw(now)
        elif _line_is_due(now, self._said):
            self._said = now
            self.console.print(progress_line(now), soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(warning_line(text), soft_wrap=True)

    def finished(self, study: Any) -> None:
        if self._end_of_training():
            self.console.print()
        self._say(result(study, self.console.width))
        if study.folder is not None:
            for place in places(study):
                self.console.print(place, soft_wrap=True)  # a command that is copied must have no line breaks
            self.console.print()

    def _end_of_training(self) -> bool:
        """Say what was trained up to now, if anything was, where it stays to be read."""
        self._take_down()
        if self._last is None:
            return False
        self.console.print(training_line(*self._together(self._last)), soft_wrap=True)
        self._last, self._said, self._drawn, self._before = None, None, -math.inf, (0, 0, 0, 0.0)
        return True

    def _together(self, last: Progress) -> tuple[int, int, int, float]:
        done, members, rows, seconds = self._before
        return (
            done + last.members_done,
            members + last.members,
            rows + last.rows_done,
            seconds + last.seconds,
        )

    def _say(self, what: RenderableType) -> None:
        if self.console.is_interactive:
            self.console.print(what)
        else:  # tables are filled up with spaces, which are noise in a file
            with self.console.capture() as captured:
                self.console.print(what)
            self.console.print("\n".join(map(str.rstrip, captured.get().splitlines())), soft_wrap=True)
        self.console.print()

    def _draw(self, now: Progress) -> None:
        if self._live is None:
            # No refresh thread: the block changes when training reports, and nothing competes with training.
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        if now.seconds - self._drawn >= REFRESH_SECONDS:
            self._drawn = now.seconds
            self._live.update(progress_block(now, self.console.width), refresh=True)

    def _take_down(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def default_display() -> Display:
    """Show on the terminal when stderr is one, and nothing otherwise."""
    console = talk()
    return TerminalDisplay(console) if console.is_terminal else Display()


def _line_is_due(now: Progress, said: Progress | None) -> bool:
    if said is None:
        return True
    waited = now.seconds - said.seconds
    advanced = share_done(now) - share_done(said)
    return waited >= QUIET_SECONDS and (advanced >= PLAIN_STEP or (advanced > 0 and waited >= SILENT_SECONDS))


# The column plan


def columns_table(columns: Sequence[Column], features: int, width: int) -> RenderableType:
    """Draw the column plan: roles, then features (grouped when there are many), then what is set aside."""
    used = [c for c in columns if c.role == "feature"]
    aside = [c for c in columns if c.role == "set aside"]
    others = [c for c in columns if c.role not in ("feature", "set aside")]
    table = _table(
        ("column", {"max_width": min(NAME_WIDTH, width // 4), "no_wrap": True, "overflow": "ellipsis"}),
        ("kind", {}),
        ("missing", _RIGHT),
        ("distinct", _RIGHT),
        ("use", {}),
    )
    for c in others:
        table.add_row(_bold(c.name), shown(c.role), _count(c.missing), _count(c.distinct), shown(c.use))
    for row in _each(used) if len(used) <= LISTED_ALONE else _by_kind(used):
        table.add_row(*row)
    for c in aside:
        table.add_row(
            _dim(c.name),
            _dim(c.kind),
            _count(c.missing),
            _count(c.distinct),
            _aside(c),
        )
    remarks = [
        Text("look at it: ", style="yellow").append(visible(c.remark), style="default")
        for c in columns
        if c.remark
    ]
    return Group(_dim(f"{len(columns):,} columns → {_plural(features, 'feature')}"), table, *remarks)


def _aside(column: Column) -> Text:
    reason = visible(column.use).removeprefix("set aside: ")
    return Text("set aside: ", style="yellow").append(reason, style="default")


def _each(columns: Iterable[Column]) -> Iterator[tuple[Text, ...]]:
    for c in columns:
        yield shown(c.name), shown(c.kind), _count(c.missing), _count(c.distinct), _dim(c.use)


def _by_kind(columns: Sequence[Column]) -> Iterator[tuple[Text, ...]]:
    for kind in dict.fromkeys(c.kind for c in columns):
        group = [c for c in columns if c.kind == kind]
        missing = sum(c.missing for c in group)
        names = ", ".join(visible(c.name) for c in group[:6])
        more = f" and {len(group) - 6:,} more" if len(group) > 6 else ""
        yield Text(f"{len(group):,} columns"), shown(kind), _count(missing), _count(0), _dim(f"{names}{more}")


# The plan


def plan_facts(s: PlanSummary) -> RenderableType:
    """Draw what will be trained and what it is expected to cost."""
    least, most = s.parameters
    size = f"{least:,}" if least == most else f"{least:,}–{most:,}"
    folds = _plural(s.folds, "fold")
    folds = f"({folds} + {s.nested:,} inside {'them' if s.folds > 1 else 'it'})" if s.nested else folds
    made_of = f"{_plural(s.trials, 'trial')} × {folds} × {_plural(s.seeds, 'seed')}"
    sealed = f" · {_plural(s.sealed, 'test row')} sealed" if s.sealed else ""
    bound = f"{s.bound} " if s.bound else ""
    facts = [
        (
            "train",
            f"{bound}{_plural(s.members, 'member')} = {made_of}, at most {_plural(s.epochs, 'epoch')} each",
        ),
        *([("search", s.search)] if s.search else []),
        ("on", f"{_plural(s.rows, 'row')} × {_plural(s.features, 'feature')}{sealed}"),
        ("networks", f"{size} parameters each"),
        ("engine", f"{s.engine} · {_plural(s.stacks, 'stack')}"),
        ("expected", f"about {duration(s.seconds)} · {size_of(s.bytes)} of memory"),
        *(("note", note) for note in s.notes),
    ]
    return _facts(facts)


# Progress


def share_done(now: Progress) -> float:
    """Give the share of the work that is done, by rows, between 0 and 1."""
    return min(1.0, now.rows_done / now.rows_total) if now.rows_total else 0.0


def seconds_left(now: Progress) -> float | None:
    """Estimate the time left: t·(1−s)/s after a time t with a share s done; None while nothing is done."""
    done = share_done(now)
    return now.seconds * (1 - done) / done if done else None


def progress_block(now: Progress, width: int) -> RenderableType:
    """Draw the progress of the whole study in three lines."""
    first = Table.grid(padding=(0, 2, 0, 0), expand=True)
    first.add_column(ratio=1)
    for _ in range(3):
        first.add_column(no_wrap=True)
    first.add_row(
        ProgressBar(total=1.0, completed=share_done(now), complete_style="cyan", finished_style="cyan"),
        Text(f"{percent(share_done(now)):>5}"),
        Text(f"{now.members_done:,} of {_plural(now.members, 'member')}"),
        _dim(f"epoch {now.epoch:,} of {now.epochs:,}"),
    )
    block = _facts([("training", first), ("best so far", _standing(now.best)), ("pace", _pace(now))])
    # A terminal shows Ctrl-C as ^C behind the block: in a full line, that would start another one.
    return Constrain(block, min(BLOCK_WIDTH, width - len("^C") - 1))


def progress_line(now: Progress) -> str:
    """Write the progress of the whole study as one plain line."""
    parts = [
        f"training {percent(share_done(now)):>5}",
        f"{now.members_done:,} of {_plural(now.members, 'member')}",
        f"epoch {now.epoch:,} of {now.epochs:,}",
        f"best {_standing(now.best).plain}" if now.best else "",
        _pace(now).plain,
    ]
    return " · ".join(part for part in parts if part)


def training_line(done: int, members: int, rows: int, seconds: float) -> Text:
    """Say in one line what was trained and how fast."""
    trained = f"trained {done:,} of {_plural(members, 'member')} in {duration(seconds)}"
    return _dim(" · ".join(part for part in (trained, _speed(rows, seconds)) if part))


def _standing(best: Standing | None) -> Text:
    if best is None:
        return _dim("–")
    standing = Text(
        f"{visible(best.metric)} {plus_minus(best.mean, best.spread)}",
        no_wrap=True,
        overflow="ellipsis",
    )
    return standing.append(f"  {visible(best.trial)}", style="dim")


def _pace(now: Progress) -> Text:
    left = seconds_left(now)
    parts = [
        _speed(now.rows_done, now.seconds),
        f"{duration(now.seconds)} gone",
        f"about {duration(left)} left" if left is not None else "",
    ]
    return _dim(" · ".join(part for part in parts if part))


def _speed(rows: int, seconds: float) -> str:
    return f"{rows / seconds:,.0f} rows/s" if seconds > 1e-3 and rows else ""


# The result


def result(study: Any, width: int) -> RenderableType:
    """Draw the headline, the leaderboard, the warnings and where everything is."""
    parts: list[RenderableType] = [_bold(study.headline.removesuffix(f" — {study.doubt}"))]
    parts += [shown(f"{study.doubt}.", "bold yellow")] if study.doubt else []
    parts += [Text(), leaderboard_table(study, width)]
    if study.account.sentence:
        parts += [_dim(study.account.sentence)]
    parts += map(_dim, beliefs(study))
    if study.nested is not None:
        parts += [_dim(study.nested.sentence)]
    if study.warnings:
        parts += [Text(), *(warning_line(text) for text in study.warnings)]
    if study.checked:
        parts += [Text(), findings_block(study.findings)]
    return Group(*parts)


def findings_block(findings: Sequence[Any]) -> RenderableType:
    """Draw what checks found: alarms with all that is known of them, the first hints in a sentence each."""
    from foldwise.checks.telling import heading, hint_of, said_hints, sentences, summary

    parts: list[RenderableType] = []
    for finding in findings:
        if finding.alarm:
            head, (first, *more) = heading(finding), sentences(finding)
            line = Text(visible(head), style="bold yellow")
            parts.append(line.append(visible(first.removeprefix(head)), style="default not bold"))
            parts += [Padding(shown(text), (0, 0, 0, 2)) for text in more]
    hints, rest = said_hints(findings)
    parts += [_dim(hint_of(finding)) for finding in hints]
    return Group(*parts, *([_dim(rest)] if rest else []), _dim(summary(findings)))


def beliefs(study: Any) -> list[str]:
    """Say how far to believe the result, a line each: what was luck, what to add, how probabilities are corrected."""
    said = [study.luck_sentence] if study.luck is not None else []
    said += [study.variance_sentence] if study.variance_sentence else []
    corrected = study.calibration is not None and study.calibration.method != "none"
    return [*said, *([study.calibration.sentence] if corrected else [])]


def warning_line(text: str) -> Text:
    """Write one warning, marked as such also without color."""
    return Text("warning: ", style="yellow").append(visible(text), style="default")


def leaderboard_table(study: Any, width: int) -> RenderableType:
    """Draw the best trials of a study and its baselines, ties marked."""
    from foldwise.judge.verdict import (
        decimals,
    )  # here, because it costs seconds (torch) that an error must not

    rows = list(study.leaderboard.iter_rows(named=True))
    baselines = _baselines(rows)
    drawn = [row for row in rows if row["place"] <= LEADERS or row in baselines]
    digits = decimals(*(drawn[0][name] for name in ("score", "low", "high")))
    table = _table(
        ("trial", _RIGHT),
        ("network", {}),
        (f"{study.metric_label} (95 %)", _RIGHT),
        ("epoch", _RIGHT),
        gap=1 if width < WIDE else 2,
    )
    for row in drawn:
        table.add_row(*_trial(row, digits), style="bold" if row["place"] == 1 else "")
    notes = ["≈ not distinguishable from the first"] if any(row["tied"] for row in drawn) else []
    notes += ["◂ the simplest of these, recommended"] if any(_simpler(row) for row in drawn) else []
    rest = len(rows) - len(drawn)
    notes += [f"{_plural(rest, 'more trial')} in the report"] if rest else []
    return Group(table, *map(_dim, notes))


def _baselines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Find the best trial of each baseline."""
    best = (next((row for row in rows if row["name"].partition(",")[0] == name), None) for name in BASELINES)
    return [row for row in best if row is not None]


def _trial(row: dict[str, Any], digits: int) -> list[Text]:
    name = shown(row["name"])
    if row["status"] != "finished":
        unharmed = row["status"].startswith(("halving", "budget", "stopped early"))
        name.append(f"  {visible(row['status'])}", style="dim" if unharmed else "yellow")
    if _simpler(row):
        name.append(" ◂")
    score, low, high = (fixed(row[name], digits) for name in ("score", "low", "high"))
    return [
        Text(f"{row['trial']}{'≈' if row['tied'] else ' '}"),
        name,
        Text(score if low == "–" else f"{score} ({low}–{high})"),
        Text(fixed(row["epoch"], 0)),
    ]


def _simpler(row: dict[str, Any]) -> bool:
    return bool(row.get("recommended")) and row["place"] > 1


def places(study: Any) -> list[Text]:
    """Say where the run is, what made it and how to go on: a line each."""
    predict = f"foldwise predict {shlex.quote(str(study.folder))} NEW.csv"
    facts = [("run", str(study.folder)), ("command", study.command), ("predict", predict)]
    if study.resumable:
        facts.append(("go on", how_to_resume(study.folder)))
    return [
        _dim(f"{label:<{LABEL_WIDTH + 2}}").append(visible(fact), style="not dim") for label, fact in facts
    ]


def how_to_resume(folder: Any) -> str:
    """Write the command that goes on with a run.

    >>> how_to_resume("runs/my table")
    "foldwise resume 'runs/my table'"
    """
    return f"foldwise resume {shlex.quote(str(folder))}"


# A replay


def replay_table(replayed: Any) -> RenderableType:
    """Draw how far a stacked member is from its twin that was trained alone."""
    numbers = [(name, _RIGHT) for name in ("stacked", "alone", "largest difference", "by rounding")]
    table = _table(("root mean square of", {}), *numbers)
    for row in replayed.rows:
        table.add_row(
            row.what, f"{row.stacked:.7g}", f"{row.alone:.7g}", f"{row.difference:.1e}", f"{row.rounding:.1e}"
        )
    return table


def final_table(final: Any) -> RenderableType:
    """Draw what the ensemble and the refit cost, and what they score on test rows where these were opened."""
    wide = ("networks", "weights", "size", "1 row", "1000 rows")
    tested = any(c.test is not None for c in (final.ensemble, final.refit))
    table = _table(("model", {}), *((name, _RIGHT) for name in [*wide, *(["test"] if tested else [])]))
    for c in (final.ensemble, final.refit):
        cells = [f"{c.networks}", f"{c.parameters:,}", f"{c.bytes / 1000:,.1f} kB"]
        cells += [f"{c.one_row_ms:.2g} ms", f"{c.thousand_rows_ms:.2g} ms"]
        table.add_row(c.model, *cells, *(["–" if c.test is None else f"{c.test:.4g}"] if tested else []))
    return table


# An answer


def answer_table(answer: Any, most: int = 40) -> RenderableType:
    """Draw the table of an answer; of a long one the first lines, which are those that matter most.

    Of rows that were left out, those that hurt beyond the noise: the others say nothing but that they do not.
    """
    rows = answer.table
    if answer.question == "leave_one_out":
        rows = rows.filter(rows["beyond_noise"] & (rows["harm"] > 0)).drop("beyond_noise")
    table = _table(*((name.replace("_", " "), _RIGHT) for name in rows.columns))
    for row in rows.head(most).iter_rows():
        table.add_row(*(_value(cell) for cell in row))
    rest = answer.table.height - min(most, rows.height)
    parts = [table] if rows.height else [_dim("no row hurts beyond the noise")]
    return Group(*parts, *([_dim(f"{rest:,} more in the run folder")] if rest else []))


def _value(cell: Any) -> Text:
    if isinstance(cell, bool):
        return shown("yes" if cell else "no")
    return shown(number(cell) if isinstance(cell, float) else "–" if cell is None else cell)


# Cells


def visible(text: object) -> str:
    r"""Write text from a file so that nothing in it acts on the terminal.

    >>> visible("price"), visible("a\x1b[2J\nb")
    ('price', 'a\\x1b[2J\\nb')
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def shown(text: object, style: str = "") -> Text:
    """Make a cell of text from a file: never read as markup, never a control sequence."""
    return Text(visible(text), style=style)


def plus_minus(mean: float, spread: float) -> str:
    """Write a mean with its spread, both to the spread's second significant digit.

    >>> plus_minus(0.98312, 0.01695), plus_minus(1234.5, 67.0), plus_minus(0.5, 0.0)
    ('0.983 ± 0.017', '1,234 ± 67', '0.5')
    """
    if not math.isfinite(spread) or spread <= 0:
        return number(mean)
    digits = min(6, max(0, 1 - math.floor(math.log10(spread))))
    return f"{fixed(mean, digits)} ± {fixed(spread, digits)}"


def number(value: float | None) -> str:
    """Write a score with four significant digits, a dash when there is none.

    >>> number(0.12841), number(12345.6), number(97.0), number(float("nan"))
    ('0.1284', '12,346', '97', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def fixed(value: float | None, digits: int) -> str:
    """Write a value with so many decimals, a dash when there is none.

    >>> fixed(1234.5, 1), fixed(None, 2)
    ('1,234.5', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Write a time with the two units that matter.

    >>> duration(0.42), duration(43), duration(125), duration(7300)
    ('0.4 s', '43 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def size_of(size: float) -> str:
    """Write a number of bytes.

    >>> size_of(900), size_of(1_234_000), size_of(3.2e9)
    ('1 kB', '1 MB', '3.2 GB')
    """
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


_RIGHT: Final[dict[str, Any]] = {"justify": "right", "no_wrap": True}


def _table(*columns: tuple[str, dict[str, Any]], gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for header, options in columns:
        table.add_column(shown(header), **options)
    return table


def _facts(facts: Iterable[tuple[str, str | RenderableType]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=LABEL_WIDTH)
    grid.add_column()
    for label, fact in facts:
        grid.add_row(label, shown(fact) if isinstance(fact, str) else fact)
    return grid


def _bold(text: object) -> Text:
    return shown(text, "bold")


def _dim(text: object) -> Text:
    return shown(text, "dim")


def _count(value: int) -> Text:
    return Text(f"{value:,}") if value else _dim("–")


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
