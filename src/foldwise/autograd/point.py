"""A function with the tensors in which it is differentiated: a private copy in double precision."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from foldwise.autograd.calling import arguments_of
from foldwise.errors import NetworkError

Function = Callable[..., Any]


class _Called(nn.Module):
    """A function or a module's method as a module, so that both are evaluated in the same way."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        owner = getattr(function, "__self__", None) if inspect.ismethod(function) else function
        self.owner = _copy_of(owner) if isinstance(owner, nn.Module) else None
        self.method = function.__name__ if inspect.ismethod(function) else "__call__"
        self.function = None if self.owner is not None else function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.owner is None:
            assert self.function is not None
            return self.function(*args, **kwargs)
        return getattr(self.owner, self.method)(*args, **kwargs)


class Point:
    """Where a function is differentiated; each evaluation starts with the same random state and buffers.

    `tensors` are leaves in float64, `names` what they are called: inputs by the function's own words, parameters of a
    module by theirs. A module is copied, so that nothing of the caller's changes. Whatever comes out is one vector of
    doubles, times fixed random weights: its sum is what is differentiated. One number alone has weight 1.
    """

    def __init__(
        self, function: Function, inputs: Any, *, loss: Function | None, parameters: bool, seed: int
    ) -> None:
        self.called = _Called(function)
        self.loss = loss
        self.seed = seed
        args, kwargs = arguments_of(inputs)
        paths, self.spec = pytree.tree_flatten_with_path((args, kwargs))
        self.given = [_own(value) for _, value in paths]
        words = _words(function, len(args))
        self.places = _differentiated([value for _, value in paths])
        self.names = [_name(paths[place][0], words) for place in self.places]
        self.tensors: list[Tensor] = [self.given[place].requires_grad_() for place in self.places]
        if parameters:
            for name, p in self.called.named_parameters():
                if p.requires_grad and p.is_floating_point():
                    self.names.append(name.removeprefix("owner."))
                    self.tensors.append(p)
        if not self.tensors:
            raise NetworkError(
                "there is nothing to differentiate: no input is a tensor of floating point numbers, and no parameter "
                "requires a gradient.",
                hint="pass inputs as tensors with a floating point dtype: check_gradients(f, torch.randn(3))",
            )
        self.buffers = [
            (owner, name, b.clone())
            for owner in self.called.modules()
            for name, b in owner.named_buffers(recurse=False)
        ]
        self.eps = torch.finfo(torch.float64).eps
        self.weights: Tensor | None = None
        self._prepare()

    def outputs(self) -> Float[Tensor, " outputs"]:
        """Evaluate the function where the tensors are now: all that comes out, weighted, as one vector."""
        return self._weighted(self._evaluate(self.called, self.tensors[: len(self.places)]))

    def outputs_at(self, tensors: Sequence[Tensor]) -> Float[Tensor, " outputs"]:
        """Evaluate the function at other tensors, such as dual numbers, instead of its own."""
        inputs = tensors[: len(self.places)]
        names = [name for name, p in self.called.named_parameters() if any(p is t for t in self.tensors)]
        others = dict(zip(names, tensors[len(self.places) :], strict=True))

        def called(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(self.called, others, args, kwargs)

        return self._weighted(self._evaluate(called, inputs))

    def gradients(self) -> list[Tensor | None]:
        """Give the gradient in each tensor by reverse accumulation; None where autograd knows of no connection."""
        total = self.outputs().sum()
        if not total.requires_grad:
            return [None] * len(self.tensors)
        return list(torch.autograd.grad(total, self.tensors, allow_unused=True))

    @contextmanager
    def moved(self, amount: float) -> Iterator[None]:
        """Stand beside the point for a while: every number a little off, at random."""
        chance = torch.Generator().manual_seed(self.seed + 1)
        before = [t.detach().clone() for t in self.tensors]
        with torch.no_grad():
            for t in self.tensors:
                t += amount * typical(t) * torch.randn(t.shape, generator=chance, dtype=t.dtype).to(t.device)
        try:
            yield
        finally:
            with torch.no_grad():
                for t, was in zip(self.tensors, before, strict=True):
                    t.copy_(was)

    def _evaluate(self, called: Function, inputs: Sequence[Tensor]) -> Any:
        for owner, name, value in self.buffers:
            setattr(owner, name, value.clone())
        values = [v.clone() if isinstance(v, Tensor) else v for v in self.given]
        for place, value in zip(self.places, inputs, strict=True):
            values[place] = value.clone()  # a function may write over what it is given
        args, kwargs = pytree.tree_unflatten(values, self.spec)
        start_chance(self.seed)
        with torch.enable_grad():
            out = called(*args, **kwargs)
            return out if self.loss is None else self.loss(out)

    def _weighted(self, out: Any) -> Float[Tensor, " outputs"]:
        found = _vector(out)
        assert self.weights is not None
        if len(found) != len(self.weights):
            raise NetworkError(
                f"the function gives {len(self.weights)} numbers at one time and {len(found)} at another.",
                hint="pass a function whose output has the same shape near the inputs",
            )
        return found.double() * self.weights

    def _prepare(self) -> None:
        """Evaluate twice: does it run in double precision, and give the same both times?"""
        try:
            first = _vector(self._evaluate(self.called, self.tensors[: len(self.places)]))
        except RuntimeError as error:
            if "not differentiable with respect to" in str(error):
                raise NetworkError(
                    f"an input has no gradient: {str(error).splitlines()[0]}",
                    hint="mark the inputs that have one with x.requires_grad_(); then the others are left alone",
                ) from error
            if "dtype" not in str(error) and "scalar type" not in str(error):
                raise
            raise NetworkError(
                f"the function does not run in double precision: {str(error).splitlines()[0]}",
                hint="gradients are compared in float64; make tensors that the function holds float64 too, or pass "
                "the module itself: check_gradients(module, inputs, loss=…)",
            ) from error
        self.eps = torch.finfo(first.dtype).eps
        chance = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(first), generator=chance, dtype=torch.float64)
        self.weights = (torch.ones_like(drawn) if len(first) == 1 else drawn).to(first.device)
        again = self.outputs()
        if not torch.equal((first.double() * self.weights).nan_to_num(), again.nan_to_num()):
            raise NetworkError(
                "the function gives different values for the same inputs and random state.",
                hint="draw random numbers from torch, and change nothing that the function reads again",
            )
        if not torch.isfinite(again).all():
            raise NetworkError(
                "the function gives NaN or infinity at these inputs, where no gradient can be compared.",
                hint="pass inputs at which every output is finite",
            )


def typical(tensor: Tensor) -> float:
    """Give the size of a tensor's usual entry, 1 when all are 0."""
    size = float(tensor.detach().square().mean().sqrt()) if tensor.numel() else 0.0
    return size or 1.0


def start_chance(seed: int) -> None:
    """Set torch's random state; without torch.manual_seed, which takes longer than a small network."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def chance_kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Leave torch's random state as it was, on each device of these tensors too."""
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield


def _copy_of(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).double()
    except (RuntimeError, TypeError) as error:
        raise NetworkError(
            f"the module cannot be copied: {str(error).splitlines()[0]}",
            hint="pass a module whose parameters are leaves, or a function that builds what it needs",
        ) from error


def _own(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.is_complex():
        raise NetworkError(
            "an input is complex; gradients are compared for real numbers.",
            hint="pass real and imaginary part as two inputs, and put them together with torch.complex",
        )
    kept = value.detach().clone(memory_format=torch.contiguous_format)
    return kept.double() if kept.is_floating_point() else kept


def _differentiated(values: Sequence[Any]) -> list[int]:
    """Find the inputs that are differentiated: those that require a gradient, or else all floating point ones."""
    floats = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.is_floating_point()]
    return [i for i in floats if values[i].requires_grad] or floats


def _words(function: Function, count: int) -> list[str]:
    """Give the names of a function's positional arguments."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    owner = getattr(function, "__self__", None)
    by_hand = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    called: Any = owner if by_hand else function
    try:
        called = called.forward if by_hand or isinstance(called, nn.Module) else called
        names = [name for name, p in inspect.signature(called).parameters.items() if p.kind in plain]
        names = names[1:] if names[:1] == ["ctx"] else names
    except (TypeError, ValueError):
        names = []
    return names[:count] + [f"input {i + 1}" for i in range(len(names), count)]


def _name(path: tuple[Any, ...], words: Sequence[str]) -> str:
    _, first, *rest = path
    start = words[first.idx] if isinstance(first, pytree.SequenceKey) else str(first.key)
    return start + pytree.keystr(tuple(rest))


def _vector(out: Any) -> Float[Tensor, " outputs"]:
    found = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
    if any(t.is_complex() for t in found):
        raise NetworkError(
            "the output is complex; gradients are compared for real outputs.",
            hint="return a real number: its real part, torch.view_as_real(out) or out.abs()",
        )
    numbers = [t.flatten() for t in found if t.is_floating_point()]
    if not sum(map(len, numbers)):
        kinds = ", ".join(str(t.dtype) for t in found) or type(out).__name__
        raise NetworkError(
            f"the output has no floating point numbers: {kinds}.",
            hint="return a tensor, or a tuple, list or dictionary of tensors, with a floating point dtype",
        )
    return torch.cat(numbers)
