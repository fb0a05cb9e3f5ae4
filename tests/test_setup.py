"""Facts about the package as it is installed: what an import costs, and what is pinned."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import foldwise

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imported_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and name the packages that it imported."""
    report = "import sys; print('\\n', *sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit; atexit.register(lambda: exec({report!r}))\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import foldwise",
        "from foldwise.cli import main; main(['--help'])",
        "from foldwise.cli import main; main(['fit', '--help'])",
        "from foldwise.cli import main; main(['--version'])",
    ],
)
def test_what_starts_at_once_imports_nothing_heavy(code: str) -> None:
    assert imported_by(code) & {"torch", "numpy", "polars", "sklearn", "scipy"} == set()


def test_public_names_exist() -> None:
    assert {"fit", "load", "Grid", "Study"} <= set(foldwise.__all__)
    for name in foldwise.__all__:
        assert getattr(foldwise, name) is not None
    assert set(foldwise.__all__) <= set(dir(foldwise))


def test_an_unknown_public_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="fitt"):
        foldwise.fitt  # noqa: B018


def test_the_command_and_the_module_are_the_same() -> None:
    said = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([str(Path(sys.executable).with_name("foldwise"))], [sys.executable, "-m", "foldwise"])
    ]
    assert said == [f"foldwise {importlib.metadata.version('foldwise')}\n"] * 2


def direct_dependencies() -> list[str]:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    return [name for line in wanted if (name := re.split(r"[<>=!~\[; ]", line)[0]) != "foldwise"]


def test_every_direct_dependency_is_pinned_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    assert sorted(pinned) == sorted(direct_dependencies())
    assert pinned[0] == "torch"


def imports(tree: ast.AST) -> Iterator[str]:
    """Name the packages that a module imports when it runs, also inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from imports(node)


def test_everything_that_is_imported_is_installed_for_users() -> None:
    distributions = {
        "sklearn": "scikit-learn",
        "markupsafe": "jinja2",
    }  # jinja2 is nothing without markupsafe
    # what an extra brings is imported where it is needed, and said to be missing
    installed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["search"]]
    wanted = {re.split(r"[<>=!~\[; ]", line)[0] for line in installed}
    files = (ROOT / "src").rglob("*.py")
    found = {name for file in files for name in imports(ast.parse(file.read_text(encoding="utf-8")))}
    outside = found - set(sys.stdlib_module_names) - {"foldwise"}
    assert {distributions.get(name, name) for name in outside} <= wanted
