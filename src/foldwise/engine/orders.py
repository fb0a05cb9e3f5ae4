"""In which order a member meets its training rows."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.engine.random import key, permutation

AT_ONCE = 2**22  # row numbers that are laid out in one go; a stream is never divided


def epoch_order(rows: int, seed: int, epoch: int) -> Int64[Tensor, " rows"]:
    """Permute all rows for one seed and epoch; a fold's order is this one without the rows that it must not see.

    One permutation then serves all folds and settings of a seed, and trials are compared on the same batches.
    """
    return permutation(key(torch.tensor(seed), "order", epoch), rows)


class RowOrders:
    """Row orders of the epochs in use; a permutation is made once and shared by all folds and stacks."""

    def __init__(self, folds: Folds, device: torch.device) -> None:
        self.train = torch.tensor(folds.train, device=device)
        self.lengths = folds.train.sum(axis=1).tolist()
        self.permutations: dict[tuple[int, int], Tensor] = {}  # by epoch and seed
        self.lock = threading.Lock()  # chunks ask from several threads

    def of(self, epoch: int, seed: int, fold: int) -> Int64[Tensor, " fold_rows"]:
        """Give the order in which members of a seed and fold meet their rows in an epoch."""
        return self.padded([(epoch, seed, fold)])[0]

    def keep(self, epochs: Collection[int]) -> None:
        """Forget the orders of all other epochs: members may be at different ones, but never go back."""
        with self.lock:
            self.permutations = {k: order for k, order in self.permutations.items() if k[0] in epochs}

    def padded(self, streams: Sequence[tuple[int, int, int]]) -> Int64[Tensor, "streams most"]:
        """Lay the orders of several (epoch, seed, fold) side by side; short ones end in zeros that no batch reaches."""
        rows = self.train.shape[1]
        most = max(self.lengths[fold] for _, _, fold in streams)
        laid = torch.zeros(len(streams), most, dtype=torch.int64, device=self.train.device)
        at_once = max(1, AT_ONCE // max(1, rows))
        for first in range(0, len(streams), at_once):
            some = streams[first : first + at_once]
            whole = self._permuted([(epoch, seed) for epoch, seed, _ in some])
            folds = torch.tensor([fold for _, _, fold in some], device=self.train.device)
            seen = self.train[folds].gather(1, whole)
            # all that a fold must not see goes to one place behind the others, and is cut off
            place = torch.where(seen, seen.cumsum(1) - 1, most)
            behind = torch.zeros(len(some), most + 1, dtype=torch.int64, device=whole.device)
            laid[first : first + at_once] = behind.scatter_(1, place, whole)[:, :most]
        return laid

    def _permuted(self, wanted: Sequence[tuple[int, int]]) -> Int64[Tensor, "wanted rows"]:
        """Give the orders of all rows, and make at once those that are missing: a GPU is slow at many small things."""
        with self.lock:
            missing = sorted({w for w in wanted if w not in self.permutations})
            if missing:
                epochs, seeds = torch.tensor(missing).unbind(1)
                keys = key(seeds, "order", epochs).to(self.train.device)
                made = permutation(keys, self.train.shape[1])
                # copies, so that an epoch that is forgotten does not stay for another of the same block
                self.permutations.update((own, made[n].clone()) for n, own in enumerate(missing))
            return torch.stack([self.permutations[w] for w in wanted])
