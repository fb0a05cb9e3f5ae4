"""Peer: JAX by hand, a scan over the steps and vmap over the members, jitted as one program."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.engine.peer import BETA1, BETA2, EPSILON, RATE, Variant, World

Arrays = tuple[Any, ...]
THREADS = 2


def loss_of(weights: Arrays, x: jax.Array, y: jax.Array) -> jax.Array:
    """Average the cross-entropy of one member over a batch."""
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for v, c in hidden:
        x = jax.nn.relu(x @ v.T + c)
    logs = jax.nn.log_softmax(x @ w.T + b)
    return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()


def adam(weights: Arrays, first: Arrays, second: Arrays, gradients: Arrays, step: jax.Array) -> Any:
    """Move weights; moments as in Kingma & Ba (2015), with the bias in the step size and in ε as in PyTorch."""
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
    rate, root = RATE / (1 - BETA1**step), jnp.sqrt(1 - BETA2**step)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + EPSILON), weights, first, second
    )
    return weights, first, second


def train_chunk(state: Any, step: Any, table: Any, targets: Any, folds: Any, batches: Any) -> Any:
    """Take all steps of an epoch with some members at once; batches are `[members, steps, batch]`."""
    gradient = jax.vmap(jax.grad(loss_of))

    def take(carry: Any, rows: Any) -> Any:
        state, step = carry
        step = step + 1
        gradients = gradient(state[0], table[folds[:, None], rows], targets[rows])
        return (adam(*state, gradients, step), step), None

    (state, _), _ = lax.scan(take, (state, step), batches.swapaxes(0, 1))
    return state


def train_one(state: Any, step: Any, table: Any, targets: Any, fold: Any, batches: Any) -> Any:
    """Take all steps of an epoch with one member; batches are `[steps, batch]`."""

    def take(carry: Any, rows: Any) -> Any:
        state, step = carry
        step = step + 1
        gradients = jax.grad(loss_of)(state[0], table[fold][rows], targets[rows])
        return (adam(*state, gradients, step), step), None

    (state, _), _ = lax.scan(take, (state, step), batches)
    return state


class Jaxed:
    """Members in chunks of some size; chunks one after another, or one on each core."""

    def __init__(self, world: World, chunk: int, threads: int) -> None:
        jax.clear_caches()  # so that each variant's first epoch shows its own compilation
        self.table, self.targets = jnp.asarray(world.tables), jnp.asarray(world.targets)
        self.chunk = min(chunk, len(world.folds))
        cuts = [
            slice(first, first + self.chunk) if chunk > 1 else first
            for first in range(0, len(world.folds), self.chunk)
        ]
        self.cuts = cuts
        self.folds = [jnp.asarray(world.folds[cut]) for cut in cuts]
        starts = [tuple(jnp.asarray(w[cut]) for w in world.start) for cut in cuts]
        self.states = [(w, *(jax.tree.map(jnp.zeros_like, w) for _ in range(2))) for w in starts]
        self.step = jnp.zeros((), jnp.float32)
        self.train = jax.jit(train_chunk if chunk > 1 else train_one, donate_argnums=0)
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def epoch(self, batches: np.ndarray) -> None:
        """Train all chunks; the first time this compiles."""
        work = functools.partial(self._advance, batches)
        each = self.pool.map(work, range(len(self.cuts))) if self.pool else map(work, range(len(self.cuts)))
        self.states = list(each)
        jax.block_until_ready(self.states)
        self.step = self.step + batches.shape[1]

    def _advance(self, batches: np.ndarray, place: int) -> Any:
        own = jnp.asarray(batches[self.cuts[place]])
        state = self.train(self.states[place], self.step, self.table, self.targets, self.folds[place], own)
        return jax.block_until_ready(state)

    def weights(self) -> list[np.ndarray]:
        """Put the chunks together."""
        parts = zip(*(state[0] for state in self.states), strict=True)
        join = np.concatenate if self.chunk > 1 else np.stack
        return [join([np.asarray(p) for p in same]) for same in parts]


VARIANTS: list[Variant] = [
    (
        f"chunks of {chunk}, {threads} at once" if chunk < 100 else "all members at once",
        lambda world, c=chunk, t=threads: Jaxed(world, c, t),
    )
    for chunk, threads in ((100, 1), (50, 2), (25, 1), (25, 2), (10, 1), (10, 2), (5, 2), (1, 1), (1, 2))
]
