"""What imports what, as `docs/architecture.md` draws it, and that its files are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.utils.paths import REPOSITORY

_PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
_SOURCES = [
    path for folder in ("dfa", "benchmarks", "hydra_plugins", "scripts") for path in (REPOSITORY / folder).rglob("*.py")
]


def _order() -> dict[str, int]:
    """Package of the suite → its place in the order of the page; only places further left may be imported."""
    (line,) = re.findall(r"^errors  <.*", _PAGE, flags=re.MULTILINE)
    return {name.strip(): place for place, names in enumerate(line.split("<")) for name in names.split(",")}


def _imports(path: Path) -> Iterator[list[str]]:
    """The parts of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield str(node.module).split(".")
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".") for name in node.names)


def test_the_library_imports_nothing_of_the_suite() -> None:
    for path in (REPOSITORY / "dfa").rglob("*.py"):
        for parts in _imports(path):
            assert parts[0] not in ("benchmarks", "hydra_plugins", "hydra", "omegaconf"), f"{path} imports {parts}"


def test_nothing_is_imported_from_further_up() -> None:
    order = _order()
    for path in (REPOSITORY / "benchmarks").rglob("*.py"):
        here = path.relative_to(REPOSITORY / "benchmarks").with_suffix("").parts
        if here[0].startswith("__"):
            continue
        for parts in _imports(path):
            if parts[0] == "benchmarks" and len(parts) > 1 and parts[1] != here[0]:
                assert order[parts[1]] < order[here[0]], f"{path} imports {'.'.join(parts)}"


def test_families_do_not_import_each_other() -> None:
    for path in (REPOSITORY / "benchmarks" / "families").glob("*/**/*.py"):
        family = path.relative_to(REPOSITORY / "benchmarks" / "families").parts[0]
        for parts in _imports(path):
            assert parts[:2] != ["benchmarks", "families"] or parts[2] == family, f"{path} imports {'.'.join(parts)}"


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_what_the_page_draws_is_there() -> None:
    (tree,) = re.findall(r"^## Packages\n\n```\n(.*?)^```", _PAGE, flags=re.MULTILINE | re.DOTALL)
    folder = Path()
    for line in tree.splitlines():
        name = line.split()[0]
        folder = Path(name) if not line.startswith(" ") else folder
        path = folder / name if line.startswith(" ") else folder
        assert (REPOSITORY / path).exists(), f"{path} is drawn, but not there"
    drawn = {line.split()[0].strip("/") for line in tree.splitlines() if line.startswith(" ")}
    folders = {
        file.parent.name for package in ("dfa", "benchmarks") for file in (REPOSITORY / package).glob("*/__init__.py")
    }
    assert folders <= drawn, f"not drawn: {folders - drawn}"
    for file in re.findall(r"`((?:benchmarks|dfa)/[\w/]+\.py)`", _PAGE):
        assert (REPOSITORY / file).exists(), f"{file} is named, but not there"
