"""From a network to the table of its layers, if every layer is one that this engine knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from foldwise.engine.dropout import KeyedDropout
from foldwise.engine.resident import layers
from foldwise.engine.resident.layers import FIELDS, Program
from foldwise.engine.resident.tiles import BYTES
from foldwise.engine.state import Layout
from foldwise.nets.activations import ScaledSigmoid
from foldwise.nets.constant import Constant
from foldwise.nets.features import Fourier, Polynomial
from foldwise.nets.residual import Residual

ACTIVATIONS: dict[type[nn.Module], int] = {
    nn.ReLU: layers.RELU,
    nn.LeakyReLU: layers.LEAKY_RELU,
    nn.Tanh: layers.TANH,
    nn.Sigmoid: layers.SIGMOID,
    ScaledSigmoid: layers.SCALED_SIGMOID,
    nn.GELU: layers.GELU,
    nn.SiLU: layers.SILU,
}
KNOWN = {
    *(nn.Sequential, Residual, nn.Linear, Constant, KeyedDropout, nn.BatchNorm1d, nn.LayerNorm, nn.GroupNorm),
    *(Polynomial, Fourier, *ACTIVATIONS),
}
"""The layers that can stand in a table, and what holds them."""


def out_of_place(skeleton: nn.Module) -> str:
    """Name a layer through which no gradient is passed here, and that stands where one would have to be."""
    leaves = [m for m in skeleton.modules() if type(m) not in (nn.Sequential, Residual)]
    blocks = {m for block in skeleton.modules() if type(block) is Residual for m in block.modules()}
    for number, layer in enumerate(leaves):
        if isinstance(layer, Polynomial | Fourier | Constant) and (number > 0 or layer in blocks):
            return type(layer).__name__
    return "Constant" if len(leaves) > 1 and isinstance(leaves[0], Constant) else ""


@dataclass
class Compiler:
    """Writes the table of a chain, layer by layer."""

    skeleton: nn.Module
    layout: Layout
    buffers: dict[str, int]  # where each buffer begins among the constants
    lanes: int
    width: int
    drops: Sequence[bool]  # which dropout layers drop anything
    names: dict[nn.Module, str] = field(init=False)
    starts: dict[str, int] = field(init=False)
    stood: Counter[nn.Module] = field(default_factory=Counter)
    lines: list[list[int]] = field(default_factory=list)
    numbers: list[tuple[float, float]] = field(default_factory=list)
    kept: int = 0
    turned: int = 0
    learns: bool = False  # whether a layer before has weights
    whole: bool = False
    held: list[int] = field(default_factory=list)  # what the way around a residual block still needs
    rectified: set[int] = field(default_factory=set)  # where values are whose signs a gradient still needs

    def __post_init__(self) -> None:
        self.names = {module: name for name, module in self.skeleton.named_modules()}
        self.dropouts = [m for m in self.skeleton.modules() if isinstance(m, KeyedDropout)]
        sizes = np.cumsum([0, *self.layout.sizes])
        self.starts = dict(zip(self.layout.names, sizes.tolist(), strict=False))
        self.at, self.end = 0, self._row(self.width)

    def _row(self, width: int) -> int:
        return -(-width // self.lanes) * self.lanes

    def _tensor(self, module: nn.Module, what: str) -> int:
        name = self.names[module]
        full = f"{name}.{what}" if name else what
        return self.starts.get(full, -1) if full in self.starts else self.buffers.get(full, -1)

    def add(self, module: nn.Module) -> None:
        """Add a layer, or the layers of a container."""
        if type(module) is Residual:
            self._residual(module)
        elif type(module) is nn.Sequential:
            for layer in module._modules.values():  # not children(), which gives a layer at two places once
                if layer is not None:
                    self.add(layer)
        else:
            self._layer(module)

    def _write(
        self, kind: int, width: int, *, weight: int = -1, bias: int = -1, more: int = 0, which: int = 0,
        keeps: int = 0, numbers: tuple[float, float] = (0.0, 0.0), out: int | None = None,
    ) -> None:  # fmt: skip
        out = self.end if out is None else out
        line = [0] * len(FIELDS)
        line[layers.KIND], line[layers.INPUTS], line[layers.OUTPUTS] = kind, self.width, width
        line[layers.IN], line[layers.OUT] = self.at, out
        line[layers.IN_ROW], line[layers.OUT_ROW] = self._row(self.width), self._row(width)
        line[layers.WEIGHT], line[layers.BIAS], line[layers.MORE], line[layers.WHICH] = (
            weight,
            bias,
            more,
            which,
        )
        line[layers.KEEP] = self.kept
        self.lines.append(line)
        self.numbers.append(numbers)
        self.kept += keeps
        self.at, self.width = out, width
        self.end = max(self.end, out + self._row(width))

    def _residual(self, module: Residual) -> None:
        fork, start = len(self.lines), self.at
        self._write(layers.FORK, self.width, out=self.at)
        self.held.append(start)
        for layer in module._modules.values():
            if layer is not None:
                self.add(layer)
        self.held.remove(start)
        self._write(layers.JOIN, self.width, more=start)
        self.lines[fork][layers.MORE] = self.at

    def _here(self) -> int | None:
        """Say where a layer may write over its input; None where that is still needed."""
        return None if self.at in self.held else self.at

    def _layer(self, module: nn.Module) -> None:
        row = self._row(self.width)
        weight, bias = self._tensor(module, "weight"), self._tensor(module, "bias")
        match module:
            case nn.Linear():
                self._write(
                    layers.LINEAR, module.out_features, weight=weight, bias=bias,
                    more=self.turned, which=int(self.learns),
                )  # fmt: skip
                self.turned += module.in_features * self._row(module.out_features)
            case Constant():
                outputs = len(module.prior)
                self._write(layers.CONSTANT, outputs, weight=self._tensor(module, "prior"))
            case KeyedDropout():
                which, earlier = self.dropouts.index(module), self.stood[module]
                if self.drops[which]:
                    self._write(
                        layers.DROP, self.width, which=which, more=earlier, keeps=row, out=self._here()
                    )
            case nn.BatchNorm1d():
                self.whole = True
                self._write(
                    layers.BATCH_NORM, self.width, weight=weight, bias=bias, keeps=2 * row,
                    more=self._tensor(module, "running_mean"), numbers=(module.eps, module.momentum or 0.0),
                )  # fmt: skip
            case nn.LayerNorm() | nn.GroupNorm():
                groups = module.num_groups if isinstance(module, nn.GroupNorm) else 1
                self._write(
                    layers.ROW_NORM, self.width, weight=weight, bias=bias, more=groups,
                    keeps=row + groups, numbers=(module.eps, 0.0),
                )  # fmt: skip
            case Polynomial():
                mean = self._tensor(module, "mean")
                self._write(layers.POLYNOMIAL, module.outputs, more=mean, which=module.degree)
            case Fourier():
                self._write(layers.FOURIER, module.outputs, more=self._tensor(module, "directions"))
            case _:
                slope = module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
                which = ACTIVATIONS[type(module)]
                keeps = 0 if which in (layers.RELU, layers.LEAKY_RELU) else row
                out = None if self.at in self.rectified else self._here()
                self._write(
                    layers.ACTIVATION, self.width, which=which, keeps=keeps, numbers=(slope, 0.0), out=out
                )
                if keeps == 0:
                    self.rectified.add(self.at)
        self.stood[module] += 1
        self.learns = self.learns or weight >= 0 or bias >= 0


def constants_of(buffers: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Lay buffers of real numbers, given by their shapes, one after another: name → where it begins."""
    sizes = [int(np.prod(shape)) for shape in buffers.values()]
    return dict(zip(buffers, np.cumsum([0, *sizes]).tolist(), strict=False))


def program_of(
    skeleton: nn.Module,
    layout: Layout,
    buffers: dict[str, tuple[int, ...]],
    inputs: int,
    itemsize: int,
    drops: Sequence[bool],
) -> Program:
    """Write the table of a network; `drops` says which of its dropout layers drop anything."""
    writer = Compiler(skeleton, layout, constants_of(buffers), BYTES // itemsize, inputs, drops)
    writer.add(skeleton)
    return Program(
        layers=np.array(writer.lines, dtype=np.int64),
        numbers=np.array(writer.numbers, dtype=np.float64),
        parameters=layout.size,
        constants=int(sum(np.prod(shape) for shape in buffers.values())),
        values=writer.end,
        kept=writer.kept,
        turned=writer.turned,
        widest=max(line[row] for line in writer.lines for row in (layers.IN_ROW, layers.OUT_ROW)),
        whole=writer.whole,
    )
