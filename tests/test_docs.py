"""The documentation, run: every Python block, command line, search file and link, and the page of settings."""

import doctest
import importlib.util
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import torch
import typer

from foldwise.arguments import read_search
from foldwise.checks import CHECKS
from foldwise.cli import app
from foldwise.plans.defaults import base_settings
from foldwise.plans.search import as_grid, grid_trials

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "console", "bash", "shell")
COMMAND = re.compile(r"\bfoldwise ((?:[^\n|&;<>()`#\"']|\"[^\"\n]*\"|'[^'\n]*')+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """Give the blocks of a page in some languages, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = FENCED.finditer(text)
    return [(text.count("\n", 0, m.start(2)) + 1, m[2]) for m in found if m[1] in languages]


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[list[str]]:
    """Give the words after `foldwise` of every command line in a block, and of every one in running text."""
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    lines = [code for _, code in blocks(page, *SHELLS)] + [s for s in spans if s.startswith("foldwise ")]
    return [shlex.split(words) for code in lines for words in COMMAND.findall(code)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Hold torch to one thread: on tables this small, a second one only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Stand in a folder with the tables that the documentation names; they are tiny."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = 48
    area, built = rng.uniform(20, 200, rows).round(1), rng.integers(1900, 2020, rows)
    towns = np.array(["Bern", "Basel", "Chur", "Thun"])[np.arange(rows) % 4]
    houses = pl.DataFrame({"area": area, "built": built, "town": towns, "zip": 3000 + np.arange(rows) % 4})
    price = 3000 * area + 500 * (built - 1900) + rng.normal(0, 1e4, rows)
    houses.with_columns(price=pl.Series(price.round())).write_csv("train.csv")
    houses.head(3).write_csv("new.csv")
    ill = rng.integers(0, 2, rows)
    fever = (ill + rng.normal(0, 0.5, rows)).round(2)
    pl.DataFrame({"patient": np.arange(rows) // 4, "fever": fever, "ill": ill}).write_csv("visits.csv")
    age = np.select(
        [np.arange(rows) % 9 == 0, np.arange(rows) % 9 == 4], [-999, -1], rng.integers(20, 80, rows)
    )
    pl.DataFrame({"age": age, "fever": fever, "ill": ill}).write_csv("survey.csv")
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_blocks_run(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of a page run one after the other, as a reader would type them; outputs after >>> are compared."""
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        if ">>> " in code:
            example = doctest.DocTestParser().get_doctest(code, names, name_of(page), str(page), line - 1)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            failed = runner.run(example, clear_globs=False).failed
            names |= example.globs
            assert not failed, capsys.readouterr().out
        else:
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def test_there_are_python_blocks() -> None:
    assert {"README.md", "docs/guide.md", "docs/how-it-works.md"} <= {
        name_of(p) for p in PAGES if blocks(p, "python")
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    top = typer.main.get_command(app)
    for words in commands(page):
        known = top.commands  # type: ignore[attr-defined]
        if words[0].isupper() or words[0] == "…":  # COMMAND stands for any of them
            continue
        assert words[0] in known or words[0].startswith("-"), f"foldwise {shlex.join(words)}"
        owner = known.get(words[0], top)
        if words[0] == "ask" and len(words) > 2:  # foldwise ask RUN QUESTION
            question = owner.get_command(None, words[2])
            assert question is not None or words[2].isupper(), f"foldwise {shlex.join(words)}"
            owner = question or owner
        options = {o for p in owner.params for o in [*p.opts, *p.secondary_opts]} | {"--help", "-h"}
        typed = {w.partition("=")[0] for w in words if w.startswith("-") and len(w) > 1}
        assert typed <= options, f"foldwise {shlex.join(words)}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, *SHELLS)], ids=name_of)
def test_command_lines_in_blocks_can_be_parsed(page: Path) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for code in (code for _, code in blocks(page, *SHELLS)):
        for words in map(shlex.split, COMMAND.findall(code)):
            if words[0] in known and "--help" not in words:
                known[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, *SHELLS)], ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony
    for _, code in blocks(page, *SHELLS):
        assert {t for t in re.findall(r"^make (\S+)", code, re.MULTILINE) if "=" not in t} <= set(
            phony[1].split()
        )


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "json", "toml")], ids=name_of)
def test_search_files_are_searches(page: Path, desk: Path) -> None:
    for language in ("json", "toml"):
        for _, code in blocks(page, language):
            file = desk / f"search.{language}"
            file.write_text(code, encoding="utf-8")
            assert grid_trials(as_grid(read_search(file)), base_settings("regression", 100))


def slugs(page: Path) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    inside = [link for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]
    for path, _, anchor in (link.partition("#") for link in inside):
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{name_of(page)} → {path}"
        assert not anchor or anchor in slugs(goal), f"{name_of(page)} → {path}#{anchor}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(LINK.findall(prose(ROOT / "README.md")))
    assert {name_of(p) for p in PAGES if p.parent.name == "docs"} <= linked


def test_the_page_of_settings_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate_settings", ROOT / "docs/generate_settings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--check"]) == 0, "run python docs/generate_settings.py"


def test_the_pages_of_checks_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate_checks", ROOT / "docs/generate_checks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--check"]) == 0, "run python docs/generate_checks.py"


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_has_a_page_with_a_picture_of_two_panels(code: str) -> None:
    page = (ROOT / f"docs/checks/{code}.md").read_text(encoding="utf-8")
    assert f"](../images/checks/{code}.svg)" in page
    drawn = ElementTree.parse(ROOT / f"docs/images/checks/{code}.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{svg}text[@class='head']")) == 2
    assert drawn.findtext(f"{svg}title", "").startswith("Left: ")
    panels = _marked(drawn, svg)
    assert panels == {"left", "right"}, "a panel is empty"


def _marked(drawn: ElementTree.Element, svg: str) -> set[str]:
    """Tell in which panels something is drawn: a line, a dot or a box."""
    middle = float(drawn.get("viewBox", "0 0 704 0").split()[2]) / 2
    xs = [float(line.get("points", "").split(",")[0]) for line in drawn.iter(f"{svg}polyline")]
    xs += [float(dot.get("cx", "")) for dot in drawn.iter(f"{svg}circle")]
    xs += [float(box.get("x", "")) for box in drawn.iter(f"{svg}rect")]
    return {"left" if x < middle else "right" for x in xs}


def test_pictures_are_of_checks() -> None:
    assert {p.stem for p in (ROOT / "docs/images/checks").glob("*.svg")} <= set(CHECKS)


def test_the_listing_of_the_package_is_complete() -> None:
    """docs/architecture.md names every file of the package."""
    [(_, listing)] = [b for b in blocks(ROOT / "docs/architecture.md", "text") if "src/foldwise/" in b[1]]
    package = ROOT / "src/foldwise"
    files = [p for p in itertools.chain(package.glob("*.py"), package.glob("*/*.py")) if p.stem[:2] != "__"]
    checks = {f"{code.replace('-', '_')}.py" for code in CHECKS}  # which `foldwise explain` lists
    assert [p.name for p in files if p.name not in listing and p.name not in checks] == []
