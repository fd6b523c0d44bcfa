"""What a run depends on besides its configuration: the files of its data, and the code of its plug-ins."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from benchmarks.config import Config
from benchmarks.registry import DATA_FILES
from benchmarks.run.build import load_components, load_data_checks
from benchmarks.run.config_names import chosen_parts
from benchmarks.run.plugins import plugin_module
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunFolder
from benchmarks.task import DataInfo
from benchmarks.utils.download import sha256_of
from benchmarks.utils.files import write_text
from benchmarks.utils.paths import cache_dir


@dataclass(frozen=True)
class Inputs:
    """Checksums of what a run read.

    Attributes:
        data: file below the data folder → sha256; empty for stand-in data, and where the files are not here.
        plugins: file name → sha256 of the plug-ins that define the run's task, model, rule, optimiser or schedule.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)

    def differs_from(self, record: Record) -> str:
        """Say what a record was made with that is different now, "" if nothing is.

        Data and plug-ins that are not here now do not count as different: the record is all that is left of them.
        """
        before = record.get("inputs")
        if before is None:
            return ""
        if self.data and before["data"] and _by_file_name(self.data) != _by_file_name(before["data"]):
            return "other data"
        # By content alone: a plug-in may be given as a file or a module, and be moved.
        same = sorted(self.plugins.values()) == sorted(before["plugins"].values())
        return "other code of plug-ins" if self.plugins and not same else ""

    def as_record(self) -> dict[str, dict[str, str]]:
        """Return the checksums as a record holds them."""
        return {name: dict(values) for name, values in asdict(self).items()}


def inputs_of(config: Config, record: Record | None = None) -> Inputs:
    """Take the checksums of the data files and plug-ins that a run depends on, as they are now.

    Args:
        config: of the run.
        record: of the run as it was made before, which names its data files where the task lists none.

    Raises:
        ConfigError: a plug-in that cannot be imported.
    """
    if config.plugins:  # which of them define the run is seen from what they register
        load_components(config)
    elif config.task.source != "stand_in":
        load_data_checks(config)
    return Inputs(_data(config, record), _plugins(_defining(config)))


def current_record(config: Config) -> Record | None:
    """Return the record of a run, if it was made with the data and plug-ins that are here now.

    Raises:
        ConfigError: a plug-in that cannot be imported.
    """
    record = RunFolder.of(config).read()
    return None if record is None or inputs_of(config, record).differs_from(record) else record


def with_files_read(inputs: Inputs, config: Config, info: DataInfo) -> Inputs:
    """Return the inputs of a run with the data files that a task has read, where it lists none in `DATA_FILES`.

    Args:
        inputs: of the run.
        config: of the run.
        info: of the data, which names the files that have been read.
    """
    if inputs.data or config.task.source == "stand_in" or config.task.name in DATA_FILES:
        return inputs
    return replace(inputs, data=_checksums(config, info.checksums))


def _data(config: Config, record: Record | None) -> dict[str, str]:
    if config.task.source == "stand_in":
        return {}
    if config.task.name not in DATA_FILES:
        return _checksums(config, ((record or {}).get("inputs") or {}).get("data", {}))
    folder = Path(config.run.data_dir)
    files = DATA_FILES[config.task.name](folder, config.task.options)
    return _joined((_name(path, folder), _remembered_sha256(path)) for path in sorted(files))


def _checksums(config: Config, names: Iterable[str]) -> dict[str, str]:
    """Return the checksums of those files, by their names below the data folder or absolute, that are here."""
    folder = Path(config.run.data_dir)
    files = [(name, folder / name) for name in names]
    return {name: _remembered_sha256(path) for name, path in files if path.is_file()}


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def _defining(config: Config) -> list[str]:
    """List the plug-ins that define one of the run's parts; others do not change what it computes."""
    factories = [registry[name] for registry, name in chosen_parts(config) if name in registry]
    modules = {getattr(factory, "func", factory).__module__ for factory in factories}  # `func` of a partial
    return [
        plugin
        for plugin in config.plugins
        if any(f"{module}.".startswith(f"{plugin_module(plugin)}.") for module in modules)
    ]


def _plugins(plugins: Sequence[str]) -> dict[str, str]:
    """Return the sha256 of each plug-in by the name of its file."""
    return _joined((Path(plugin).name, _plugin(plugin)) for plugin in plugins)


def _joined(checksums: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return checksums by name; several of one name are joined, sorted, with spaces between."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for name, checksum in checksums:
        by_name[name] += checksum.split(" ")
    return {name: " ".join(sorted(of_name)) for name, of_name in by_name.items()}


def _by_file_name(data: Mapping[str, str]) -> dict[str, str]:
    """Return checksums of data by the names of files alone: the same file counts the same in any folder."""
    return _joined((Path(name).name, checksum) for name, checksum in data.items())


def _plugin(plugin: str) -> str:
    """Return the sha256 of a plug-in's own file; what it imports is not followed."""
    try:
        specification = None if plugin.endswith(".py") else find_spec(plugin)
        path = Path(plugin if specification is None else specification.origin or plugin)
        return sha256_of(path)
    except (OSError, ImportError, ValueError):
        return "not found"


def _remembered_sha256(path: Path) -> str:
    """Return a file's sha256, computed once for its size and time of change: a click log takes minutes."""
    status = path.stat()
    return _sha256_at(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256_at(path: Path, size: int, changed: int) -> str:
    key = hashlib.sha256(f"{path.resolve()} {size} {changed}".encode()).hexdigest()[:32]
    store = cache_dir() / "checksums" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(store.read_text(encoding="utf-8"))["sha256"])
    found = sha256_of(path)
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        write_text(store, json.dumps({"file": path.name, "sha256": found}))
    return found
