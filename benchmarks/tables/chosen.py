"""Settings that were found best for the cells of a table, in `chosen/<name>.yaml` beside its file.

Those of a rule that is no row of the table, but was added to it, are in `chosen/<name>-<rule>.yaml`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from benchmarks.errors import ConfigError
from benchmarks.utils.files import write_result
from benchmarks.utils.yaml_files import read_yaml

Chosen = Mapping[str, Mapping[str, Sequence[str]]]
"""Scale → name of a cell, or of a row for all its cells → overrides."""


def chosen_name(table: str, rule: str = "") -> str:
    """Return the name under which settings are kept: the table's, or that of a rule added to it."""
    return f"{table}-{rule}" if rule else table


def report_name(table: str, scale: str, rule: str = "") -> str:
    """Return the name of the report of what was tried."""
    return f"{chosen_name(table, rule)}-{scale}"


def read_chosen(name: str, folder: Path, known: Sequence[str]) -> Chosen:
    """Read what was chosen under a name, see `chosen_name`; empty where nothing was.

    Args:
        name: of the file.
        folder: of the table's file.
        known: names of the table's cells and rows.

    Raises:
        ConfigError: a file that is of another form, or speaks of what the table does not have.
    """
    path = chosen_path(name, folder)
    if not path.exists():
        return {}
    content = read_yaml(path, f"{path.name} of chosen settings")
    if not (
        isinstance(content, dict)
        and all(isinstance(of_cells, dict) for of_cells in content.values())
        and all(_are_words(items) for of_cells in content.values() for items in of_cells.values())
    ):
        raise ConfigError(f"{path.name} of chosen settings must map scales to cells to lists of overrides")
    strange = [cell for of_cells in content.values() for cell in of_cells if cell not in known]
    if strange:
        raise ConfigError(f"{path.name} of chosen settings: there is no row or cell '{strange[0]}' in {name}")
    return content


def write_chosen(name: str, folder: Path, chosen: Chosen, command: str) -> Path:
    """Write the settings chosen under a name, see `chosen_name`, with the command that found them.

    Raises:
        ResultsError: it cannot be written.
    """
    text = f"# Best on validation, found by:  {command}\n" + yaml.safe_dump(_plain(chosen), sort_keys=False)
    return write_result(chosen_path(name, folder), text)


def chosen_path(name: str, folder: Path) -> Path:
    """Return the path of chosen settings."""
    return folder / "chosen" / f"{name}.yaml"


def _are_words(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(item, str) for item in items)


def _plain(chosen: Chosen) -> dict[str, dict[str, list[str]]]:
    return {scale: {cell: list(items) for cell, items in of_cells.items()} for scale, of_cells in chosen.items()}
