"""Trained members applied to new rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from foldwise.engine.dropout import key_dropouts
from foldwise.engine.rows import Constants
from foldwise.engine.stacked.forward import choose_forward
from foldwise.engine.state import Layout
from foldwise.errors import NetworkError
from foldwise.plans.plan import Member
from foldwise.settings import Settings

ROWS_AT_ONCE = 1 << 15  # over all members, so that many members do not need more memory than few


MODELS = ("ensemble", "refit")
"""What predicts: the members of all folds of a trial, or the networks of its refit."""


@dataclass(frozen=True)
class Models:
    """The kept weights of the members of one stack."""

    members: list[Member]
    parameters: Float[Tensor, "members parameters"]
    buffers: dict[str, Tensor]

    def of_trial(self, trial: int) -> list[int]:
        """Give the places of a trial's members."""
        return [place for place, member in enumerate(self.members) if member.trial == trial]

    def exact(self) -> Models:
        """Give the same networks in double precision: what a row gets then hardly depends on the rows beside it."""
        buffers = {n: b.double() if b.is_floating_point() else b for n, b in self.buffers.items()}
        return replace(self, parameters=self.parameters.double(), buffers=buffers)


@dataclass(frozen=True)
class Refit:
    """Networks of one trial that learned from all development rows, one for each seed, with what prepares rows.

    They are those of epoch `epochs`, whatever it scored: no row was set apart to choose by. `settings` are the
    trial's, but for the number of epochs that their schedule counts on, and without early stopping.
    """

    trial: int  # from 1
    epochs: int
    rows: int
    models: Models
    constants: Constants
    scalings: tuple[str, ...]
    target_scale: tuple[Tensor, Tensor] | None

    @property
    def settings(self) -> Settings:
        """Give what they were trained with."""
        return self.models.members[0].settings

    @property
    def identity(self) -> dict[str, Any]:
        """Tell it from other refits of the same study, in plain values."""
        seeds = [member.seed for member in self.models.members]
        return {"trial": self.trial, "seeds": seeds, "epochs": self.epochs}


@torch.no_grad()
def predict_outputs(
    models: Models,
    places: list[int],
    make: Callable[[Member], nn.Module],
    constants: Constants,
    preparations: Int64[Tensor, " members"],
    features: Float[Tensor, "rows features"],
    outputs: int,
) -> Float[Tensor, "members rows outputs"]:
    """Apply some members, each with the preparation of its own fold, to rows that are not yet prepared."""
    module = make(models.members[places[0]])
    key_dropouts(module)
    dtype = models.parameters.dtype
    if Layout.of(module).size != models.parameters.shape[1]:
        raise NetworkError(
            f"the network `{type(module).__name__}` has {Layout.of(module).size} parameters; the study's has "
            f"{models.parameters.shape[1]}.",
            hint="give the network that the study was trained with: foldwise.load(folder, net=MyNet)",
        )
    module.to(features.device, dtype).eval()
    parameters = Layout.of(module).split(models.parameters[places])
    buffers = {name: buffer[places] for name, buffer in models.buffers.items()}
    keyed = {
        name: b.expand(len(places), *b.shape) for name, b in module.named_buffers() if name not in buffers
    }
    sample = torch.nan_to_num(features[:1]).to(dtype).expand(len(places), -1, -1)
    forward = choose_forward(module, parameters, {**buffers, **keyed}, sample, outputs)
    own = constants.of(preparations)
    parts = [
        forward.through(
            parameters, {**buffers, **keyed}, own.apply(some.expand(len(places), -1, -1)).to(dtype)
        )
        for some in features.split(max(64, ROWS_AT_ONCE // len(places)))
    ]
    return torch.cat(parts, dim=1)
