"""How much each single parameter has of a member's rate, decay, penalties and limits.

By default weights (two or more axes) have all of them, and biases and scales of normalization layers only the rate;
named blocks may have their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldwise.engine.state import Layout
from foldwise.errors import SettingsError
from foldwise.settings import Settings


@dataclass(frozen=True)
class Limit:
    """Entries whose sum of squares may not pass θ, for each member; ∞ where there is no limit."""

    entries: Bool[Tensor, "members parameters"]
    most: Float[Tensor, "members 1"]


@dataclass(frozen=True)
class Shares:
    """What each parameter of each member has, `[members, parameters]`; None where it is the same for all.

    `rate` is a factor of the learning rate (None: 1), `decay`, `l1` and `l2` are λ (None: 0), `trained` is 0 for
    frozen parameters and else 1 (None: 1).
    """

    rate: Tensor | None
    decay: Tensor | None
    l1: Tensor | None
    l2: Tensor | None
    trained: Tensor | None
    limits: tuple[Limit, ...]


def shares_of(
    members: Sequence[Settings], layout: Layout, dtype: torch.dtype, device: torch.device
) -> Shares:
    """Lay out what the settings of members say of each parameter."""
    distinct = list(dict.fromkeys(members))
    number = {s: n for n, s in enumerate(distinct)}
    own = torch.tensor([number[s] for s in members], device=device)

    def laid(line: Callable[[Settings], Tensor], usual: float) -> Tensor | None:
        lines = torch.stack([line(s) for s in distinct])
        return None if (lines == usual).all() else lines.to(device, dtype).index_select(0, own)

    return Shares(
        rate=laid(lambda s: _rates(s, layout), 1),
        decay=laid(lambda s: _penalty(s, layout, "weight_decay"), 0),
        l1=laid(lambda s: _penalty(s, layout, "l1"), 0),
        l2=laid(lambda s: _penalty(s, layout, "l2"), 0),
        trained=laid(lambda s: (~_frozen(s, layout)).double(), 1),
        limits=tuple(_limits(distinct, own, layout, dtype)),
    )


def blocks_of(layout: Layout) -> list[str]:
    """Name the blocks of a network: every module that has parameters, by its dotted name."""
    parents = [name.split(".")[:-1] for name in layout.names]
    return list(dict.fromkeys(".".join(p[:end]) for p in parents for end in range(1, len(p) + 1)))


def entries_of(layout: Layout, block: str) -> Bool[Tensor, " parameters"]:
    """Mark the parameters of a block: those whose dotted name begins with the block's."""
    mine = [name == block or name.startswith(f"{block}.") for name in layout.names]
    return _laid_out(layout, [float(own) for own in mine]).bool()


def refuse_unknown_blocks(s: Settings, layout: Layout, where: str) -> None:
    """Raise a SettingsError when settings name a block that the network lacks, or one on which they have no effect."""
    known = [*blocks_of(layout), *layout.names]
    for block, setting, value in s.blocks:
        if block not in known:
            raise SettingsError(
                f"`{block}.{setting}`: the network of {where} has no block `{block}`.",
                hint=f"its blocks: {', '.join(blocks_of(layout))}",
            )
        acts_on_weights = setting not in ("rate_factor", "frozen")
        if acts_on_weights and value and not (_regularized(s, layout) & entries_of(layout, block)).any():
            raise SettingsError(
                f"`{block}.{setting}` has no effect ({where}): the block has no weights of two or more axes.",
                hint="regularized: all makes it act on biases and scales too",
            )
    if s.blocks and _frozen(s, layout).all():
        raise SettingsError(
            f"every block of the network is frozen ({where}).", hint="leave one of them free to learn"
        )


def _laid_out(layout: Layout, values: Sequence[float]) -> Float[Tensor, " parameters"]:
    sizes = torch.tensor(layout.sizes)
    return torch.tensor(values, dtype=torch.float64).repeat_interleave(sizes)


def _regularized(s: Settings, layout: Layout) -> Bool[Tensor, " parameters"]:
    return layout.decayed() if s.regularized == "weights" else torch.ones(layout.size, dtype=torch.bool)


def _by_block(s: Settings, layout: Layout, setting: str, line: Tensor) -> Tensor:
    # the blocks are sorted by name, so that an inner block comes after the one that holds it and wins
    for block, name, value in s.blocks:
        if name == setting:
            line = torch.where(entries_of(layout, block), value, line)
    return line


def _frozen(s: Settings, layout: Layout) -> Bool[Tensor, " parameters"]:
    return _by_block(s, layout, "frozen", torch.zeros(layout.size, dtype=torch.float64)).bool()


def _rates(s: Settings, layout: Layout) -> Tensor:
    rates = _by_block(s, layout, "rate_factor", torch.ones(layout.size, dtype=torch.float64))
    return torch.where(_frozen(s, layout), 0.0, rates)


def _penalty(s: Settings, layout: Layout, setting: str) -> Tensor:
    line = torch.full((layout.size,), float(getattr(s, setting)), dtype=torch.float64)
    acts = _regularized(s, layout) & ~_frozen(s, layout)
    return torch.where(acts, _by_block(s, layout, setting, line), 0.0)


def _limits(distinct: Sequence[Settings], own: Tensor, layout: Layout, dtype: torch.dtype) -> list[Limit]:
    """Lay out one limit for each named block that has one, and one for all other weights together."""
    named = {s: {b: v for b, name, v in s.blocks if name == "weight_limit"} for s in distinct}
    # by name, so that the block around another one comes first, whoever trains beside
    wanted = sorted({block for blocks in named.values() for block in blocks})
    limits = []
    for block in (*wanted, None):
        entries, most = [], []
        for s in distinct:
            acts = _regularized(s, layout) & ~_frozen(s, layout)
            if block is not None:
                acts &= entries_of(layout, block)
                limit = named[s].get(block, 0.0)
            else:
                for other in named[s]:
                    acts &= ~entries_of(layout, other)
                limit = s.weight_limit
            entries.append(acts)
            most.append(limit or torch.inf)
        if any(limit < torch.inf for limit in most):
            limits.append(
                Limit(
                    torch.stack(entries).to(own.device).index_select(0, own),
                    torch.tensor(most, dtype=dtype, device=own.device).unsqueeze(1).index_select(0, own),
                )
            )
    return limits
