"""docs/compatibility.md: what came of every rule on every model of the zoo.

python -m tests.zoo.matrix     writes it; rows of models whose library is not installed stay as they are
"""

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from tests.zoo.entries import ENTRIES, Entry
from tests.zoo.examine import COLUMNS, DEFECT, EXACT, REFUSED, Column, Outcome, examine

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
TORCH = "2.14"
"""Where torch does not do something yet that a rule asks for, a rule is refused that is exact with a newer one."""
MARKS = {EXACT: "✓", REFUSED: "refused", DEFECT: "defect"}
Cells = Mapping[tuple[str, str], Outcome]

HEAD = """# Rules on models of other people

Every model is built at a tiny size with random weights and trained for one step. A rule is exact (✓) where all parameter
gradients equal those of an independent computation to a relative 10⁻⁵ (`tests/zoo`): for direct rules the model is cut by plain
hooks and differentiated piece by piece, for sequential ones every product with a weight is written anew, and `bp` is autograd.
A rule is refused where it raises one clear error. The numbers lead to what is said below the table.

Written by `python -m tests.zoo.matrix` (`pip install -e '.[suite,dev,zoo]'`) with torch 2.14; tests compare it with what they
find.
"""  # noqa: E501


def render(cells: Cells) -> str:
    """The page; cells without an outcome are left empty."""
    notes: dict[str, int] = {}
    rows = [["model", *(f"`{column.name}`" for column in COLUMNS)], ["---", *(":-:" for _ in COLUMNS)]]
    for entry in ENTRIES:
        rows.append([entry.name, *(_cell(cells.get((entry.name, column.name)), notes) for column in COLUMNS)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    listed = "\n".join(f"{number}. {note}" for note, number in notes.items())
    points = "\n".join(
        f"| {entry.name} | {_code(entry.points)} | {_code(entry.error_at)} | {_options(entry)} | {entry.library} |"
        for entry in ENTRIES
    )
    where = f"| model | points | error_at | options | library |\n| --- | --- | --- | --- | --- |\n{points}"
    return "\n".join([HEAD, table, "", listed, "", "## Points and error tensors", "", where, ""])


def _cell(outcome: Outcome | None, notes: dict[str, int]) -> str:
    if outcome is None:
        return ""
    if not outcome.note:
        return MARKS[outcome.kind]
    return f"{MARKS[outcome.kind]} ({notes.setdefault(outcome.note, len(notes) + 1)})"


def _options(entry: Entry) -> str:
    return f"`batch_dims={entry.batch_dims}`" if entry.batch_dims is not None else ""


def _code(patterns: tuple[str, ...]) -> str:
    return ", ".join(f"`{pattern}`" if pattern else "the model's output" for pattern in patterns)


def read(text: str) -> dict[tuple[str, str], Outcome]:
    """The outcomes that a page shows."""
    lines = text.splitlines()
    notes = dict(line.split(". ", 1) for line in lines if line.split(". ", 1)[0].isdigit())
    names = [entry.name for entry in ENTRIES]
    table = [line for line in lines if line.count("|") == len(COLUMNS) + 2]
    kinds = {mark: kind for kind, mark in MARKS.items()}
    found = {}
    for row in table:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        for column, cell in zip(COLUMNS, cells, strict=True):
            if name in names and cell:
                mark, _, number = cell.partition(" (")
                found[name, column.name] = Outcome(kinds[mark], notes[number.rstrip(")")] if number else "")
    return found


def find(entry: Entry, column: Column) -> Outcome:
    """Examine without the noise that libraries make."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return examine(entry, column)
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    if not torch.__version__.startswith(TORCH):
        sys.exit(f"the page shows what comes of torch {TORCH}, and this is {torch.__version__}")
    torch.set_num_threads(1)
    cells = read(PAGE.read_text("utf-8")) if PAGE.exists() else {}
    for entry in ENTRIES:
        if not entry.installed:
            print(f"{entry.name}: {entry.library} is not installed", file=sys.stderr)
            continue
        for column in COLUMNS:
            cells[entry.name, column.name] = find(entry, column)
        print(f"{entry.name}: {[cells[entry.name, column.name].kind for column in COLUMNS].count(EXACT)} exact")
    PAGE.write_text(render(cells), "utf-8")


if __name__ == "__main__":
    main()
