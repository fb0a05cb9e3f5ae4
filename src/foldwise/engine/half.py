"""Training in half precision: forward and backward pass in 16 bits, weights, moments and losses in full.

float16 has so small a range that gradients vanish unless the loss is scaled up. Each member has a scale of its own,
and a step that overflows is skipped for that member alone (Micikevicius et al. 2018; the rules are those of
`torch.amp.GradScaler`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SCALING: dict[str, float] = {"loss_scale": 1.0, "good_steps": 0.0, "skipped": 0.0}
"""What float16 remembers of each member; the scale starts at the setting `loss_scale`."""
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
GROWTH_INTERVAL = 2000


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Compute matrix products in the number type of a precision."""
    if precision == "full":
        yield
        return
    # the cache of casted weights is shared by threads, and every weight is used once
    with torch.autocast(device.type, HALF[precision], cache_enabled=False):
        yield


def normalize_in_full(module: nn.Module) -> None:
    """Let batch normalization inside a module work on full numbers, in place: vmap cannot mix it with halves."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.register_forward_pre_hook(_in_full)


def _in_full(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(layer.get_buffer("running_mean").dtype) for x in inputs)


def finite(gradient: Float[Tensor, "members parameters"]) -> Bool[Tensor, "members 1"]:
    """Tell whose gradient has no overflow."""
    return torch.isfinite(gradient).all(1, keepdim=True)


def rescale(remembered: Mapping[str, Float[Tensor, "members 1"]], good: Bool[Tensor, "members 1"]) -> None:
    """Halve the scale of members that overflowed, double that of those with 2000 good steps in a row; in place."""
    scale, good_steps, skipped = (remembered[name] for name in SCALING)
    skipped.add_(~good)
    good_steps.add_(1).mul_(good)
    grown = good_steps == GROWTH_INTERVAL
    scale.mul_(torch.where(good, torch.where(grown, 2.0, 1.0), 0.5))
    good_steps.mul_(~grown)
