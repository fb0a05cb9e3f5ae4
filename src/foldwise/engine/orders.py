"""In which order a member meets its training rows."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.engine.random import key, permutation


def epoch_order(
    rows: int, seed: int, epoch: int, device: torch.device | str = "cpu"
) -> Int64[Tensor, " rows"]:
    """Permute all rows for one seed and epoch; a fold's order is this one without the rows that it must not see.

    One permutation then serves all folds and settings of a seed, and trials are compared on the same batches.
    """
    return permutation(key(torch.tensor(seed, device=device), "order", epoch), rows)


class RowOrders:
    """Row orders of the epochs in use; a permutation is made once and shared by all folds and stacks."""

    def __init__(self, folds: Folds, device: torch.device) -> None:
        self.train = torch.tensor(folds.train, device=device)
        self.permutations: dict[tuple[int, int], Tensor] = {}  # by epoch and seed
        self.lock = threading.Lock()  # chunks ask from several threads

    def of(self, epoch: int, seed: int, fold: int) -> Int64[Tensor, " fold_rows"]:
        """Give the order in which members of a seed and fold meet their rows in an epoch."""
        with self.lock:
            if (epoch, seed) not in self.permutations:
                made = epoch_order(self.train.shape[1], seed, epoch, self.train.device)
                self.permutations[epoch, seed] = made
            order = self.permutations[epoch, seed]
        return order[self.train[fold][order]]

    def keep(self, epochs: Collection[int]) -> None:
        """Forget the orders of all other epochs: members may be at different ones, but never go back."""
        with self.lock:
            self.permutations = {k: order for k, order in self.permutations.items() if k[0] in epochs}

    def padded(self, streams: Sequence[tuple[int, int, int]]) -> Int64[Tensor, "streams most"]:
        """Lay the orders of several (epoch, seed, fold) side by side; short ones end in zeros that no batch reaches."""
        orders = [self.of(epoch, seed, fold) for epoch, seed, fold in streams]
        return torch.nn.utils.rnn.pad_sequence(orders, batch_first=True)
