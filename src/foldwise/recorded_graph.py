"""graph(): the graph that autograd recorded of a loss, as a record, a picture and a text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from foldwise.autograd.calling import refuse_no_function, refuse_other_arguments
from foldwise.autograd.drawing import draw
from foldwise.autograd.nodes import Book, Edge, GraphNode, Kind, State, in_order_of_use, names_of
from foldwise.autograd.recording import note_calls, watched
from foldwise.autograd.tree import amount, tree
from foldwise.checks.look import undisturbed
from foldwise.errors import FoldwiseError, StoreError

MOST = 48  # boxes of a picture; beyond, repeated parts are folded, and then the middle


@dataclass(frozen=True)
class ParameterUse:
    """Whether a parameter gets a gradient, and if not, why."""

    name: str
    shape: tuple[int, ...]
    gets: bool
    why: str = ""


@dataclass(frozen=True)
class Graph:
    """What autograd recorded of an output. Printed, it is a tree; in a notebook, a picture.

    `nodes` are in the order of computation, with the output last; `edges` lead from what is used to what uses it;
    `parameters` are those of the module that was given, or those that were met. `freed` says that a backward pass has
    already freed what was stored.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[Edge, ...]
    parameters: tuple[ParameterUse, ...]
    freed: bool = False
    most: int = MOST

    @property
    def operations(self) -> tuple[GraphNode, ...]:
        """Give the operations through which gradients flow."""
        return self._those("recorded")

    @property
    def pruned(self) -> tuple[GraphNode, ...]:
        """Give the operations that were done but not recorded: no gradient is needed there, or it is cut off."""
        return self._those("pruned")

    @property
    def unused(self) -> tuple[GraphNode, ...]:
        """Give the operations that were recorded although the output does not depend on them."""
        return self._those("unused")

    @property
    def stored_bytes(self) -> int:
        """Count the bytes that are stored for the backward pass, apart from parameters and inputs."""
        return sum(node.bytes for node in self.operations)

    @property
    def without_gradient(self) -> tuple[ParameterUse, ...]:
        """Give the parameters that get no gradient."""
        return tuple(p for p in self.parameters if not p.gets)

    @property
    def sentence(self) -> str:
        """Say in a sentence what the graph holds."""
        parts = [_count(len(self.operations), "operation")]
        if self.pruned:
            parts.append(f"{_count(len(self.pruned), 'more')} without a gradient")
        if self.unused:
            parts.append(f"{_count(len(self.unused), 'more')} that nothing depends on")
        if self.parameters:
            gets = sum(p.gets for p in self.parameters)
            which = "all" if gets == len(self.parameters) else f"{gets} of"
            parts.append(
                f"{which} {_count(len(self.parameters), 'parameter')} get{'s' * (gets == 1)} a gradient"
            )
        stored = "what was stored is freed already" if self.freed else f"{amount(self.stored_bytes)} stored"
        return f"{', '.join(parts)}; {stored}{'' if self.freed else ' for the backward pass'}."

    @cached_property
    def svg(self) -> str:
        """Draw the graph: what is computed first on top, parameters beside the operation that uses them."""
        return draw(self.nodes, self.edges, self.sentence, self.remarks, self.most)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Say which parameters get no gradient, and why."""
        by_reason: dict[str, list[str]] = {}
        for p in self.without_gradient:
            by_reason.setdefault(p.why, []).append(p.name)
        return tuple(
            f"no gradient for {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}: {why}"
            for why, names in by_reason.items()
        )

    def save(self, path: str | Path) -> Path:
        """Write the picture to a file: .svg, or .html for a page of its own."""
        path = Path(path)
        if path.suffix not in (".svg", ".html"):
            raise StoreError(
                f"a graph cannot be saved as `{path.name}`.", hint="end the name in .svg or .html"
            )
        page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Graph</title>{_PAGE}{self.svg}</html>'
        try:
            path.write_text(self.svg if path.suffix == ".svg" else page, encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"`{path}` cannot be written: {error.strerror}.", hint="choose another place"
            ) from error
        return path

    def _repr_html_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return "\n".join(
            [self.sentence, "", *tree(self.nodes, self.edges), *(["", *self.remarks] if self.remarks else [])]
        )

    def _those(self, state: str) -> tuple[GraphNode, ...]:
        return tuple(n for n in self.nodes if n.kind == "operation" and n.state == state)


_PAGE = """<style>
body { margin: 2rem; background: #fdfdfb; }
@media (prefers-color-scheme: dark) { body { background: #14171b; } }
</style>"""


def graph(
    loss: Tensor | Callable[..., Any],
    *inputs: Any,
    module: nn.Module | None = None,
    named_parameters: Iterable[tuple[str, Tensor]] | None = None,
    most: int = MOST,
) -> Graph:
    """Show the graph that autograd records of a loss: operations, shapes, what is stored, who gets a gradient.

    Given a tensor, it is the graph behind it. Given a function or module, `loss(*inputs)` is run once and watched, and
    what autograd does not record is shown as well: operations on which no gradient depends, and where one is cut off
    (`detach`, `no_grad`, `argmax`). The output may have any shape, or be several tensors.

    `module`, or `named_parameters`, gives parameters their names and lists those that get no gradient. Its buffers, its
    mode and torch's random state are afterwards as they were. `most` is the number of boxes in the picture: in longer
    graphs chains are folded, then repeated parts, then the middle, and the picture says how many operations are not
    shown. Nodes, edges and text are always complete.

    What is stored is read from autograd's nodes (`_saved_…`), so it must be called before `backward()`.

    Raises FoldwiseError when nothing was recorded, or for arguments that the function does not take.

    >>> from torch.nn import functional as F
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> picture = graph(lambda x: net(x).square().mean(), torch.ones(16, 4), module=net)
    >>> [node.label for node in picture.operations]
    ['t', 'addmm', 'relu', 't', 'addmm', 'pow', 'mean']
    >>> [p.name for p in picture.without_gradient]
    []
    """
    if not isinstance(loss, Tensor):
        refuse_no_function(loss, "graph", "graph(loss) of a tensor, or graph(function, x, w)")
        refuse_other_arguments(loss, inputs, {}, "give them after it: graph(function, x, w)")
    if module is not None and not isinstance(module, nn.Module):
        raise FoldwiseError(
            f"`module` is the module whose parameters are named; got {type(module).__name__}.",
            hint="graph(loss, module=net)",
        )
    if isinstance(loss, nn.Module) and module is None:
        module = loss
    if most < 8:
        raise FoldwiseError(f"`most` must be at least 8; got {most}.", hint="graph(loss, most=48)")
    named = list(named_parameters or [])
    if module is not None:
        named += list(module.named_parameters(remove_duplicate=False))
    leaves: dict[int, tuple[Kind, str]] = {i: ("parameter", name) for i, name in names_of(named).items()}
    if isinstance(loss, Tensor):
        if inputs:
            raise FoldwiseError(
                "a tensor takes no inputs.",
                hint="graph(loss), or graph(function, *inputs) to see what is pruned",
            )
        return _graph_of(Book(leaves), loss, named, module, [], most)
    leaves |= _inputs(loss, inputs)
    return _watched_graph(loss, inputs, module, Book(leaves), named, most)


def graph_of_network(
    module: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor] | None = None, *, most: int = MOST
) -> Graph:
    """Show what a network records of a batch: graph(lambda x: loss(module(x)), inputs, module=module).

    >>> import torch
    >>> graph_of_network(nn.Linear(4, 1), torch.ones(2, 4), torch.sum).sentence
    '3 operations, all 2 parameters get a gradient; 0 B stored for the backward pass.'
    """

    def output(inputs: Tensor) -> Any:
        out = module(inputs)
        return out if loss is None else loss(out)

    return graph(output, inputs, module=module, most=most)


def _watched_graph(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    module: nn.Module | None,
    book: Book,
    named: Sequence[tuple[str, Tensor]],
    most: int,
) -> Graph:
    with undisturbed(module or nn.Module()):
        out, watch = watched(function, inputs, module)
        return _graph_of(book, out, named, module, watch.calls, most)


def _graph_of(
    book: Book,
    out: Any,
    named: Sequence[tuple[str, Tensor]],
    module: nn.Module | None,
    calls: Sequence[Any],
    most: int,
) -> Graph:
    results = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
    if not results:
        raise FoldwiseError(
            f"there is no tensor in what the function gave: {type(out).__name__}.",
            hint="pass a loss, or a function that returns one",
        )
    if not calls and not any(t.requires_grad for t in results):
        raise FoldwiseError(
            "nothing was recorded: the loss does not require a gradient.",
            hint="compute it from parameters that require one, outside of `torch.no_grad()`; pass a function instead "
            "of the loss to see where the gradient is cut off",
        )
    buffers = [] if module is None else list(module.buffers())
    for tensor in [p for _, p in named] + buffers:
        book.hold(tensor)
    for tensor in (t for call in calls for t in call.inputs if id(t) in book.leaves):
        book.hold(tensor)
    for tensor in results:
        if tensor.grad_fn is not None:
            book.walk(tensor.grad_fn)
    note_calls(book, calls, buffers)
    _note_outputs(book, results, calls)
    return Graph(*in_order_of_use(book), tuple(_uses(book, named)), book.freed, most)


def _note_outputs(book: Book, results: Sequence[Tensor], calls: Sequence[Any]) -> None:
    made = {id(t): call for call in calls for t in call.outputs}
    for place, tensor in enumerate(results):
        several = f" {place + 1}" if len(results) > 1 else ""
        name = "loss" if tensor.numel() == 1 else "output"
        state: State = "recorded" if tensor.requires_grad else "pruned"
        number = book.add(
            object(), kind="output", label=name + several, shape=tuple(tensor.shape), state=state,
            why="" if tensor.requires_grad else "it does not require a gradient",
        )  # fmt: skip
        if tensor.grad_fn is not None:
            source = book.numbers[id(tensor.grad_fn)]
        elif id(tensor) in made and id(made[id(tensor)]) in book.numbers:
            source = book.numbers[id(made[id(tensor)])]
        else:
            source = book.leaf(tensor)
        book.connect(source, number, state)


def _uses(book: Book, named: Sequence[tuple[str, Tensor]]) -> list[ParameterUse]:
    met = [n for n in book.nodes if n.kind == "parameter" or (n.kind == "input" and n.label == "leaf")]
    if not named:
        return [ParameterUse(n.label, n.shape, n.state == "recorded", n.why) for n in met]
    return [ParameterUse(name, tuple(p.shape), *_use(book, p)) for name, p in named]


def _use(book: Book, parameter: Tensor) -> tuple[bool, str]:
    if not parameter.requires_grad:
        return False, "frozen (requires_grad is False)"
    if id(parameter) not in book.numbers:
        return False, "the output does not use it"
    number = book.numbers[id(parameter)]
    if book.nodes[number].state == "recorded":
        return True, ""
    if any(e.source == number and e.state == "pruned" for e in book.edges.values()):
        return False, "used only where no gradient is recorded"
    return False, "used only by what the output does not depend on"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 or noun == "more" else f"{number} {noun}s"


def _inputs(function: Callable[..., Any], inputs: Sequence[Any]) -> dict[int, tuple[Kind, str]]:
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        words = list(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        words = []
    words += [f"input {i + 1}" for i in range(len(words), len(inputs))]
    found: dict[int, tuple[Kind, str]] = {}
    for word, value in zip(words, inputs, strict=False):
        tensors = [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
        several = len(tensors) > 1
        found |= {id(t): ("input", f"{word} {i + 1}" if several else word) for i, t in enumerate(tensors)}
    return found
