"""Three ways through a network with a members axis: as a chain of batched layers, under vmap, or one by one."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from foldwise.engine.dropout import KeyedDropout, begin_pass, masked
from foldwise.engine.members import in_evaluation
from foldwise.errors import NetworkError
from foldwise.nets.activations import ACTIVATIONS
from foldwise.nets.constant import Constant
from foldwise.nets.features import Fourier, Polynomial
from foldwise.nets.residual import Residual

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
    if is_chain(skeleton) and not is_tied(skeleton):
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
            in_evaluation(skeleton, lambda: stacked.through(parameters, trial, sample))
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


# A chain runs without vmap: each layer is written once with the members axis. Measured 1.3–2× faster.


class Place(NamedTuple):
    """A layer where it stands in a chain: the name of its tensors, and how often it stood earlier in the chain."""

    name: str
    layer: Any  # a module of a type in BATCHED, whose function knows its attributes
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
        half = own.dtype  # in half precision, products are made of numbers that are kept in full
        to_x = torch.bmm(own, weight.to(half)).to(x.dtype) if ctx.needs_input_grad[0] else None
        return to_x, torch.bmm(own.mT, x.to(half)).to(weight.dtype), own.sum(1).to(weight.dtype)


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


def _batch_norm(place: Place, tensors: Named, x: Tensor) -> Tensor:
    # The features of all members side by side are the channels of one layer: [batch, members·features]. Torch's
    # kernel for that is 4–10 times faster than what vmap makes of it, or than a mean and a variance over axis 1.
    layer = place.layer
    members, batch, features = x.shape
    mean, variance = (place.tensor(tensors, what) for what in ("running_mean", "running_var"))
    weight, bias = (
        None if t is None else t.reshape(-1).to(mean.dtype) for t in _scale_and_shift(place, tensors)
    )
    if layer.training:
        place.tensor(tensors, "num_batches_tracked").add_(1)
    y = F.batch_norm(
        x.transpose(0, 1).reshape(batch, members * features),
        mean.view(-1),  # never a copy: training writes into it
        variance.view(-1),
        weight,
        bias,
        training=layer.training,
        momentum=layer.momentum,
        eps=layer.eps,
    )
    return y.view(batch, members, features).transpose(0, 1)


def _layer_norm(place: Place, tensors: Named, x: Tensor) -> Tensor:
    return _scaled(place, tensors, F.layer_norm(x, place.layer.normalized_shape, eps=place.layer.eps))


def _group_norm(place: Place, tensors: Named, x: Tensor) -> Tensor:
    groups = x.unflatten(-1, (place.layer.num_groups, -1))
    return _scaled(place, tensors, F.layer_norm(groups, groups.shape[-1:], eps=place.layer.eps).view(x.shape))


def _scaled(place: Place, tensors: Named, z: Tensor) -> Tensor:
    weight, bias = (None if t is None else t.unsqueeze(1) for t in _scale_and_shift(place, tensors))
    if weight is None:
        return z
    return z * weight if bias is None else torch.addcmul(bias, z, weight)


def _scale_and_shift(place: Place, tensors: Named) -> list[Tensor | None]:
    names = ("weight", "bias")
    return [None if getattr(place.layer, name) is None else place.tensor(tensors, name) for name in names]


def _polynomial(place: Place, tensors: Named, x: Tensor) -> Tensor:
    mean, scale = (place.tensor(tensors, what).unsqueeze(1) for what in ("mean", "scale"))
    return place.layer.standardized(x, mean, scale)


def _fourier(place: Place, tensors: Named, x: Tensor) -> Tensor:
    directions, phases = (place.tensor(tensors, what) for what in ("directions", "phases"))
    return place.layer.cosines(x, directions, phases.unsqueeze(1))


BATCHED: dict[type[nn.Module], Callable[[Place, Named, Tensor], Tensor]] = {
    nn.Linear: _linear,
    Constant: _constant,
    KeyedDropout: _dropout,
    nn.BatchNorm1d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    Polynomial: _polynomial,
    Fourier: _fourier,
    **dict.fromkeys(ACTIVATIONS.values(), _elementwise),
}
CONTAINERS = (nn.Sequential, Residual)


def is_chain(module: nn.Module) -> bool:
    """Tell whether a network is one layer after another, also in residual blocks, all known here, without hooks."""
    if not _is_plain(module):
        return False
    if type(module) in CONTAINERS:
        return all(is_chain(layer) for layer in module.children())
    return type(module) in BATCHED and not _is_unusual(module)


def is_tied(module: nn.Module) -> bool:
    """Tell whether two layers have one parameter; one layer that stands at two places is no such case."""
    own = [p for layer in module.modules() for p in layer.parameters(recurse=False)]
    return len(own) != len({id(p) for p in own})


def why_no_chain(module: nn.Module) -> str:
    """Say why the layers of a network cannot be laid out in a table; empty when they can."""
    if not is_chain(module):
        return "the network is no chain of known layers"
    if is_tied(module):
        return "layers share a parameter"
    if any(not p.requires_grad for p in module.parameters()):
        return "the network has frozen parameters"
    for layer in module.modules():
        if isinstance(layer, nn.GELU) and layer.approximate != "none":
            return "its GELU is the approximate one"
        if isinstance(layer, nn.LeakyReLU) and layer.negative_slope <= 0:
            return "its leaky ReLU does not leak"
    return ""


def _is_unusual(layer: nn.Module) -> bool:
    if type(layer) is nn.BatchNorm1d:
        return not layer.track_running_stats or layer.momentum is None
    return type(layer) is nn.LayerNorm and len(layer.normalized_shape) > 1


TENSORS = {  # of the layers above; others may be those of a wrapper that computes a layer's weight from them
    *("weight", "bias", "prior", "running_mean", "running_var", "num_batches_tracked"),
    *("key", "limit", "scale", "mean", "directions", "phases"),
}


def _is_plain(layer: nn.Module) -> bool:
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return not any(hooks) and {*layer._parameters, *layer._buffers} <= TENSORS


def _chained(skeleton: nn.Module) -> Through:
    # A layer may stand at several places; its tensors have the name of the first, which is the one in named_modules().
    names = {module: name for name, module in skeleton.named_modules()}
    stood: Counter[nn.Module] = Counter()

    def placed(module: nn.Module) -> Callable[[Named, Tensor], Tensor]:
        if type(module) in CONTAINERS:
            # not children(), which would give a layer at two places once
            inside = [placed(layer) for layer in module._modules.values() if layer is not None]
            return partial(_through_all, inside, type(module) is Residual)
        place = Place(names[module], module, stood[module])
        stood[module] += 1
        return partial(BATCHED[type(module)], place)

    whole = placed(skeleton)

    def through(parameters: Named, buffers: Named, x: Tensor) -> Tensor:
        return whole({**buffers, **parameters}, x)

    return through


def _through_all(
    layers: list[Callable[[Named, Tensor], Tensor]], adds: bool, tensors: Named, x: Tensor
) -> Tensor:
    y = x
    for layer in layers:
        y = layer(tensors, y)
    return x + y if adds else y


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
