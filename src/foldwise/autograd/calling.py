"""What a function that is looked at is called with, and clear errors where it cannot be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from foldwise.errors import FoldwiseError


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the arguments that one tensor, a tuple or list, or a dictionary by name stands for.

    >>> arguments_of((1, 2)), arguments_of({"x": 1})
    (((1, 2), {}), ((), {'x': 1}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def refuse_no_function(given: Any, what: str, hint: str) -> None:
    """Raise FoldwiseError where something that must be called cannot be; `what` is the place that it was given to.

    >>> refuse_no_function(3, "`loss`", "loss=torch.sum")
    Traceback (most recent call last):
    foldwise.errors.FoldwiseError: `loss` takes a module or a function; got int.
    hint: loss=torch.sum
    """
    if not callable(given):
        raise FoldwiseError(f"{what} takes a module or a function; got {type(given).__name__}.", hint=hint)


def refuse_other_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], hint: str
) -> None:
    """Raise FoldwiseError where a function has not room for these arguments, or needs more.

    >>> refuse_other_arguments(lambda x, w: x * w, [1.0], {}, "give x and w")
    Traceback (most recent call last):
    foldwise.errors.FoldwiseError: the function cannot be called with 1 input: missing a required argument: 'w'.
    hint: give x and w
    """
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # some that are not written in Python have none
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        what = "module" if isinstance(function, nn.Module) else "function"
        count = len(args) + len(kwargs)
        inputs = f"{count} input{'s' * (count != 1)}" if count else "no input"
        raise FoldwiseError(f"the {what} cannot be called with {inputs}: {error}.", hint=hint) from error
