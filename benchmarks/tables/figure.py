"""Figures: a few runs, and a registered function that draws them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.config import Config
from benchmarks.errors import ConfigError, ResultsError, SuiteError
from benchmarks.registry import FIGURES, Draw
from benchmarks.run.build import load_figures
from benchmarks.tables.cells import Cell, as_pairs
from benchmarks.tables.figure_file import FigureFile, read_figure_file
from benchmarks.tables.spec import heading, load_spec
from benchmarks.tables.table_checks import check_overrides
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import config_files
from benchmarks.utils.pictures import SUFFIX, Illustrated, write_pictures
from benchmarks.utils.text import printable
from dfa.registry import UnknownNameError


class DrawingError(ResultsError):
    """Function that fails to draw a figure."""


@dataclass(frozen=True)
class FigureSpec:
    """Figure, ready to be planned, run and drawn.

    Attributes:
        name: "figure_2".
        file: what `configs/figure/<name>.yaml` says.
        cells: one per panel; the row is its label.
    """

    name: str
    file: FigureFile
    cells: tuple[Cell, ...]

    @property
    def heading(self) -> str:
        """Return the name as printed: "Figure 2", "Figure A1"."""
        return heading("Figure", self.name)

    @property
    def stand_in(self) -> bool:
        """Return whether generated data may take the place of data that are not here."""
        return self.file.stand_in

    @property
    def weights(self) -> bool:
        """Return whether it is drawn from the runs' weights, which committed records do not hold."""
        return self.file.weights

    def seeds(self, cell: Cell, scale: str) -> int:
        """Return the number of seeds of a panel, which shows one run."""
        return 1

    def cost(self, cell: Cell, scale: str, stand_in: bool = False, device: str = "cpu") -> float:
        """Return the rough seconds of one run, for a plan."""
        return self.file.cost_seconds[scale]


def known_figures(folder: Path | None = None) -> list[str]:
    """List the names of all figures, sorted."""
    return list(config_files("figure", folder))


def load_figure(name: str, folder: Path | None = None) -> FigureSpec:
    """Load the figure that `configs/figure/<name>.yaml`, or a file of the user's own, describes.

    Raises:
        ConfigError: unknown, or a file that cannot be used.
    """
    file = read_figure_file(name, folder)
    where, only = f"figure file {name}.yaml: ", as_pairs(file.only)
    table = load_spec(file.table).cells if file.table else ()
    cells = tuple(_panel(where, label, what, only, table) for label, what in file.panels.items())
    for cell in cells:
        check_overrides(f"{where}panel '{cell.row}': ", cell.overrides)
    known = {item for cell in cells for item in cell.overrides}
    if strange := [item for items in file.only.values() for item in items if item not in known]:
        raise ConfigError(f"{where}only: no panel has '{strange[0]}'")
    return FigureSpec(name, file, cells)


def _panel(
    where: str, label: str, what: Any, only: tuple[tuple[str, tuple[str, ...]], ...], table: Sequence[Cell]
) -> Cell:
    """Build a panel from the overrides of a run, or from a table's cell, "row:column"."""
    if not isinstance(what, str):
        return Cell(label, "", tuple(what), only=only)
    if not table:
        raise ConfigError(f"{where}panel '{label}': '{what}' is a cell, but the file names no table")
    found = next((cell for cell in table if cell.name == what), None)
    if found is None or len(found.runs) != 1:
        raise ConfigError(
            f"{where}panel '{label}': '{what}' is not a cell of one run; known: {', '.join(c.name for c in table)}"
        )
    return Cell(label, "", found.runs[0], only=only or found.only, at=found.at, chosen=found.chosen)


def drawing(spec: FigureSpec, configs: Iterable[Config]) -> Draw:
    """Return the function that draws a figure of such runs.

    Raises:
        ConfigError: the runs' families have none of this name.
    """
    for config in configs:
        load_figures(config)  # whoever plans and runs them may be another process
    try:
        return FIGURES[spec.file.draw]
    except UnknownNameError as error:
        raise ConfigError(f"figure file {spec.name}.yaml: draw: {error}") from None


def draw_figure(spec: FigureSpec, runs: Mapping[str, Config], target: Path) -> None:
    """Draw a figure from finished runs (panel → configuration) and write it as PNG, its pictures beside it.

    Raises:
        ConfigError: see `drawing`.
        DrawingError: the function that draws it fails, or returns no figure.
        ResultsError: the file cannot be written.
    """
    import matplotlib  # a plan does not need it

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    draw = drawing(spec, runs.values())
    with _told(spec):
        drawn = draw(runs)
    figure = drawn.figure if isinstance(drawn, Illustrated) else drawn
    if not isinstance(figure, Figure):
        kind = type(figure).__name__
        raise DrawingError(
            f"{spec.name} cannot be drawn: '{spec.file.draw}' gives {kind} instead of a matplotlib Figure"
        )
    if isinstance(drawn, Illustrated):
        write_pictures(drawn.pictures, target.with_suffix(SUFFIX))
    try:
        with atomic_path(target) as temporary, _told(spec, OSError):
            figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    except OSError as error:
        raise ResultsError(f"cannot write {target}: {error.strerror or error}") from None


@contextmanager
def _told(spec: FigureSpec, *others: type[Exception]) -> Iterator[None]:
    """Tell in one line that drawing failed, and how; errors of the suite and others are left as they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (SuiteError, *others)):
            raise
        reason = f"{type(error).__name__}: {printable(str(error))}"
        raise DrawingError(f"{spec.name} cannot be drawn: '{spec.file.draw}' fails with {reason}") from error
