"""Figures: a few runs, and a function of the family that draws them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import yaml
from matplotlib.figure import Figure

from benchmarks.config import CONFIG_DIR, Config
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.files import atomic_path
from benchmarks.tablespec import Cell, as_pairs
from dfa.registry import Registry

FIGURE_FOLDER = CONFIG_DIR / "figure"
Draw = Callable[[Mapping[str, Config]], Figure]
FIGURES: Registry[Draw] = Registry("figure")


@dataclass(frozen=True)
class FigureSpec:
    """A figure, ready to be planned, run and drawn.

    Attributes:
        name: "figure_2".
        title: what it shows.
        draw: name of the function in `FIGURES`.
        cells: one per panel; the row is its label.
        seeds: per scale.
        cost_seconds: rough seconds of a run, per scale.
    """

    name: str
    title: str
    draw: str
    cells: tuple[Cell, ...]
    seeds: Mapping[str, int]
    cost_seconds: Mapping[str, float]

    @property
    def heading(self) -> str:
        """The name as printed: "Figure 2", "Figure A1"."""
        return f"Figure {self.name.removeprefix('figure_').upper()}"

    def cost(self, cell: Cell, scale: str) -> float:
        """Rough seconds of one run, for a plan."""
        return self.cost_seconds[scale]


def known_figures(folder: Path = FIGURE_FOLDER) -> list[str]:
    """Names of all figures."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_figure(name: str, folder: Path = FIGURE_FOLDER) -> FigureSpec:
    """The figure that `configs/figure/<name>.yaml` describes.

    Raises:
        ConfigError: unknown, or a file without the needed entries.
    """
    if name not in known_figures(folder):
        raise ConfigError(f"unknown figure '{name}'; known: {', '.join(known_figures(folder))}")
    content = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    try:
        only = as_pairs(content.get("only", {}))  # scale → overrides of the panels that belong to it
        panels = content["panels"].items()
        cells = tuple(Cell(label, "", tuple(overrides), only=only) for label, overrides in panels)
        return FigureSpec(name, content["title"], content["draw"], cells, content["seeds"], content["cost_seconds"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"figure file {name}.yaml is incomplete: {error}") from None


def draw_figure(spec: FigureSpec, runs: Mapping[str, Config], target: Path) -> None:
    """Draw a figure from finished runs (panel → configuration) and write it as PNG.

    Raises:
        ResultsError: the file cannot be written.
    """
    matplotlib.use("Agg")
    figure = FIGURES[spec.draw](runs)
    try:
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    except OSError as error:
        raise ResultsError(f"cannot write {target}: {error.strerror or error}") from None
