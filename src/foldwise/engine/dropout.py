"""Dropout whose masks are functions of a key: the same alone, in any stack, and after a resume."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn

from foldwise.engine.random import bits, threshold

UNKEYED = (nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.RReLU)


class KeyedDropout(nn.Module):
    """Zero each entry with probability `rate` and scale the others by 1/(1−rate), in training only.

    Srivastava et al. 2014, in the form that keeps the expectation. The mask is a function of `key` and of the
    entry's position. `limit` is the rate in 24-bit units, `scale` is 1/(1−rate); all three are buffers, so that
    a stack gives each member its own.

    >>> drop = KeyedDropout(0.5)
    >>> drop.eval()(torch.ones(3))
    tensor([1., 1., 1.])
    """

    key: Int32[Tensor, 2]
    limit: Int32[Tensor, ""]
    scale: Float[Tensor, ""]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.calls = 0  # in the present forward pass: a layer used at several places draws anew at each
        self.register_buffer("key", torch.zeros(2, dtype=torch.int32), persistent=False)
        self.register_buffer("limit", torch.tensor(threshold(rate), dtype=torch.int32), persistent=False)
        self.register_buffer("scale", torch.tensor(rescale(rate), dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask of the present key; `x` is one member's `[batch, …]`."""
        if not self.training:
            return x
        self.calls += 1
        return masked(x, self.key, self.limit, self.scale, self.calls - 1)


def rescale(rate: float) -> float:
    """Give the factor 1/(1−rate) that keeps the expectation; 0 where everything is dropped."""
    return 1 / (1 - rate) if rate < 1 else 0.0


def begin_pass(module: nn.Module) -> None:
    """Tell the dropout layers of a module that a forward pass begins."""
    for layer in module.modules():
        if isinstance(layer, KeyedDropout):
            layer.calls = 0


def masked(
    x: Tensor, key: Tensor, limit: Tensor, scale: Tensor, call: int = 0, owner: Tensor | None = None
) -> Tensor:
    """Drop entries of `x`.

    One network has `x [batch, …]`, `key [2]` and scalars `limit` and `scale`. A stack has `x [members, batch, …]`
    and one mask for each distinct seed and rate, `key [masks, 2]`, `limit [masks]`, `scale [masks]`; `owner
    [members]` says which mask is a member's. `call` counts the places of a layer that stands at several.
    """
    own = x.shape[1:] if owner is not None else x.shape
    first, count = call * own.numel(), own.numel()
    position = torch.arange(first, first + count, dtype=torch.int32, device=x.device).view(own)
    ones = (...,) + (None,) * len(own)
    draws = (bits(key[..., 0][ones], key[..., 1][ones], position) >> 8) & 0xFFFFFF
    mask = torch.where(draws >= limit[ones], scale.to(x.dtype)[ones], 0)
    return x * (mask if owner is None or len(mask) == 1 else mask.index_select(0, owner))


def key_dropouts(module: nn.Module) -> list[str]:
    """Replace every `nn.Dropout` inside a module by the keyed one, in place; give their names in order."""
    keyed: dict[nn.Module, KeyedDropout] = {}
    for parent_name, parent in list(module.named_modules()):
        # not named_children(), which leaves out the second place of a layer that stands at two
        for name, child in list(parent._modules.items()):
            if type(child) is nn.Dropout:
                if child not in keyed:
                    keyed[child] = KeyedDropout(child.p).train(child.training)
                setattr(parent, name, keyed[child])
            elif isinstance(child, UNKEYED):
                where = f"{parent_name}.{name}".lstrip(".")
                raise NotImplementedError(f"{where} is a {type(child).__name__}")
    return [name for name, child in module.named_modules() if isinstance(child, KeyedDropout)]
