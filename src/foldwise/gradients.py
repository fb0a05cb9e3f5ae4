"""check_gradients(): is a gradient right? Several independent ways to it, compared entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from foldwise.autograd.calling import arguments_of, refuse_no_function, refuse_other_arguments
from foldwise.autograd.directions import (
    Direction,
    NoForward,
    along,
    chosen_entries,
    entry,
    forward_derivative,
    scale,
    through,
)
from foldwise.autograd.numerical import Difference, central, noise, one_sided
from foldwise.autograd.point import Point, chance_kept, typical
from foldwise.autograd.symbolic import NoFormula, derivatives
from foldwise.errors import FoldwiseError

WAYS = ("backward", "forward", "numerical", "symbolic")
UNSURE = 1e-3  # a difference whose own error is a larger part of the gradient than this decides nothing
AT_KINKS = 20  # entries at kinks that are compared beside them too
AS_TUPLE = "check_gradients(f, (x, w))"
BESIDE = 1e-3  # how far beside, as a part of each tensor's usual entry


@dataclass(frozen=True)
class GradientEntry:
    """The derivative by one entry of a tensor, or along a random direction through it, by each way.

    `tensor` is the argument's or the parameter's name; `index` is None for a direction. `values` has a number for each
    way that was possible. `error` is how far the numerical value may be off, `between` at a kink the smallest and the
    largest of its one-sided derivatives. `odd` names the ways that disagree with the numerical one. `beside` says that
    it was compared a little beside the point, because there is a kink at the point itself. `relative_error` is
    |a − n| / max(|a|, |n|, error / tolerance), the largest of all ways a against the numerical value n.
    """

    tensor: str
    index: tuple[int, ...] | None
    values: Mapping[str, float]
    error: float
    relative_error: float
    between: tuple[float, float] | None = None
    odd: tuple[str, ...] = ()
    unsure: bool = False
    beside: bool = False

    @property
    def name(self) -> str:
        """Name the entry as it would be written: x[0, 2]."""
        if self.index is None:
            return f"{self.tensor}, a direction"
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return f"{self.tensor}{place}{' (moved off a kink)' if self.beside else ''}"


@dataclass(frozen=True)
class GradientCheck:
    """What `check_gradients` found. Printed, it is a report; `agree` is the verdict.

    `entries` has what was compared, the worst first; `missing` says why a way was not possible; `checked` how many
    entries of each tensor were compared, and of how many; `notes` what else should be known.
    """

    entries: tuple[GradientEntry, ...]
    missing: Mapping[str, str]
    checked: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...]
    tolerance: float

    @property
    def agree(self) -> bool:
        """Say whether no entry disagrees, and at least one could be compared."""
        return not self.disagreeing and any(not e.unsure for e in self.entries)

    @property
    def disagreeing(self) -> tuple[GradientEntry, ...]:
        """Give the entries where a way disagrees, the worst first."""
        return tuple(e for e in self.entries if e.odd)

    @property
    def worst(self) -> GradientEntry:
        """Give the entry with the largest relative error; one that disagrees, if any does."""
        return self.entries[0]

    @property
    def sentence(self) -> str:
        """Say in a sentence or two whether the gradients are right."""
        ways = _listed([way for way in WAYS if way not in self.missing])
        worst = self.worst
        if not self.disagreeing:
            unsure = sum(e.unsure for e in self.entries)
            if unsure == len(self.entries):
                return "Undecided: the outputs jitter too much for differences to say anything."
            but = f", at {unsure} of them too roughly to say anything" if unsure else ""
            return (
                f"The gradients are right: {ways} agree at all {len(self.entries)} places{but} "
                f"(relative error {worst.relative_error:.1g} at most)."
            )
        others = [way for way in WAYS if way in worst.values and way not in worst.odd]
        said = ", ".join(f"{worst.values[way]:.6g} by {way}" for way in worst.odd)
        if worst.between:
            said += f", which at this kink must lie between {worst.between[0]:.6g} and {worst.between[1]:.6g}"
        else:
            said += f", {worst.values['numerical']:.6g} by {_listed(others)}"
        verb = "disagrees" if len(worst.odd) == 1 else "disagree"
        return (
            f"The gradients disagree at {len(self.disagreeing)} of {len(self.entries)} places, most at {worst.name}, "
            f"where {_listed(worst.odd)} {verb} with {_listed(others)}: {said}. {_likely(self.disagreeing)}"
        ).strip()

    def table(self, most: int | None = None) -> pl.DataFrame:
        """List what was compared, the worst first: tensor, index, one column for each way, errors, what is odd."""
        rows = self.entries[:most]
        ways = [way for way in WAYS if way not in self.missing]
        return pl.DataFrame(
            {
                "tensor": [e.tensor for e in rows],
                "index": ["direction" if e.index is None else str(list(e.index)) for e in rows],
                **{way: [e.values.get(way) for e in rows] for way in ways},
                "error": [e.error for e in rows],
                "relative_error": [e.relative_error for e in rows],
                "kink": [e.between is not None for e in rows],
                "disagrees": [", ".join(e.odd) for e in rows],
            },
            schema_overrides={
                **dict.fromkeys(ways, pl.Float64),
                "error": pl.Float64,
                "relative_error": pl.Float64,
            },
        )

    def __str__(self) -> str:
        lines = [self.sentence, "", *_columns(self.entries[:8], [w for w in WAYS if w not in self.missing])]
        if len(self.entries) > 8:
            lines.append(f"and {len(self.entries) - 8} more with smaller relative errors")
        counts = [
            f"{name} {'all ' if a == b else f'{a:,} of '}{b:,}" for name, (a, b) in self.checked.items()
        ]
        lines += ["", f"compared: {_short(counts)}"]
        lines += [f"no {way}: {why}" for way, why in self.missing.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def check_gradients(
    module_or_function: Callable[..., Any],
    inputs: Any = (),
    *others: Any,
    loss: Callable[[Any], Any] | None = None,
    parameters: bool = True,
    entries: int = 200,
    directions: int = 2,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> GradientCheck:
    """Compare the gradients of a module or function by independent ways, and name the entry that disagrees.

    `inputs` is one tensor, a tuple or list of the arguments, or a dictionary of them by name. Differentiated are those
    that require a gradient or, when none does, all of floating point; and with `parameters` those of the module that
    require one. Everything is done in float64, on copies: nothing of the module or the inputs changes. Every evaluation
    starts with the same random state and buffers, so that dropout and batch normalization in training can be compared.
    An output of any shape, or several, become one number: its sum with fixed random weights. `loss` is applied to the
    output first.

    The ways are
    - `backward`: reverse accumulation, which training uses;
    - `forward`: forward accumulation, Jacobian-vector products with dual numbers. A torch.autograd.Function takes part
      when it has a `jvp`;
    - `numerical`: central differences (f(x+h) − f(x−h)) / 2h, extrapolated to h = 0 (Ridders 1982) with a step of its
      own for each entry, and a bound on its error;
    - `symbolic`: the formula, differentiated by SymPy, where it has up to 64 variables and 1,500 operations.

    About `entries` entries are compared, drawn by `seed` where tensors have more, and `directions` random directions
    through each tensor that was not compared whole; if one disagrees, halving it finds an entry. Two ways disagree when
    their relative error is above `tolerance` and beyond the numerical error. At a kink (ReLU at 0, a tie of maxima) a
    gradient must lie between the one-sided derivatives, and is compared a little beside the kink as well. A gradient
    that differs from the function's on purpose (`detach`, a straight-through estimator) disagrees.

    Raises FoldwiseError for arguments that cannot be, such as several inputs that are not one tuple, and NetworkError
    when there is nothing to differentiate, or outputs are complex, not finite, or not reproducible.

    >>> class Square(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**2
    ...
    ...     @staticmethod
    ...     def backward(ctx, gradient):
    ...         return gradient * ctx.saved_tensors[0]  # the factor 2 is missing
    >>> check = check_gradients(Square.apply, torch.tensor([1.0, 2.0]))
    >>> check.agree, check.worst.odd, check.worst.index in [(0,), (1,)]
    (False, ('backward',), True)
    >>> check_gradients(nn.Linear(3, 2), torch.randn(5, 3)).agree
    True
    """
    if others:
        raise FoldwiseError(
            f"check_gradients takes the arguments of the function as one tuple; got {1 + len(others)} of them.",
            hint=f"{AS_TUPLE}, or by name: check_gradients(f, {{'x': x, 'w': w}})",
        )
    refuse_no_function(module_or_function, "check_gradients", AS_TUPLE)
    if loss is not None:
        refuse_no_function(loss, "`loss`", "loss=torch.sum, or a function of the output")
    refuse_other_arguments(module_or_function, *arguments_of(inputs), AS_TUPLE)
    if entries < 1 or directions < 0 or not 0 < tolerance < 1:
        raise FoldwiseError(
            f"entries={entries}, directions={directions}, tolerance={tolerance} cannot be.",
            hint="entries ≥ 1, directions ≥ 0, 0 < tolerance < 1",
        )
    given = [t for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor)]
    if isinstance(module_or_function, nn.Module):
        given += list(module_or_function.parameters())
    with chance_kept(given):
        point = Point(module_or_function, inputs, loss=loss, parameters=parameters, seed=seed)
        return _Comparison(point, tolerance, seed).all(entries, directions)


class _Comparison:
    """All ways at one point, while they are compared."""

    def __init__(self, point: Point, tolerance: float, seed: int) -> None:
        self.point = point
        self.tolerance = tolerance
        self.seed = seed
        self.size = float(point.outputs().detach().abs().sum())
        self.gradients = point.gradients()
        self.usual = [0.0 if g is None else typical(g) * bool(g.any()) for g in self.gradients]
        self.missing: dict[str, str] = {}
        self.formula: dict[tuple[int, int], float] = {}
        self.forward: Callable[[Direction], float] | None = None
        try:
            self.forward = forward_derivative(point)
        except NoForward as why:
            self.missing["forward"] = str(why)

    def all(self, entries: int, directions: int) -> GradientCheck:
        chosen = chosen_entries(self.point.tensors, entries, self.seed)
        self._find_formula(chosen)
        found = [self.compare(d) for d in chosen]
        for number, tensor in enumerate(self.point.tensors):
            if sum(d.tensor == number for d in chosen) < tensor.numel():
                found += self._directions(number, directions, found)
        found += self._beside([d for d, e in zip(chosen, found, strict=False) if e.between])
        checked = {
            name: (sum(d.tensor == i for d in chosen), t.numel())
            for i, (name, t) in enumerate(zip(self.point.names, self.point.tensors, strict=True))
        }
        found.sort(key=lambda e: (not e.odd, -e.relative_error))
        return GradientCheck(tuple(found), self.missing, checked, tuple(self._notes(found)), self.tolerance)

    def compare(self, direction: Direction, beside: bool = False) -> GradientEntry:
        """Find the derivative along a direction by every way."""
        outputs = along(self.point, direction)
        size = scale(self.point, direction)
        difference = central(outputs, size, self.point.eps)
        values = {"backward": direction.of(self.gradients[direction.tensor])}
        if self.forward is not None:
            values["forward"] = self.forward(direction)
        single = (direction.tensor, int(direction.indices[0]))
        if not beside and len(direction.indices) == 1 and single in self.formula:
            values["symbolic"] = self.formula[single]
        between = None
        if self._odd(values, difference):
            jitter = noise(outputs, size) / difference.step if math.isfinite(difference.step) else 0.0
            error = max(difference.error, 10 * np.nan_to_num(jitter))
            difference = Difference(difference.value, float(error), difference.step)
        odd = self._odd(values, difference)
        if odd:
            sides = one_sided(outputs, size, self.point.eps)
            odd, between = self._at_kink(values, odd, sides)
            if not odd and between is None:  # differences are rougher here than they seemed
                difference = self._rougher(difference, values)
        values["numerical"] = difference.value
        return self._entry(direction, values, difference, between, tuple(odd), beside)

    def _entry(
        self,
        direction: Direction,
        values: Mapping[str, float],
        difference: Difference,
        between: tuple[float, float] | None,
        odd: tuple[str, ...],
        beside: bool,
    ) -> GradientEntry:
        others = [v for way, v in values.items() if way != "numerical"]
        inside = between is not None and not odd
        worst = 0.0 if inside else max(self._relative(v, difference) for v in others)
        most = max(self.usual[direction.tensor], *map(abs, values.values()))
        least = 1e-9 * self.size / scale(self.point, direction)
        tensor = self.point.tensors[direction.tensor]
        alone = len(direction.indices) == 1
        index = tuple(map(int, np.unravel_index(int(direction.indices[0]), tuple(tensor.shape))))
        return GradientEntry(
            self.point.names[direction.tensor],
            index if alone else None,
            {way: values[way] for way in WAYS if way in values},
            difference.error,
            worst,
            between,
            odd,
            not odd and not inside and not difference.error <= max(UNSURE * most, least),
            beside,
        )

    def _relative(self, value: float, difference: Difference) -> float:
        if not math.isfinite(value):
            return math.inf
        if not math.isfinite(difference.value):
            return 0.0  # there is nothing to hold it against
        size = max(abs(value), abs(difference.value), difference.error / self.tolerance)
        return abs(value - difference.value) / size if size else 0.0

    def _odd(self, values: Mapping[str, float], difference: Difference) -> list[str]:
        return [way for way, v in values.items() if self._relative(v, difference) > self.tolerance]

    def _at_kink(
        self, values: Mapping[str, float], odd: Sequence[str], sides: tuple[Difference, Difference]
    ) -> tuple[list[str], tuple[float, float] | None]:
        """Let pass what lies between the one-sided derivatives; without a kink these are one number."""
        low, high = sides
        slack = self.tolerance * max(abs(low.value), abs(high.value)) + low.error
        kink = high.value - low.value > 10 * slack
        still = [way for way in odd if not low.value - slack <= values[way] <= high.value + slack]
        if kink and still and "forward" in values:
            # Kinks of several units at once: what each contributes by torch's convention need not lie between, but
            # two independent ways that follow the convention agree.
            same = abs(values["forward"] - values["backward"]) <= self.tolerance * abs(values["forward"])
            still = [] if same else still
        return still, (low.value, high.value) if kink else None

    def _rougher(self, difference: Difference, values: Mapping[str, float]) -> Difference:
        error = max(difference.error, *(abs(v - difference.value) for v in values.values()))
        return Difference(difference.value, error, difference.step)

    def _find_formula(self, chosen: Sequence[Direction]) -> None:
        places = [(d.tensor, int(d.indices[0])) for d in chosen]
        try:
            self.formula = dict(zip(places, derivatives(self.point, places), strict=True))
        except NoFormula as why:
            self.missing["symbolic"] = str(why)

    def _directions(self, number: int, count: int, found: Sequence[GradientEntry]) -> list[GradientEntry]:
        """Compare along random directions; when one disagrees and no entry did, look for one that does."""
        known = any(e.odd and e.tensor == self.point.names[number] for e in found)
        more = []
        for direction in through(self.point.tensors, number, count, self.seed):
            more.append(self.compare(direction))
            if more[-1].odd and not known:
                more += self._narrowed(direction)
                known = True
        return more

    def _narrowed(self, direction: Direction) -> list[GradientEntry]:
        """Halve a direction that disagrees until one entry is left."""
        while (count := len(direction.indices)) > 1:
            halves = direction.part(slice(count // 2)), direction.part(slice(count // 2, None))
            wrong = next((half for half in halves if self.compare(half).odd), None)
            if wrong is None:
                return []
            direction = wrong
        return [self.compare(entry(direction.tensor, int(direction.indices[0])))]

    def _beside(self, kinks: Sequence[Direction]) -> list[GradientEntry]:
        """Compare entries at kinks once more a little off the point, where there is a derivative."""
        if not kinks:
            return []
        with self.point.moved(BESIDE):
            if not torch.isfinite(self.point.outputs()).all():
                return []
            before, self.gradients = self.gradients, self.point.gradients()
            try:
                return [self.compare(d, beside=True) for d in kinks[:AT_KINKS]]
            finally:
                self.gradients = before

    def _notes(self, found: Sequence[GradientEntry]) -> list[str]:
        notes = []
        without = [n for n, g in zip(self.point.names, self.gradients, strict=True) if g is None]
        if without:
            notes.append(f"autograd knows of no connection from {_listed(without)} to the output")
        if self.point.eps > 1e-15:
            notes.append(
                "the output is not in double precision, although all inputs are: differences are rough"
            )
        kinks = sum(e.between is not None for e in found)
        if kinks:
            notes.append(f"{kinks} at a kink, where a gradient must lie between the one-sided derivatives")
        return notes


def _likely(odd: Sequence[GradientEntry]) -> str:
    """Name the likely mistake where backward is off by one factor everywhere."""
    tensor = odd[0].tensor
    pairs = [
        (e.values["backward"], e.values["numerical"])
        for e in odd
        if e.tensor == tensor and e.index is not None and "backward" in e.odd and e.values["numerical"]
    ]
    if not pairs:
        return ""
    ratios = np.array([b / n for b, n in pairs])
    if not np.isfinite(ratios).all():
        return "The gradient is not finite where the function is smooth."
    if "forward" in odd[0].odd:
        return (
            "Forward accumulation leaves out the same: `detach`, `no_grad` or a gradient changed on purpose?"
        )
    if not ratios.any():
        return (
            f"No gradient comes back to {tensor}: is something detached, or a result of `backward` missing?"
        )
    if len(ratios) > 1 and np.ptp(ratios) < 1e-5 * abs(ratios[0]):
        factor = ratios.mean()
        what = "the sign is wrong" if abs(factor + 1) < 1e-5 else f"the factor {1 / factor:.6g} is missing"
        return f"backward is {factor:.6g} times the numerical value at all of them: {what}."
    return ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _short(parts: Sequence[str], most: int = 8) -> str:
    return "; ".join(parts[:most]) + (f"; and {len(parts) - most} more tensors" if len(parts) > most else "")


def _columns(entries: Sequence[GradientEntry], ways: Sequence[str]) -> list[str]:
    rows = [["", *ways, "relative error", ""]]
    for e in entries:
        marks = [
            f"← {_listed(e.odd)}" if e.odd else "",
            f"kink: {e.between[0]:.4g} to {e.between[1]:.4g}" if e.between else "",
            "unsure" if e.unsure else "",
        ]
        mark = ", ".join(filter(None, marks))
        values = [f"{e.values[w]:.9g}" if w in e.values else "–" for w in ways]
        rows.append([e.name, *values, f"{e.relative_error:.1e}", mark])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:-1], widths[1:-1], strict=True)), r[-1]]
        ).rstrip()
        for r in rows
    ]
