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
from foldwise.settings import SHAPING, Settings, useless

PAGE = Path(__file__).with_name("settings.md")
TABLE_SIZES = (500, 5_000, 50_000, 500_000)
NO_HIDDEN_LAYER = {"network": "linear", "dropout": 0.1}
USELESS = (  # one example of everything that `useless` refuses
    {"optimizer": "adamw", "momentum": 0.9},
    {"optimizer": "sgd"},
    {"label_smoothing": 0.1},
    NO_HIDDEN_LAYER,
)


def page() -> str:
    """Put the page together."""
    return "\n".join(
        [
            "# Settings",
            "",
            "*This page is generated from the code: `python docs/generate_settings.py`.*",
            "",
            "A search gives each setting one value or a list of values: `foldwise.Grid(width=[32, 64], epochs=50)`, or",
            "a file for `--search`. An unknown name, a value out of range or a combination that has no effect is "
            "refused,",
            "with the number of the combination, counted from 0.",
            "",
            "**In one stack** says whether members that differ in a setting still train together. If not, the setting",
            "decides the shape of their tensors or the operations, and they go into different stacks of the same "
            "study.",
            "In a network of your own, `dropout` does too: a constructor may do anything with it.",
            "",
            *table(
                ("setting", "values", "default", "in one stack", "what it is"),
                (
                    (
                        code(name),
                        values(field),
                        default(field),
                        "no" if name in SHAPING else "yes",
                        field.description,
                    )
                    for name, field in Settings.model_fields.items()
                ),
            ),
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


def refused() -> list[str]:
    """Collect the sentences that refuse settings without effect."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    examples = [Settings.model_construct(**{**defaults, **values}) for values in USELESS]
    return list(dict.fromkeys(text for example in examples for _, text in useless(example)))


def values(field: FieldInfo) -> str:
    """Say which values a setting takes."""
    if field.annotation is None or get_origin(field.annotation) is tuple:
        return "–"
    choices = get_args(field.annotation)
    if choices:
        return ", ".join(map(code, choices))
    kind = {int: "whole number", float: "number"}[field.annotation]
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    limits = [
        f"{sign} {getattr(limit, name)}"
        for name, sign in signs
        for limit in field.metadata
        if hasattr(limit, name)
    ]
    return " ".join([kind, ", ".join(limits)])


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
