"""A forward pass while it is watched: every operation, also those of which autograd records nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from foldwise.autograd.nodes import Book, Function, saved_tensors, storage

CUTS = ("detach", "data", "detach_")
GIVES_A_VIEW = ("data", "T", "mT", "H", "mH", "real", "imag")  # attributes whose reading is an operation


@dataclass(frozen=True)
class Call:
    """An operation as it was called: what it got, what it gave, and where in the network."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    block: str
    recording: bool

    @property
    def recorded(self) -> bool:
        return any(t.requires_grad for t in self.outputs)

    @property
    def why(self) -> str:
        """Say why nothing was recorded."""
        if not any(t.requires_grad for t in self.inputs):
            return "nothing that it uses needs a gradient"
        if self.name in CUTS:
            return f"`{self.name}` cuts the gradient off here"
        if not self.recording:
            return "the gradient is cut off here: done under `no_grad`"
        if not any(t.is_floating_point() or t.is_complex() for t in self.outputs):
            return "its result is not a floating point number, and has no gradient"
        return "torch has no gradient of this operation"

    @property
    def cuts(self) -> bool:
        """Say whether a gradient would have come through here."""
        return any(t.requires_grad for t in self.inputs)


class Watch(TorchFunctionMode):
    """Notes every call of a function of torch; calls within it are part of it."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.calls: list[Call] = []
        self.blocks: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        recording = torch.is_grad_enabled()
        out = func(*args, **(kwargs or {}))
        name = _name(func)
        given, got = _tensors((args, kwargs)), _tensors(out)
        if name and given and got and not any(o is i for o in got for i in given):
            block = next((b for b in reversed(self.blocks) if b), "")
            self.calls.append(Call(name, given, got, block, recording))
        return out

    @contextmanager
    def blocks_known(self) -> Iterator[None]:
        """Know in which module an operation is done; hooks of all modules, so that none has to be changed."""

        def enter(module: nn.Module, *_: Any) -> None:
            self.blocks.append(self.names.get(id(module), ""))

        def leave(*_: Any) -> None:
            self.blocks.pop()

        with ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(enter).remove)
            stack.callback(register_module_forward_hook(leave, always_call=True).remove)
            yield


def watched(
    function: Callable[..., Any], inputs: Sequence[Any], module: nn.Module | None
) -> tuple[Any, Watch]:
    """Run a function and note what it does."""
    names = {} if module is None else {id(m): name for name, m in module.named_modules()}
    watch = Watch(names)
    with torch.enable_grad(), watch.blocks_known(), watch:
        return function(*inputs), watch


def note_calls(book: Book, calls: Sequence[Call], quiet: Sequence[Tensor]) -> None:
    """Note in the book what autograd did not record, what is recorded but leads nowhere, and blocks.

    `quiet` are tensors that are not worth showing: buffers.
    """
    unseen = {id(t) for t in quiet}
    made: dict[int, int] = {}
    for call in calls:
        if call.recorded:
            _note_recorded(book, call, made, unseen)
        else:
            _note_pruned(book, call, made, unseen)


def _note_recorded(book: Book, call: Call, made: dict[int, int], unseen: set[int]) -> None:
    ends = [t.grad_fn for t in call.outputs if t.grad_fn is not None]
    for end in ends:
        book.walk(end, "unused", "the output does not depend on it")
    own = list(_own(call, ends))
    for function in own:
        number = book.numbers[id(function)]
        if not book.nodes[number].block:
            book.change(number, block=call.block)
    for tensor in call.inputs:
        if not tensor.requires_grad and id(tensor) not in unseen and own:
            state = book.nodes[book.numbers[id(own[0])]].state
            target = book.numbers[id(_user(own, tensor))]
            book.connect(_source(book, tensor, made), target, "pruned" if state == "recorded" else state)


def _note_pruned(book: Book, call: Call, made: dict[int, int], unseen: set[int]) -> None:
    first = call.outputs[0]
    number = book.add(
        call,
        kind="operation",
        label=call.name,
        shape=tuple(first.shape),
        dtype=str(first.dtype).removeprefix("torch."),
        state="pruned",
        why=call.why,
        block=call.block,
    )
    for tensor in call.inputs:
        if id(tensor) not in unseen:
            book.connect(_source(book, tensor, made), number, "pruned")
    made.update((id(t), number) for t in call.outputs)


def _source(book: Book, tensor: Tensor, made: Mapping[int, int]) -> int:
    if id(tensor) in made:
        return made[id(tensor)]
    if tensor.grad_fn is not None:
        book.walk(tensor.grad_fn, "unused", "the output does not depend on it")
        return book.numbers[id(tensor.grad_fn)]
    frozen = book.leaves.get(id(tensor), ("", ""))[0] == "parameter" and not tensor.requires_grad
    why = "frozen: requires_grad is False" if frozen else ""
    return book.leaf(tensor, "unused" if tensor.requires_grad else "pruned", why)


def _own(call: Call, ends: Sequence[Function]) -> Iterator[Function]:
    """Give the nodes that a call recorded, from its results back to what it was given."""
    given = {id(t.grad_fn) for t in call.inputs if t.grad_fn is not None}
    seen: set[int] = set(given)
    stack = list(ends)
    while stack:
        function = stack.pop()
        if id(function) not in seen and not hasattr(function, "variable"):
            seen.add(id(function))
            yield function
            stack += [f for f, _ in function.next_functions if f is not None]


def _user(own: Sequence[Function], tensor: Tensor) -> Function:
    """Find which of a call's nodes uses a tensor: the one that stores it, or has a place without a gradient."""
    place = storage(tensor)
    for function in own:
        try:
            by_hand = isinstance(function, torch.autograd.function.BackwardCFunction)
            if any(storage(t) == place for _, t in saved_tensors(function, by_hand)):
                return function
        except RuntimeError:  # freed by a backward pass inside the function
            continue
    open_places = [f for f in own if any(g is None for g, _ in f.next_functions)]
    return (open_places or list(own))[-1]


def _tensors(values: Any) -> tuple[Tensor, ...]:
    return tuple(t for t in pytree.tree_leaves(values) if isinstance(t, Tensor))


def _name(func: Any) -> str:
    """Name a function of torch; empty for reading an attribute."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        return attribute if attribute in GIVES_A_VIEW else ""
    return (
        "" if name in ("__set__", "__delete__", "requires_grad_", "retain_grad") else name.strip("_") or name
    )
