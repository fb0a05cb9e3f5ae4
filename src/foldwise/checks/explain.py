"""What a check is, read from the text at the head of its file; starts without torch."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from foldwise.checks import CHECKS
from foldwise.errors import SettingsError, did_you_mean

TITLES = {
    "data": "Data and folds",
    "network": "Network, at its start",
    "loss": "Loss",
    "optimizer": "Optimizer and schedule",
    "loop": "A training loop of your own",
    "training": "Training",
    "evaluation": "What came of it",
}
"""Headings of the groups of checks."""
SECTIONS = ("Evidence", "Why it hurts", "How sure", "What to try", "References")


@dataclass(frozen=True)
class Explanation:
    """A check in words: its code, what it finds, and the sections of its text by name."""

    code: str
    what: str
    sections: dict[str, str]


def explain(code: str) -> Explanation:
    """Read what a check is. Raises SettingsError when there is none of that code.

    >>> explain("dead-units").what
    'Units of a layer that are 0 for every row: they get no gradient and do not come back.'
    """
    code = code.lower()
    if code not in CHECKS:
        alike = ", ".join(known for known in CHECKS if code in known)
        hint = did_you_mean(code, CHECKS) or (f"one of {alike}" if alike else "`foldwise explain` lists them")
        raise SettingsError(f"there is no check `{code}`.", hint=hint)
    source = (Path(__file__).parent / f"{code.replace('-', '_')}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    what, *parts = text.split("\n\n")
    sections = {}
    for part in parts:
        name, _, rest = part.partition(":")
        sections[name] = re.sub(r"\s+", " ", rest).strip()
    return Explanation(code, re.sub(r"\s+", " ", what), sections)
