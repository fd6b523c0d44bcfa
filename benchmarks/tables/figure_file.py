"""Schema of the files in `configs/figure/`, and their reader."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from benchmarks.config import SCALES
from benchmarks.errors import ConfigError
from benchmarks.utils.paths import config_files
from benchmarks.utils.typed import typed
from benchmarks.utils.values import check_known, is_number
from benchmarks.utils.yaml_files import read_yaml


@dataclass(frozen=True)
class FigureFile:
    """Content of a figure's file.

    Attributes:
        title: what it shows.
        draw: name of the function in `FIGURES`.
        panels: label → overrides of a run, or a cell of the table, "row:column".
        cost_seconds: scale → rough seconds of a run.
        table: whose cells panels may name; "" for none.
        only: scale → overrides, of which a run must have one to belong to the figure at that scale.
        by_name_only: not one of `all`, because it takes long; it has to be asked for.
        stand_in: whether generated data may take the place of data that are not here.
        weights: drawn from the runs' weights, which committed records do not hold.
    """

    title: str = MISSING
    draw: str = MISSING
    panels: dict[str, Any] = MISSING
    cost_seconds: dict[str, float] = MISSING
    table: str = ""
    only: dict[str, list[str]] = field(default_factory=dict)
    by_name_only: bool = False
    stand_in: bool = True
    weights: bool = False


def read_figure_file(name: str, folder: Path | None = None) -> FigureFile:
    """Read the file of the figure called `name`.

    Raises:
        ConfigError: no such figure, or a file that cannot be used.
    """
    files = config_files("figure", folder)
    check_known("figure", name, files)
    where = f"figure file {name}.yaml"
    content = read_yaml(files[name], where)
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is {'empty' if content is None else 'not a mapping of keys to values'}")
    for key in content:
        check_known("key", str(key), [entry.name for entry in fields(FigureFile)], f"{where}: ")
    needed = [entry.name for entry in fields(FigureFile) if entry.default == MISSING]
    if missing := [key for key in needed if content.get(key) is None]:
        raise ConfigError(f"{where} is incomplete: '{missing[0]}' is missing")
    _check_panels(where, content["panels"])
    file = typed(FigureFile, content, where)
    for key in ("only", "cost_seconds"):
        for scale in getattr(file, key):
            check_known("scale", scale, SCALES, f"{where}: {key}: ")
    if missing := [scale for scale in SCALES if scale not in file.cost_seconds]:
        raise ConfigError(f"{where} is incomplete: cost_seconds has no '{missing[0]}'")
    for scale, seconds in file.cost_seconds.items():
        if not is_number(seconds) or seconds < 0:
            raise ConfigError(f"{where}: cost_seconds of '{scale}' must be a number of seconds, got {seconds}")
    return file


def _check_panels(where: str, panels: Any) -> None:
    if not isinstance(panels, dict) or not panels:
        raise ConfigError(f"{where}: panels must map labels to runs")
    for label, what in panels.items():
        if not isinstance(label, str):
            raise ConfigError(f"{where}: the label of panel {label} must be text, in quotes")
        overrides = isinstance(what, list) and what and all(isinstance(item, str) for item in what)
        if not isinstance(what, str) and not overrides:
            raise ConfigError(
                f"{where}: panel '{label}' must be a list of overrides or a cell of the table, got {what}"
            )
