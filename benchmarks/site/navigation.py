"""Order of the site's pages."""

from collections.abc import Mapping
from pathlib import Path

Navigation = list[dict[str, object]]

_GUIDE = ("getting_started", "library", "refused", "suite", "sweeps", "several_devices", "integrations",
          "compatibility", "performance", "records")  # fmt: skip
_EXTEND = ("extending", "rules", "tables")
_ABOUT = ("architecture",)
_ELSEWHERE = ("results", "is_dfa_any_good")


def navigation(sources: Path, tables: Mapping[str, str]) -> Navigation:
    """Return the site's navigation; a document that it does not know by name joins the guide.

    Args:
        sources: folder of the site's sources.
        tables: those that have a page, with their headings.
    """
    placed = {*_GUIDE, *_EXTEND, *_ABOUT, *_ELSEWHERE}
    others = sorted(path.stem for path in (sources / "docs").glob("*.md") if path.stem not in placed)
    families = sorted(path.relative_to(sources) for path in sources.glob("benchmarks/families/*/README.md"))
    examples = sorted(path.relative_to(sources) for path in sources.glob("examples/*/README.md"))
    results: list[object] = [
        {"Overview": "docs/results.md"},
        {"Rules, compared": "results/rules.md"},
        {"Figures": "results/figures/index.md"},
        *({heading: f"results/tables/{name}.md"} for name, heading in tables.items()),
    ]
    pages: Navigation = [
        {"Start": "README.md"},
        {"Is DFA any good?": _document("is_dfa_any_good")},
        {"Results": results},
        {"Guide": [_document(name) for name in (*_GUIDE, *others)]},
        {"Extend": [*(_document(name) for name in _EXTEND), *map(str, examples)]},
        {"Tasks": [{_words(path.parent.name): str(path)} for path in families]},
        {"API": ["api/rules.md", "api/others.md"]},
        {"About": [*(_document(name) for name in _ABOUT), "CONTRIBUTING.md", "tests/README.md", "CHANGELOG.md"]},
    ]
    return pages


def _document(name: str) -> str:
    return f"docs/{name}.md"


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
