"""From members to the networks and the state in which they start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldwise.engine.dropout import KeyedDropout, key_dropouts
from foldwise.engine.half import normalize_in_full
from foldwise.engine.initialize import LOOKED_AT, initialize, learn_features, seeded, unit_variance
from foldwise.engine.losses import LOSSES
from foldwise.engine.orders import epoch_order
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
        return self._keyed(member).to(self.rows.device, self.rows.dtype)

    def _keyed(self, member: Member) -> nn.Module:
        module = self._built(member)
        try:
            key_dropouts(module)
        except NotImplementedError as error:
            raise NetworkError(
                f"the network draws random numbers that cannot be keyed per member: {error}.",
                hint="use nn.Dropout, whose masks foldwise makes reproducible for each member",
            ) from None
        if member.settings.precision != "full" and member.settings.network == "custom":
            normalize_in_full(module)
        if not any(p.requires_grad for p in module.parameters()):
            raise NetworkError(f"the network `{type(module).__name__}` has no trainable parameter.")
        return module

    def start(self, member: Member) -> nn.Module:
        """Build a member's network with its initial weights, bit-equal wherever the member trains."""
        s = member.settings
        module = self._keyed(member).double()
        if s.feature_map != "none":
            most = None if s.feature_map == "polynomial" else LOOKED_AT
            learn_features(
                module.get_submodule("features"), s, member.seed, *self.training_rows(member, most)
            )
        if s.network == "constant":
            with torch.no_grad():
                module.get_parameter("prior").copy_(self._prior(member))
        elif s.initialization != "own":
            initialize(module, s, member.seed)
        if s.initialization == "lsuv":
            unit_variance(module, *self.training_rows(member, LOOKED_AT))
        return module.to(self.rows.device, self.rows.dtype)

    def training_rows(
        self, member: Member, most: int | None = None
    ) -> tuple[Float[Tensor, "rows features"], Float[Tensor, " rows"]]:
        """Give a member's own training rows, prepared, in float64 on the CPU, and how much each counts.

        They come in the order of its first epoch; with `most`, only the first of them.
        """
        rows, fold = self.rows, member.fold
        order = epoch_order(len(rows.features), member.seed, epoch=1)
        own = order[torch.from_numpy(rows.folds.train[fold])[order]][:most].to(rows.device)
        place = torch.tensor([rows.preparation(member.settings.scaling, fold)], device=rows.device)
        prepared = rows.constants.of(place).to("cpu").apply(rows.gathered(own[None]).cpu().double())[0]
        if rows.sample_weights is None:
            return prepared, torch.ones(len(own), dtype=torch.float64)
        return prepared, rows.sample_weights[own].cpu().double()

    def _prior(self, member: Member) -> Float[Tensor, " outputs"]:
        rows, loss = self.rows, member.settings.loss
        train = torch.from_numpy(rows.folds.train[member.fold]).to(rows.device)
        weights = None if rows.weights is None else rows.weights[member.fold][train]
        return LOSSES[loss].prior(rows.targets_of(member.fold)[train], weights, self.outputs[loss])

    def initial_state(self, members: list[Member], moments: Mapping[str, float | None]) -> State:
        """Stack the members' starts.

        `moments` names what the links of a step remember: with its first value for one number per member, None for
        one zero per weight.
        """
        starts, device = Starts(self), self.rows.device
        first = starts.of(members[0])
        layout, names = Layout.of(first), kept_buffers(first)
        parameters = torch.empty(len(members), layout.size, dtype=self.rows.dtype, device=device)
        buffers = {name: torch.stack([tensors_of(first)[name].detach()] * len(members)) for name in names}
        for place, member in enumerate(
            members
        ):  # one after the other: thousands of modules take more than their weights
            module = starts.of(member)
            weights = dict(module.named_parameters())
            parameters[place] = torch.cat([weights[name].detach().flatten() for name in layout.names])
            for name in names:
                buffers[name][place] = tensors_of(module)[name].detach()
        return State(
            parameters=parameters,
            buffers=buffers,
            moments={name: first_moment(parameters, value) for name, value in moments.items()},
            epoch=torch.zeros(len(members), dtype=torch.int64, device=device),
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


def first_moment(parameters: Float[Tensor, "members parameters"], value: float | None) -> Tensor:
    """Give what a link remembers at the start: one number per member, or (None) one zero per weight."""
    if value is None:
        return torch.zeros_like(parameters)
    return torch.full((len(parameters), 1), value, dtype=torch.float64, device=parameters.device)


class Starts:
    """Remembers starts, because most members share theirs: folds differ only in starts that look at rows."""

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self.made: dict[object, nn.Module] = {}

    def of(self, member: Member) -> nn.Module:
        """Give the member's network as it starts; do not change it."""
        s = member.settings
        drawn = (s.shape(), s.initialization, s.initial_deviation, s.initial_value, member.seed)
        what = (drawn, looked_at(member))
        if what not in self.made:
            self.made[what] = self.nursery.start(member)
        return self.made[what]


def looked_at(member: Member) -> tuple[object, ...]:
    """Name the rows that a member's start looks at, and the settings by which it does; empty when at none."""
    s = member.settings
    if s.network == "constant":
        return (member.fold, s)
    if s.feature_map == "none" and s.initialization != "lsuv":
        return ()
    return (member.fold, s.scaling, s.fourier_scale)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Name all parameters and buffers."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def kept_buffers(module: nn.Module) -> list[str]:
    """Name what a member carries besides trainable parameters: buffers and frozen parameters, not dropout keys."""
    keyed = {name for name, child in module.named_modules() if isinstance(child, KeyedDropout)}
    buffers = [name for name, _ in module.named_buffers() if name.rpartition(".")[0] not in keyed]
    return buffers + [name for name, p in module.named_parameters() if not p.requires_grad]


def in_evaluation(skeleton: nn.Module, look: Callable[[], Tensor]) -> None:
    """Look at a network in evaluation, and leave it in the mode in which it was."""
    modes = {module: module.training for module in skeleton.modules()}
    skeleton.eval()
    with torch.no_grad():
        look()
    for module, training in modes.items():
        module.training = training


def units_of(module: nn.Module, rows: Tensor) -> int:
    """Count the numbers that all layers of a network give for one row, at each place where they stand."""
    counted: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            counted.append(output.numel() // max(1, len(rows)))

    hooks = [m.register_forward_hook(count) for m in module.modules() if not any(m.children())]
    in_evaluation(module, lambda: module(rows))
    for hook in hooks:
        hook.remove()
    return sum(counted)
