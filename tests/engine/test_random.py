"""The random streams: bit for bit those of an independent implementation, and random enough."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foldwise.engine import random
from foldwise.engine.random import PURPOSES, key

WORDS = st.integers(0, 2**32 - 1)
SEEDS = st.integers(-(2**63), 2**63 - 1)
STEPS = st.integers(0, 2**40)


def mixed(first: int, second: int, position: np.ndarray) -> np.ndarray:
    """Compute lowbias32 with a word added between its products, in NumPy's unsigned integers."""
    x = position.astype(np.uint32) ^ np.uint32(first)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D) + np.uint32(second)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def derived(seed: int, purpose: str, *numbers: int) -> tuple[int, int]:
    """Derive a key: two words, stirred with the low and the high word of each number."""
    first, second = 0x243F6A88, 0x05A308D3
    for number in (seed, PURPOSES[purpose], *numbers):
        for word in (number & 0xFFFFFFFF, (number >> 32) & 0xFFFFFFFF):
            one = np.array([word])
            first, second = int(mixed(first, second, one)[0]), int(mixed(second ^ 0x3243F6A8, first, one)[0])
    return first, second


def unsigned(tensor: torch.Tensor) -> np.ndarray:
    """View int32 as uint32."""
    return tensor.numpy().view(np.uint32)


def signed(word: int) -> torch.Tensor:
    """Put an unsigned word into an int32 tensor."""
    return torch.tensor(word - (1 << 32) * (word >> 31), dtype=torch.int32)


@given(WORDS, WORDS, WORDS)
def test_bits_are_those_of_numpy(first: int, second: int, start: int) -> None:
    positions = (np.arange(100, dtype=np.uint64) + start).astype(np.uint32)
    ours = random.bits(signed(first), signed(second), torch.from_numpy(positions.view(np.int32)))
    np.testing.assert_array_equal(unsigned(ours), mixed(first, second, positions))


@given(SEEDS, st.sampled_from(sorted(PURPOSES)), st.lists(STEPS, max_size=3))
def test_keys_are_those_of_numpy(seed: int, purpose: str, numbers: list[int]) -> None:
    ours = key(torch.tensor(seed), purpose, *numbers)
    assert tuple(unsigned(ours).tolist()) == derived(seed, purpose, *numbers)


@given(SEEDS, STEPS, st.integers(1, 300))
def test_orders_are_those_of_numpy(seed: int, epoch: int, rows: int) -> None:
    hashed = mixed(*derived(seed, "order", epoch), np.arange(rows)).view(np.int32)
    ours = random.permutation(key(torch.tensor(seed), "order", epoch), rows)
    assert ours.tolist() == np.argsort(hashed, kind="stable").tolist()


def test_streams_stay_what_they_were() -> None:
    # written down once: whoever changes the generator changes every study that was ever stored
    assert (
        unsigned(key(torch.tensor(0), "weights", 0)).tolist()
        == list(derived(0, "weights", 0))
        == [2849169705, 65438589]
    )
    assert random.draws24(key(torch.tensor(42), "dropout", 1, 7), 4).tolist() == [
        16659298,
        14606776,
        12716729,
        11814591,
    ]
    assert random.permutation(key(torch.tensor(1), "order", 1), 8).tolist() == [7, 6, 3, 5, 1, 0, 4, 2]


def test_a_vector_of_seeds_gives_the_keys_of_each() -> None:
    seeds = torch.tensor([[3, -1], [2**40, 7]])
    together = key(seeds, "dropout", 1, torch.tensor([5, 6]))
    for row, column in itertools.product(range(2), range(2)):
        alone = key(seeds[row, column], "dropout", 1, 5 + column)
        assert torch.equal(together[row, column], alone)


def test_no_two_streams_of_a_large_study_share_a_key() -> None:
    seeds = torch.arange(50)[:, None, None]
    keys = torch.cat(
        [
            key(seeds.expand(50, 4, 100), purpose, torch.arange(4)[:, None], torch.arange(100)).view(-1, 2)
            for purpose in PURPOSES
        ]
    )
    assert len(torch.unique(keys, dim=0)) == len(keys)


# Statistics; the streams are fixed, so a test that passes passes always


def plausible(p: float) -> bool:
    """Tell whether a p-value is none of a broken generator."""
    return 1e-4 < p < 1 - 1e-4


KEYS = [
    (seed, purpose, step)
    for seed in (0, 1, 2**32)
    for purpose in ("dropout", "noise")
    for step in (0, 1, 1000)
]


def draws(seed: int, purpose: str, step: int, count: int = 1 << 16) -> np.ndarray:
    """Draw uniform numbers."""
    return random.uniform(key(torch.tensor(seed), purpose, step), count).numpy()


@pytest.mark.parametrize(("seed", "purpose", "step"), KEYS)
def test_draws_are_uniform(seed: int, purpose: str, step: int) -> None:
    u = draws(seed, purpose, step)
    assert ((u > 0) & (u < 1)).all()
    for count in (7, 256):
        assert plausible(stats.chisquare(np.histogram(u, count, (0, 1))[0]).pvalue)
    assert plausible(stats.kstest(u, "uniform").pvalue)


@pytest.mark.parametrize("lag", [1, 2, 3, 64])
@pytest.mark.parametrize("seed", [0, 12345])
def test_draws_do_not_depend_on_those_before(seed: int, lag: int) -> None:
    u = draws(seed, "dropout", 3)
    pairs = np.histogram2d(u[:-lag], u[lag:], 16, [[0, 1], [0, 1]])[0]
    assert plausible(stats.chisquare(pairs.ravel()).pvalue)


NEIGHBORS = [
    ((0, "dropout", 0), (1, "dropout", 0)),
    ((0, "dropout", 0), (0, "dropout", 1)),
    ((0, "dropout", 0), (0, "noise", 0)),
    ((0, "dropout", 0), (2**32, "dropout", 0)),
    ((7, "dropout", 1), (1, "dropout", 7)),
]


@pytest.mark.parametrize(("one", "other"), NEIGHBORS)
def test_neighboring_streams_are_independent(one: tuple[int, str, int], other: tuple[int, str, int]) -> None:
    pairs = np.histogram2d(draws(*one), draws(*other), 16, [[0, 1], [0, 1]])[0]
    assert plausible(stats.chisquare(pairs.ravel()).pvalue)
    for shift in (1, 5):
        pairs = np.histogram2d(draws(*one)[shift:], draws(*other)[:-shift], 16, [[0, 1], [0, 1]])[0]
        assert plausible(stats.chisquare(pairs.ravel()).pvalue)


def test_the_first_draws_of_many_seeds_are_uniform() -> None:
    first = random.uniform(key(torch.arange(1 << 14), "dropout", 0, 0), 3).numpy()
    for column in first.T:
        assert plausible(stats.kstest(column, "uniform").pvalue)


def test_normal_draws_are_normal() -> None:
    z = random.normal(key(torch.tensor(5), "weights", 0), 1 << 16).numpy()
    assert plausible(stats.kstest(z, "norm").pvalue)
    assert abs(z.mean()) < 4 / 256
    assert abs(z.var() - 1) < 4 * np.sqrt(2) / 256


def test_orders_are_fair() -> None:
    keys = key(torch.arange(2400), "order", 1)
    orders = np.array([random.permutation(own, 4).tolist() for own in keys])
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert plausible(stats.chisquare(counts).pvalue)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1 / 3, 0.999])
def test_a_threshold_is_hit_with_its_probability(rate: float) -> None:
    hits = int((random.draws24(key(torch.tensor(2), "dropout", 0), 1 << 16) < random.threshold(rate)).sum())
    assert stats.binomtest(hits, 1 << 16, rate).pvalue > 1e-3
    assert random.threshold(rate) - 1 < rate * 2**24 <= random.threshold(rate)
