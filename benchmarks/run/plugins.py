"""Code of the user's own that is imported for a run: files, or modules."""

import hashlib
import re
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from benchmarks.errors import ConfigError, SuiteError
from benchmarks.registry import DATA_CHECKS, DATA_FILES, FIGURES, MODELS, TASKS
from benchmarks.run.optim import OPTIMIZERS, SCHEDULES
from benchmarks.utils.download import sha256_of
from benchmarks.utils.text import printable
from dfa import RULES
from dfa.registry import all_or_nothing

LOADED_FROM = "__loaded_from_sha256__"
"""Of a plug-in's module: the checksum of its file when it was executed."""

_REGISTRIES = (TASKS, MODELS, RULES, OPTIMIZERS, SCHEDULES, FIGURES, DATA_FILES, DATA_CHECKS)


def load_plugin(plugin: str) -> None:
    """Import a plug-in, once; what it has registered is taken back where it cannot be imported.

    Args:
        plugin: path of a file that ends in ".py", or name of a module.

    Raises:
        ConfigError: there is none, it cannot be imported, or it has changed since.
    """
    try:
        with all_or_nothing(*_REGISTRIES):
            if plugin.endswith(".py"):
                _load_file(plugin)
            else:
                import_module(plugin)
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {printable(str(error))}"
        raise ConfigError(f"plugin '{plugin}' cannot be imported: {reason}") from error


def plugin_module(plugin: str) -> str:
    """Return the name of the module that a plug-in is imported as: its own, or for a file one made of its path."""
    if not plugin.endswith(".py"):
        return plugin
    path = Path(plugin).resolve()
    word, number = re.sub(r"\W", "_", path.stem), hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return f"plugin_{word}_{number}"


def _load_file(plugin: str) -> None:
    path, name = Path(plugin).resolve(), plugin_module(plugin)
    specification = spec_from_file_location(name, path)
    if not path.exists() or specification is None or specification.loader is None:
        raise ConfigError(f"plugin '{plugin}' does not exist")
    checksum = sha256_of(path)
    if name in sys.modules:
        if getattr(sys.modules[name], LOADED_FROM, checksum) != checksum:
            raise ConfigError(f"plugin '{plugin}' has changed since it was loaded: start the command again")
        return
    # Known to the import system before it runs, as dataclasses and pickle require.
    sys.modules[name] = module_from_spec(specification)
    try:
        specification.loader.exec_module(sys.modules[name])
        setattr(sys.modules[name], LOADED_FROM, checksum)
    except BaseException:
        del sys.modules[name]  # or the next run would take half of it for loaded
        raise
