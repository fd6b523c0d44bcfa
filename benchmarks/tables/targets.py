"""Tables and figures by name, and their plans."""

from collections.abc import Iterator, Sequence

from benchmarks.config import CIRCUMSTANCES
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.launchers import make_launcher, settings_among
from benchmarks.run.build import named_device
from benchmarks.tables.archive import Archive, archive_path
from benchmarks.tables.composed import on_every_source
from benchmarks.tables.figure import FigureSpec, known_figures, load_figure
from benchmarks.tables.plan import Plan, make_plan
from benchmarks.tables.schema import known_tables, read_table_file
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.utils.exits import USER_ERRORS, one_line
from benchmarks.utils.overrides import key_of
from benchmarks.utils.text import name_meant
from benchmarks.utils.values import check_known


class Plans:
    """Plans of several tables and figures, one after the other; those that cannot be made are kept as errors.

    Attributes:
        seeds: per cell of a table; None: as the table says.
        rules: further rules that are added as rows.
        settings: overrides for every run and the launcher.
        jobs: runs that the launcher carries out at once.
        cells: patterns of the cells that are to be run; empty: all are.
    """

    def __init__(
        self,
        names: Sequence[str],
        scale: str,
        seeds: int | None,
        rules: Sequence[str],
        settings: Sequence[str],
        fresh: bool = False,
        cells: Sequence[str] = (),
    ) -> None:
        """Look up the names and the launcher.

        Args:
            names: of tables and figures; `all` stands for all but those that have to be asked for.
            scale: see `make_plan`.
            seeds, rules, settings, cells: see the class.
            fresh: leave committed records out.

        Raises:
            ConfigError: an unknown name, launcher or device, or rules to be added to figures alone.
        """
        self.settings = list(settings)
        self._names = target_names(names)
        if rules and all(name in known_figures() for name in self._names):
            raise ConfigError(f"--rules adds rows to tables; there is none among {', '.join(self._names)}")
        self._scale = scale
        self.seeds = seeds
        self.rules = list(rules)
        self.cells = tuple(cells)
        launcher, device = settings_among(self.settings)
        named_device(device)
        self._launcher, self._device = make_launcher(launcher), device
        self.jobs = self._launcher.width(device)
        self._archive = Archive("") if fresh else None
        self._unusable: dict[str, list[str]] = {}

    def __iter__(self) -> Iterator[Plan]:
        """Plan one target after the other."""
        for name in self._names:
            try:
                target = load_target(name, self.rules)
                seeds = self.seeds if isinstance(target, TableSpec) else None
                plan = make_plan(target, self._scale, seeds, self.settings, self.jobs, self._archive)
                _check_committed(plan, self.settings)
                plan = plan.with_cells(self.cells)
            except USER_ERRORS as error:
                self.failed(name, error)
            else:
                yield plan

    def check_device(self) -> None:
        """Check that the runs can use their device, once for all of them.

        Raises:
            ConfigError: see `Launcher.check_device`.
        """
        self._launcher.check_device(self._device)

    def failed(self, name: str, error: BaseException) -> None:
        """Keep an error, so that the other targets are still made."""
        self._unusable.setdefault(one_line(error), []).append(name)

    def errors(self) -> list[str]:
        """Return the errors so far, a line for each with the targets that it concerns."""
        return [f"{', '.join(names)}: {reason}" for reason, names in self._unusable.items()]


def load_target(name: str, extra_rules: Sequence[str] = ()) -> TableSpec | FigureSpec:
    """Load a table or figure by name.

    Raises:
        ConfigError: its file has a mistake.
    """
    return load_figure(name) if name in known_figures() else load_spec(name, extra_rules=extra_rules)


def archived_plan(committed: Archive, settings: Sequence[str]) -> Plan:
    """Plan a table or figure as it was when its runs were committed.

    Args:
        committed: its archive.
        settings: overrides for every run.

    Raises:
        ConfigError: its file has a mistake.
    """
    target = load_target(committed.table, committed.how["rules"])
    return make_plan(target, committed.how["scale"], committed.how["seeds"], settings, 1, committed)


def _check_committed(plan: Plan, settings: Sequence[str]) -> None:
    """Check that committed records of a plan's scale are those of its table or figure.

    Only where the plan takes none of them, which settings of its runs may explain, is it planned without those.

    Raises:
        ResultsError: none of them is.
    """
    committed = plan.archive
    if not committed.runs or plan.scale != committed.how["scale"] or _takes_some(plan):
        return
    circumstances = [setting for setting in settings if key_of(setting).split(".")[0] in CIRCUMSTANCES]
    if not _takes_some(archived_plan(committed, circumstances)):
        path = archive_path(committed.table)
        raise ResultsError(
            f"the records in '{path}' are of none of its runs: they are of another table, or of this one before it was"
            " changed (reproduce --fresh leaves them out)"
        )


def _takes_some(plan: Plan) -> bool:
    return any(plan.archive.holds(config) for config in on_every_source(run.config for run in plan.runs))


def target_names(names: Sequence[str]) -> list[str]:
    """List tables and figures by name, each once, `all` standing for all but those that have to be asked for.

    Raises:
        ConfigError: an unknown name.
    """
    known = [*known_tables(), *known_figures()]
    wanted: list[str] = []
    for word in names:
        name = name_meant(word, known)
        if name not in known and (table := name_meant(f"table_{word}", known)) in known:
            raise ConfigError(f"unknown table or figure '{word}'; did you mean '{table}'?")
        check_known("table or figure", name, [*known, "all"])
        wanted += [name] if name in known else [name for name in known if not _on_request_only(name)]
    return list(dict.fromkeys(wanted))


def _on_request_only(name: str) -> bool:
    """Return whether `all` leaves it out; not so a file with a mistake, which is then reported."""
    try:
        described = load_figure(name).file if name in known_figures() else read_table_file(name)
    except ConfigError:
        return False
    return described.by_name_only
