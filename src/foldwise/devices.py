"""By what is computed: device, floating type and engine by name."""

from __future__ import annotations

import torch

from foldwise.errors import SettingsError


def device_of(name: str) -> torch.device:
    """Find the device by name; "auto" is a GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"the device `{name}` cannot be used: {str(error).splitlines()[0]}", hint="--device cpu"
        ) from None


def engine_called(name: str, chunk: int | None, compile: str) -> str:  # noqa: A002
    """Check what was asked for of the engines."""
    if compile not in ("auto", "on", "off"):
        raise SettingsError(f"`compile` is one of auto, on, off; got {compile!r}.", hint='compile="auto"')
    if name not in ("auto", "resident", "stacked"):
        raise SettingsError(f"there is no engine `{name}`.", hint="auto, resident or stacked")
    for option, given in (("chunk", chunk is not None), ("compile", compile != "auto")):
        if name == "resident" and given:
            raise SettingsError(
                f"`{option}` has no effect in the resident engine.", hint="leave one of them out"
            )
    return name


def dtype_of(name: str) -> torch.dtype:
    """Find the floating type by name."""
    known = {"float32": torch.float32, "float64": torch.float64}
    if name not in known:
        raise SettingsError(f"there is no dtype `{name}`.", hint="float32 or float64")
    return known[name]
