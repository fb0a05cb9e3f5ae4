"""`foldwise ask`: a command for each question, with the options and the help of its function.

They are read from the source of the questions, not imported, because importing them costs seconds (torch).
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from foldwise.arguments import LOADED, read_given
from foldwise.errors import SettingsError, did_you_mean
from foldwise.questions import QUESTIONS

KINDS: Final = {"int": int, "float": float, "int | None": int}
HELP: Final = {"help_option_names": ["-h", "--help"]}
LISTS: Final = ("Sequence[float]", "Sequence[float] | None")


@dataclass(frozen=True)
class Option:
    """An option as its function declares it."""

    name: str
    kind: str
    default: str
    says: str

    @property
    def parameter(self) -> inspect.Parameter:
        """Declare it to typer; not given, it is None, and the function's own default holds."""
        default = f" [dim]\\[default: {self.default}][/dim]" if self.default not in ("None", "") else ""
        kind = str if self.kind in LISTS else KINDS[self.kind]
        flag = "--" + self.name.replace("_", "-")
        metavar = "N,N,…" if self.kind in LISTS else None
        option = typer.Option(flag, help=self.says + default, metavar=metavar, show_default=False)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, option],
        )

    def read(self, typed: Any) -> Any:
        """Read what was typed: numbers separated by commas, whole ones as whole numbers."""
        if self.kind not in LISTS:
            return typed
        try:
            return [float(x) if re.search(r"[.eE]", x) else int(x) for x in str(typed).split(",")]
        except ValueError:
            raise SettingsError(
                f"`--{self.name}` takes numbers separated by commas; got `{typed}`.",
                hint=f"--{self.name} 0.1,0.5,1.0",
            ) from None


def declared(question: str) -> tuple[str, list[Option]]:
    """Read what a question does, and its options.

    >>> does, options = declared("seeds")
    >>> does.partition(":")[0], [(o.name, o.kind, o.default) for o in options]
    ('Train the same settings on the same folds with many seeds', [('seeds', 'int', '10')])
    """
    source = (Path(__file__).with_name("questions") / f"{question}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    answer = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "answer")
    does, _, rest = (ast.get_docstring(answer) or "").partition("\nArgs:\n")
    said = dict(re.findall(r"^ {4}(\w+): (.*)$", rest, re.MULTILINE))
    constants = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    pairs = zip(answer.args.kwonlyargs, answer.args.kw_defaults, strict=True)
    return does.strip(), [
        Option(a.arg, ast.unparse(a.annotation), _default(default, constants), said[a.arg])
        for a, default in pairs
        if a.annotation is not None
    ]


def _default(default: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    if isinstance(default, ast.Name):
        default = constants[default.id]
    value = None if default is None else ast.literal_eval(default)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def command_of(
    question: str, run: Callable[..., None], always: dict[str, Any]
) -> tuple[Callable[..., None], str]:
    """Make the function of a command for typer, and its help; `run` is called with what was typed."""
    does, options = declared(question)

    def command(context: typer.Context, **typed: Any) -> None:
        given = {name: value for name, value in typed.items() if value not in (None, [])}
        own = {o.name: o.read(given[o.name]) for o in options if o.name in given}
        run(context, question, own, {name: given[name] for name in always if name in given})

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in always.items()
    ]
    parameters = [context, *(o.parameter for o in options), *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command, does.replace("[", r"\[")


def run(context: typer.Context, question: str, options: dict[str, Any], given: dict[str, Any]) -> None:
    """Ask, print the table to stdout and the rest to stderr; exit 1 when it is something to be looked at."""
    from foldwise.terminal import TerminalDisplay, answer_table, data_console, shown, talk

    assert context.parent is not None, "a question is a command of `ask`, which reads the run"
    folder: Path = context.parent.params["run"]
    asked = f"{folder} · {question.replace('_', ' ')}"
    talk().print(shown(asked, "dim"), soft_wrap=True)
    import foldwise

    own = {name: value for name, value in given.items() if name in LOADED}
    study = foldwise.load(folder, **read_given(own, LOADED))
    with TerminalDisplay(talk()) as display:
        answer = study.ask(question, given.get("trial"), given.get("data"), display=display, **options)
    data_console().print(answer_table(answer))
    for text, style in ((answer.sentence, ""), (answer.how, "dim")):
        talk().print(shown(text, style), soft_wrap=True)
    raise typer.Exit(1 if answer.look else 0)


def group(run_folder: Any, always: dict[str, Any]) -> typer.Typer:
    """Make the commands of all questions; `run_folder` is how typer reads the run, `always` are common options."""

    class Questions(TyperGroup):
        """Makes the command of a question when it is asked for: reading the sources takes a moment."""

        def list_commands(self, ctx: Any) -> list[str]:
            return [question.replace("_", "-") for question in QUESTIONS]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            question = cmd_name.replace("-", "_")
            return _made(question, always) if cmd_name in self.list_commands(ctx) else None

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            known = self.list_commands(ctx)
            if args and args[0] not in known and not args[0].startswith("-"):
                hint = did_you_mean(args[0], known) or f"one of {', '.join(known)}"
                raise SettingsError(f"there is no question `{args[0]}`.", hint=hint)
            return super().resolve_command(ctx, args)

    ask = typer.Typer(cls=Questions, no_args_is_help=True, rich_markup_mode="rich")

    def about(run: Any) -> None:
        """Ask a question about the winner of a run, or another trial: a plan of its own, trained now.

        Prints what it found, and keeps it in the run folder and its report. The exit code is 1 when it found something
        that must be looked at.

        [bold]Examples[/bold]

        \b
        foldwise ask runs/train learning-curve
        foldwise ask runs/train leave-one-out --seeds 5 --trial 3
        foldwise ask runs/train permuted-twin --shuffles 50
        """

    about.__annotations__["run"] = run_folder
    ask.callback()(about)
    return ask


def _made(question: str, always: dict[str, Any]) -> Any:
    function, does = command_of(question, run, always)
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    first = " ".join(does.split("\n\n")[0].split())
    name = question.replace("_", "-")
    app.command(name=name, help=does, short_help=first, context_settings=HELP)(function)
    made = typer.main.get_command(app)
    made.name = name
    return made
