"""Which steps an epoch of a chunk consists of, and who takes each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from foldwise.engine.cohort import Cohort
from foldwise.engine.group import Group, index_among


@dataclass(frozen=True)
class Turn:
    """A step of an epoch: which rows of the orders, who takes it, and where in the chunk they and theirs are."""

    first: int
    sizes: tuple[int, ...]  # of the batches that make the step
    batch: int  # number of the first of them in the epoch
    group: Group
    places: Int64[Tensor, " takers"] | slice
    streams: Int64[Tensor, " streams"] | slice
    draws: Int64[Tensor, " draws"] | slice

    @property
    def size(self) -> int:
        """Count the rows."""
        return sum(self.sizes)

    @property
    def by_all(self) -> bool:
        """Tell whether the whole chunk takes it."""
        return isinstance(self.places, slice)


def turns_of(cohort: Cohort, chunk: Sequence[int], leads: Sequence[int], epoch: int) -> list[Turn]:
    """Plan an epoch of members whose batches have one size; the same in every epoch of that size.

    `epoch`, counted from 1, is that of the member that is last; the others are ahead of it by their `leads`.
    """
    pace, lengths = cohort.pace, [cohort.lengths[p] for p in chunk]
    steps = {n: pace.steps(n, epoch) for n in set(lengths)}
    return [
        _turn(cohort, chunk, leads, k * pace.accumulation, k * pace.accumulation * pace.size(epoch), *who)
        for k in range(max(map(len, steps.values())))
        for who in _by_step(lengths, steps, k).items()
    ]


def _by_step(
    lengths: Sequence[int], steps: dict[int, list[tuple[int, ...]]], k: int
) -> dict[tuple[int, ...], list[int]]:
    # Folds differ in size, so in the last steps of an epoch some members have shorter batches or none. They
    # take those steps in groups of equal length: no padding ever enters a loss or a running statistic.
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, length in enumerate(lengths):
        if k < len(steps[length]):
            groups[steps[length][k]].append(place)
    return groups


def _turn(
    cohort: Cohort,
    chunk: Sequence[int],
    leads: Sequence[int],
    batch: int,
    first: int,
    sizes: tuple[int, ...],
    places: list[int],
) -> Turn:
    whole = cohort.group(chunk, leads)
    if len(places) == len(chunk):
        return Turn(first, sizes, batch, whole, slice(None), slice(None), slice(None))
    group = cohort.group([chunk[p] for p in places], [leads[p] for p in places])
    device = cohort.rows.device
    streams = index_among(group.streams, whole.streams, device)
    draws = index_among(group.draws, whole.draws, device)
    return Turn(first, sizes, batch, group, torch.tensor(places, device=device), streams, draws)
