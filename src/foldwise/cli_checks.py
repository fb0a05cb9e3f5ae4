"""`foldwise explain` and `foldwise check`: what checks look for, and what they find before anything is trained."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from foldwise.checks import CHECKS
from foldwise.checks.explain import Explanation, explain

if TYPE_CHECKING:
    from foldwise.checks.finding import Finding

WIDTH: Final = 100


def listing() -> str:
    """List all checks with what each looks for."""
    widest = max(map(len, CHECKS))
    return "".join(f"{code:{widest}}  {explain(code).what}\n" for code in CHECKS)


def explained(told: Explanation) -> str:
    """Write what a check is as text of limited width.

    >>> explained(Explanation("x", "What.", {"Evidence": "counted."}))
    'x\\nWhat.\\n\\nEvidence: counted.\\n'
    """
    parts = [told.what, *(f"{name}: {text}" for name, text in told.sections.items())]
    first, *rest = (textwrap.fill(part, WIDTH) for part in parts)
    return "\n".join([told.code, first, *(f"\n{part}" for part in rest)]) + "\n"


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings on the terminal, alarms first."""
    from foldwise.terminal import findings_block, talk

    talk().print(findings_block(findings))
