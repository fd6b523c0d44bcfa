"""Figures: a few runs, and a registered function that draws them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.config import SCALES, Config
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.registry import FIGURES, Draw
from benchmarks.run.build import load_figures
from benchmarks.tables.cells import Cell, as_pairs
from benchmarks.tables.spec import heading, load_spec
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import config_files
from benchmarks.utils.pictures import SUFFIX, Illustrated, write_pictures
from benchmarks.utils.values import check_known
from benchmarks.utils.yaml_files import read_yaml
from dfa.registry import UnknownNameError


@dataclass(frozen=True)
class FigureSpec:
    """Figure, ready to be planned, run and drawn.

    Attributes:
        name: "figure_2".
        title: what it shows.
        draw: name of the function in `FIGURES`.
        cells: one per panel; the row is its label.
        cost_seconds: rough seconds of a run, per scale.
        by_name_only: not one of `all`.
        stand_in: whether generated data may take the place of data that are not here.
        weights: drawn from the runs' weights, which committed records do not hold.
    """

    name: str
    title: str
    draw: str
    cells: tuple[Cell, ...]
    cost_seconds: Mapping[str, float]
    by_name_only: bool = False
    stand_in: bool = True
    weights: bool = False

    @property
    def heading(self) -> str:
        """Return the name as printed: "Figure 2", "Figure A1"."""
        return heading("Figure", self.name)

    def seeds(self, cell: Cell, scale: str) -> int:
        """Return the number of seeds of a panel, which shows one run."""
        return 1

    def cost(self, cell: Cell, scale: str, stand_in: bool = False, device: str = "cpu") -> float:
        """Return the rough seconds of one run, for a plan."""
        return self.cost_seconds[scale]


def known_figures(folder: Path | None = None) -> list[str]:
    """List the names of all figures, sorted."""
    return list(config_files("figure", folder))


def load_figure(name: str, folder: Path | None = None) -> FigureSpec:
    """Load the figure that `configs/figure/<name>.yaml`, or a file of the user's own, describes.

    Raises:
        ConfigError: unknown, or a file without the needed entries.
    """
    check_known("figure", name, known_figures(folder))
    content = read_yaml(config_files("figure", folder)[name], f"figure file {name}.yaml")
    try:
        only = as_pairs(content.get("only", {}))  # scale → overrides of the panels that belong to it
        table = load_spec(content["table"]).cells if "table" in content else ()  # whose cells panels may name
        cells = tuple(_panel(label, what, only, table) for label, what in content["panels"].items())
        cost = {scale: float(content["cost_seconds"][scale]) for scale in SCALES}
        choices = {key: bool(content[key]) for key in ("by_name_only", "stand_in", "weights") if key in content}
        return FigureSpec(name, content["title"], content["draw"], cells, cost, **choices)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"figure file {name}.yaml is incomplete: {error}") from None


def _panel(
    label: str, what: Sequence[str] | str, only: tuple[tuple[str, tuple[str, ...]], ...], table: Sequence[Cell]
) -> Cell:
    """Build a panel from the overrides of a run, or from a table's cell, "row:column"."""
    if not isinstance(what, str):
        return Cell(label, "", tuple(what), only=only)
    found = next((cell for cell in table if cell.name == what), None)
    if found is None or len(found.runs) != 1:
        raise ConfigError(
            f"panel '{label}': '{what}' is not a cell of one run; known: {', '.join(c.name for c in table)}"
        )
    return Cell(label, "", found.runs[0], only=only or found.only, chosen=found.chosen)


def drawing(spec: FigureSpec, configs: Iterable[Config]) -> Draw:
    """Return the function that draws a figure of such runs.

    Raises:
        ConfigError: the runs' families have none of this name.
    """
    for config in configs:
        load_figures(config)  # whoever plans and runs them may be another process
    try:
        return FIGURES[spec.draw]
    except UnknownNameError as error:
        raise ConfigError(f"figure file {spec.name}.yaml: draw: {error}") from None


def draw_figure(spec: FigureSpec, runs: Mapping[str, Config], target: Path) -> None:
    """Draw a figure from finished runs (panel → configuration) and write it as PNG, its pictures beside it.

    Raises:
        ConfigError: see `drawing`.
        ResultsError: the file cannot be written.
    """
    import matplotlib  # a plan does not need it

    matplotlib.use("Agg")
    drawn = drawing(spec, runs.values())(runs)
    figure = drawn.figure if isinstance(drawn, Illustrated) else drawn
    if isinstance(drawn, Illustrated):
        write_pictures(drawn.pictures, target.with_suffix(SUFFIX))
    try:
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    except OSError as error:
        raise ResultsError(f"cannot write {target}: {error.strerror or error}") from None
