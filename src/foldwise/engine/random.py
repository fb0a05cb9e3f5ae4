"""Random numbers by counting: each is a pure function of a key and a position, so nothing depends on what was
drawn before, on companions in a stack, or on a resume.

A key is two 32-bit words derived from a member's seed, a purpose, and numbers such as the step. The hash is the
two-multiplication mixer "lowbias32" (C. Wellons, *Prospecting for hash functions*, 2018) with the second word added
between the multiplications, so that two streams are not the same sequence shifted. Arithmetic is that of unsigned
32-bit integers; torch holds them as int32, whose products wrap.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

PURPOSES = {
    "weights": 1,
    "order": 2,
    "dropout": 3,
    "module": 4,
    "noise": 5,
    "labels": 6,
    "mix": 7,
    "features": 8,
}
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
STARTS = (0x243F6A88, 0x05A308D3)  # the first digits of π; any two words would do
TWIN = 0x3243F6A8


def bits(first: Tensor, second: Tensor, position: Tensor) -> Int32[Tensor, ...]:
    """Hash positions under keys of two words; all int32, broadcast against each other.

    >>> one = torch.tensor(1, dtype=torch.int32)
    >>> bits(one, one, torch.arange(3, dtype=torch.int32)).dtype
    torch.int32
    """
    x = position ^ first
    x = (x ^ ((x >> 16) & 0xFFFF)) * _FIRST + second
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _SECOND
    return x ^ ((x >> 16) & 0xFFFF)


def key(seed: Tensor, purpose: str, *numbers: Tensor | int) -> Int32[Tensor, "... 2"]:
    """Derive a key from member seeds (int64, any shape), a purpose and further numbers (int64 or int).

    >>> key(torch.tensor([7, 8]), "dropout", 1, torch.tensor([10, 10])).shape
    torch.Size([2, 2])
    """
    first = torch.full_like(seed, STARTS[0], dtype=torch.int32)
    second = torch.full_like(seed, STARTS[1], dtype=torch.int32)
    for number in (seed, PURPOSES[purpose], *numbers):
        whole = torch.as_tensor(number, dtype=torch.int64, device=seed.device)
        for word in (_low_word(whole), _low_word(whole >> 32)):
            first, second = bits(first, second, word), bits(second ^ TWIN, first, word)
    return torch.stack([first, second], dim=-1)


def _low_word(number: Tensor) -> Int32[Tensor, ...]:
    # int64 → int32 keeps the low 32 bits on every device that torch supports
    return ((number & 0xFFFFFFFF) - ((number & 0x80000000) << 1)).to(torch.int32)


def threshold(rate: float) -> int:
    """Turn a probability into the 24-bit number below which a draw counts as a hit; exact in every dtype."""
    return math.ceil(rate * (1 << 24))


def draws24(key: Tensor, count: int) -> Int32[Tensor, "... count"]:
    """Draw integers in [0, 2²⁴) at positions 0 … count−1, for keys of shape `[..., 2]`."""
    position = torch.arange(count, dtype=torch.int32, device=key.device)
    return (bits(key[..., :1], key[..., 1:], position) >> 8) & 0xFFFFFF


def uniform(key: Tensor, count: int) -> Float[Tensor, "... count"]:
    """Draw float64 numbers in (0, 1): the middles of 2²⁴ equal cells.

    >>> uniform(key(torch.tensor(1), "noise"), 4).shape
    torch.Size([4])
    """
    return (draws24(key, count).double() + 0.5) / (1 << 24)


def normal(key: Tensor, count: int) -> Float[Tensor, "... count"]:
    """Draw standard normal float64 numbers (Box & Muller 1958, one of each pair)."""
    u = uniform(key, 2 * count)
    return torch.sqrt(-2 * torch.log(u[..., 0::2])) * torch.cos(2 * math.pi * u[..., 1::2])


def permutation(key: Tensor, count: int) -> Int64[Tensor, "... count"]:
    """Order rows 0 … count−1 by their hashes, for keys of shape `[..., 2]`; equal hashes keep their order."""
    position = torch.arange(count, dtype=torch.int32, device=key.device)
    return torch.argsort(bits(key[..., :1], key[..., 1:], position), dim=-1, stable=True)
