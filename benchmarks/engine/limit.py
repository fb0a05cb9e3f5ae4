"""The machine's limit: the matrix products of a training step alone, by whatever multiplies fastest here."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.measure import CORES
from benchmarks.subject import Network

Product = tuple[int, int, int]
"""Rows, inner size and columns: `[m, k] @ [k, n]`."""
Work = Callable[[], object]


def products(network: Network) -> list[Product]:
    """List the products of one step: forward, gradients of weights, gradients of inputs (not the first layer's)."""
    b = network.batch
    forward = [(b, i, o) for i, o in network.layers]
    of_weights = [(o, b, i) for i, o in network.layers]
    of_inputs = [(b, o, i) for i, o in network.layers[1:]]
    return [*forward, *of_weights, *of_inputs]


def limit(network: Network, quick: bool) -> dict[str, Any]:
    """Give the seconds per member and step that the products need, each by its fastest way."""
    every = products(network)
    each = {product: _seconds(product, 0.003 if quick else 0.03) for product in dict.fromkeys(every)}
    seconds = sum(min(each[p].values()) for p in every)
    ways = {"×".join(map(str, p)): min(times, key=times.__getitem__) for p, times in each.items()}
    return {
        "seconds": seconds,
        "gflops": sum(2 * m * k * n for m, k, n in every) / seconds / 1e9,
        "fastest": ways,
    }


def _seconds(product: Product, lasting: float) -> dict[str, float]:
    """Time a product in every way, per product with all cores at work; the best of five runs."""
    found = {}
    for name, way in WAYS.items():
        for held in HELD if math.prod(product) < 1e6 else HELD[:2]:
            works = [way(*_operands(product, held)) for _ in range(CORES)]
            found[f"{name}, {held} at a time"] = min(_on_each_core(works, lasting) for _ in range(5)) / held
    return found


def _operands(product: Product, held: int) -> tuple[np.ndarray, np.ndarray]:
    m, k, n = product
    random = np.random.default_rng(0)
    return random.normal(size=(held, m, k)).astype("f4"), random.normal(size=(held, k, n)).astype("f4")


def _on_each_core(works: list[Work], lasting: float) -> float:
    """Repeat work on every core at once, each with operands of its own; give seconds per piece of work."""
    rates = []

    def repeat(work: Work) -> None:
        torch.set_num_threads(1)
        start, done = time.perf_counter(), 0
        while (taken := time.perf_counter() - start) < lasting:
            work()
            done += 1
        rates.append(done / taken)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1 / sum(rates)


def _by_torch(a: np.ndarray, b: np.ndarray) -> Work:
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    out = torch.bmm(left, right)
    return lambda: torch.bmm(left, right, out=out)


def _by_numpy(a: np.ndarray, b: np.ndarray) -> Work:
    out = a @ b
    return lambda: np.matmul(a, b, out=out)


def _by_jax(a: np.ndarray, b: np.ndarray) -> Work:
    left, right = jnp.asarray(a), jnp.asarray(b)
    MULTIPLY(left, right).block_until_ready()
    return lambda: MULTIPLY(left, right).block_until_ready()


MULTIPLY = jax.jit(jnp.matmul)
WAYS = {"torch": _by_torch, "numpy": _by_numpy, "jax": _by_jax}
HELD = (2, 16, 128)
"""How many products one call makes; few stay in cache, many hide what a call costs."""
