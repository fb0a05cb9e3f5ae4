"""Answers to questions: records, and the files of a run folder that hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from pydantic import ConfigDict, TypeAdapter

from foldwise.errors import StoreError
from foldwise.store.files import write_text
from foldwise.store.plain import DAMAGE, finite, reason

FORMAT = 1
FOLDER = "answers"
Cell = bool | int | float | str | None
Point = tuple[float, float | None, float | None, float | None]
"""Where a point stands, its value, and the ends of its interval (None: it has none)."""


@dataclass(frozen=True)
class Series:
    """Points of one kind, joined by a line or not."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    points: tuple[Point, ...]
    line: bool = False


@dataclass(frozen=True)
class Rule:
    """A straight line at a value of the vertical axis, or of the horizontal one."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    at: float
    name: str
    vertical: bool = False


@dataclass(frozen=True)
class Picture:
    """What the page draws: what the axes say, series of points, and lines to compare them with."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    x: str
    y: str
    series: tuple[Series, ...]
    rules: tuple[Rule, ...] = ()
    log_x: bool = False


@dataclass(frozen=True)
class Answer:
    """What a question found: one sentence, how it came about, a table, the numbers behind the sentence, a picture.

    `look` is whether it is something that must be looked at.
    """

    question: str
    sentence: str
    how: str
    table: pl.DataFrame = field(repr=False)
    facts: dict[str, float]
    picture: Picture = field(repr=False)
    look: bool = False

    def __repr__(self) -> str:
        with pl.Config(
            tbl_rows=16, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_cols=-1,
            tbl_formatting="NOTHING", float_precision=4, tbl_width_chars=110, fmt_str_lengths=60,
        ):  # fmt: skip
            return f"{self.sentence}\n\n{self.table}\n\n{self.how}"


@dataclass(frozen=True)
class Stored:
    """An answer in plain values, as it lies in its file."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    format: int
    question: str
    sentence: str
    how: str
    table: dict[str, list[Cell]]
    facts: dict[str, float | None]
    picture: Picture
    look: bool


def write_answer(answer: Answer, folder: Path) -> Path:
    """Write an answer into a run folder, in the place of an older one to the same question."""
    plain = TypeAdapter(Stored).dump_python(
        Stored(
            FORMAT, answer.question, answer.sentence, answer.how, answer.table.to_dict(as_series=False),
            dict(answer.facts), answer.picture, answer.look,
        ),
        mode="json",
    )  # fmt: skip
    text = json.dumps(finite(plain), indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(folder / FOLDER / f"{answer.question}.json", text)


def read_answers(folder: Path, known: Iterable[str]) -> dict[str, Answer]:
    """Read the answers to known questions from a run folder; StoreError names a file that is damaged."""
    paths = {question: folder / FOLDER / f"{question}.json" for question in known}
    return {question: _read(path, question) for question, path in paths.items() if path.exists()}


def _read(path: Path, question: str) -> Answer:
    try:
        found = TypeAdapter(Stored).validate_json(path.read_bytes(), strict=True)
        if (found.format, found.question) != (FORMAT, question):
            raise ValueError(f"it is no answer to {question} in format {FORMAT}")
        table = pl.DataFrame(found.table, strict=False)
    except DAMAGE as error:
        raise StoreError(
            f"{path} is damaged: {reason(error)}.", hint="remove it, and ask the question again"
        ) from None
    facts = {name: math.nan if value is None else value for name, value in found.facts.items()}
    return Answer(question, found.sentence, found.how, table, facts, found.picture, found.look)
