"""What autograd recorded, as plain values: operations, leaves, what leads where, and what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["operation", "parameter", "input", "constant", "output"]
State = Literal["recorded", "pruned", "unused"]
Function = Any  # a node of autograd's graph: torch has no public type for it

# What only looks at the same numbers in another shape.
VIEWS = frozenset(
    (
        "t",
        "transpose",
        "permute",
        "view",
        "reshape",
        "reshape_alias",
        "unsafe_view",
        "expand",
        "unsqueeze",
        "squeeze",
    )
)


@dataclass(frozen=True)
class Saved:
    """A tensor that an operation stores for the backward pass.

    `held` says why it costs no memory of its own: it is a parameter, an input, or stored by an operation before.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    held: bool


@dataclass(frozen=True)
class GraphNode:
    """An operation, a leaf (parameter, input, constant) or the output.

    `state` is `recorded` when gradients flow through it, `pruned` when nothing is recorded because no gradient is
    needed or it is cut off, `unused` when it is recorded, but the output does not depend on it; `why` says it in words.
    `block` is the part of the network in which an operation was done, where that is known.
    """

    number: int
    kind: Kind
    label: str
    shape: tuple[int, ...]
    dtype: str = ""
    state: State = "recorded"
    why: str = ""
    block: str = ""
    saved: tuple[Saved, ...] = ()
    by_hand: bool = False

    @property
    def bytes(self) -> int:
        """Count the bytes that are stored because of this operation alone."""
        return sum(s.bytes for s in self.saved if not s.held)


@dataclass(frozen=True)
class Edge:
    """A result that is used, by numbers of nodes; `state` as that of the weaker end."""

    source: int
    target: int
    state: State = "recorded"


@dataclass
class Book:
    """Nodes and edges while they are collected; keys are autograd's nodes and tensors, by identity."""

    leaves: Mapping[int, tuple[Kind, str]]
    nodes: list[GraphNode] = field(default_factory=list)
    edges: dict[tuple[int, int], Edge] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    alive: list[Any] = field(default_factory=list)
    freed: bool = False

    def add(self, key: Any, **what: Any) -> int:
        """Note a node once; give its number."""
        if id(key) not in self.numbers:
            self.numbers[id(key)] = len(self.nodes)
            self.nodes.append(GraphNode(len(self.nodes), **what))
            self.alive.append(key)  # an identity is good only as long as what has it lives
        return self.numbers[id(key)]

    def connect(self, source: int, target: int, state: State = "recorded") -> None:
        """Note that a result is used."""
        self.edges.setdefault((source, target), Edge(source, target, state))

    def change(self, number: int, **what: Any) -> None:
        """Note more about a node."""
        self.nodes[number] = replace(self.nodes[number], **what)

    def hold(self, tensor: Tensor) -> None:
        """Take a tensor's memory as there anyway."""
        self.stored.add(storage(tensor))

    def walk(self, root: Function, state: State = "recorded", why: str = "") -> None:
        """Note all of autograd's graph behind a node, in the order in which it was computed."""
        for function in _in_order(root, self.numbers):
            before = [(f, place) for f, place in function.next_functions if f is not None]
            number = self._note(function, state, why)
            for source, _ in before:
                self.connect(self.numbers[id(source)], number, state)

    def leaf(self, tensor: Tensor, state: State = "recorded", why: str = "") -> int:
        """Note a tensor that nothing was recorded for."""
        kind, name = self.leaves.get(id(tensor), ("constant", "constant"))
        if kind == "constant" and tensor.requires_grad:
            kind, name = "input", "leaf"
        return self.add(
            tensor,
            kind=kind,
            label=name,
            shape=tuple(tensor.shape),
            dtype=_dtype(tensor),
            state=state,
            why=why,
        )

    def _note(self, function: Function, state: State, why: str) -> int:
        if hasattr(function, "variable"):  # where a gradient arrives: in a leaf
            number = self.leaf(function.variable, state, why)
            self.numbers[id(function)] = number
            self.alive.append(function)
            return number
        by_hand = isinstance(function, torch.autograd.function.BackwardCFunction)
        shape, dtype = _result(function)
        return self.add(
            function,
            kind="operation",
            label=_label(function, by_hand),
            shape=shape,
            dtype=dtype,
            state=state,
            why=why,
            saved=tuple(self._saved(function, by_hand)),
            by_hand=by_hand,
        )

    def _saved(self, function: Function, by_hand: bool) -> Iterator[Saved]:
        try:
            for name, tensor in saved_tensors(function, by_hand):
                place = storage(tensor)
                held = place in self.stored
                self.stored.add(place)
                yield Saved(
                    name, tuple(tensor.shape), _dtype(tensor), tensor.numel() * tensor.element_size(), held
                )
        except RuntimeError:  # after a backward pass
            self.freed = True


def saved_tensors(function: Function, by_hand: bool) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors that a node of autograd's graph stores, by name; RuntimeError when they are freed."""
    if by_hand:
        yield from (("saved", t) for t in function.saved_tensors if t is not None)
        return
    for attribute in dir(function):
        if attribute.startswith("_saved_"):
            value = getattr(function, attribute)
            found = value if isinstance(value, tuple | list) else [value]
            yield from ((attribute.removeprefix("_saved_"), t) for t in found if isinstance(t, Tensor))


def storage(tensor: Tensor) -> int:
    """Tell memory by its address; a tensor without ordinary memory by itself."""
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def _in_order(root: Function, known: Mapping[int, int]) -> list[Function]:
    """Sort what is behind a node so that each comes after what it uses; without recursion, graphs are deep."""
    found: list[Function] = []
    seen = set(known)
    stack: list[tuple[Function, bool]] = [(root, False)]
    while stack:
        function, done = stack.pop()
        if done:
            found.append(function)
        elif id(function) not in seen:
            seen.add(id(function))
            stack.append((function, True))
            stack += [(f, False) for f, _ in reversed(function.next_functions) if f is not None]
    return found


def _label(function: Function, by_hand: bool) -> str:
    name = re.sub(r"^Native|Backward\d*$", "", function.name().split("::")[-1])
    return name if by_hand else re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _result(function: Function) -> tuple[tuple[int, ...], str]:
    """Give shape and dtype of what an operation gave; of the first, where it gave several."""
    for about in getattr(function, "_input_metadata", ()):
        if about is not None:
            return tuple(about.shape), str(about.dtype).removeprefix("torch.")
    return (), ""


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def names_of(parameters: Sequence[tuple[str, Tensor]]) -> dict[int, str]:
    """Name parameters by identity; one that is used under several names has all of them."""
    names: dict[int, str] = {}
    for name, p in parameters:
        names[id(p)] = f"{names[id(p)]} = {name}" if id(p) in names else name
    return names


def in_order_of_use(book: Book) -> tuple[tuple[GraphNode, ...], tuple[Edge, ...]]:
    """Number nodes anew, so that each comes after what it uses and as late as it can, and the output last."""
    before: dict[int, list[int]] = {n.number: [] for n in book.nodes}
    for edge in book.edges.values():
        before[edge.target].append(edge.source)
    users = {edge.source for edge in book.edges.values()}
    ends = [n.number for n in book.nodes if n.number not in users]
    ends.sort(key=lambda i: (book.nodes[i].kind == "output", i))
    depth = dict.fromkeys(before, 0)
    for number in _numbered(ends, before, depth):
        depth[number] = max((depth[s] + 1 for s in before[number]), default=0)
    order = _numbered(ends, before, depth)
    nodes = sorted((replace(n, number=order[n.number]) for n in book.nodes), key=lambda n: n.number)
    edges = [replace(e, source=order[e.source], target=order[e.target]) for e in book.edges.values()]
    return tuple(nodes), tuple(sorted(edges, key=lambda e: (e.target, e.source)))


def _numbered(
    ends: Sequence[int], before: Mapping[int, Sequence[int]], depth: Mapping[int, int]
) -> dict[int, int]:
    """Number what is behind some nodes, the longest way first, so that the others are next to their user."""
    order: dict[int, int] = {}
    stack = [(end, False) for end in reversed(ends)]
    seen: set[int] = set()
    while stack:
        number, done = stack.pop()
        if done:
            order[number] = len(order)
        elif number not in seen:
            seen.add(number)
            stack.append((number, True))
            stack += sorted(((s, False) for s in before[number]), key=lambda s: depth[s[0]])
    return order
