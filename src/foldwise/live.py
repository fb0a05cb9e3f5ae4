"""The page of a study while it trains."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foldwise.errors import StoreError
from foldwise.report.content import content_of
from foldwise.report.page import render
from foldwise.store.files import write_text

if TYPE_CHECKING:
    from foldwise.study import Study


class LivePage:
    """The page while training: written anew now and then, at no more than a twentieth of the time.

    Args:
        gather: gives the study as it stands.
        folder: the run folder; without one there is no page.

    """

    def __init__(self, gather: Callable[[], Study], folder: Path | None) -> None:
        self.gather, self.folder = gather, folder
        self.due = time.monotonic() + 3

    def refresh(self) -> None:
        """Write the page when it is due; a folder that fails is no reason to stop training."""
        started = time.monotonic()
        if self.folder is None or started < self.due:
            return
        with contextlib.suppress(StoreError):
            write_text(self.folder / "report.html", render(content_of(self.gather(), live=True)))
        ended = time.monotonic()
        self.due = ended + max(5.0, 20 * (ended - started))
