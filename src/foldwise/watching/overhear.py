"""The loss of a training loop, overheard: what is computed from a network's outputs until the backward pass begins.

Between the end of a forward pass and the backward pass, every function of torch that is given the outputs, or what came
of them, is written down with what it was given. That is enough to find the targets, and to compute the loss again for
other outputs and targets. What was written down is believed only if it gives the same value again. It is computed again
on the CPU, whatever the loop runs on: there a loss refuses what it cannot take, where a GPU aborts the whole program.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, overrides
from torch.nn import functional as F
from torch.utils import _pytree as tree

LOSSES: dict[Callable[..., Any], str] = {
    getattr(F, name): name
    for name in (
        "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss",
        "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss", "multi_margin_loss", "multilabel_margin_loss",
        "multilabel_soft_margin_loss", "soft_margin_loss", "hinge_embedding_loss",
    )
}  # fmt: skip
MEANS = (torch.mean, Tensor.mean)
SUMS = (torch.sum, Tensor.sum)
BOUNDED = {
    torch.softmax, F.softmax, Tensor.softmax, torch.sigmoid, F.sigmoid, Tensor.sigmoid, torch.special.expit,
    F.hardsigmoid, torch.tanh, F.tanh, Tensor.tanh, torch.relu, F.relu, Tensor.relu, F.relu6, F.hardtanh,
}  # fmt: skip
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Call:
    """A function of torch, and what it was given."""

    function: Callable[..., Any]
    given: tuple[Any, ...]
    named: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """Give the tensors among what it was given."""
        return [t for t in tree.tree_leaves((self.given, dict(self.named))) if isinstance(t, Tensor)]

    def again(self, change: Callable[[Any], Any], **other: Any) -> Any:
        """Call it once more, with every tensor changed."""
        given, named = tree.tree_map_only(Tensor, change, (self.given, {**self.named, **other}))
        return self.function(*given, **named)


@dataclass(frozen=True)
class Heard:
    """A loss that was overheard: the targets, its value, its name if it is one of torch's, and how to compute it.

    `per_row` maps outputs and targets, wherever they are, to one value per row on the CPU, or to the same value for all
    where rows cannot be told apart. `reduction` is `mean`, `sum` or empty. `end` is there where the loop gives outputs
    bounds, by a softmax for instance, before one of torch's losses gets them.
    """

    targets: Tensor
    value: float
    name: str
    per_row: Callable[[Tensor, Tensor], Tensor]
    reduction: str
    end: End | None = None


@dataclass(frozen=True)
class End:
    """What a loop does with outputs, up to a function with bounds, and the loss of what that gives."""

    apply: Callable[[Tensor], Tensor]
    per_row: Callable[[Tensor, Tensor], Tensor]


def leave(own: overrides.TorchFunctionMode) -> None:
    """Take a mode from the stack of modes, wherever it lies by now: the user may have entered others since."""
    stack = [overrides._pop_mode() for _ in range(overrides._len_torch_function_stack())]
    for mode in reversed(stack):
        if mode is not own:
            overrides._push_mode(mode)


class Overhearing(overrides.TorchFunctionMode):
    """Writes down what becomes of a network's outputs, from `begin` to `end`; changes nothing."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs
        self.calls: dict[int, Call] = {}
        self.kept: dict[int, Tensor] = {id(outputs): outputs}
        self.targets: Tensor | None = None
        self.root: Tensor | None = None
        self.overwritten = False  # something was changed in place, so that it cannot be computed again

    def begin(self) -> None:
        """Listen from now on."""
        self.__enter__()

    def end(self) -> None:
        """Stop listening."""
        leave(self)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if function is Tensor.backward:
            self.root = self.root if self.root is not None else args[0]
            return function(*args, **named)
        result = function(*args, **named)
        if self.root is None and isinstance(result, Tensor):
            self._write_down(function, args, named, result)
        return result

    def _write_down(
        self, function: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], result: Tensor
    ) -> None:
        met = [t for t in tree.tree_leaves((args, dict(named))) if isinstance(t, Tensor)]
        if not any(id(t) in self.kept for t in met):
            return
        if any(result is t for t in met):
            self.overwritten = self.overwritten or function is not Tensor.requires_grad_
            return
        self.calls[id(result)] = Call(function, args, dict(named))
        self.kept[id(result)] = result
        if self.targets is None:
            # The last one: in `log_probabilities[torch.arange(rows), classes]` the classes.
            self.targets = next((t for t in reversed(met) if self._may_be_targets(t)), None)

    def _may_be_targets(self, tensor: Tensor) -> bool:
        fits = tensor.ndim > 0 and len(tensor) == len(self.outputs)
        return fits and id(tensor) not in self.kept and not tensor.requires_grad

    def heard(self) -> Heard | None:
        """Give the loss, if it was understood: computed again for the same outputs and targets it is the same."""
        if self.root is None or self.targets is None or self.outputs.ndim == 0 or self.overwritten:
            return None
        place, name = self._named_loss()
        if place not in self.calls or self.kept[place].ndim > 0:
            return None
        whole = self._function_of(place)
        try:
            with torch.no_grad():
                value = self.kept[place].detach()
                if not _same(whole(self.outputs, self.targets), value):
                    return None
                per_row, reduction = self._row_by_row(place, whole)
                if self._turned(place, whole):
                    per_row, value = _negative(per_row), -value
        except Exception:  # what the user's functions do when they are called once more is not ours to say
            return None
        end = self._end(place) if name else None
        return Heard(self.targets.detach().clone(), float(value), name, per_row, reduction, end)

    def _end(self, place: int) -> End | None:
        """Find the last function with bounds on a way from the outputs to a loss that has no branches."""
        bounded, at = None, place
        while at != id(self.outputs):
            ways = [id(t) for t in self.calls[at].tensors if id(t) in self.kept]
            if len(ways) != 1 or (at != place and len(self.calls[at].tensors) != 1):
                return None
            if bounded is None and self.calls[at].function in BOUNDED:
                bounded = at
            (at,) = ways
        if bounded is None:
            return None
        assert self.targets is not None
        behind, whole = copy.copy(self), self._function_of(bounded)
        behind.outputs = self.kept[bounded]
        heard, targets, half = behind.heard(), self.targets, (len(self.outputs) + 1) // 2
        try:
            with torch.no_grad():
                fits = len(whole(self.outputs[:half], targets)) == half
        except Exception:  # it is made for one number of rows
            return None
        return (
            End(lambda outputs: whole(outputs, targets), heard.per_row)
            if heard is not None and fits
            else None
        )

    def _named_loss(self) -> tuple[int, str]:
        """Find the last of torch's losses in what was heard; otherwise the tensor that the backward pass began with."""
        for place, call in reversed(self.calls.items()):
            if call.function in LOSSES and self.kept[place].ndim == 0:
                return place, LOSSES[call.function]
        assert self.root is not None
        return id(self.root), ""

    def _turned(self, place: int, whole: Callable[[Tensor, Tensor], Tensor]) -> bool:
        """Tell whether the sign was turned: what the backward pass began with falls where a loss of torch rises."""
        assert self.root is not None
        if place == id(self.root) or id(self.root) not in self.calls:
            return False
        root, values = self._function_of(id(self.root)), []
        moved = self.outputs + 0.1 * self.outputs.std() * torch.sin(
            torch.arange(self.outputs.numel(), device=self.outputs.device).view(self.outputs.shape)
        )
        for function in (root, whole):
            values.append(float(function(moved, self.targets) - function(self.outputs, self.targets)))  # type: ignore[arg-type]
        return values[0] * values[1] < 0

    def _function_of(self, place: int, **other: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Give what computes a tensor from outputs and targets; other tensors stay as they were."""
        calls, was, then = dict(self.calls), id(self.outputs), id(self.targets)
        constants: dict[int, Tensor] = {}

        def compute(outputs: Tensor, targets: Tensor) -> Tensor:
            known: dict[int, Any] = {was: _on_cpu(outputs), then: _on_cpu(targets)}

            def find(tensor: Tensor) -> Tensor:
                at = id(tensor)
                if at not in known:
                    known[at] = calls[at].again(find) if at in calls else _constant(tensor, constants)
                return known[at]

            with warnings.catch_warnings():  # the user has had them, from the loop
                warnings.simplefilter("ignore")
                result: Tensor = calls[place].again(find, **other)
            return result

        return compute

    def _row_by_row(
        self, place: int, whole: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
        last, rows = self.calls[place], len(self.outputs)
        each, reduction = None, ""
        if last.function in LOSSES:
            reduction = last.named.get("reduction", "mean")
            each = self._function_of(place, reduction="none")
        elif last.function in MEANS + SUMS and len(last.given) == 1 and id(last.given[0]) in self.calls:
            reduction = "mean" if last.function in MEANS else "sum"
            each = self._function_of(id(last.given[0]))
        if each is not None:
            found = each(self.outputs, self.targets)  # type: ignore[arg-type]
            value = self.kept[place].double().cpu()
            if found.ndim and len(found) == rows:
                return _mean_of_rows(each, _factor(found, value) if reduction == "mean" else 1.0), reduction
        return _for_all_rows(whole), reduction


def _mean_of_rows(
    each: Callable[[Tensor, Tensor], Tensor], factor: float
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: each(outputs, targets).reshape(len(outputs), -1).mean(1) * factor


def _factor(each: Tensor, value: Tensor) -> float:
    """Give what makes the mean over rows the value that was heard: weights of classes change what it is divided by."""
    ratio = float(value / each.double().mean())
    return ratio if math.isfinite(ratio) and ratio > 0 else 1.0


def _negative(per_row: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: -per_row(outputs, targets)


def _for_all_rows(whole: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: whole(outputs, targets).expand(len(outputs))


def _on_cpu(tensor: Tensor) -> Tensor:
    """Give a tensor for a loss that is computed on the CPU, which has few functions of half precision."""
    return tensor.cpu().float() if tensor.dtype in HALVES else tensor.cpu()


def _constant(tensor: Tensor, known: dict[int, Tensor]) -> Tensor:
    if id(tensor) not in known:
        known[id(tensor)] = _on_cpu(tensor.detach())
    return known[id(tensor)]


def _same(again: Any, value: Tensor) -> bool:
    apart = 2e-2 if value.dtype in HALVES else 1e-4
    return bool(
        isinstance(again, Tensor)
        and again.shape == value.shape
        and torch.allclose(again.double(), value.double().cpu(), rtol=apart, equal_nan=True)
    )
