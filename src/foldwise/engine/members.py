"""From members to the networks and the state in which they start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foldwise.engine.dropout import KeyedDropout, key_dropouts
from foldwise.engine.initialize import initialize, seeded
from foldwise.engine.optimizers import OPTIMIZERS
from foldwise.engine.rows import Rows
from foldwise.engine.state import RUNNING, Layout, State
from foldwise.errors import NetworkError
from foldwise.nets.build import Net, build
from foldwise.plans.plan import Member


@dataclass(frozen=True)
class Nursery:
    """Makes networks for members: what they all share is the number of inputs and outputs and the user's net."""

    rows: Rows
    outputs: dict[str, int]  # by loss
    net: Net | None = None

    @property
    def inputs(self) -> int:
        """Count the features."""
        return self.rows.features.shape[1]

    def _built(self, member: Member) -> nn.Module:
        s = member.settings
        # under a generator of its own, so that the caller's is left as it was
        return seeded(lambda: build(s, self.inputs, self.outputs[s.loss], self.net), member.seed)

    def skeleton(self, member: Member) -> nn.Module:
        """Build a member's network with keyed dropout; its weights are what the constructor draws for the seed."""
        module = self._built(member)
        try:
            key_dropouts(module)
        except NotImplementedError as error:
            raise NetworkError(
                f"the network draws random numbers that cannot be keyed per member: {error}.",
                hint="use nn.Dropout, whose masks foldwise makes reproducible for each member",
            ) from None
        if not any(p.requires_grad for p in module.parameters()):
            raise NetworkError(f"the network `{type(module).__name__}` has no trainable parameter.")
        return module.to(self.rows.device, self.rows.dtype)

    def start(self, member: Member) -> nn.Module:
        """Build a member's network with its initial weights, bit-equal wherever the member trains."""
        s = member.settings
        module = self.skeleton(member)
        if s.network == "constant":
            with torch.no_grad():
                module.prior.copy_(prior(self.rows, member.fold, s.loss, module.prior.numel()))  # type: ignore[operator]
        elif s.initialization != "own":
            initialize(module, s.initialization, member.seed, s.initial_deviation)
        return module

    def initial_state(self, members: list[Member]) -> State:
        """Stack the members' starts."""
        starts = Starts(self)
        modules = [starts.of(member) for member in members]
        layout = Layout.of(modules[0])
        device = self.rows.device
        parameters = torch.stack(
            [
                torch.cat([dict(m.named_parameters())[name].detach().flatten() for name in layout.names])
                for m in modules
            ]
        )
        names = kept_buffers(modules[0])
        return State(
            parameters=parameters,
            buffers={name: torch.stack([tensors_of(m)[name].detach() for m in modules]) for name in names},
            moments={
                name: torch.zeros_like(parameters)
                for name in OPTIMIZERS[members[0].settings.optimizer].moments
            },
            step=torch.zeros(len(members), dtype=torch.int64, device=device),
            seed=torch.tensor([m.seed for m in members], dtype=torch.int64, device=device),
            status=torch.full((len(members),), RUNNING, dtype=torch.int8, device=device),
        )

    def dropout_rates(self, member: Member, skeleton: nn.Module) -> list[float]:
        """List the rates of a member's dropout layers, in the order of the layers; not of the skeleton's keyed ones."""
        module = self._built(member)
        if module is skeleton:
            name = getattr(self.net, "__name__", type(module).__name__)
            raise NetworkError(
                f"the network `{name}` gives the same module each time.",
                hint="make a new module at each call, so that each member has weights of its own",
            )
        return [child.p for child in module.modules() if type(child) is nn.Dropout]


class Starts:
    """Remembers starts, because most members share theirs: folds differ in nothing that matters here."""

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self.made: dict[object, nn.Module] = {}

    def of(self, member: Member) -> nn.Module:
        """Give the member's network as it starts; do not change it."""
        s = member.settings
        own_fold = member.fold if s.network == "constant" else None
        what = (s.shape(), s.initialization, s.initial_deviation, member.seed, own_fold)
        if what not in self.made:
            self.made[what] = self.nursery.start(member)
        return self.made[what]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Name all parameters and buffers."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def kept_buffers(module: nn.Module) -> list[str]:
    """Name what a member carries besides trainable parameters: buffers and frozen parameters, not dropout keys."""
    keyed = {name for name, child in module.named_modules() if isinstance(child, KeyedDropout)}
    buffers = [name for name, _ in module.named_buffers() if name.rpartition(".")[0] not in keyed]
    return buffers + [name for name, p in module.named_parameters() if not p.requires_grad]


def prior(rows: Rows, fold: int, loss: str, outputs: int) -> Tensor:
    """Give the constant outputs that minimize a fold's training loss: scaled mean 0, log shares or log odds."""
    targets = rows.targets[torch.from_numpy(rows.folds.train[fold]).to(rows.device)]
    if loss in ("squared_error", "half_squared_error"):
        return torch.zeros(targets.shape[1], dtype=targets.dtype, device=rows.device)
    if targets.is_floating_point():
        shares = targets.double().mean(0)
    else:
        shares = torch.bincount(targets, minlength=outputs).double() / len(targets)
    floor = 0.5 / len(targets)  # a class that the fold never saw must keep a finite score
    shares = shares.clamp(floor, 1 - floor)
    return shares.log() if loss == "cross_entropy" else (shares / (1 - shares)).log()
