"""The record of everything that a member is: tensors with the members axis first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor, nn

RUNNING, FINISHED, DIVERGED, STOPPED = 0, 1, 2, 3


@dataclass(frozen=True)
class Layout:
    """Where each named parameter lies in a member's flat vector of parameters."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Read names and shapes of a module's trainable parameters."""
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        return cls(tuple(named), tuple(tuple(p.shape) for p in named.values()))

    @property
    def sizes(self) -> list[int]:
        """Count each parameter's entries."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """Count all entries of one member."""
        return sum(self.sizes)

    def split(self, flat: Float[Tensor, "members parameters"]) -> dict[str, Tensor]:
        """Give named views `[members, *shape]` of the flat parameters."""
        parts = flat.split(self.sizes, dim=1)
        return {
            name: part.view(len(flat), *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def join(self, parts: list[Tensor], room: Tensor | None = None) -> Float[Tensor, "members parameters"]:
        """Put tensors `[members, *shape]`, in order of the names, into one flat tensor: `room`, if it is given."""
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1, out=room)

    def decayed(self) -> Bool[Tensor, " parameters"]:
        """Mark the entries that weight decay shrinks: weights, not biases or scales of normalization layers."""
        return torch.cat(
            [torch.full((n,), len(s) >= 2) for n, s in zip(self.sizes, self.shapes, strict=True)]
            or [torch.zeros(0, dtype=torch.bool)]
        )


@dataclass(frozen=True)
class State:
    """The part of a stack that training changes; every tensor's first axis is the members."""

    parameters: Float[Tensor, "members parameters"]
    buffers: dict[str, Tensor]
    moments: dict[str, Float[Tensor, "members parameters"]]
    epoch: Int64[Tensor, " members"]  # epochs done: the clock of each member
    step: Int64[Tensor, " members"]
    seed: Int64[Tensor, " members"]
    status: Int8[Tensor, " members"]

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Kept:
    """The best of each member so far, by its trial's fold-mean curve."""

    parameters: Float[Tensor, "members parameters"]
    buffers: dict[str, Tensor]
    outputs: Float[Tensor, "members validation_rows outputs"]
    epoch: Int64[Tensor, " members"]


Record = TypeVar("Record", State, Kept)


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    return {name: change(t) for name, t in value.items()} if isinstance(value, Mapping) else change(value)


def take(record: Record, members: Tensor | slice) -> Record:
    """Give the slices of some members as a record of its own; a slice shares memory, an index copies."""

    def own(t: Tensor) -> Tensor:
        return t[members] if isinstance(members, slice) else t.index_select(0, members)

    return replace(record, **{f.name: _map(own, getattr(record, f.name)) for f in fields(record)})


def put(record: Record, members: Tensor | slice, part: Record) -> None:
    """Write the slices of some members back, in place."""
    for f in fields(record):
        ours, theirs = getattr(record, f.name), getattr(part, f.name)
        pairs = (
            [(ours[name], theirs[name]) for name in ours] if isinstance(ours, Mapping) else [(ours, theirs)]
        )
        for into, values in pairs:
            if isinstance(members, slice):
                into[members] = values
            else:
                into.index_copy_(0, members, values)


def concatenate(records: list[Record]) -> Record:
    """Put records of the same layout one after another along the member axis."""
    first = records[0]

    def joined(name: str) -> Any:
        values = [getattr(r, name) for r in records]
        if isinstance(values[0], Mapping):
            return {key: torch.cat([v[key] for v in values]) for key in values[0]}
        return torch.cat(values)

    return replace(first, **{f.name: joined(f.name) for f in fields(first)})
