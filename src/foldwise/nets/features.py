"""Feature maps: what is made of the prepared inputs before the network, so that a linear one can bend.

What they learn from training rows, and what is drawn for them, lies in buffers: nothing in them is trained.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldwise.errors import SettingsError

MOST_PRODUCTS = 20_000
ENTRIES_AT_ONCE = 1 << 22  # products of this many rows × products are held at a time while they are measured


class Polynomial(nn.Module):
    """Multiply inputs with each other: all products of 1 … degree inputs, each standardized, `[..., products]`.

    Products come by degree, then in order of their factors: a, b, a², ab, b². `mean` and `scale` are those of the
    training rows; a product that does not vary there gets scale 0. Raises SettingsError when there are too many.

    >>> Polynomial(2, 2)(torch.tensor([[2.0, 3.0]]))
    tensor([[2., 3., 4., 6., 9.]])
    """

    mean: Float[Tensor, " products"]
    scale: Float[Tensor, " products"]

    def __init__(self, inputs: int, degree: int) -> None:
        super().__init__()
        self.inputs, self.degree = inputs, degree
        self.outputs = math.comb(inputs + degree, degree) - 1
        if self.outputs > MOST_PRODUCTS:
            raise SettingsError(
                f"`feature_degree` {degree} would make {self.outputs:,} products of {inputs} inputs; "
                f"at most {MOST_PRODUCTS:,} are taken.",
                hint="a lower feature_degree, fewer columns, or feature_map `fourier`",
            )
        self.register_buffer("mean", torch.zeros(self.outputs))
        self.register_buffer("scale", torch.ones(self.outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., inputs] → [..., products]`."""
        return self.standardized(x, self.mean, self.scale)

    def standardized(self, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Give (products − mean)·scale; of a stack, `mean` and `scale` are `[members, 1, products]`."""
        # in the precision of the constants: products of numbers of few digits have fewer still
        return ((self.products(x.to(mean.dtype)) - mean) * scale).to(x.dtype)

    def products(self, x: Tensor) -> Tensor:
        """Give all products of 1 … degree inputs, not yet standardized."""
        levels = [x]
        for degree in range(2, self.degree + 1):
            levels.append(self._multiplied(x, levels[-1], degree))
        return torch.cat(levels, dim=-1)

    def _multiplied(self, x: Tensor, lower: Tensor, degree: int) -> Tensor:
        # Slices, not an index: input i goes with those lower products that start with i or later, which are the last.
        last = [math.comb(self.inputs - i + degree - 2, degree - 1) for i in range(self.inputs)]
        parts = [x[..., i : i + 1] * lower[..., -count:] for i, count in enumerate(last)]
        return torch.cat(parts, dim=-1) if parts else x

    @torch.no_grad()
    def learn(self, rows: Float[Tensor, "rows inputs"], weights: Float[Tensor, " rows"]) -> None:
        """Learn mean and scale 1/deviation of the products over a member's prepared training rows, in float64."""
        parts = rows.split(max(1, ENTRIES_AT_ONCE // max(1, self.outputs)))
        shares = (weights / weights.sum()).split(len(parts[0]))
        mean, variance = torch.zeros(2, self.outputs, dtype=rows.dtype)
        for part, share in zip(parts, shares, strict=True):
            mean += share @ self.products(part)
        low, high = mean.new_full(mean.shape, math.inf), mean.new_full(mean.shape, -math.inf)
        for part, share in zip(parts, shares, strict=True):
            products = self.products(part)
            variance += share @ (products - mean).square()
            low, high = torch.minimum(low, products.amin(0)), torch.maximum(high, products.amax(0))
        self.mean.copy_(mean)
        # equal products may differ in their last digits: ±c squared, where c was rounded
        varies = high - low > 1e-9 * torch.maximum(low.abs(), high.abs())
        self.scale.copy_(torch.where(varies, variance.rsqrt(), 0))


class Fourier(nn.Module):
    """Give √(2/D)·cos(xW + b): D random cosines, `[..., inputs] → [..., D]` (Rahimi & Recht 2007, algorithm 1).

    With W ~ N(0, 1/s²) and b ~ U(0, 2π), the scalar product of two mapped rows approaches the Gaussian kernel
    exp(−‖x−y‖²/(2s²)) as D grows: a linear network on them is nearly a kernel machine.

    >>> Fourier(3, 8)(torch.zeros(2, 3)).shape
    torch.Size([2, 8])
    """

    directions: Float[Tensor, "inputs cosines"]
    phases: Float[Tensor, " cosines"]

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.outputs = count
        self.register_buffer("directions", torch.zeros(inputs, count))
        self.register_buffer("phases", torch.zeros(count))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., inputs] → [..., D]`."""
        return self.cosines(x, self.directions, self.phases)

    def cosines(self, x: Tensor, directions: Tensor, phases: Tensor) -> Tensor:
        """Give √(2/D)·cos(xW + b); of a stack, W is `[members, inputs, D]` and b `[members, 1, D]`."""
        with torch.autocast(x.device.type, enabled=False):  # in 16 bits an angle would be wrong by tenths
            angles = (x.to(directions.dtype) @ directions).add_(phases)
        return angles.cos_().mul_(math.sqrt(2 / self.outputs)).to(x.dtype)  # in place: there may be many

    @torch.no_grad()
    def learn(self, normals: Tensor, uniforms: Tensor, width: float) -> None:
        """Take drawn numbers, N(0, 1) `[inputs·D]` and U(0, 1) `[D]`, and the width s of the kernel."""
        self.directions.copy_(normals.view(self.directions.shape) / width)
        self.phases.copy_(uniforms * 2 * math.pi)


def median_distance(rows: Float[Tensor, "rows inputs"], weights: Float[Tensor, " rows"]) -> float:
    """Give the median Euclidean distance between rows that differ; 1 where none do.

    A pair counts as often as the product of its weights says, so a row of weight 2 is the same as that row twice.

    >>> median_distance(torch.tensor([[0.0], [0.0], [1.0], [5.0]]), torch.ones(4))
    4.0
    """
    distances, order = torch.pdist(rows).sort()
    one, other = torch.triu_indices(len(rows), len(rows), 1)
    counts = torch.where(distances > 0, (weights[one] * weights[other])[order], 0).cumsum(0)
    if not len(counts) or counts[-1] == 0:
        return 1.0
    return distances[torch.searchsorted(counts, counts[-1] / 2)].item()
