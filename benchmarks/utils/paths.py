"""Paths of the repository, its configurations and its cache folder."""

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import ConfigError, DataError
from benchmarks.utils.overrides import quoted
from benchmarks.utils.yaml_files import read_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG_DIR = REPOSITORY / "configs"
FAMILIES = REPOSITORY / "benchmarks" / "families"
OWN_CONFIGS = "DFA_CONFIG_DIR"
"""Environment variable with the user's own configuration folders, separated like PATH; worker processes inherit it."""


def config_folders() -> list[Path]:
    """List the folders with configurations: the suite's, then the user's own.

    Raises:
        ConfigError: the environment variable names a folder that is not there.
    """
    own = [Path(folder) for folder in os.environ.get(OWN_CONFIGS, "").split(os.pathsep) if folder]
    if missing := [folder for folder in own if not folder.is_dir()]:
        raise ConfigError(f"{OWN_CONFIGS}: there is no folder '{missing[0]}'")
    return [CONFIG_DIR, *own]


def check_config_folders() -> None:
    """Check the folders that the environment names.

    Raises:
        ConfigError: see `config_folders` and `add_config_folder`.
    """
    known, *own = config_folders()
    checked = [known]
    for folder in own:
        _check_own(folder, checked, OWN_CONFIGS)
        checked.append(folder)


def add_config_folder(folder: str) -> None:
    """Have every command of this process find the configurations in `folder`, as `--config-dir` does.

    Raises:
        ConfigError: there is no such folder, its path cannot be handed on, or one of its files has the name of a file
            of the suite or of another folder.
    """
    path = Path(folder).expanduser().resolve()
    if not folder or not path.is_dir():
        raise ConfigError(f"--config-dir: there is no folder '{folder}'")
    known = config_folders()
    _check_own(path, known, "--config-dir")
    if path not in (other.resolve() for other in known):
        os.environ[OWN_CONFIGS] = os.pathsep.join(map(str, [*known[1:], path]))


def _check_own(folder: Path, known: Sequence[Path], where: str) -> None:
    """Check that a folder of the user's own can be handed on, and has no file of a name that another folder has.

    Hydra would read one of the two without a word.
    """
    if os.pathsep in str(folder.resolve()) or "${" in str(folder.resolve()):
        raise ConfigError(f"{where}: '{folder}' has '{os.pathsep}' or '${{' in its path; rename it")
    files = [file.relative_to(folder) for pattern in ("*/*.yaml", "*/base/*.yaml") for file in folder.glob(pattern)]
    for other in known:
        if other != CONFIG_DIR and other.resolve() == folder.resolve():
            continue  # given twice
        if doubles := sorted(file for file in files if (other / file).exists()):
            whose = "of the suite" if other == CONFIG_DIR else f"in '{other}'"
            raise ConfigError(f"{where}: '{folder / doubles[0]}' has the name of a configuration {whose}; rename it")


def search_path() -> list[str]:
    """Return the override that has Hydra look into the user's own configuration folders, if there are any."""
    own = ",".join(quoted(f"file://{folder.resolve()}") for folder in config_folders()[1:])
    return [f"hydra.searchpath=[{own}]"] if own else []


def config_files(group: str, folder: Path | None = None) -> dict[str, Path]:
    """Find the configurations of a group, e.g. "table": name → file, sorted by name.

    Args:
        group: of the suite's and the user's own folders.
        folder: where to look instead of there.
    """
    folders = [own / group for own in config_folders()] if folder is None else [folder]
    found = {file.stem: file for place in folders for file in place.glob("*.yaml")}
    return dict(sorted(found.items()))


def own_plugins() -> list[str]:
    """List the plug-ins that the user's own configuration folders name in `plugins.yaml`: their files, or modules.

    Raises:
        ConfigError: a `plugins.yaml` that is not a list of names.
    """
    return [name for folder in config_folders()[1:] for name in _plugins_of(folder)]


def _plugins_of(folder: Path) -> list[str]:
    file = folder / "plugins.yaml"
    if not file.exists():
        return []
    names = read_yaml(file, f"'{file}'")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"'{file}' must be a list of Python files and modules")
    return [str(folder / name) if name.endswith(".py") else name for name in names]


def cache_dir() -> Path:
    """Return the cache folder: $DFA_CACHE_DIR, or ~/.cache/dfa-benchmarks."""
    return Path(os.environ.get("DFA_CACHE_DIR") or Path.home() / ".cache" / "dfa-benchmarks")


def data_roots(data_dir: Path) -> tuple[Path, Path]:
    """Return the folders below which published data are looked for: the data folder, and the cache folder."""
    return data_dir, cache_dir()


def first_writable(folders: Sequence[Path], what: str) -> Path:
    """Return the first folder that files may be created in.

    Args:
        folders: in order of preference.
        what: is to be written, for the message.

    Raises:
        DataError: there is none.
    """
    for folder in folders:
        if writable(folder):
            return folder
    tried = " nor ".join(map(str, folders))
    raise DataError(f"{what} can be written neither to {tried}; set DFA_CACHE_DIR to a writable folder")


def writable(folder: Path) -> bool:
    """Return whether files may be created in `folder`, which is created if needed.

    A file is created on trial, since permission bits say nothing about read-only mounts. A folder without write
    permission counts as read-only even for root.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
