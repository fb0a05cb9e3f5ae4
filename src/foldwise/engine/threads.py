"""How many threads torch may use itself, while several studies train in threads of one process.

What `torch.set_num_threads` sets is the thread's own number, and that with which threads begin that are new. So whoever
asks a new thread how many there are, while another is held to one, would be told one, and go on with it for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch


class _Held(threading.local):
    """Whether this thread is held to one."""

    yes = False


_lock = threading.Lock()
_here = _Held()
_holders = 0
_number = 1  # of threads before the first of the holders came


def available() -> int:
    """Give the number of threads that torch has where nobody holds it.

    >>> with held_to_one():
    ...     inside = torch.get_num_threads(), available()
    >>> inside == (1, torch.get_num_threads())
    True
    """
    with _lock:
        return _own()


def _own() -> int:
    # asking comes before setting: a thread that was never asked takes up the number of new ones later
    here = torch.get_num_threads()
    return _number if _here.yes or (_holders and here == 1) else here


@contextmanager
def held_to_one() -> Generator[None]:
    """Hold torch to one thread in this thread; when the last of several holders leaves, all is as it was.

    Other threads may be held at the same time, in any order, and this one already.
    """
    global _holders, _number  # noqa: PLW0603
    if _here.yes:
        yield
        return
    with _lock:
        own = _own()
        _number = _number if _holders else own
        _holders += 1
        _here.yes = True
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            _here.yes = False
            torch.set_num_threads(own)


def hold_worker() -> None:
    """Hold a new thread to one for as long as it lives; threads that come after it begin as before."""
    with _lock:
        number = _own()
        torch.set_num_threads(1)
        after = threading.Thread(target=torch.set_num_threads, args=(number,))
        after.start()
        after.join()
