"""Write docs/settings.md from settings.py and plans/defaults.py, where every setting is defined.

python docs/generate_settings.py            write the page
python docs/generate_settings.py --check    exit with 1 when the page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from foldwise.plans.defaults import LOSSES_OF_TASK, base_settings, baselines, default_grid
from foldwise.settings import (
    BLOCK_SETTINGS,
    SEARCHED,
    SHAPING,
    Settings,
    about,
    impossible,
    useless,
)

PAGE = Path(__file__).with_name("settings.md")
EXAMPLES = (
    "width",
    "dropout",
    "normalization",
    "momentum",
    "nesterov",
    "beta1",
    "initial_deviation",
    "margin",
)
TABLE_SIZES = (500, 5_000, 50_000, 500_000)


def page() -> str:
    """Put the page together."""
    return "\n".join(
        [
            "# Settings",
            "",
            "*This page is generated from the code: `python docs/generate_settings.py`.*",
            "",
            "A search gives each setting one value, a list of values or a range to draw from: "
            "`foldwise.Grid(width=[32, 64],",
            "learning_rate=foldwise.LogRange(1e-4, 1e-1))`, or a file for `--search`. An unknown name, a value out of "
            "range or a",
            "combination that has no effect is refused, with the number of the combination, counted from 1.",
            "",
            "**In one stack** says whether members that differ in a setting still train together. If not, the setting",
            "decides the shape of their tensors or the operations, and they go into different stacks of the same "
            "study.",
            "In a network of your own, `dropout` does too: a constructor may do anything with it.",
            "",
            *(line for title, names in chapters() for line in chapter(title, names)),
            "## Named blocks",
            "",
            "Every setting below can be given for a named block of the network alone: `hidden1.l2`, or `l2` in a",
            "table called `hidden1`. A block has the name of its module, and what it has holds for all modules",
            "inside: `block1` covers `block1.inner` and `block1.outer`, but what `block1.inner` has of its own wins.",
            "The perceptron's blocks are hidden1, hidden2, … and output; those of the residual network stem, block1,",
            "block2, … and output.",
            "",
            *table(("setting of a block", "what it is"), ((code(n), s) for n, s in BLOCK_SETTINGS.items())),
            "",
            "## Names that are not in the tables",
            "",
            "`options` is not written by hand: a search may name the arguments of your own network, and they are "
            "kept here",
            "(see [your own network](guide.md#your-own-network)).",
            "",
            "## What a study starts from",
            "",
            "The defaults above are those of a `Settings` record. A study puts some of its own in their place before "
            "it",
            "applies the search, because they depend on the target and on the number of rows:",
            "",
            *table(
                ("target", "`loss`", "also possible"),
                (
                    (task, code(base(task)["loss"]), ", ".join(map(code, losses[1:])) or "–")
                    for task, losses in LOSSES_OF_TASK.items()
                ),
            ),
            "",
            *table(
                ("rows", "`batch_size`", "`epochs`"),
                (
                    (f"{rows:,}", base(rows=rows)["batch_size"], base(rows=rows)["epochs"])
                    for rows in TABLE_SIZES
                ),
            ),
            "",
            f"The other values are the same everywhere: {listed(base(), without=('loss', 'batch_size', 'epochs'))}.",
            "A network of your own also starts from `initialization` = `own`.",
            "",
            "## What is always tried",
            "",
            *(f"- {listed(trial)}" for trial in baselines()),
            "",
            "## The default search",
            "",
            f"Without a search, these {len(default_grid())} are tried as well:",
            "",
            *search_table(default_grid().combinations()),
            "",
            "With a network of your own and no search, three learning rates are tried: 0.0003, 0.001 and 0.003.",
            "",
            "## What is refused",
            "",
            *(f"- {sentence}" for sentence in refused()),
            "",
        ]
    )


def base(task: str = "regression", rows: int = 1_000) -> dict[str, Any]:
    """Give what all trials of a study share."""
    return base_settings(task, rows)


def search_table(combinations: Sequence[dict[str, Any]]) -> list[str]:
    """Lay the combinations of a search out; what one does not name has its default."""
    names = [n for n in Settings.model_fields if any(n in c for c in combinations)]
    whole = [Settings(**c).model_dump() for c in combinations]
    return table([code(n) for n in names], ([shown(c[n]) for n in names] for c in whole))


def chapters() -> list[tuple[str, list[str]]]:
    """Group the settings that a search may name, in the order of settings.py."""
    starts = (
        ("The network", "network"),
        ("Start and preparation", "initialization"),
        ("The loss", "loss"),
        ("The optimizer", "optimizer"),
        ("The learning rate over time", "schedule"),
        ("Batches", "batch_size"),
        ("Penalties, limits, clipping", "l1"),
        ("Noise", "input_noise"),
        ("Arithmetic", "precision"),
    )
    places = [*(SEARCHED.index(first) for _, first in starts), len(SEARCHED)]
    return [(title, list(SEARCHED[places[n] : places[n + 1]])) for n, (title, _) in enumerate(starts)]


def chapter(title: str, names: Sequence[str]) -> list[str]:
    """Lay the settings of a chapter out, then their formulas and sources."""
    fields = {name: Settings.model_fields[name] for name in names}
    header = ("setting", "values", "default", "in one stack", "what it is")
    rows = [
        (code(n), values(f), default(f), "no" if n in SHAPING else "yes", described(n))
        for n, f in fields.items()
    ]
    more = [(n, about(n)["formula"], about(n)["source"]) for n in names]
    told = [f"- {code(n)}: {'. Source: '.join(filter(None, both))}." for n, *both in more if any(both)]
    lines = ["", *(line.replace(": . Source", ": source") for line in told), ""] if told else [""]
    return [f"## {title}", "", *table(header, rows), *lines]


def described(name: str) -> str:
    """Say what a setting is, and what it needs to have an effect."""
    needs = [
        f"{code(other)} {' or '.join(map(str, choices))}"
        for other, choices in about(name)["needs"].items()
        if other != "network"
    ]
    said = Settings.model_fields[name].description or ""
    return f"{said}; needs {' and '.join(needs)}" if needs else said


def refused() -> list[str]:
    """Say what is refused, from the sentences of settings.py."""
    odd = (
        {"network": "linear"},
        {"depth": 0},
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"width": 6, "normalization": "group"},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "dampening": 0.1},
        {"network": "residual", "depth": 0},
        {"network": "constant", "loss": "huber"},
    )
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    examples = [Settings.model_construct(**{**defaults, **values}) for values in odd]
    wrong = [text for example in examples for text in impossible(example)]
    idle = [text for example in examples[:4] for name, text in useless(example) if name in EXAMPLES]
    return list(dict.fromkeys([*idle, *wrong]))


def values(field: FieldInfo) -> str:
    """Say which values a setting takes."""
    if field.annotation is None or get_origin(field.annotation) is tuple:
        return "–"
    choices = get_args(field.annotation)
    if choices:
        return ", ".join(map(code, choices))
    kind = {int: "whole number", float: "number", bool: "true or false"}[field.annotation]
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    limits = [
        f"{sign} {getattr(limit, name)}"
        for name, sign in signs
        for limit in field.metadata
        if hasattr(limit, name)
    ]
    return " ".join([kind, ", ".join(limits)]).strip()


def default(field: FieldInfo) -> str:
    """Say a setting's default."""
    return "none" if field.default == () else code(shown(field.default))


def listed(settings: dict[str, Any], without: Sequence[str] = ()) -> str:
    """Write settings as `name` = `value`."""
    return ", ".join(f"{code(n)} = {code(shown(v))}" for n, v in settings.items() if n not in without)


def shown(value: Any) -> str:
    """Write a value as in a search file."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def code(value: object) -> str:
    """Set a value as code."""
    return f"`{value}`"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines]


def main(arguments: Sequence[str]) -> int:
    """Write or check the page; give the exit code."""
    if "--check" not in arguments:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/settings.md is out of date: python docs/generate_settings.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
