"""A network as it was at the start, pictures of its weights later on, and the batch with which both are looked at."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as tree

from foldwise.checks.look import Look, Recorder, look_at
from foldwise.checks.sight import Network
from foldwise.watching.overhear import Heard, Overhearing

MOST = 12  # pictures are kept
BYTES = 256 * 2**20  # they may take together, but for the last
TRIES = 5  # to overhear the loss


@dataclass(frozen=True)
class Picture:
    """Parameters and buffers after so many steps."""

    step: int
    tensors: list[Tensor]


@dataclass(frozen=True)
class Batch:
    """What the network was given in a pass, and which of the tensors that it gave is the output."""

    given: tuple[Any, ...]
    named: dict[str, Any]
    output: int
    plain: bool  # whether what it gave is one tensor

    @property
    def alone(self) -> bool:
        """Tell whether what it was given is one tensor and nothing else."""
        return len(self.given) == 1 and not self.named and isinstance(self.given[0], Tensor)


class Likeness:
    """What is kept of a network while it trains."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.start = copied(network)
        self.pictures: list[Picture] = []
        size = sum(t.numel() * t.element_size() for t in _tensors(network))
        self.room = max(1, min(MOST, BYTES // max(1, size)))
        self.batch: Batch | None = None
        self.heard: Heard | None = None
        self.listening: Overhearing | None = None
        self.tries = 0

    @property
    def curious(self) -> bool:
        """Tell whether the loss is still to be overheard."""
        return self.heard is None and self.listening is None and self.tries < TRIES

    @property
    def outgrown(self) -> bool:
        """Tell whether the network has other parameters than at the start: layers that its first pass has made."""
        return self.start is not None and _names(self.start) != _names(self.network)

    def listen(self, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        """Keep the batch of a pass that has just been made, and listen to what becomes of its outputs."""
        self.tries += 1
        given, named = tree.tree_map_only(Tensor, _kept, (given, named))
        leaves = tree.tree_leaves(out)
        places = [i for i, t in enumerate(leaves) if isinstance(t, Tensor) and t.is_floating_point()]
        if not places:
            return
        place = next((i for i in places if leaves[i].requires_grad), places[0])
        self.batch = Batch(given, named, place, isinstance(out, Tensor))
        self.listening = Overhearing(leaves[place])
        self.listening.begin()

    def understand(self) -> None:
        """Stop listening, and keep what was understood."""
        if self.listening is not None:
            self.listening.end()
            self.heard = self.listening.heard()
            self.listening = None

    def picture(self, step: int) -> None:
        """Keep the weights as they are; of too many pictures every second goes, but never the last."""
        if self.pictures and self.pictures[-1].step == step:
            self.pictures.pop()
        self.pictures.append(Picture(step, [_kept(t) for t in _tensors(self.network)]))
        if len(self.pictures) > self.room:
            self.pictures = self.pictures[::-2][::-1]

    def as_network(self) -> Network | None:
        """Give the network as it started with its batch, as checks want it; None where it is no map of one tensor.

        A function with bounds that the loop applies to its outputs is its end, as if it were in the network.
        """
        if self.start is None or self.batch is None or not self.batch.alone:
            return None
        module, heard = _of_one_tensor(copy.deepcopy(self.start), self.batch), self.heard
        if heard is None:
            return Network(module, self.batch.given[0])
        if heard.end is None:
            return Network(module, self.batch.given[0], heard.targets, heard.per_row, heard.name)
        end = heard.end.apply
        module = _ending_in(module, end)
        return Network(module, self.batch.given[0], heard.targets, heard.end.per_row, heard.name, end=end)

    def looks(self) -> tuple[Look, ...]:
        """Look at the network at its start and at the pictures of it, each time with the same batch."""
        heard = self.heard
        if self.start is None or self.batch is None or heard is None:
            return ()
        module = _of_one_tensor(copy.deepcopy(self.start), self.batch)
        inputs = next(
            t for t in tree.tree_leaves((self.batch.given, self.batch.named)) if isinstance(t, Tensor)
        )
        recorder, found = Recorder(module), []
        for picture in [None, *self.pictures]:
            if picture is not None and not _shown(module, picture):
                break
            step = 0 if picture is None else picture.step
            look = look_at(module, inputs, heard.targets, heard.per_row, step=step, recorder=recorder)
            found.append(look)
        return tuple(found)


def copied(network: nn.Module) -> nn.Module | None:
    """Copy a network without the hooks that look at what it gives, which are not for copies; None: it has no copy."""
    try:
        found = copy.deepcopy(network)
    except Exception:  # whatever a network of the user's own does when it is copied, watching it goes on
        return None
    for module in found.modules():
        module._forward_hooks.clear()
        module._backward_hooks.clear()
    return found


@contextmanager
def chance(network: nn.Module) -> Iterator[None]:
    """Leave all sources of chance that a network may use as they were."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = {t.device for t in _tensors(network) if t.device.type not in ("cpu", "meta")}
    kind = next((d.type for d in devices), "cuda")
    with torch.random.fork_rng([d.index or 0 for d in devices], device_type=kind):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002


def _tensors(network: nn.Module) -> list[Tensor]:
    return [t for t in [*network.parameters(), *network.buffers()] if not nn.parameter.is_lazy(t)]


def _names(network: nn.Module) -> set[str]:
    return {name for name, _ in network.named_parameters()}


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _shown(module: nn.Module, picture: Picture) -> bool:
    """Give a network the weights of a picture; tell whether they fit: the user may have changed the network."""
    own = _tensors(module)
    if [t.shape for t in own] != [t.shape for t in picture.tensors]:
        return False
    with torch.no_grad():
        for mine, then in zip(own, picture.tensors, strict=True):
            mine.copy_(then)
    return True


def _of_one_tensor(module: nn.Module, batch: Batch) -> nn.Module:
    """Make a network one that takes the first tensor of a batch, is given the rest of it, and gives one tensor."""
    if batch.alone and batch.plain:
        return module
    leaves, structure = tree.tree_flatten((batch.given, batch.named))
    place = next(i for i, t in enumerate(leaves) if isinstance(t, Tensor))
    kind: Any = type(module)

    class OfOneTensor(kind):  # a subclass, so that copies of it work, and its layers keep their names
        def forward(self, inputs: Tensor) -> Tensor:
            given, named = tree.tree_unflatten([*leaves[:place], inputs, *leaves[place + 1 :]], structure)
            out: Tensor = tree.tree_leaves(super().forward(*given, **named))[batch.output]
            return out

    return _become(module, OfOneTensor, lambda copied: _of_one_tensor(copied, batch))


def _ending_in(module: nn.Module, end: Callable[[Tensor], Tensor]) -> nn.Module:
    """Make a network one that applies a function to what it gives."""
    kind: Any = type(module)

    class Ending(kind):  # a subclass, as in `_of_one_tensor`
        def forward(self, inputs: Tensor) -> Tensor:
            return end(super().forward(inputs))

    return _become(module, Ending, lambda copied: _ending_in(copied, end))


def _become(module: nn.Module, kind: Any, again: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Give a network a subclass of its type.

    A type that is copied in a way of its own, as graphs are, copies what it was, and the copy is given its subclass.
    """
    was: Any = type(module)

    def copied(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        self.__class__ = was
        try:
            found = copy.deepcopy(self, memo)
        finally:
            self.__class__ = kind
        return again(found)

    if hasattr(was, "__deepcopy__"):
        kind.__deepcopy__ = copied
    module.__class__ = kind
    return module
