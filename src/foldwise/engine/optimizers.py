"""Optimizers, each a chain of links; equal to `torch.optim` step by step."""

from __future__ import annotations

from foldwise.engine.links import Link, accelerate, add_decay, chain, scale_by_adam, scale_by_rate

OPTIMIZERS: dict[str, Link] = {
    "sgd": chain(add_decay, accelerate, scale_by_rate),
    "adamw": chain(scale_by_adam, add_decay, scale_by_rate),
}
