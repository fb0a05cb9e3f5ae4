"""Three ways through a network with a members axis: as a chain of batched layers, under vmap, or one by one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from foldwise.engine.dropout import KeyedDropout, begin_pass, masked
from foldwise.errors import NetworkError
from foldwise.nets.activations import ACTIVATIONS
from foldwise.nets.constant import Constant

OWNER = "foldwise.owner"  # among a chain's tensors: which of the seeds is a member's
Named = Mapping[str, Tensor]
Through = Callable[[Named, Named, Tensor], Tensor]


@dataclass(frozen=True)
class Forward:
    """Maps parameters and buffers `[members, …]` and rows `[members, batch, features]` to outputs
    `[members, batch, outputs]`; `how` and `why` say which way was taken."""

    through: Through
    how: str
    why: str
    chain: bool = False


def choose_forward(
    skeleton: nn.Module, parameters: Named, buffers: Named, sample: Tensor, outputs: int
) -> Forward:
    """Find the fastest way that the network allows, trying it on a sample of two members.

    Raises NetworkError when the network does not give `[batch, outputs]`.
    """
    one_by_one = Forward(_one_by_one(skeleton), "one by one", "")
    trial = {name: b.clone() for name, b in buffers.items()}
    _check_outputs(one_by_one, skeleton, parameters, trial, sample, outputs)
    _check_buffers(skeleton, sample)
    if is_chain(skeleton):
        return Forward(
            _chained(skeleton), "stacked", "a chain of known layers, as batched products", chain=True
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "error", message="There is a performance drop"
            )  # vmap falls back to a loop
            stacked = Forward(_vmapped(skeleton), "stacked", "through vmap")
            with torch.enable_grad():
                leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
                stacked.through(leaves, trial, sample).sum().backward()
            _in_evaluation(skeleton, lambda: stacked.through(parameters, trial, sample))
    except Exception as error:  # whatever vmap cannot take: the loop is always right, and the user is told
        reason = (
            str(error).strip().splitlines()[0].split(". ")[0] if str(error).strip() else type(error).__name__
        )
        return Forward(one_by_one.through, "one by one", f"the network cannot be stacked: {reason}")
    return stacked


def _check_buffers(skeleton: nn.Module, sample: Tensor) -> None:
    looked = copy.deepcopy(skeleton)
    before = {name: id(buffer) for name, buffer in looked.named_buffers()}
    with torch.no_grad():
        looked(sample[0])
    replaced = [name for name, buffer in looked.named_buffers() if id(buffer) != before.get(name)]
    if replaced:
        raise NetworkError(
            f"the network `{type(skeleton).__name__}` puts a new tensor in the place of its buffer `{replaced[0]}`.",
            hint=f"change it in place, such as self.{replaced[0]}.copy_(…), so that each member keeps its own",
        )


def _in_evaluation(skeleton: nn.Module, look: Callable[[], Tensor]) -> None:
    modes = {module: module.training for module in skeleton.modules()}
    skeleton.eval()
    with torch.no_grad():
        look()
    for module, training in modes.items():
        module.training = training


def _check_outputs(
    forward: Forward, skeleton: nn.Module, parameters: Named, buffers: Named, sample: Tensor, outputs: int
) -> None:
    name = type(skeleton).__name__
    device = sample.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        before = _generator_state(device)
        got = _tried(forward, name, parameters, buffers, sample, outputs)
        if not torch.equal(before, _generator_state(device)):
            raise NetworkError(
                f"the network `{name}` draws random numbers that cannot be keyed per member.",
                hint="use nn.Dropout, whose masks foldwise makes reproducible for each member",
            )
    wanted = (*sample.shape[:2], outputs)
    if not isinstance(got, Tensor) or tuple(got.shape) != wanted:
        shape = tuple(got.shape[1:]) if isinstance(got, Tensor) else type(got).__name__
        raise NetworkError(
            f"the network `{name}` gives {shape} for a batch of shape {tuple(sample.shape[1:])}; "
            f"{wanted[1:]} is needed.",
            hint=f"forward(x) must give raw scores of shape [batch, {outputs}]",
        )


def _generator_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _tried(
    forward: Forward, name: str, parameters: Named, buffers: Named, sample: Tensor, outputs: int
) -> Tensor:
    try:
        with torch.no_grad():
            return forward.through(parameters, buffers, sample)
    except Exception as error:
        raise NetworkError(
            f"the network `{name}` fails on a batch of shape {tuple(sample.shape[1:])}: {error}",
            hint=f"forward(x) gets [batch, {sample.shape[-1]}] and must give [batch, {outputs}]",
        ) from error


# A chain runs without vmap: each layer is written once with the members axis. Measured 1.2–1.5× faster.


class Place(NamedTuple):
    """A layer where it stands in a chain: the name of its tensors, and how often it stood earlier in the chain."""

    name: str
    layer: nn.Module
    earlier: int

    def tensor(self, tensors: Named, what: str) -> Tensor:
        """Find one of the layer's tensors."""
        return tensors[f"{self.name}.{what}" if self.name else what]


class _BatchedLinear(torch.autograd.Function):
    """y = x·Wᵀ + b for each member. Autograd would give the gradient of Wᵀ and turn it around by a copy; this gives
    that of W as it lies in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (own,) = gradients
        to_x = torch.bmm(own, weight) if ctx.needs_input_grad[0] else None
        return to_x, torch.bmm(own.mT, x), own.sum(1)


def _linear(place: Place, tensors: Named, x: Tensor) -> Tensor:
    weight = place.tensor(tensors, "weight")
    if place.layer.bias is None:
        return torch.bmm(x, weight.mT)
    return _BatchedLinear.apply(x, weight, place.tensor(tensors, "bias"))


def _constant(place: Place, tensors: Named, x: Tensor) -> Tensor:
    return place.tensor(tensors, "prior").unsqueeze(1).expand(-1, x.shape[1], -1)


def _dropout(place: Place, tensors: Named, x: Tensor) -> Tensor:
    if not place.layer.training:
        return x
    key, limit, scale = (place.tensor(tensors, what) for what in ("key", "limit", "scale"))
    return masked(x, key, limit, scale, place.earlier, tensors[OWNER])


def _elementwise(place: Place, tensors: Named, x: Tensor) -> Tensor:
    return place.layer(x)


BATCHED: dict[type[nn.Module], Callable[[Place, Named, Tensor], Tensor]] = {
    nn.Linear: _linear,
    Constant: _constant,
    KeyedDropout: _dropout,
    **dict.fromkeys(ACTIVATIONS.values(), _elementwise),
}


def is_chain(module: nn.Module) -> bool:
    """Tell whether a network is one layer after another, all of them known here, without hooks."""
    layers = list(module) if type(module) is nn.Sequential else [module]
    return all(map(_is_plain, [module, *layers])) and all(type(layer) in BATCHED for layer in layers)


def _is_plain(layer: nn.Module) -> bool:
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    tensors = {*layer._parameters, *(layer._buffers if not isinstance(layer, KeyedDropout) else ())}
    return not any(hooks) and tensors <= {"weight", "bias", "prior"}


def _chained(skeleton: nn.Module) -> Through:
    # A layer may stand at two places (children() would give it once); its tensors have the name of the first.
    names = {layer: name for name, layer in skeleton.named_children()}
    layers = list(skeleton) if type(skeleton) is nn.Sequential else [skeleton]
    places = [
        Place(names.get(layer, ""), layer, sum(other is layer for other in layers[:i]))
        for i, layer in enumerate(layers)
    ]

    def through(parameters: Named, buffers: Named, x: Tensor) -> Tensor:
        tensors = {**buffers, **parameters}
        for place in places:
            x = BATCHED[type(place.layer)](place, tensors, x)
        return x

    return through


def _vmapped(skeleton: nn.Module) -> Through:
    def alone(parameters: Named, buffers: Named, x: Tensor) -> Tensor:
        begin_pass(skeleton)
        return functional_call(skeleton, ({**parameters}, {**buffers}), (x,))

    return vmap(alone, randomness="error")


def _one_by_one(skeleton: nn.Module) -> Through:
    def alone(parameters: Named, buffers: Named, x: Tensor) -> Tensor:
        begin_pass(skeleton)
        return functional_call(skeleton, ({**parameters}, {**buffers}), (x,))

    def through(parameters: Named, buffers: Named, x: Tensor) -> Tensor:
        own = [
            ({n: p[m] for n, p in parameters.items()}, {n: b[m] for n, b in buffers.items()})
            for m in range(len(x))
        ]
        return torch.stack([alone(p, b, x[m]) for m, (p, b) in enumerate(own)])

    return through
