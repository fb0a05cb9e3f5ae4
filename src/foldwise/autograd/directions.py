"""Where derivatives are compared: single entries, and random directions through tensors too large for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.autograd.forward_ad as dual
from jaxtyping import Float, Int
from torch import Tensor

from foldwise.autograd.numerical import Along
from foldwise.autograd.point import Point, typical

LEAST = 4  # entries of each tensor, however many tensors there are


class NoForward(Exception):
    """Why there is no forward accumulation."""


@dataclass(frozen=True)
class Direction:
    """Entries of one tensor, by flat index, and how each moves when the distance grows by 1."""

    tensor: int
    indices: Int[Tensor, " entries"]
    signs: Float[Tensor, " entries"]

    def part(self, chosen: slice) -> Direction:
        """Leave the other entries where they are."""
        return Direction(self.tensor, self.indices[chosen], self.signs[chosen])

    def of(self, gradient: Tensor | None) -> float:
        """Give the derivative along the direction that a gradient says; no gradient means 0."""
        if gradient is None:
            return 0.0
        flat = gradient.detach().flatten()[self.indices.to(gradient.device)]
        return float((flat * self.signs.to(flat.device)).sum())


def entry(tensor: int, index: int) -> Direction:
    """Move one entry."""
    return Direction(tensor, torch.tensor([index]), torch.ones(1, dtype=torch.float64))


def chosen_entries(tensors: Sequence[Tensor], most: int, seed: int) -> list[Direction]:
    """Choose about `most` entries: all of small tensors, and as many of each large one as is left for it."""
    chance = torch.Generator().manual_seed(seed)
    found: list[Direction] = []
    left = most
    for place, number in enumerate(sorted(range(len(tensors)), key=lambda i: tensors[i].numel())):
        share = max(LEAST, left // (len(tensors) - place))
        count = tensors[number].numel()
        order = range(count) if count <= share else torch.randperm(count, generator=chance)[:share].sort()[0]
        found += [entry(number, int(i)) for i in order]
        left -= min(count, share)
    return sorted(found, key=lambda d: d.tensor)


def through(tensors: Sequence[Tensor], number: int, count: int, seed: int) -> list[Direction]:
    """Draw directions in which every entry of one tensor moves, up or down."""
    chance = torch.Generator().manual_seed(seed + 1 + number)
    size = tensors[number].numel()
    return [
        Direction(
            number,
            torch.arange(size),
            torch.randint(0, 2, (size,), generator=chance, dtype=torch.float64) * 2 - 1,
        )
        for _ in range(count)
    ]


def along(point: Point, direction: Direction) -> Along:
    """Give the outputs at a distance along a direction; the point is left where it is."""
    tensor = point.tensors[direction.tensor].detach().view(-1)
    where = direction.indices.to(tensor.device)
    signs = direction.signs.to(tensor)
    here = tensor[where].clone()

    def at(distance: float) -> Float[np.ndarray, " outputs"]:
        tensor[where] = here + distance * signs
        try:
            return point.outputs().detach().cpu().numpy()
        except torch.linalg.LinAlgError:  # outside of where the function is defined
            return np.array([np.nan])
        finally:
            tensor[where] = here

    return at


def scale(point: Point, direction: Direction) -> float:
    """Give the size that steps along a direction are measured against: the entries, or a tenth of what is usual."""
    tensor = point.tensors[direction.tensor]
    moved = tensor.detach().flatten()[direction.indices.to(tensor.device)]
    return max(float(moved.abs().max()) if len(moved) == 1 else typical(moved), 0.1 * typical(tensor))


def forward_derivative(point: Point) -> Callable[[Direction], float]:
    """Make the function that finds derivatives by forward accumulation, one pass each, with dual numbers.

    Raises NoForward where the function cannot be evaluated on dual numbers.
    """

    def derivative(direction: Direction) -> float:
        tensor = point.tensors[direction.tensor].detach()
        tangent = torch.zeros_like(tensor)
        tangent.view(-1)[direction.indices.to(tensor.device)] = direction.signs.to(tensor)
        with dual.dual_level():
            tensors = [t.detach() for t in point.tensors]
            tensors[direction.tensor] = dual.make_dual(tensor, tangent)
            found = dual.unpack_dual(point.outputs_at(tensors).sum()).tangent
            return 0.0 if found is None else float(found)

    try:
        with warnings.catch_warnings():  # torch warns of itself when dual numbers are used for the first time
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            for number in range(len(point.tensors)):
                derivative(entry(number, 0))
    except Exception as error:  # the function itself runs: whatever this is, it is about dual numbers
        raise NoForward(_reason(error)) from None
    return derivative


def _reason(error: Exception) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "must implement the jvp function" in said:
        return "a torch.autograd.Function in it has no jvp"
    return f"it does not run on dual numbers: {said}"
