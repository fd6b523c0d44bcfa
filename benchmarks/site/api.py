"""Reference pages of the library, made of its docstrings."""

import ast
from pathlib import Path

from benchmarks.utils.text import markdown_page

RULES = "dfa.rules"


def public_names(package: Path) -> dict[str, str]:
    """Return the names that the library exports, with the modules that they come from, without importing it.

    Args:
        package: folder of the library.
    """
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    origins = {
        name.asname or name.name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    (exported,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    return {name: origins[name] for name in exported}


def api_pages(package: Path) -> dict[str, str]:
    """Return the reference pages: file name → Markdown that mkdocstrings fills with docstrings."""
    names = public_names(package)
    rules = [name for name, origin in names.items() if origin == RULES]
    others = [name for name, origin in names.items() if origin != RULES]
    return {
        "rules.md": _page("Rules", "Every rule, and the classes that one of your own derives from.", rules),
        "others.md": _page(
            "Points, matrices, alignment, errors", "What rules are made of, and what measures them.", others
        ),
    }


def _page(title: str, lead: str, names: list[str]) -> str:
    return markdown_page(title, lead, *(f"::: dfa.{name}" for name in names))
