"""Documents of the repository as pages of the site, with the files that they refer to."""

import re
import shutil
from pathlib import Path

from benchmarks.utils.files import write_text
from benchmarks.utils.text import markdown_list, markdown_page

INDEX = "index.md"
_PATTERNS = (
    "*.md",
    "docs/*.md",
    "benchmarks/families/*/README.md",
    "examples/*/README.md",
    "tests/README.md",
    "results/bench/*.md",
    "results/search/*.md",
    "results/tables/*.md",
)
_LINK = re.compile(r'\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?((?:\s+"[^"]*")?)\)')


def documents(root: Path) -> list[Path]:
    """List the Markdown files of a repository that become pages, relative to it."""
    return sorted(path.relative_to(root) for pattern in _PATTERNS for path in root.glob(pattern))


def write_documents(root: Path, folder: Path) -> None:
    """Write a repository's documents to a folder, in the places that they have in the repository, so that links hold.

    Files that they refer to are copied. A link to a folder leads to a list of what is in it. A link to a hidden file,
    which a site does not show, becomes its text.
    """
    folders: set[Path] = set()
    for document in documents(root):
        text = (root / document).read_text(encoding="utf-8")
        for target in _targets(text, document, root):
            if (root / target).is_dir():
                folders.add(target)
            elif (root / target).suffix != ".md" and not _hidden(target):
                _copy(target, root, folder)
        write_text(folder / document, adapted(text, document, root))
    for target in sorted(folders):
        _write_listing(target, root, folder)


def adapted(text: str, document: Path, root: Path) -> str:
    """Return the text of a document with links that a site can follow.

    Args:
        text: in Markdown.
        document: its place, relative to the repository.
        root: of the repository.
    """

    def replace(match: re.Match[str]) -> str:
        words, link, place, title = match[1], match[2], match[3] or "", match[4]
        target = _target(document, link, root)
        if target is None:
            return match[0]
        if _hidden(target):
            return words
        if (root / target).is_dir():
            link = f"{link.rstrip('/')}/{_index(target, root)}"
        return f"[{words}]({link}{place}{title})"

    return _LINK.sub(replace, text)


def _targets(text: str, document: Path, root: Path) -> list[Path]:
    """List the files and folders that a document's links lead to."""
    found = (_target(document, match[2], root) for match in _LINK.finditer(text))
    return [target for target in found if target is not None]


def _target(document: Path, link: str, root: Path) -> Path | None:
    """Return what a link leads to, relative to the repository; None for what is not in it."""
    place = (root / document.parent / link).resolve()
    return place.relative_to(root.resolve()) if place.exists() and place.is_relative_to(root.resolve()) else None


def _index(target: Path, root: Path) -> str:
    return "README.md" if (root / target / "README.md").exists() else INDEX


def _hidden(target: Path) -> bool:
    return any(part.startswith(".") for part in target.parts)


def _copy(target: Path, root: Path, folder: Path) -> None:
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / target, folder / target)


def _write_listing(target: Path, root: Path, folder: Path) -> None:
    """Copy a folder's files and write a page that lists them, unless the folder has a page of its own."""
    files = sorted(path.relative_to(root) for path in (root / target).iterdir() if path.is_file())
    files = [file for file in files if not _hidden(file)]
    for file in files:
        if file.suffix != ".md":
            _copy(file, root, folder)
    if _index(target, root) == INDEX:
        lines = markdown_list(f"[{file.name}]({file.name})" for file in files)
        write_text(folder / target / INDEX, markdown_page(str(target), lines))
