"""What was seen of a training loop of the user's own: counts, parameters, rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Parameter:
    """A parameter of the network as the loop left it.

    `held` tells whether an optimizer has it, `reached` whether a gradient was ever seen to arrive, `moved` whether it
    changed, `fresh` whether it began as PyTorch draws weights: evenly, up to 1/√inputs; biases are never `fresh`.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool
    held: bool
    reached: bool
    moved: bool
    fresh: bool


@dataclass(frozen=True)
class Loop:
    """What a loop did, in counts. A pass is a run of the network; a backward pass is one that reached a parameter.

    Not every step is watched closely. What is, begins after a step (or at the start) and goes to the end of the next
    step of the same optimizer; `watched` is how often that was done.

    Args:
        optimizer: whether there is one, given or met.
        steps: of all optimizers together.
        passes: those that recorded gradients.
        watched: steps watched closely; the last of them may not have come to its end.
        heard: passes with gradients in them.
        backwards: backward passes in them.
        thrown: of these, those whose gradients were emptied before any step, though no weight had changed.
        empty: watched steps that had a pass but no backward pass before them.
        doubled: watched steps that had neither.
        left: of the watched steps with a backward pass and a step before it, those in which nothing emptied the
            gradients of the step before.
        checked: see `left`.
        cleared: of the watched steps into which gradients came, those that found none any more.
        felt: see `cleared`.
        evaluating: steps all of whose passes were made in evaluation mode.
        evaluating_since: the first of them, counted from 1; None: there is none.
        dark_training: how often, after the first step, the network ran in training mode without recording gradients;
            passes in a row count once.
        dark_evaluation: the same in evaluation mode.
        modes: layers that act differently in training and evaluation: dropout, batch normalization.
        parameters: those of the network.
        foreign: shapes of what the optimizers hold that is not the network's.
        rates: the learning rate of every step, the highest of the parameter groups.
        norms: of the gradient before each step that was watched closely, in order; for this those count in which one
            came and was still there.
        epoch: the steps of an epoch, where validation after every so many tells.
        options: what the parameter groups say otherwise: betas, eps, weight decay …
        reduction: `mean` or `sum` where the loss says so, otherwise empty.
    """

    optimizer: bool = True
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
    modes: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    foreign: tuple[tuple[int, ...], ...] = ()
    rates: Float[np.ndarray, " steps"] = field(default_factory=lambda: np.zeros(0))
    norms: Float[np.ndarray, " steps"] = field(default_factory=lambda: np.zeros(0))
    epoch: int | None = None
    options: tuple[Mapping[str, Any], ...] = ()
    reduction: str = ""

    @property
    def trainable(self) -> list[Parameter]:
        """Give the parameters that ask for a gradient."""
        return [p for p in self.parameters if p.trainable]

    @property
    def still(self) -> bool:
        """Tell whether no weight changed in the whole loop."""
        return not any(p.moved for p in self.parameters)
