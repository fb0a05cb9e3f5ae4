"""The whole step of a chunk as one explicit graph: captured from the eager step, and compiled.

The eager step runs once on copies while every operation on tensors is written down: forward pass, backward pass and
links, whatever Python they came from. What is written down has no Python left and depends on the shapes alone, so
chunks of one shape share a graph, and nothing is ever compiled behind our back in the middle of a training.
"""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from foldwise.engine.group import Group
from foldwise.engine.stacked.stepper import Feed, Stepper
from foldwise.engine.stacked.turns import Turn
from foldwise.engine.state import State, take

MOST_GRAPHS = 4  # of one cohort; chunks of further shapes take eager steps
OF_A_GROUP = (  # what a step reads of one
    *("stream_of", "fold_of_stream", "owner", "kin", "firsts_of_kin", "seeds_of_kin", "exact", "settings"),
    *("schedules", "shares", "total_steps", "sums", "constants", "dropout", "other_labels", "noisy"),
)
Taken = tuple[Tensor, Tensor | float]
Run = Callable[..., tuple[Tensor, ...]]


class Uncapturable(Exception):
    """A step cannot become a graph; says why."""


def usable_backend(device: torch.device) -> str | None:
    """Name what can compile for a device here; None where a C++ compiler is missing (CPU) or it is unknown."""
    if device.type == "cuda":
        return "inductor"
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    return "inductor" if device.type == "cpu" and any(map(shutil.which, filter(None, compilers))) else None


class Graphs:
    """Compiled steps by shape. `prepare` makes what is missing; `step` takes a step, eager where there is no graph."""

    def __init__(self, stepper: Stepper, backend: str) -> None:
        self.stepper, self.backend = stepper, backend
        self.members = len(stepper.cohort)  # for whom the graphs are
        self.runs: dict[Hashable, Run] = {}
        self.ready: WeakKeyDictionary[Group, tuple[tuple[int, ...], Run | None, list[Tensor]]] = (
            WeakKeyDictionary()
        )

    def prepare(self, turn: Turn, state: State, feeds: Sequence[Feed]) -> None:
        """Capture and compile a turn of whole batches that the whole chunk takes, unless its shape is known.

        Raises Uncapturable.
        """
        if turn.group in self.ready:
            return
        own: list[Tensor] = []
        shape = (_apart(turn.group, own), _apart(state, []), _apart(list(feeds), []))
        if shape not in self.runs and len(self.runs) < MOST_GRAPHS:
            self.runs[shape] = self._compiled(turn.group, state, feeds)
        self.ready[turn.group] = (turn.sizes, self.runs.get(shape), own)

    def step(self, turn: Turn, state: State, feeds: Sequence[Feed], room: Tensor | None) -> Taken:
        """Take a step, in place, by the graph of this turn if there is one."""
        sizes, run, own = self.ready.get(turn.group, (None, None, []))
        if run is None or sizes != turn.sizes or not turn.by_all:
            return self.stepper.step(turn.group, state, feeds, room)
        given: list[Tensor] = []
        _apart(state, given)
        _apart(list(feeds), given)
        with torch.no_grad():
            loss, *counted = run(*own, *given)
        return loss, counted[0] if counted else 1.0

    def _compiled(self, group: Group, state: State, feeds: Sequence[Feed]) -> Run:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # those of the compiler about its own parts
                return self._tried(group, state, feeds)
        # whatever cannot be captured or compiled here: eager steps are always right
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            raise Uncapturable(f"{type(error).__name__}: {lines[0][:120]}") from error

    def _tried(self, group: Group, state: State, feeds: Sequence[Feed]) -> Run:
        """Capture and compile, which happens in the first call."""
        with torch.enable_grad():
            captured = capture(self.stepper, group, state, feeds)
        given: list[Tensor] = []
        _apart(group, given)
        first = len(given)
        _apart(take(state, _all(state)), given)
        changed = range(first, len(given))
        _apart(list(feeds), given)
        if self.stepper.cohort.rows.device.type == "cuda":
            run = replaying(
                captured, changed, given, partial(torch.compile, mode="reduce-overhead", dynamic=False)
            )
        else:
            run = torch.compile(captured, backend=self.backend, dynamic=False)
        run(*given)
        return run


def capture(stepper: Stepper, group: Group, state: State, feeds: Sequence[Feed]) -> torch.fx.GraphModule:
    """Write down a step as a graph over the tensors of group, state and feeds, in the order of `_apart`.

    It changes those of the state in place, and gives the losses (under float16 also who counts).
    """
    example = (group, take(state, _all(state)), list(feeds))
    given: list[Tensor] = []
    _apart(example, given)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        group, state, feeds = _together(example, iter(tensors))
        return tuple(t for t in stepper.step(group, state, feeds) if isinstance(t, Tensor))

    return make_fx(run)(*given)


def replaying(
    captured: Run, changed: Sequence[int], given: Sequence[Tensor], compiled: Callable[[Any], Any]
) -> Run:
    """Compile for CUDA graphs, which replay a step without starting its operations one by one.

    A CUDA graph must not change what it is given, so it works on copies of the tensors that the step may change and
    hands them out; they are copied back before the next replay overwrites them. That costs a pass over the state,
    and no wait.
    """

    def pure(*tensors: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        own = [t.clone() if n in changed else t for n, t in enumerate(tensors)]
        return captured(*own), [own[n] for n in changed]

    replayed = compiled(make_fx(pure)(*given))  # a graph of its own, not one more form of one function

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        torch.compiler.cudagraph_mark_step_begin()
        results, new = replayed(*tensors)
        for n, tensor in zip(changed, new, strict=True):
            tensors[n].copy_(tensor)
        return tuple(t.clone() for t in results)

    return run


def _all(state: State) -> Tensor:
    return torch.arange(len(state), device=state.step.device)  # an index copies


def _apart(thing: Any, tensors: list[Tensor]) -> Hashable:
    """Collect the tensors inside a thing, and give its shape: what else decides which graph it is."""
    if isinstance(thing, Tensor):
        tensors.append(thing)
        return (tuple(thing.shape), thing.dtype)
    if isinstance(thing, Group):
        alone = len(thing.streams) == len(thing.members)
        return (alone, *(_apart(getattr(thing, name), tensors) for name in OF_A_GROUP))
    if isinstance(thing, Mapping):
        return tuple((name, _apart(value, tensors)) for name, value in thing.items())
    if isinstance(thing, tuple | list):
        return tuple(_apart(value, tensors) for value in thing)
    if is_dataclass(thing):
        return tuple(_apart(getattr(thing, f.name), tensors) for f in fields(thing))
    return thing


def _together(thing: Any, tensors: Iterator[Tensor]) -> Any:
    """Give a copy of a thing with other tensors, in the order in which `_apart` collects them."""
    if isinstance(thing, Tensor):
        return next(tensors)
    if isinstance(thing, Group):
        other = copy.copy(thing)
        vars(other).update({name: _together(getattr(thing, name), tensors) for name in OF_A_GROUP})
        return other
    if isinstance(thing, Mapping):
        return {name: _together(value, tensors) for name, value in thing.items()}
    if isinstance(thing, tuple | list):
        return type(thing)(_together(value, tensors) for value in thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{f.name: _together(getattr(thing, f.name), tensors) for f in fields(thing)})
    return thing
