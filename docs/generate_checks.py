"""Write docs/checks.md and a page for every check, from the texts at the head of their files.

python docs/generate_checks.py                     write the pages
python docs/generate_checks.py --check             exit with 1 when a page is out of date
python docs/generate_checks.py --draw [CODE …]     draw patients and their healthy twins anew, then write the pages
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from foldwise.checks import CHECKS, GROUPS
from foldwise.checks.explain import TITLES, Explanation, explain

HERE = Path(__file__).parent
INDEX, PAGES, PICTURES = HERE / "checks.md", HERE / "checks", HERE / "images" / "checks"
NOTE = "*This page is generated from the code: `python docs/generate_checks.py`.*"


def pages() -> dict[Path, str]:
    """Give what every page should be."""
    return {INDEX: index(), **{PAGES / f"{code}.md": page(explain(code)) for code in CHECKS}}


def index() -> str:
    """Put the list of all checks together."""
    groups = [line for name, codes in GROUPS.items() for line in table(TITLES[name], codes)]
    return "\n".join(
        [
            "# Checks",
            "",
            NOTE,
            "",
            "What foldwise looks for: in the table and its folds, in the network at its start, in the training, and in "
            "what",
            "came of it. Causes stand before what they explain. The [guide](guide.md#findings) says how findings are "
            "shown, and",
            "`foldwise explain CODE` prints the text of a check.",
            *groups,
            "",
        ]
    )


def table(title: str, codes: Sequence[str]) -> list[str]:
    """Write a group of checks under its heading."""
    rows = [f"| [{code}](checks/{code}.md) | {cell(explain(code).what)} |" for code in codes]
    return ["", f"## {title}", "", "| check | what it finds |", "| --- | --- |", *rows]


def page(told: Explanation) -> str:
    """Write the page of one check."""
    lines = [f"# {told.code}", "", NOTE, "", told.what, ""]
    picture = PICTURES / f"{told.code}.svg"
    if picture.exists():
        said = caption(picture.read_text(encoding="utf-8"))
        lines += [f"![{said}](../images/checks/{picture.name})", "", f"*{said}.*", ""]
    for name, text in told.sections.items():
        lines += [f"## {name}", "", f"{text[:1].upper()}{text[1:]}", ""]
    return "\n".join([*lines, "[All checks](../checks.md)", ""])


def caption(svg: str) -> str:
    """Read what a picture says of itself."""
    found = re.search(r"<title>(.*?)</title>", svg)
    return html.unescape(found[1]) if found else ""


def cell(text: str) -> str:
    """Write a text so that it can stand in a table."""
    return text.replace("|", r"\|")


def main(arguments: Sequence[str]) -> int:
    """Write or check the pages; give the exit code."""
    if arguments[:1] == ["--draw"]:
        sys.path[:0] = [str(HERE), str(HERE.parent)]  # the benchmark lies beside the documentation
        from check_pictures import draw

        draw(arguments[1:] or CHECKS)
    wanted = pages()
    old = [p for p in PAGES.glob("*.md") if p not in wanted]
    if "--check" not in arguments:
        PAGES.mkdir(exist_ok=True)
        for place, text in wanted.items():
            place.write_text(text, encoding="utf-8")
        for place in old:
            place.unlink()
        return 0
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if not stale and not old:
        return 0
    names = ", ".join(p.relative_to(HERE).as_posix() for p in [*stale, *old])
    print(f"out of date: {names}: python docs/generate_checks.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
