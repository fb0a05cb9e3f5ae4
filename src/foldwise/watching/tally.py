"""What happens in a loop, counted event by event; some steps are watched closely."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.optim import Optimizer

EVERY = 107  # steps, at the most, one is watched closely: no divisor of usual numbers of batches or accumulated steps


@dataclass
class Window:
    """A step watched closely, from the end of the step before of the same optimizer; None: it begins with the loop."""

    optimizer: Optimizer | None
    passes: int = 0
    backwards: int = 0
    thrown: int = 0
    emptied: bool = False  # a backward pass found no gradient to add to
    arrived: bool = False  # a gradient that was not 0 came
    felt: bool = False  # before the step it was looked whether there is a gradient
    cleared: bool = False  # there was none
    witness: str = ""  # the first parameter that a backward pass reached
    version: int = 0  # of the witness when that was
    others: int = 0  # steps of other optimizers since
    parameter: Tensor | None = None  # the witness
    found: Tensor | None = None  # the gradient that the first backward pass found there


@dataclass
class Tally:
    """Counts of a loop so far; what they mean is said in `checks.loop.Loop`."""

    steps: int = 0
    passes: int = 0
    watched: int = 0
    heard: int = 0
    backwards: int = 0
    thrown: int = 0
    empty: int = 0
    doubled: int = 0
    left: int = 0
    checked: int = 0
    cleared: int = 0
    felt: int = 0
    evaluating: int = 0
    evaluating_since: int | None = None
    dark_training: int = 0
    dark_evaluation: int = 0
    rates: array[float] = field(default_factory=lambda: array("d"))
    norms: array[float] = field(default_factory=lambda: array("d"))
    validations: array[int] = field(default_factory=lambda: array("q"))  # steps taken before each
    in_training: int = 0  # passes in training mode since the last step
    in_evaluation: int = 0
    dark: bool | None = None  # the mode of passes without gradients that are going on
    window: Window | None = None
    reached: set[str] = field(default_factory=set)

    def passed(self, *, training: bool) -> None:
        """Count a pass that records gradients."""
        self.dark = None
        self.passes += 1
        if training:
            self.in_training += 1
        else:
            self.in_evaluation += 1
        if self.window is not None:
            self.window.passes += 1

    def passed_in_the_dark(self, *, training: bool) -> None:
        """Count a pass that records none."""
        if self.dark is not training and self.steps:
            self.dark_training += training
            self.dark_evaluation += not training
            if not self.validations or self.validations[-1] != self.steps:
                self.validations.append(self.steps)
        self.dark = training

    def came_back(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        """Note that a gradient came to a parameter, and is about to be added to what it has."""
        self.reached.add(name)
        own = self.window
        if own is None or own.witness not in ("", name):
            return
        before, version = parameter.grad, parameter._version
        if before is None and own.backwards and version == own.version and not own.others:
            own.thrown += 1
        own.emptied = own.emptied or before is None or not not_zero(before)
        own.arrived = own.arrived or not_zero(gradient)
        if not own.backwards:
            own.parameter, own.found = parameter, before
        own.backwards += 1
        own.witness, own.version, own.others = name, version, 0

    def stepped(self, optimizer: Optimizer, rate: float) -> None:
        """Count a step that has just been taken."""
        self.steps += 1
        self.dark = None
        self.rates.append(rate)
        if self.in_evaluation and not self.in_training:
            self.evaluating += 1
            self.evaluating_since = self.evaluating_since or self.steps
        self.in_training = self.in_evaluation = 0
        if self.window is not None and self.window.optimizer in (None, optimizer):
            self._close(self.window)

    def _close(self, own: Window) -> None:
        self.watched += 1
        self.heard += own.passes
        self.backwards += own.backwards
        self.thrown += own.thrown
        self.empty += not own.backwards and own.passes > 0
        self.doubled += not own.backwards and not own.passes and own.optimizer is not None
        if own.backwards and own.optimizer is not None:
            self.checked += 1
            self.left += not own.emptied
        self.felt += own.felt
        self.cleared += own.cleared
        self.window = None

    def whole(self) -> Tally:
        """Give the counts with those of the window that is open."""
        if self.window is None:
            return self
        own, changes = self.window, vars(self).copy()
        for name in ("heard", "backwards", "thrown"):
            changes[name] += getattr(own, "passes" if name == "heard" else name)
        changes["watched"] += 1
        return Tally(**changes)


def norm_of(gradients: Sequence[Tensor]) -> float:
    """Give the norm of all gradients together."""
    norms = [vector_norm(g.coalesce().values() if g.is_sparse else g) for g in gradients]
    return float(vector_norm(torch.stack([n.to(norms[0]) for n in norms]).detach()))


def not_zero(gradient: Tensor) -> bool:
    """Tell whether any entry of a gradient, dense or sparse, is not 0."""
    values = gradient.detach()
    return bool((values.coalesce().values() if values.is_sparse else values).any())
