"""Derivatives of formulas: the function run on symbols instead of numbers, and differentiated by SymPy.

The function is traced into a graph of torch's elementary operations (torch.fx), in which autograd has no part: the
forward formula of a hand-written torch.autograd.Function is followed, its backward is not. Each operation is then done
on arrays of symbols. Derivatives are evaluated to 30 digits.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from foldwise.autograd.point import Point, start_chance

MOST_SYMBOLS = 64
MOST_OPERATIONS = 1500  # in the formula; SymPy needs a second or two for one of this size
DIGITS = 30

Array = np.ndarray
Entry = tuple[int, int]
"""The number of a tensor, and a flat index into it."""


class NoFormula(Exception):
    """Why there is no formula."""


def derivatives(point: Point, entries: Sequence[Entry]) -> list[float]:
    """Differentiate the formula of a point's outputs by some entries; NoFormula says why that is not possible.

    A branch that is taken where two are equal (ReLU at 0, equal maxima) counts as the one that torch takes.
    """
    count = sum(t.numel() for t in point.tensors)
    if count > MOST_SYMBOLS:
        raise NoFormula(f"{count:,} numbers to differentiate by; up to {MOST_SYMBOLS} are tried")
    try:
        import sympy
    except ImportError:
        raise NoFormula("SymPy is not installed") from None
    symbols = [
        np.array([sympy.Symbol(f"x{i}_{j}", real=True) for j in range(t.numel())], dtype=object).reshape(
            tuple(t.shape)
        )
        for i, t in enumerate(point.tensors)
    ]
    traced = _traced(point)
    start_chance(point.seed)  # masks of dropout and the like are drawn once more, and are the same
    total = _formula(traced, symbols)
    flat = [s.flatten() for s in symbols]
    if total.count_ops() > MOST_OPERATIONS:
        raise NoFormula(f"the formula has more than {MOST_OPERATIONS:,} operations")
    slopes = [total.diff(flat[i][j]) for i, j in entries]
    names = [s for array in flat for s in array]
    at = [v for t in point.tensors for v in t.detach().flatten().tolist()]
    import mpmath

    found = sympy.lambdify(names, slopes, modules=[_own_functions().meaning, "mpmath"], cse=True)
    try:
        with mpmath.workdps(DIGITS):
            return [float(v) for v in found(*map(mpmath.mpf, at))]
    except (ArithmeticError, ValueError, TypeError):  # 0 / 0, or a root that is complex
        raise NoFormula("the derivative of the formula is not defined at this point") from None


def _traced(point: Point) -> torch.fx.GraphModule:
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    own = ("aten::native_layer_norm", "aten::_log_softmax", "aten::_softmax")
    table = {op: how for op, how in core_aten_decompositions().items() if op.name().split(".")[0] not in own}
    plain = [t.detach() for t in point.tensors]
    try:
        with torch.no_grad():
            return make_fx(lambda *tensors: point.outputs_at(tensors).sum(), decomposition_table=table)(
                *plain
            )
    except Exception as error:  # whatever a function does that cannot be traced
        if "tracing tensor" in str(error):
            raise NoFormula("which operations are done depends on the numbers") from None
        raise NoFormula(f"it cannot be traced: {str(error).splitlines()[0]}") from None


def _formula(traced: torch.fx.GraphModule, symbols: Sequence[Array]) -> Any:
    """Do the operations of a traced function on symbols; the result is one formula.

    What does not depend on the symbols, such as labels and masks, is computed by torch.
    """
    import sympy

    inputs = iter(symbols)
    known: dict[torch.fx.Node, Any] = {}
    torch_knows: set[torch.fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(inputs)
        elif node.op == "get_attr":
            known[node] = getattr(traced, str(node.target)).detach().clone()
            torch_knows.add(node)
        elif node.op == "output":
            (result,) = _symbolic(_values(node.args, known))
            return sympy.sympify(np.asarray(result).item())
        elif torch_knows.issuperset(node.all_input_nodes):
            known[node] = node.target(*_values(node.args, known), **_values(node.kwargs, known))
            torch_knows.add(node)
        elif node.users:
            known[node] = _done(
                node, _symbolic(_values(node.args, known)), _symbolic(_values(node.kwargs, known))
            )
    raise NoFormula("the function has no output")


def _values(arguments: Any, known: dict[torch.fx.Node, Any]) -> Any:
    return torch.fx.node.map_arg(arguments, known.__getitem__)


def _symbolic(arguments: Any) -> Any:
    return pytree.tree_map(lambda v: _exact(v) if isinstance(v, Tensor) else v, arguments)


def _done(node: torch.fx.Node, args: Any, kwargs: Any) -> Any:
    name = node.target.__name__.split(".")[0] if callable(node.target) else str(node.target)
    how = OPERATIONS.get(name)
    if how is None:
        raise NoFormula(f"the operation `{name}` is not among those done on symbols")
    try:
        return how(*args, **kwargs)
    except NoFormula:
        raise
    except Exception as error:  # an argument that the operation on symbols does not know
        raise NoFormula(f"the operation `{name}` could not be done on symbols: {error}") from None


def _exact(tensor: Tensor) -> Array:
    """Give a constant as it is: floating point numbers as exact fractions, so that 30 digits mean something."""
    import sympy

    values = tensor.detach().cpu().numpy()
    return _each(lambda v: sympy.Rational(float(v)))(values) if values.dtype.kind == "f" else values


def _each(function: Callable[..., Any]) -> Callable[..., Array]:
    """Make a function of single numbers one of arrays, broadcast."""
    made = np.frompyfunc(function, function.__code__.co_argcount, 1)
    return lambda *arrays, **_: np.asarray(made(*arrays), dtype=object)


def _function(name: str) -> Callable[..., Array]:
    def one(x: Any) -> Any:
        import sympy

        return getattr(sympy, name)(x)

    return _each(one)


@functools.cache
def _own_functions() -> SimpleNamespace:
    """Make a choice between two formulas, and comparisons, that SymPy leaves alone.

    Its own Piecewise tries to find out which of two formulas is larger, and takes minutes where maxima are nested.
    """
    import sympy

    class Chosen(sympy.Function):
        def _eval_derivative(self, symbol: Any) -> Any:
            condition, yes, no = self.args
            slopes = yes.diff(symbol), no.diff(symbol)
            return slopes[0] if slopes[0] == slopes[1] else Chosen(condition, *slopes)

    return SimpleNamespace(
        Chosen=Chosen,
        above=sympy.Function("above"),
        at_least=sympy.Function("at_least"),
        meaning={
            "Chosen": lambda condition, yes, no: yes if condition else no,
            "above": operator.gt,
            "at_least": operator.ge,
        },
    )


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if isinstance(condition, bool | np.bool_):
        return yes if condition else no
    return _own_functions().Chosen(condition, yes, no)


def _larger(x: Any, y: Any) -> Any:
    return _where(_compared(operator.ge)(x, y), x, y)


def _smaller(x: Any, y: Any) -> Any:
    return _where(_compared(operator.le)(x, y), x, y)


def _compared(how: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def one(x: Any, y: Any) -> Any:
        import sympy

        x, y = sympy.sympify(x), sympy.sympify(y)
        if x.is_number and y.is_number:
            return bool(how(x, y))
        if how in (operator.lt, operator.le):
            x, y = y, x
        return (_own_functions().above if how in (operator.gt, operator.lt) else _own_functions().at_least)(
            x, y
        )

    return one


def _same(how: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    """Compare for equality, which only constants can be: of symbols nobody knows."""

    def one(x: Any, y: Any) -> Any:
        if isinstance(y, float) and math.isinf(y):
            return not how(0, 0)
        if hasattr(x, "free_symbols") and x.free_symbols:
            raise NoFormula("which operations are done depends on whether numbers are equal")
        return bool(how(x, y))

    return _each(one)


def _relu(x: Any) -> Any:
    return _where(_compared(operator.gt)(x, 0), x, 0)


def _sign(x: Any) -> Any:
    return _where(_compared(operator.gt)(x, 0), 1, _where(_compared(operator.lt)(x, 0), -1, 0))


def _absolute(x: Any) -> Any:
    return _sign(x) * x


def _reduce(how: Callable[[Array], Any]) -> Callable[..., Array]:
    """Make a function of a vector one that reduces some axes of an array."""

    def reduced(x: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
        x = np.asarray(x, dtype=object)
        axes = (
            tuple(range(x.ndim)) if dim is None or dim == [] else tuple(np.atleast_1d(dim) % max(x.ndim, 1))
        )
        kept = [a for a in range(x.ndim) if a not in axes]
        rows = x.transpose([*kept, *axes]).reshape([x.shape[a] for a in kept] + [-1])
        out = np.empty(rows.shape[:-1], dtype=object)
        for place in np.ndindex(out.shape):
            out[place] = how(rows[place])
        return out.reshape([1 if a in axes else x.shape[a] for a in range(x.ndim)]) if keepdim else out

    return reduced


def _fold(how: Callable[[Any, Any], Any]) -> Callable[[Array], Any]:
    def folded(values: Array) -> Any:
        result = values[0]
        for v in values[1:]:
            result = how(result, v)
        return result

    return folded


def _variance(x: Array, dim: Any = None, correction: float = 1, keepdim: bool = False) -> Array:
    import sympy

    def of(values: Array) -> Any:
        mean = values.sum() / sympy.Integer(len(values))
        return ((values - mean) ** 2).sum() / sympy.Integer(int(len(values) - correction))

    return _reduce(of)(x, dim, keepdim)


def _norm(x: Array, order: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:

    if order == 1:
        return _sum(_each(_absolute)(x), dim, keepdim)
    if order != 2:
        raise NoFormula(f"norms of order {order} are not done on symbols")
    return _function("sqrt")(_sum(x * x, dim, keepdim))


def _mean(x: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
    import sympy

    return _reduce(lambda values: values.sum() / sympy.Integer(len(values)))(x, dim, keepdim)


def _layer_norm(x: Array, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Array]:
    axes = list(range(x.ndim - len(shape), x.ndim))
    centered = x - _mean(x, axes, True)
    out = centered * _function("sqrt")(_mean(centered**2, axes, True) + _rational(eps)) ** -1
    out = out if weight is None else out * weight
    return (out if bias is None else out + bias,)


def _batch_norm(
    x: Array, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any, training: bool = False
) -> tuple[Array]:
    *more, eps = rest
    shape = [1, -1] + [1] * (x.ndim - 2)
    if training or (more and more[0] is True) or mean is None:
        axes = [a for a in range(x.ndim) if a != 1]
        mean, variance = _mean(x, axes), _variance(x, axes, 0)
    out = (x - np.reshape(mean, shape)) / _function("sqrt")(np.reshape(variance, shape) + _rational(eps))
    out = out if weight is None else out * np.reshape(weight, shape)
    return (out if bias is None else out + np.reshape(bias, shape),)


def _rational(value: Any) -> Any:
    import sympy

    return sympy.Rational(float(value)) if isinstance(value, float) else sympy.sympify(value)


def _log_softmax(x: Array, dim: int, *_: Any) -> Array:
    return x - _function("log")(_sum(_function("exp")(x), dim, True))


def _softmax(x: Array, dim: int, *_: Any) -> Array:
    raised = _function("exp")(x)
    return raised / _sum(raised, dim, True)


def _gelu(x: Array, approximate: str = "none") -> Array:
    import sympy

    if approximate == "tanh":
        return _each(
            lambda v: v / 2 * (1 + sympy.tanh(sympy.sqrt(2 / sympy.pi) * (v + _rational(0.044715) * v**3)))
        )(x)
    return _each(lambda v: v / 2 * (1 + sympy.erf(v / sympy.sqrt(2))))(x)


def _extreme(how: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def extreme(x: Array, dim: Any = None, keepdim: bool = False) -> Any:
        found = _reduce(_fold(how))(x, dim, keepdim)
        return found if dim is None else (found,)  # without the places: which they are depends on the numbers

    return extreme


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    x = x if low is None else _each(_larger)(x, _rational(low))
    return x if high is None else _each(_smaller)(x, _rational(high))


def _elu(x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    import sympy

    a, s, i = map(_rational, (alpha, scale, input_scale))
    return _each(lambda v: s * _where(_compared(operator.gt)(v, 0), v, a * (sympy.exp(i * v) - 1)))(x)


def _leaky(x: Array, slope: float = 0.01) -> Array:
    return _each(lambda v: _where(_compared(operator.gt)(v, 0), v, _rational(slope) * v))(x)


def _taken(x: Array, dim: int, index: Array, **_: Any) -> Array:
    return np.take_along_axis(x, index, dim)


def _sliced(x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def _selected(x: Array, dim: int, index: int) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def _squeezed(x: Array, dim: Any = None) -> Array:
    axes = range(x.ndim) if dim is None else (d % x.ndim for d in np.atleast_1d(dim))
    return np.squeeze(x, tuple(a for a in axes if x.shape[a] == 1))


def _expanded(x: Array, shape: Sequence[int], **_: Any) -> Array:
    x = np.asarray(x, dtype=object)
    full = [x.shape[i - len(shape) + x.ndim] if s == -1 else s for i, s in enumerate(shape)]
    return np.broadcast_to(x, full)


def _divided(x: Any, y: Any, **how: Any) -> Any:
    if how.get("rounding_mode"):
        raise NoFormula("division that rounds is not done on symbols")
    return _array(x) / _exactly(y)


def _array(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) and x.dtype == object else _exactly(x)


def _exactly(x: Any) -> Any:
    """Give Python numbers and arrays of integers as SymPy's, so that nothing is rounded."""
    if isinstance(x, np.ndarray):
        return (
            x if x.dtype == object else _each(lambda v: _rational(v.item() if hasattr(v, "item") else v))(x)
        )
    return _rational(x)


def _added(x: Any, y: Any, alpha: float = 1) -> Any:
    return _array(x) + _exactly(y) * _rational(alpha)


def _subtracted(x: Any, y: Any, alpha: float = 1) -> Any:
    return _array(x) - _exactly(y) * _rational(alpha)


def _multiplied(x: Any, y: Any) -> Any:
    return _array(x) * _exactly(y)


def _power(x: Any, y: Any) -> Any:
    return _array(x) ** _exactly(y)


def _addmm(bias: Array, x: Array, y: Array, beta: float = 1, alpha: float = 1) -> Array:
    return _rational(beta) * bias + _rational(alpha) * (x @ y)


_sum = _reduce(lambda values: values.sum() if len(values) else 0)


def _as_it_is(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _compare(how: Callable[[Any, Any], Any]) -> Callable[..., Array]:
    def one(x: Any, y: Any) -> Any:
        return _compared(how)(x, y)

    return _each(one)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "add": _added,
    "sub": _subtracted,
    "rsub": lambda x, y, alpha=1: _subtracted(y, x, alpha),
    "mul": _multiplied,
    "div": _divided,
    "pow": _power,
    "neg": operator.neg,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
    "rsqrt": lambda x: 1 / _function("sqrt")(x),
    **{
        name: _function(name)
        for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "sqrt", "erf")
    },
    **{name: _function(name) for name in ("atan", "asin", "acos", "asinh", "atanh")},
    "expm1": lambda x: _function("exp")(x) - 1,
    "log1p": lambda x: _function("log")(x + 1),
    "log2": lambda x: _function("log")(x) / _function("log")(2),
    "sigmoid": lambda x: 1 / (1 + _function("exp")(-x)),
    "silu": lambda x: x / (1 + _function("exp")(-x)),
    "gelu": _gelu,
    "elu": _elu,
    "leaky_relu": _leaky,
    "relu": _each(_relu),
    "abs": _each(_absolute),
    "sign": _each(_sign),
    "sgn": _each(_sign),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "hardtanh": lambda x, low=-1.0, high=1.0: _clamp(x, low, high),
    "maximum": _each(_larger),
    "minimum": _each(_smaller),
    "where": _each(_where),
    "gt": _compare(operator.gt),
    "ge": _compare(operator.ge),
    "lt": _compare(operator.lt),
    "le": _compare(operator.le),
    "eq": _same(operator.eq),
    "ne": _same(operator.ne),
    "sum": _sum,
    "mean": _mean,
    "amax": _reduce(_fold(_larger)),
    "max": _extreme(_larger),
    "min": _extreme(_smaller),
    "diagonal": np.diagonal,
    "amin": _reduce(_fold(_smaller)),
    "prod": lambda x, dim=None, keepdim=False, **_: _reduce(_fold(operator.mul))(x, dim, keepdim),
    "var": _variance,
    "linalg_vector_norm": _norm,
    "cumsum": lambda x, dim, **_: np.cumsum(x, axis=dim),
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "native_layer_norm": _layer_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "mm": operator.matmul,
    "bmm": operator.matmul,
    "mv": operator.matmul,
    "dot": operator.matmul,
    "addmm": _addmm,
    "t": np.transpose,
    "permute": np.transpose,
    "transpose": np.swapaxes,
    "view": np.reshape,
    "reshape": np.reshape,
    "_unsafe_view": np.reshape,
    "unsqueeze": np.expand_dims,
    "squeeze": _squeezed,
    "expand": _expanded,
    "slice": _sliced,
    "select": _selected,
    "cat": lambda parts, dim=0: np.concatenate(parts, axis=dim),
    "stack": lambda parts, dim=0: np.stack(parts, axis=dim),
    "gather": _taken,
    "scalar_tensor": lambda value, **_: np.asarray(_rational(value), dtype=object),
    "full": lambda shape, value, **_: np.full(shape, _rational(value), dtype=object),
    "full_like": lambda x, value, **_: np.full(np.shape(x), _rational(value), dtype=object),
    "zeros_like": lambda x, **_: np.full(np.shape(x), 0, dtype=object),
    "ones_like": lambda x, **_: np.full(np.shape(x), 1, dtype=object),
    **dict.fromkeys(("clone", "alias", "detach", "_to_copy", "contiguous", "lift_fresh_copy"), _as_it_is),
}
