"""In which order a member meets its training rows."""

from __future__ import annotations

import threading

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
    """Row orders of the present epoch; the permutations are made once and shared by all folds and stacks."""

    def __init__(self, folds: Folds, device: torch.device) -> None:
        self.train = torch.tensor(folds.train, device=device)
        self.epoch = -1
        self.permutations: dict[int, Tensor] = {}
        self.lock = threading.Lock()  # chunks ask from several threads

    def of(self, epoch: int, seed: int, fold: int) -> Int64[Tensor, " fold_rows"]:
        """Give the order in which members of a seed and fold meet their rows in an epoch."""
        with self.lock:
            if epoch != self.epoch:
                self.epoch, self.permutations = epoch, {}
            if seed not in self.permutations:
                self.permutations[seed] = epoch_order(self.train.shape[1], seed, epoch, self.train.device)
            order = self.permutations[seed]
        return order[self.train[fold][order]]

    def padded(self, epoch: int, streams: list[tuple[int, int]]) -> Int64[Tensor, "streams most"]:
        """Lay the orders of several (seed, fold) side by side; short ones end in zeros that no batch reaches."""
        orders = [self.of(epoch, seed, fold) for seed, fold in streams]
        return torch.nn.utils.rnn.pad_sequence(orders, batch_first=True)
