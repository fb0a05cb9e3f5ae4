"""What the peers of the engine are given, and what they must be able to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from benchmarks.subject import Network, Subject

Weights = list[np.ndarray]
"""Weights and biases, layer by layer, `[members, …]`."""
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class World:
    """Rows, the weights that each member starts with, and the fold that it learns from."""

    network: Network
    tables: np.ndarray  # float32 [folds, rows, features], prepared
    targets: np.ndarray  # int64 [rows]
    folds: np.ndarray  # int64 [members]
    start: Weights

    @classmethod
    def of(cls, subject: Subject) -> World:
        """Copy what peers need from a subject that has not been trained."""
        return cls(subject.network, subject.tables, subject.targets, subject.folds, subject.weights())

    def part(self, members: int) -> World:
        """Give the same world with the first members only."""
        return replace(self, folds=self.folds[:members], start=[w[:members] for w in self.start])


class Peer(Protocol):
    """Trains the members of a world in its own way."""

    def epoch(self, batches: np.ndarray) -> None:
        """Train each member on its batches, `[members, steps, batch]`."""

    def weights(self) -> Weights:
        """Give the weights as they are now."""


Variant = tuple[str, Callable[[World], Peer]]
"""A way to make a peer, with its name; the fastest on the machine at hand stands for the peer."""


TOLERANCE = 1e-4
STEPS_COMPARED = 8


def disagreement(start: Weights, ours: Weights, theirs: Weights) -> float:
    """Compare where two trainings took the same members; raise when rounding cannot explain it.

    The distance between the two ends as a share of the way from the start, the largest of all members. Not the
    largest difference of one weight: Adam moves a weight whose gradient is all but zero by up to the learning rate in
    either direction, and which one rounding decides.
    """
    begun, own, other = (_flat(weights) for weights in (start, ours, theirs))
    shares = np.linalg.norm(own - other, axis=1) / np.linalg.norm(own - begun, axis=1)
    if not shares.max() <= TOLERANCE:
        raise AssertionError(f"two trainings of the same members are {shares.max():.1e} of their way apart")
    return float(shares.max())


def _flat(weights: Weights) -> np.ndarray:
    return np.concatenate([w.reshape(len(w), -1) for w in weights], axis=1)
