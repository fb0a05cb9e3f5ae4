"""The loss over a loop: its value in some of the steps, and the curve that they make."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, overrides

from foldwise.checks.sight import Curve
from foldwise.watching.overhear import LOSSES, leave

FIRST = 24  # steps whose loss is read; then it is that of one in two, in three, … in `EVERY`, or in fewer
EVERY = 32
THIN = 1024  # of so many steps in all, at most, one more is left out between two
BLOCK = 64  # values are read from the device at once
FEWEST, MOST = 10, 20  # points of a curve
EACH, EACH_EPOCH = 3, 2  # losses that a point needs, on average
SCALES = (Tensor.mul, Tensor.div)  # what gradient accumulation and scaling do to a loss


class Ear(overrides.TorchFunctionMode):
    """Hears the value of one loss, from `begin` until a backward pass begins; changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.listening, self.since = False, 0
        self._forget()

    def _forget(self) -> None:
        self.named: list[Tensor] = []
        self.root: Tensor | None = None
        self.scaled: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by the number of the result: it, and what was scaled

    def begin(self, step: int) -> None:
        """Listen from now on, after so many steps."""
        self.listening, self.since = True, step
        self.__enter__()

    def end(self) -> Tensor | None:
        """Stop listening, and give the loss: the one of torch that was heard, or what the backward pass began with."""
        self.listening = False
        leave(self)
        found = None
        if self.root is not None:
            found = (self.named[0] if len(self.named) == 1 else self._as_computed(self.root)).detach()
        self._forget()
        return found

    def _as_computed(self, loss: Tensor) -> Tensor:
        """Undo the scaling of a loss by constants."""
        while id(loss) in self.scaled:
            loss = self.scaled[id(loss)][1]
        return loss

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is Tensor.backward and self.root is None:
            self.root = args[0]
        result = function(*args, **(kwargs or {}))
        if self.root is None and isinstance(result, Tensor) and result.ndim == 0:
            if function in LOSSES:
                self.named.append(result)
            elif function in SCALES and len(args) == 2:
                self._note_scaled(args, result)
        return result

    def _note_scaled(self, args: tuple[Any, ...], result: Tensor) -> None:
        learned = [t for t in args if isinstance(t, Tensor) and t.requires_grad]
        if len(learned) == 1 and learned[0].ndim == 0:
            self.scaled[id(result)] = (result, learned[0])


class Losses:
    """Values of the loss, each with how many steps had been taken; read from the device in blocks."""

    def __init__(self) -> None:
        self.steps: array[int] = array("q")
        self.values: array[float] = array("d")
        self.waiting: list[Tensor] = []
        self.next = 0  # the step whose loss is read next

    def note(self, step: int, loss: Tensor) -> None:
        """Note a loss that has been computed after so many steps."""
        self.steps.append(step)
        self.waiting.append(loss)
        self.next = step + min(EVERY, 1 + step // FIRST) + step // THIN
        if len(self.waiting) >= BLOCK:
            self._read()

    def _read(self) -> None:
        if self.waiting:
            self.values.extend(torch.stack([t.float().reshape(()) for t in self.waiting]).tolist())
            self.waiting.clear()

    def curve(self, steps: int, rates: Sequence[float], validations: Sequence[int]) -> Curve | None:
        """Give the curve of a loop of so many steps; None where too few losses are known.

        Its points are the epochs where the loop validates evenly, otherwise stretches of steps. `rates` are those of
        each step, `validations` the numbers of steps after which the loop validated.
        """
        self._read()
        if len(self.values) < EACH * FEWEST or steps < EACH * FEWEST:
            return None
        at, values = np.array(self.steps), np.array(self.values)
        epoch = epoch_of(steps, validations)
        whole = 0 if epoch is None else steps // epoch
        epochs = epoch is not None and whole >= FEWEST and len(values) >= EACH_EPOCH * whole
        count = whole if epochs else min(MOST, len(values) // EACH)
        size = epoch if epochs and epoch is not None else steps // count
        # where steps cannot be divided evenly, the first point has those that are left
        starts = steps - size * np.arange(count, 0, -1)
        place = np.maximum(np.searchsorted(starts, at, side="right") - 1, 0)
        parts = [values[place == n] for n in range(count)]
        ends = np.minimum(starts + size, len(rates)) - 1
        nothing = np.full(count, np.nan)
        return Curve(
            training=np.array([part.mean() if len(part) else np.nan for part in parts]),
            validation=nothing,
            score=nothing,
            by_fold=np.full((count, 0), np.nan),
            start=float(values[at == at[0]].mean()),
            rate=np.array(rates, dtype=np.float64)[ends] if len(rates) == steps else nothing,
            clipped=nothing,
            skipped=nothing,
            steps=size,
            kept=count,
            diverged=not math.isfinite(values[-1]),
            noise=_noise(parts),
            epochs=epochs,
            left=steps - size * count,
        )


def epoch_of(steps: int, validations: Sequence[int]) -> int | None:
    """Give the steps of an epoch, as far as validation tells: it comes after every so many; None: it does not.

    >>> epoch_of(60, [20, 40, 60]), epoch_of(60, [20, 50])
    (20, None)
    """
    between = np.diff([0, *validations])
    if len(between) < 2 or (between != between[0]).any() or steps - validations[-1] > between[0]:
        return None
    return int(between[0])


def _noise(parts: Sequence[np.ndarray]) -> float:
    """Give the standard error of a point, the median of those that have several losses."""
    known = [part.std(ddof=1) / math.sqrt(len(part)) for part in parts if len(part) > 1]
    return float(np.median(known)) if known else math.nan
