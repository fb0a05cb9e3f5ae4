"""Records read from plain values, and what can be wrong with a file that somebody else may have written."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

DAMAGE = (
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    OSError,
    RuntimeError,
    SafetensorError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What reading a damaged file may raise."""


def finite(value: Any) -> Any:
    """Write NaN and infinity, which JSON does not have, as null.

    >>> finite({"low": float("nan"), "ends": (1.0, float("inf"))})
    {'low': None, 'ends': [1.0, None]}
    """
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_record(kind: Any, stored: Any) -> Any:
    """Read a value of a type, records included, from plain values."""
    return TypeAdapter(kind).validate_python(stored, context="stored")


def as_plain(kind: Any, record: Any) -> Any:
    """Write a value of a type, records included, as plain values."""
    return TypeAdapter(kind).dump_python(record)


def reason(error: BaseException) -> str:
    """Say in one line what is wrong with a file."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    said = str(error).strip().splitlines() or [type(error).__name__]
    return f"{said[0]} is missing" if isinstance(error, KeyError) else said[0]
