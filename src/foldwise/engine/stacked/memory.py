"""How much memory there is, and what to do when it runs out."""

from __future__ import annotations

import os
from pathlib import Path

import torch

LIMITS = (  # of the control group that we are in, versions 2 and 1: the most, what is used, and its parts
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
SAYS = ("can't allocate memory", "not enough memory", "out of memory")


def available(device: torch.device, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Give the bytes that can still be had on a device; None where nobody tells.

    On a CPU it is what the system calls available, or what is left to our control group, whichever is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    if device.type != "cpu":
        return None
    known = [b for b in (_system(meminfo), _control_group()) if b is not None]
    return min(known, default=None)


def _system(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        return None


def _control_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    for most, used, parts in LIMITS:
        try:
            left = int((root / most).read_text()) - int((root / used).read_text())
            stat = dict(line.split() for line in (root / parts).read_text().splitlines())
        except (OSError, ValueError):  # "max": no limit
            continue
        # files that were read count as used, though they make way
        return max(0, left + int(stat.get("inactive_file", 0)))
    return None


def ran_out(error: BaseException | None) -> bool:
    """Tell whether an error, or what it was raised from, is that no memory was to be had.

    >>> ran_out(MemoryError()), ran_out(RuntimeError("DefaultCPUAllocator: can't allocate memory")), ran_out(KeyError())
    (True, True, False)
    """
    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in SAYS)
    return said or ran_out(error.__cause__)


def written(size: float) -> str:
    """Write a number of bytes for people.

    >>> written(1536 * 2**20), written(3 * 2**20)
    ('1.5 GB', '3 MB')
    """
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MB"
