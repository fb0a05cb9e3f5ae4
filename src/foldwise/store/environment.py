"""With what a study was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

from foldwise import __version__
from foldwise.engine.threads import available


def environment(device: str) -> dict[str, str]:
    """Name the versions and the machine."""
    libraries = ("torch", "numpy", "scikit-learn", "polars")
    return {
        "foldwise": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in libraries},
        "system": platform.platform(terse=True),
        "cores": str(os.cpu_count()),
        "threads": str(available()),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
    }
