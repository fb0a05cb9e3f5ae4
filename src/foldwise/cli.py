"""The command line: thin, and it starts without torch.

Data goes to stdout and talk to stderr. Exit codes: 0 clean, 1 the run found something that must be looked at,
2 it could not run, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import ast
import errno
import os
import shlex
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from foldwise import cli_ask, cli_checks
from foldwise.arguments import (
    LOADED,
    OWN,
    READ,
    free_folder,
    nothing_left_empty,
    one_source,
    read_given,
    read_separator,
    refuse_idle_remedies,
    run_name,
    with_values,
)
from foldwise.errors import DataError, FoldwiseError

if TYPE_CHECKING:
    import polars as pl

    from foldwise.study import Study
    from foldwise.terminal import Display

CLEAN: Final = 0
LOOK_AT_IT: Final = 1
COULD_NOT_RUN: Final = 2
INTERRUPTED: Final = 130

app = typer.Typer(
    name="foldwise",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: every problem that can be explained is, without a traceback."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=with_values(typed), prog_name="foldwise", obj=shlex.join(["foldwise", *typed]))
    except FoldwiseError as problem:
        fail(problem.problem, problem.hint)
    except MemoryError:
        fail(
            "there is not enough memory for this.",
            "train fewer members at once: fewer trials, folds or seeds",
        )
    except OSError as problem:
        fail(*explained(problem))
    except Exception:
        traceback.print_exc()
        fail("foldwise broke; the lines above say where.", "this is a fault in foldwise: please report it")
    sys.exit(CLEAN)


def fail(problem: str, hint: str) -> NoReturn:
    """Print what went wrong and what to do about it, and exit."""
    from rich.text import Text

    from foldwise.terminal import talk, visible

    console = talk()
    for label, style, text in (("error", "bold red", problem), ("hint", "cyan", hint)):
        lines = "\n".join(visible(line) for line in text.splitlines())
        if lines:
            console.print(Text(f"{label}: ", style=style).append(lines, style="default"), soft_wrap=True)
    sys.exit(COULD_NOT_RUN)


def write_data(text: str) -> None:
    """Write data to stdout, in UTF-8 wherever it goes; a reader that has read enough (head) is no problem."""
    try:
        sys.stdout.buffer.write(text.encode(errors="surrogateescape"))  # a path keeps its bytes
        sys.stdout.flush()
    except OSError as problem:
        # What is still in the buffer would fail once more, at exit, and with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError):
            raise


def explained(problem: OSError) -> tuple[str, str]:
    """Say what the operating system refused, and what helps.

    >>> explained(OSError(28, "No space left on device", "runs/a"))
    ('`runs/a`: no space left on device.', 'free some space, or write elsewhere with --out')
    """
    place = f"`{problem.filename}`: " if problem.filename else ""
    reason = (problem.strerror or str(problem) or type(problem).__name__).rstrip(".")
    hints = {
        errno.ENOSPC: "free some space, or write elsewhere with --out",
        errno.EDQUOT: "free some space, or write elsewhere with --out",
        errno.EROFS: "write elsewhere with --out",
        errno.EACCES: "check who may read and write there, or choose another place",
        errno.EPERM: "check who may read and write there, or choose another place",
        errno.ENOENT: "check the path",
    }
    return f"{place}{reason[:1].lower()}{reason[1:]}.", hints.get(problem.errno or 0, "")


def default_of(name: str) -> str:
    """Read the default of a parameter of `foldwise.fit` for the help text; empty when there is none to show.

    Its source is parsed, not imported, because importing it costs seconds (torch), and writing the default
    here once more would be a second truth.

    >>> default_of("folds"), default_of("seed"), default_of("target")
    ('5', '0', '')
    """
    default = FIT_DEFAULTS[name]
    return str(default) if isinstance(default, int | float | str) and not isinstance(default, bool) else ""


def _fit_defaults() -> dict[str, Any]:
    tree = ast.parse(Path(__file__).with_name("fitting.py").read_text(encoding="utf-8"))
    fit = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "fit")
    pairs = zip(fit.args.kwonlyargs, fit.args.kw_defaults, strict=True)
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs if default is not None}


FIT_DEFAULTS: Final = _fit_defaults()

# fit

TABLE: Final = "The table"
VALIDATION: Final = "Validation"
TRAINING: Final = "Training"
RUN: Final = "The run"


def option(*names: str, says: str, panel: str, of: str = "", **more: Any) -> Any:
    """Declare an option of `fit`; the default shown is that of the parameter `of` of `foldwise.fit`."""
    default = f" [dim]\\[default: {default_of(of)}][/dim]" if of else ""
    return typer.Option(*names, help=says + default, rich_help_panel=panel, show_default=False, **more)


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Argument(help="The table: .csv, .tsv, .txt, .data (also .gz), .parquet, .arrow, .feather."),
    ] = None,
    target: Annotated[
        list[str] | None, option("--target", "-t", says="Column to predict; repeat for several.", panel=TABLE)
    ] = None,
    example: Annotated[
        str | None,
        option(
            "--example",
            says="Built-in table instead: digits, breast_cancer, diabetes, wine or iris.",
            panel=TABLE,
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        option(
            "--column",
            metavar="NAME=KIND",
            says="Say what a column is: number, category, date or drop; repeat for several.",
            panel=TABLE,
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        option("--drop", metavar="NAME", says="Set a column aside; repeat for several.", panel=TABLE),
    ] = None,
    missing: Annotated[
        list[str] | None,
        option(
            "--missing",
            metavar="[COLUMN=]VALUE",
            says="Read a value as a missing cell, in one column or in all; repeat for several.",
            panel=TABLE,
        ),
    ] = None,
    drop_missing_targets: Annotated[
        bool | None,
        option(
            "--drop-missing-targets",
            says="Set rows aside whose target is missing, instead of stopping.",
            panel=TABLE,
        ),
    ] = None,
    separator: Annotated[
        str | None,
        option("--separator", says="What separates cells in a text file, e.g. ';' or 'tab'.", panel=TABLE),
    ] = None,
    encoding: Annotated[
        str | None, option("--encoding", says="Encoding of a text file, e.g. latin-1.", panel=TABLE)
    ] = None,
    header: Annotated[
        bool | None,
        option(
            "--header/--no-header",
            says="Whether the first line of a text file holds names; found out if not given.",
            panel=TABLE,
        ),
    ] = None,
    folds: Annotated[
        str | None,
        option(
            "--folds",
            metavar="N|loo",
            says="Number of folds; loo leaves one row out at a time; FILE.py:NAME is a splitter.",
            of="folds",
            panel=VALIDATION,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        option(
            "--repeats", says="Cross-validations, each with its own folds.", of="repeats", panel=VALIDATION
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        option(
            "--seeds", says="Networks with different seeds per trial and fold.", of="seeds", panel=VALIDATION
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        option(
            "--holdout",
            metavar="SHARE",
            says="Validate on one random share of the rows instead of folds.",
            panel=VALIDATION,
        ),
    ] = None,
    nested: Annotated[
        str | None,
        option(
            "--nested",
            metavar="[N]",
            says="Choose trial and epoch for each fold by N folds inside it (5 if N is left out), and score that.",
            panel=VALIDATION,
        ),
    ] = None,
    test: Annotated[
        float | None,
        option(
            "--test",
            metavar="SHARE",
            says="Seal this share of the rows away before anything is learned; see open-test.",
            panel=VALIDATION,
        ),
    ] = None,
    groups: Annotated[
        str | None,
        option("--groups", metavar="COLUMN", says="Keep rows of one group in one fold.", panel=VALIDATION),
    ] = None,
    time: Annotated[
        str | None,
        option(
            "--time",
            metavar="COLUMN",
            says="Learn from earlier rows, validate on later ones.",
            panel=VALIDATION,
        ),
    ] = None,
    fold_column: Annotated[
        str | None,
        option(
            "--fold-column", metavar="COLUMN", says="Take the fold of each row from here.", panel=VALIDATION
        ),
    ] = None,
    weights: Annotated[
        str | None,
        option(
            "--weights",
            metavar="COLUMN",
            says="How much each row counts, in training and in scores: 0 not at all, 2 as two rows.",
            panel=TRAINING,
        ),
    ] = None,
    class_weights: Annotated[
        list[str] | None,
        option(
            "--class-weights",
            metavar="balanced|CLASS=WEIGHT",
            says="How much the rows of a class count, in training and in scores; repeat for each class.",
            panel=TRAINING,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        option(
            "--metric", says="What trials are compared by; chosen by the task if not given.", panel=VALIDATION
        ),
    ] = None,
    task: Annotated[
        str | None,
        option(
            "--task",
            says="regression, binary, multiclass or multilabel; read from the target if not given.",
            panel=TRAINING,
        ),
    ] = None,
    log_target: Annotated[
        bool | None,
        option(
            "--log-target/--no-log-target",
            says="Learn the logarithm of the target; decided by its skewness if not given.",
            panel=TRAINING,
        ),
    ] = None,
    search: Annotated[
        Path | None,
        option(
            "--search",
            metavar="FILE",
            says="Settings to try, .json or .toml: a value, a list of values or a range each.",
            panel=TRAINING,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        option(
            "--trials",
            metavar="N",
            says="How many to draw from the search; 32 if it has ranges, else all combinations.",
            panel=TRAINING,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        option(
            "--sampler",
            says="How trials are drawn: latin, random, sobol, or tpe, gp, cmaes, which learn from those before.",
            of="sampler",
            panel=TRAINING,
        ),
    ] = None,
    halving: Annotated[
        int | None,
        option(
            "--halving",
            metavar="N",
            says="Stop the worse trials on the way: the best 1 in N goes on each time.",
            panel=TRAINING,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        option(
            "--budget",
            metavar="'2000 epochs'",
            says="What the search may spend: epochs of members, members, or minutes; several with commas.",
            panel=TRAINING,
        ),
    ] = None,
    places: Annotated[
        int | None,
        option(
            "--places",
            metavar="N",
            says="How many trials train at a time; all if not given, fewer with a sampler that learns.",
            panel=TRAINING,
        ),
    ] = None,
    net: Annotated[
        str | None,
        option("--net", metavar="FILE.py:NAME", says="A network of your own.", panel=TRAINING),
    ] = None,
    loss: Annotated[
        str | None,
        option(
            "--loss",
            metavar="NAME|FILE.py:NAME",
            says="What is minimized where the search does not say: a loss by name, or a function of your own.",
            panel=TRAINING,
        ),
    ] = None,
    links: Annotated[
        list[str] | None,
        option(
            "--link",
            metavar="FILE.py:NAME",
            says="A part of your own that joins each step; repeat for several.",
            panel=TRAINING,
        ),
    ] = None,
    device: Annotated[
        str | None, option("--device", says="auto, cpu, cuda, cuda:1 …", of="device", panel=TRAINING)
    ] = None,
    engine: Annotated[
        str | None,
        option(
            "--engine",
            says="auto, resident (compiled, for networks of known layers on a processor) or stacked.",
            of="engine",
            panel=TRAINING,
        ),
    ] = None,
    dtype: Annotated[
        str | None, option("--dtype", says="float32 or float64.", of="dtype", panel=TRAINING)
    ] = None,
    compile: Annotated[  # noqa: A002
        str | None,
        option(
            "--compile",
            says="Compile the steps: auto (where it repays), on or off.",
            of="compile",
            panel=TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int | None, option("--seed", says="Same seed, same study.", of="seed", panel=TRAINING)
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            metavar="FOLDER",
            says="Run folder; runs/NAME of the table if not given.",
            panel=RUN,
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", says="Replace the run that is in the folder.", panel=RUN)
    ] = False,
    checkpoint: Annotated[
        bool | None,
        option(
            "--checkpoint/--no-checkpoint",
            says="Store now and then what resume needs to go on; done if not given.",
            panel=RUN,
        ),
    ] = None,
    checks: Annotated[
        str | None,
        option("--checks", metavar="on|off", says="Look for faults; on if not given.", panel=RUN),
    ] = None,
    remedies: Annotated[
        str | None,
        option("--remedies", metavar="on|off", says="Try what may cure a fault; on if not given.", panel=RUN),
    ] = None,
    quiet: Annotated[
        bool, option("--quiet", "-q", says="Say nothing but warnings and errors.", panel=RUN)
    ] = False,
) -> None:
    """Cross-validate networks on a table: every fold, setting and seed at once.

    Prints the path of the report. Exits with 1 when there are warnings, such as members that diverged, or findings.

    [bold]Examples[/bold]

    \b
    foldwise fit train.csv --target price
    foldwise fit train.parquet --target price --folds 10 --seeds 3 --test 0.2
    foldwise fit hourly.csv --target rented --time hour --drop registered
    foldwise fit visits.csv --target ill --groups patient --column code=category
    foldwise fit visits.csv --target ill --class-weights balanced
    foldwise fit visits.csv --target ill --missing income=-999 --missing unknown
    foldwise fit visits.csv --target ill --search settings.json --nested
    foldwise fit --example digits --search settings.json --trials 64 --halving 3
    foldwise fit --example digits --search settings.json --sampler tpe --budget '10 minutes'
    foldwise fit train.csv --target price --net nets.py:MyNet --loss huber
    """
    given = {name: value for name, value in context.params.items() if value not in (None, [], ())}
    del given["quiet"]
    refuse_idle_remedies(given)
    given |= read_given(given, READ)
    source = one_source(data, example)
    given["out"] = folder = out or free_folder(Path("runs") / run_name(source))
    with nothing_left_empty(folder), watching(f"{source} → {folder}", quiet) as display:
        import foldwise

        given |= read_given(given, OWN)
        study = foldwise.fit(**given, display=display, command=context.obj)
    end(study, quiet)


def end(study: Study, quiet: bool) -> NoReturn:
    """Say what a quiet display has not said, print the path of the report, and exit."""
    if quiet:
        warn([*study.warnings, *(str(finding) for finding in study.findings if finding.alarm)])
    if quiet and study.resumable:
        from foldwise.terminal import how_to_resume, talk

        talk().print(f"{how_to_resume(study.folder)} goes on", soft_wrap=True)
    if study.report_path is not None:
        write_data(f"{study.report_path}\n")
    look = study.warnings or any(finding.alarm for finding in study.findings)
    raise typer.Exit(INTERRUPTED if study.interrupted else LOOK_AT_IT if look else CLEAN)


@contextmanager
def watching(title: str, quiet: bool) -> Iterator[Display]:
    """Open the display of a study; a quiet one says nothing."""
    from foldwise.terminal import QuietDisplay, TerminalDisplay, shown, talk

    if quiet:
        yield QuietDisplay()
        return
    console = talk()
    # Importing torch takes a moment: say at once that the command was understood.
    console.print(shown(f"foldwise {version('foldwise')} · {title}", "dim"), soft_wrap=True)
    with TerminalDisplay(console) as display:
        yield display


def warn(warnings: Sequence[str]) -> None:
    """Print warnings."""
    from foldwise.terminal import talk, warning_line

    for warning in warnings:
        talk().print(warning_line(warning), soft_wrap=True)


# What is done with a run


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, as printed by fit.", show_default=False)
]


MovedTable = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="The table, if it is no longer where fit found it."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]


OwnNet = Annotated[
    str | None,
    typer.Option(
        "--net",
        metavar="FILE.py:NAME",
        help="The network of your own, when the run used one.",
        show_default=False,
    ),
]
OwnLoss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="FILE.py:NAME",
        help="The loss of your own, when the run used one.",
        show_default=False,
    ),
]
OwnLinks = Annotated[
    list[str] | None,
    typer.Option(
        "--link",
        metavar="FILE.py:NAME",
        help="A link of your own that the run used; repeat for several, in their order.",
        show_default=False,
    ),
]


Model = Annotated[
    str,
    typer.Option(
        "--model", help="ensemble: of the fold members; refit: trained on all rows by foldwise refit."
    ),
]


def load(run: Path, **own: Any) -> Study:
    """Read a run, with what is the user's own."""
    import foldwise

    given = {name: value for name, value in own.items() if value}
    return foldwise.load(run, **read_given(given, LOADED))


@app.command()
def resume(
    run: RunFolder,
    data: MovedTable = None,
    net: OwnNet = None,
    loss: OwnLoss = None,
    links: OwnLinks = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was killed or interrupted, and finish it as fit would have.

    On the same machine the result is the same, bit for bit. Prints the path of the report, and exits like fit.

    [bold]Examples[/bold]

    \b
    foldwise resume runs/train
    foldwise resume runs/train --data ~/tables/train.csv
    foldwise resume runs/own --net nets.py:MyNet
    """
    with watching(f"{run} goes on", quiet) as display:
        import foldwise

        own = {name: value for name, value in {"net": net, "loss": loss, "links": links}.items() if value}
        study = foldwise.resume(run, data, **read_given(own, LOADED), display=display)
    end(study, quiet)


@app.command()
def predict(
    run: RunFolder,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Table with the columns that training had.")],
    trial: Annotated[
        int | None,
        typer.Option(
            "--trial", help="Trial to predict with, as numbered in the leaderboard; else the winner."
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            metavar="SHARE",
            help="Add what holds the truth in this share of rows, such as 0.9: low and high, or a set of classes.",
            show_default=False,
        ),
    ] = None,
    calibrated: Annotated[
        bool | None,
        typer.Option(
            "--calibrated/--not-calibrated",
            help="Whether probabilities are corrected where that helped; they are if not given.",
            show_default=False,
        ),
    ] = None,
    model: Model = "ensemble",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to write, .csv or .parquet; else stdout."),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option("--separator", help="What separates cells in a text file, if not as in training."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Encoding of a text file, if not as in training.")
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line of a text file holds names."),
    ] = None,
    net: OwnNet = None,
) -> None:
    """Predict the rows of a table with the networks of a run: those of the winner, or of another trial.

    Columns: row (from 0, without the header), the table's identifier if it has one, prediction, for classes a
    probability of each, spread (the deviation between networks), with --interval also low and high, or set.

    [bold]Examples[/bold]

    \b
    foldwise predict runs/train new.csv -o predictions.csv
    foldwise predict runs/train new.parquet | head
    foldwise predict runs/train new.csv --interval 0.9
    foldwise predict runs/train new.csv --model refit
    foldwise predict runs/train new.csv --separator ';' --encoding latin-1
    foldwise predict runs/own new.csv --net nets.py:MyNet
    """
    if out is not None and out.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"`{out}`: predictions are written as .csv or .parquet.", hint="-o predictions.csv")
    if out is not None and out.exists() and out.samefile(new):
        raise DataError(
            f"`{out}` is the table to predict, and would be overwritten.", hint="-o predictions.csv"
        )
    from foldwise.store.files import write_atomically
    from foldwise.terminal import shown, talk

    separator = None if separator is None else read_separator(separator)
    study = load(run, net=net)
    from foldwise.prediction import numbered, read_new

    frame = read_new(study, new, separator=separator, encoding=encoding, header=header)
    asked: dict[str, Any] = {"interval": interval, "calibrated": calibrated}
    given = {name: value for name, value in asked.items() if value is not None}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        table = numbered(study, frame, study.predict(frame, trial, model=model, **given))
    warn([str(warning.message) for warning in said])
    number = study.refitted.trial if model == "refit" and study.refitted is not None else trial
    chosen = study.results[0] if number is None else next(r for r in study.results if r.number == number)
    if talk().is_terminal:
        talk().print(shown(f"predicted by trial {chosen.number}: {chosen.name}", "dim"), soft_wrap=True)
    if out is None or out.suffix.lower() == ".csv":
        table = without_lists(table)
    if out is None:
        write_data(table.write_csv())
    else:
        write_atomically(out, table.write_csv if out.suffix.lower() == ".csv" else table.write_parquet)


def without_lists(table: pl.DataFrame) -> pl.DataFrame:
    """Write sets of classes as text, `a | b`, for files that have no lists."""
    import polars as pl

    lists = [name for name, kind in table.schema.items() if isinstance(kind, pl.List)]
    return table.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(" | ") for name in lists)


@app.command()
def report(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where to write; report.html of the run if not given."
        ),
    ] = None,
) -> None:
    """Write the report of a run again and print its path.

    [bold]Examples[/bold]

    \b
    foldwise report runs/train
    foldwise report runs/train -o ~/page.html
    """
    import foldwise

    write_data(f"{foldwise.load(run).report(out)}\n")


@app.command()
def refit(
    run: RunFolder,
    seeds: Annotated[
        int, typer.Option("--seeds", help="Networks to train, each with a seed of its own.")
    ] = 3,
    trial: Annotated[
        int | None,
        typer.Option("--trial", help="Trial to train, as numbered in the leaderboard; else the winner."),
    ] = None,
    data: MovedTable = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda …")] = "auto",
    net: OwnNet = None,
    loss: OwnLoss = None,
    links: OwnLinks = None,
    quiet: Quiet = False,
) -> None:
    """Train the winner anew on all rows, and compare it with the ensemble of its fold members.

    The new networks are kept in the run folder; --model refit predicts with them.

    [bold]Examples[/bold]

    \b
    foldwise refit runs/train
    foldwise refit runs/train --seeds 5 --trial 7
    foldwise predict runs/train new.csv --model refit
    """
    with watching(f"{run} on all rows", quiet) as display:
        study = load(run, net=net, loss=loss, links=links)
        study.refit(seeds, trial, data, device=device, display=display)
    from foldwise.terminal import data_console, final_table

    assert study.final is not None
    data_console().print(final_table(study.final))
    write_data(f"{study.final.sentence}\n")


@app.command()
def open_test(run: RunFolder, model: Model = "ensemble", net: OwnNet = None) -> None:
    """Score a run on its sealed test rows, and record that they were opened.

    The first opening is the honest one. From the second on, the exit code is 1: choices made after seeing the
    test score make it too good.

    [bold]Examples[/bold]

    \b
    foldwise open-test runs/train
    foldwise open-test runs/train --model refit
    """
    opening = load(run, net=net).open_test(model)
    write_data(f"{opening.sentence}\n")
    raise typer.Exit(LOOK_AT_IT if opening.times_opened > 1 else CLEAN)


@app.command()
def replay(
    run: RunFolder,
    trial: Annotated[int, typer.Option("--trial", help="Trial, as numbered in the leaderboard.")],
    fold: Annotated[int, typer.Option("--fold", help="Fold, as numbered in the report.")],
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the member; the first of the study if not given.")
    ] = None,
    data: MovedTable = None,
    net: OwnNet = None,
    loss: OwnLoss = None,
    links: OwnLinks = None,
) -> None:
    """Train one member alone, in plain PyTorch, and show how far it is from its twin in the stack.

    The member is also trained alone in double precision: what changes by that is what rounding does. The exit
    code is 1 when the stacked member is more than ten times as far from the plain one.

    [bold]Example[/bold]

    \b
    foldwise replay runs/train --trial 3 --fold 2
    """
    from foldwise.terminal import data_console, replay_table, shown, talk

    replayed = load(run, net=net, loss=loss, links=links).replay(trial, fold, seed, data)
    member = f"{replayed.trial} · fold {replayed.fold} · seed {replayed.seed} · {replayed.epochs} epochs"
    talk().print(shown(member, "dim"), soft_wrap=True)
    data_console().print(replay_table(replayed))
    talk().print(shown(replayed.sentence), soft_wrap=True)
    raise typer.Exit(CLEAN if replayed.matches else LOOK_AT_IT)


OfRun = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="The table, if it is no longer where fit found it."),
]
OfTrial = Annotated[
    int | None,
    typer.Option(
        "--trial", help="Trial that is asked about, as numbered in the leaderboard; else the winner."
    ),
]
app.add_typer(
    cli_ask.group(
        RunFolder, {"trial": OfTrial, "data": OfRun, "net": OwnNet, "loss": OwnLoss, "links": OwnLinks}
    ),
    name="ask",
)


@app.command()
def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="A check; else all are listed.")
    ] = None,
) -> None:
    """Say what a check looks for, why it hurts, how sure it is and what to try.

    [bold]Examples[/bold]

    \b
    foldwise explain
    foldwise explain dead-units
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    write_data(cli_checks.listing(width) if code is None else cli_checks.told(code))


def check(context: typer.Context, **typed: Any) -> None:
    """Look for faults before anything is trained: in the table, the folds, the network and its loss.

    Takes seconds, and prints what it finds. Exits with 1 when something is wrong.

    [bold]Examples[/bold]

    \b
    foldwise check my_module.py:Net --data train.csv --target y
    foldwise check --data visits.csv --target ill --groups patient
    """
    given = {name: value for name, value in typed.items() if value not in (None, [], ())}
    given |= read_given(given, READ)
    if "data" not in given and "example" not in given:
        raise DataError(
            "there is nothing to check.", hint="foldwise check NET.py:Net --data train.csv --target y"
        )
    one_source(given.get("data"), given.get("example"))
    from foldwise.terminal import data_console, findings_block, shown, talk

    # Importing torch takes a moment: say at once what is being done.
    checked = (
        f"{given.get('data') or given.get('example')}{f' and {net}' if (net := given.get('net')) else ''}"
    )
    said = f"foldwise {version('foldwise')} · checks {checked} before training; this takes some seconds …"
    talk().print(shown(said, "dim"), soft_wrap=True)
    given |= read_given(given, OWN)
    import foldwise

    findings = foldwise.check(**given)
    data_console().print(findings_block(findings))
    raise typer.Exit(LOOK_AT_IT if any(finding.alarm for finding in findings) else CLEAN)


cli_checks.take_options(check, of=fit)
app.command()(check)


@app.command()
def warm_up() -> None:
    """Compile ahead what a first study would wait for: about half a minute for each number type.

    Foldwise compiles its engine for the processor at hand, once: in the first study with float32 and the first with
    float64, or now for both.

    [bold]Example[/bold]

    \b
    foldwise warm-up
    """
    import time

    import foldwise
    from foldwise.terminal import Display, shown, talk

    for dtype in ("float32", "float64"):
        started = time.perf_counter()
        talk().print(shown(f"compiling for {dtype} …", "dim"), soft_wrap=True)
        small = {"width": 4, "epochs": 1}
        foldwise.fit(example="iris", search=small, folds=2, dtype=dtype, device="cpu", display=Display())
        talk().print(shown(f"ready after {time.perf_counter() - started:.0f} s"), soft_wrap=True)


def _version(asked: bool) -> None:
    if asked:
        print(f"foldwise {version('foldwise')}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train every fold, setting and seed of a network at once, and learn whether to believe the result.

    Exit codes: 0 clean, 1 something must be looked at, 2 could not run, 130 stopped by Ctrl-C.

    [bold]Examples[/bold]

    \b
    foldwise fit train.csv --target price
    foldwise resume runs/train
    foldwise predict runs/train new.csv -o predictions.csv
    foldwise fit --example digits
    """
