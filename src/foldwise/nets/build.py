"""From settings to a network: the built-in families by name, and the user's own module."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from foldwise.errors import NetworkError, listed
from foldwise.nets.constant import Constant
from foldwise.nets.features import Fourier, Polynomial
from foldwise.nets.mlp import mlp
from foldwise.nets.residual import residual
from foldwise.settings import Settings

Net = Callable[..., nn.Module]


def build(settings: Settings, inputs: int, outputs: int, net: Net | None = None) -> nn.Module:
    """Make the network that maps `[batch, inputs]` to `[batch, outputs]`.

    `net` is the user's own: a class or function that returns an `nn.Module`. It is called with those of `inputs`,
    `outputs` that its signature names, and with the arguments that the search sets; others keep its own defaults.

    >>> build(Settings(network="linear"), 4, 3)
    Sequential(
      (output): Linear(in_features=4, out_features=3, bias=True)
    )
    """
    if settings.network == "custom":
        return _build_own(settings, inputs, outputs, net)
    if settings.network == "constant":
        return Constant(outputs)
    features = _feature_map(settings, inputs)
    if features is None:
        return _chain(settings, inputs, outputs)
    network = _chain(settings, features.outputs, outputs)
    return nn.Sequential(OrderedDict(features=features, **dict(network.named_children())))


def _feature_map(settings: Settings, inputs: int) -> Polynomial | Fourier | None:
    if settings.feature_map == "polynomial":
        return Polynomial(inputs, settings.feature_degree)
    return Fourier(inputs, settings.feature_count) if settings.feature_map == "fourier" else None


def _chain(settings: Settings, inputs: int, outputs: int) -> nn.Sequential:
    family = residual if settings.network == "residual" else mlp
    return family(
        inputs,
        outputs,
        width=settings.width,
        depth=settings.hidden_layers,
        activation=settings.activation,
        normalize=settings.normalization,
        groups=settings.normalization_groups,
        dropout=settings.dropout,
    )


def own_options(net: Net) -> dict[str, inspect.Parameter]:
    """List the arguments of the user's own network that a search may set, by name."""
    parameters = inspect.signature(net).parameters
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: p for name, p in parameters.items() if name not in ("inputs", "outputs") and p.kind in plain
    }


def _build_own(settings: Settings, inputs: int, outputs: int, net: Net | None) -> nn.Module:
    if net is None:
        raise NetworkError(
            "network `custom` needs a network of your own.", hint="foldwise.fit(..., net=MyNet)"
        )
    arguments: dict[str, object] = {"inputs": inputs, "outputs": outputs}
    arguments |= {name: getattr(settings, name) for name in settings.takes}
    arguments |= dict(settings.options)
    wanted = inspect.signature(net).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values())
    try:
        module = net(**{name: value for name, value in arguments.items() if anything or name in wanted})
    except TypeError as error:
        raise NetworkError(
            f"the network `{_name(net)}` could not be built: {error}.",
            hint="its arguments may be `inputs`, `outputs`, width, depth, activation, dropout, "
            "or ones with a default or a value in the search",
        ) from error
    if not isinstance(module, nn.Module):
        raise NetworkError(
            f"the network `{_name(net)}` gave a {type(module).__name__}, not a torch.nn.Module.",
            hint="pass a class, or a function that returns a new module at each call",
        )
    if lazy := [name for name, p in module.named_parameters() if nn.parameter.is_lazy(p)]:
        raise NetworkError(
            f"the network `{_name(net)}` does not know the size of {listed(lazy)}.",
            hint="take `inputs` and `outputs` as arguments: nn.Linear(inputs, 32) for nn.LazyLinear(32)",
        )
    return module


def _name(net: Net) -> str:
    return getattr(net, "__name__", type(net).__name__)
