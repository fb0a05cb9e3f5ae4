"""What is measured of a network at one moment: outputs of layers, gradients at them, weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

BOUNDED: dict[str, tuple[float, float]] = {
    "Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "Hardtanh": (-1.0, 1.0), "Softsign": (-1.0, 1.0),
    "Hardsigmoid": (0.0, 1.0), "RescaledSigmoid": (-2.0, 2.0),
}  # fmt: skip
FLAT = 0.02  # of a bounded activation's range, at either end, is where it hardly has a slope
FUNCTIONAL = "functional"  # the kind of what stands between two layers and is no module


@dataclass(frozen=True)
class LayerLook:
    """What a layer gave for a batch, and what came back; means are over rows and units. NaN: not measured.

    A unit is an entry of the last axis, or a channel of a convolution. An activation that is a plain function shows
    as a layer of kind `functional` before the layer that takes it in, and is named after that.
    """

    name: str
    kind: str
    units: int
    mean: float
    variance: float
    between: float  # variance of a unit's outputs between rows
    zeros: float  # share of outputs that are exactly 0
    dead: float  # share of units that are 0 for every row
    saturated: float  # share of outputs at the flat ends of a bounded activation
    finite: bool
    gradient_mean: float = math.nan
    gradient_variance: float = math.nan
    gradient_finite: bool = True


@dataclass(frozen=True)
class WeightsLook:
    """A parameter: its norm and deviation, the norm of its gradient (None: it got none), how far it has moved.

    `moved` is the distance from the start over the norm at the start, NaN where that is 0; `last` the distance from
    the look before, over the norm then.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    deviation: float
    finite: bool
    gradient_norm: float | None
    moved: float = math.nan
    last: float = math.nan


@dataclass(frozen=True)
class Look:
    """A network at one moment: after `step` steps, in the forward and backward pass of one batch.

    Layers are in the order in which the forward pass met them. `loss` is the mean over the batch, `outputs` those of
    the network, with their gradient and the targets where known.
    """

    step: int
    epoch: int | None
    loss: float
    layers: tuple[LayerLook, ...]
    weights: tuple[WeightsLook, ...]
    outputs: Float[Tensor, "rows outputs"] | None = None
    output_gradient: Float[Tensor, "rows outputs"] | None = None
    targets: Tensor | None = None

    @property
    def activations(self) -> list[LayerLook]:
        """Give the layers that are not linear: modules without weights, and plain functions between layers."""
        return [own for own in self.layers if own.kind in ACTIVATION_KINDS]

    @property
    def weighted(self) -> list[LayerLook]:
        """Give the layers that have weights, without those that normalize."""
        matrices = {w.name.rpartition(".")[0] for w in self.weights if len(w.shape) >= 2}
        return [own for own in self.layers if own.name in matrices]

    @property
    def first_not_finite(self) -> str | None:
        """Name the first layer whose outputs are not all numbers, or else the last whose gradients are not."""
        for own in self.layers:
            if not own.finite:
                return own.name
        backwards = [own.name for own in reversed(self.layers) if not own.gradient_finite]
        return backwards[0] if backwards else None


ACTIVATION_KINDS = {
    FUNCTIONAL, *BOUNDED, "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish",
    "Softplus", "Hardswish", "Softmax", "LogSoftmax", "LogSigmoid", "Threshold", "GLU",
}  # fmt: skip

_NUMBERS = 7  # measured of a layer, see `_measured`


class Recorder:
    """Measures a network by hooks, from when it is attached until it is detached; changes nothing.

    `clear` begins a new batch; `look` gives what was measured since. Numbers stay on the device until then, and come
    over in one copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.handles: list[Any] = []
        self.start: dict[str, Tensor] = {}
        self.before: dict[str, Tensor] = {}
        self.clear()

    def attach(self) -> None:
        """Set the hooks."""
        for name, layer in self.module.named_modules():
            if not any(layer.children()):
                self.handles.append(layer.register_forward_hook(self._hook(name or type(layer).__name__)))

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def clear(self) -> None:
        """Begin a new batch."""
        self.met: list[tuple[str, str, int]] = []
        self.numbers: list[Tensor] = []
        self.gradients: dict[int, Tensor] = {}
        self.known: dict[int, Tensor] = {}  # held, so that no other gets the same number

    def _hook(self, name: str) -> Callable[..., None]:
        def measured(layer: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            with torch.no_grad():
                first = given[0] if given and isinstance(given[0], Tensor) else None
                if (
                    first is not None
                    and self.met
                    and id(first) not in self.known
                    and first.is_floating_point()
                ):
                    self._note(f"before {name}", FUNCTIONAL, first, _axis(layer, first))
                if isinstance(out, Tensor) and out.is_floating_point():
                    self._note(name, type(layer).__name__, out, _axis(layer, out))

        return measured

    def _note(self, name: str, kind: str, out: Tensor, axis: int) -> None:
        place = len(self.met)
        units = out.detach().movedim(axis, -1).flatten(0, -2)
        self.met.append((name, kind, units.shape[-1]))
        self.numbers.append(_measured(units.double(), kind))
        self.known[id(out)] = out
        if out.requires_grad:

            def came_back(gradient: Tensor) -> None:
                flat = gradient.detach().double()
                self.gradients[place] = torch.stack(
                    [flat.mean(), flat.var(correction=0), torch.isfinite(flat).all().double()]
                )

            out.register_hook(came_back)

    def look(
        self,
        step: int,
        epoch: int | None,
        loss: float,
        gradients: dict[str, Tensor | None],
        outputs: Tensor | None = None,
        output_gradient: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Look:
        """Give what was measured since `clear`, and the weights as they are, with their gradients by name."""
        return Look(
            step, epoch, loss, self._layers(), self._weights(gradients),
            *(None if t is None else t.detach().cpu().clone() for t in (outputs, output_gradient, targets)),
        )  # fmt: skip

    def _layers(self) -> tuple[LayerLook, ...]:
        if not self.met:
            return ()
        rows = torch.stack(self.numbers).tolist()
        back = {place: t.tolist() for place, t in self.gradients.items()}
        found = []
        for place, ((name, kind, units), own) in enumerate(zip(self.met, rows, strict=True)):
            mean, variance, between, zeros, dead, saturated, finite = own
            gradient = back.get(place, [math.nan, math.nan, 1.0])
            found.append(
                LayerLook(
                    name,
                    kind,
                    units,
                    mean,
                    variance,
                    between,
                    zeros,
                    dead,
                    saturated,
                    bool(finite),
                    gradient[0],
                    gradient[1],
                    bool(gradient[2]),
                )
            )
        return tuple(found)

    @torch.no_grad()
    def _weights(self, gradients: dict[str, Tensor | None]) -> tuple[WeightsLook, ...]:
        found = []
        for name, p in self.module.named_parameters():
            now = p.detach().double()
            start, before = self.start.get(name), self.before.get(name)
            gradient = gradients.get(name)
            found.append(
                WeightsLook(
                    name,
                    tuple(p.shape),
                    float(now.norm()),
                    float(now.std(correction=0)),
                    bool(torch.isfinite(now).all()),
                    None if gradient is None else float(gradient.detach().double().norm()),
                    math.nan if start is None else _relative(now, start),
                    math.nan if before is None else _relative(now, before),
                )
            )
            if name not in self.start:
                self.start[name] = now.clone()
            self.before[name] = now.clone()
        return tuple(found)


def _relative(now: Tensor, then: Tensor) -> float:
    size = float(then.norm())
    return float((now - then).norm()) / size if size else math.nan


def _measured(units: Float[Tensor, "rows units"], kind: str) -> Float[Tensor, " numbers"]:
    zero = units == 0
    within = BOUNDED.get(kind)
    if kind == FUNCTIONAL:
        within = bounds_of(units)
    if within is None:
        saturated = torch.full((), math.nan, dtype=units.dtype, device=units.device)
    else:
        saturated = flat_share(units, within)
    return torch.stack(
        [
            units.mean(),
            units.var(correction=0),
            units.var(0, correction=0).mean(),
            zero.double().mean(),
            zero.all(0).double().mean(),
            saturated,
            torch.isfinite(units).all().double(),
        ]
    )


def bounds_of(
    values: Tensor, among: Iterable[tuple[float, float]] = ((0.0, 1.0), (-1.0, 1.0))
) -> tuple[float, float] | None:
    """Tell by their range between which ends values are held, of those named, the narrowest first; None: none of them.

    Values that begin at exactly 0 are those of a rectifier, which has no upper end.

    >>> bounds_of(torch.tensor([0.1, 0.9])), bounds_of(torch.tensor([-0.5, 0.9])), bounds_of(torch.tensor([0.0, 0.9]))
    ((0.0, 1.0), (-1.0, 1.0), None)
    """
    low, high = values.min().item(), values.max().item()
    held = (
        (bottom, top)
        for bottom, top in among
        if low >= bottom and high <= top and low != 0 and (low > 0 or bottom < 0)
    )
    return next(held, None)


def flat_share(values: Tensor, ends: tuple[float, float]) -> Float[Tensor, ""]:
    """Compute the share of values that are near either end of a bounded activation, where it hardly has a slope."""
    low, high = ends
    edge = FLAT * (high - low)
    return ((values <= low + edge) | (values >= high - edge)).double().mean()


def mean_over_rows(each: Tensor, weights: Tensor | None = None) -> Float[Tensor, ""]:
    """Average losses of rows, weighted where rows are; what is one value already stays as it is."""
    if each.ndim == 0 or weights is None:
        return each.mean()
    return (each * weights).sum() / weights.sum()


def _axis(layer: nn.Module, values: Tensor) -> int:
    """Say which axis counts the units: channels, where there are more axes and the layer is not one of the last."""
    last = isinstance(layer, nn.Linear | nn.LayerNorm | nn.Embedding)
    return 1 if values.ndim >= 3 and not last else -1


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Leave a network's buffers and mode, and the state of chance, as they were."""
    buffers = [b.clone() for b in module.buffers()]
    modes = [(m, m.training) for m in module.modules()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            with torch.no_grad():
                for mine, before in zip(module.buffers(), buffers, strict=True):
                    if not torch.equal(
                        mine, before
                    ):  # a copy of the same would still break a graph that holds it
                        mine.copy_(before)
            for m, mode in modes:
                m.training = mode


def look_at(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    step: int = 0,
    epoch: int | None = None,
    recorder: Recorder | None = None,
    weights: Tensor | None = None,
    training: bool = True,
) -> Look:
    """Run a batch forward and backward through a network and measure; the network is as before.

    `loss` gives one value per row, of which the mean, weighted where there are weights, is looked at. One recorder
    for all looks at a network knows how far its weights have moved.

    >>> from torch.nn import functional as F
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> classes = torch.zeros(16).long()
    >>> look = look_at(net, torch.zeros(16, 4), classes, lambda o, t: F.cross_entropy(o, t, reduction="none"))
    >>> [layer.kind for layer in look.layers]
    ['Linear', 'ReLU', 'Linear']
    """
    recorder = recorder or Recorder(module)
    recorder.clear()
    recorder.attach()
    try:
        with undisturbed(module), torch.enable_grad():
            module.train(training)
            out = module(inputs)
            mean = mean_over_rows(loss(out, targets), weights)
            named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
            wanted = [*(p for _, p in named), *([out] if out.requires_grad else [])]
            found: Sequence[Tensor | None] = [None] * len(wanted)
            if mean.requires_grad and wanted:
                found = torch.autograd.grad(mean, wanted, allow_unused=True)
            of_output = found[-1] if out.requires_grad else None
            gradients = {name: g for (name, _), g in zip(named, found, strict=False)}
            return recorder.look(step, epoch, float(mean.detach()), gradients, out, of_output, targets)
    finally:
        recorder.detach()
