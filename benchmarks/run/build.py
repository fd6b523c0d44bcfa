"""Build the parts of a run from its configuration: plug-ins, device, task, model and rule; restore a finished run."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from benchmarks.config import Config
from benchmarks.errors import ConfigError, ResultsError, SuiteError
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.config_names import check_family, check_names
from benchmarks.run.plugins import load_plugin
from benchmarks.run.records import RunFolder
from benchmarks.task import Task
from benchmarks.utils.machine import out_of_memory
from benchmarks.utils.paths import FAMILIES
from benchmarks.utils.text import first_line
from benchmarks.utils.traces import own_place
from benchmarks.utils.values import check_known
from dfa import RULES, FeedbackError, PointError, Rule
from dfa.registry import OptionError, UnknownNameError

MISFITS = (UnknownNameError, OptionError, PointError, FeedbackError)
"""What the library and the registries raise when names, options or points do not fit together."""
WHOLE_EPOCH = "epoch"
"""Value of a rule's option that stands for the batches of an epoch."""


def restore(config: Config, folder: RunFolder | None = None, which: str | None = None) -> tuple[Task, nn.Module]:
    """Task and model of the run that `config` describes, on its device, the model in evaluation mode.

    Args:
        folder: where the run lies; None: where the configuration puts it.
        which: "best" or "last" weights; None: those that were tested.

    Raises:
        ResultsError: the run has not finished, or its weights are not those of its model.
        ConfigError, DataError: see `build_task`.
    """
    folder = folder or RunFolder.of(config)
    weights = folder.weights(which or config.trainer.selection)
    if not weights.exists():
        raise ResultsError(f"no finished run in '{folder.path}'; train it first with the same settings")
    load_components(config)
    device = find_device(config.run.device)
    task = build_task(config)
    model = build_model(config, task)
    try:
        load_model(model, str(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ResultsError(f"the weights in {weights} do not fit the run's model: {error}") from None
    task.to(device)
    return task, model.to(device).eval()


def load_components(config: Config) -> None:
    """Import the tasks, models and rules of the task's family, and the user's plug-ins, which register what they hold.

    Raises:
        ConfigError: a family or plug-in that cannot be imported, or see `check_family` and `check_names`.
    """
    _load(config, "published", "task", "models", "rules")
    check_family(config)
    check_names(config)


def load_task(config: Config) -> None:
    """Import the tasks of the task's family, and the user's plug-ins, where no model is needed.

    Raises:
        ConfigError: a family or plug-in that cannot be imported.
    """
    _load(config, "published", "task")


def load_figures(config: Config) -> None:
    """Import the figures of the task's family, and the user's plug-ins.

    Raises:
        ConfigError: a family or plug-in that cannot be imported.
    """
    _load(config, "figures")


def load_data_checks(config: Config) -> None:
    """Import what the task's family says of its published data, in little time, and the user's plug-ins.

    Raises:
        ConfigError: a family or plug-in that cannot be imported.
    """
    _load(config, "published")


def _load(config: Config, *parts: str) -> None:
    families = sorted(path.parent.name for path in FAMILIES.glob("*/task.py"))
    family = config.task.family
    if family is not None:
        check_known("task family", family, families)
        try:
            for part in parts:
                if (FAMILIES / family / f"{part}.py").exists():
                    import_module(f"benchmarks.families.{family}.{part}")
        except ImportError as error:
            raise ConfigError(f"task family '{family}' cannot be imported: {error}") from error
    for plugin in config.plugins:
        load_plugin(plugin)


def find_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        ConfigError: there is no such device here.
    """
    with _usable(name):
        device = named_device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    return device


def named_device(name: str) -> torch.device:
    """The device called `name`, which need not be here.

    Raises:
        ConfigError: no device has such a name.
    """
    with _usable(name):
        return torch.device(name)


@contextmanager
def _usable(name: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(f"device '{name}' is not usable here: {reason}") from None


def build_task(config: Config) -> Task:
    """The task, with its data.

    Raises:
        ConfigError, DataError: it cannot be built.
    """
    own = {
        "seed": config.seed,
        "source": config.task.source,
        "data_dir": Path(config.run.data_dir),
        "download": config.run.download,
    }
    with building(f"task '{config.task.name}'"):
        known = TASKS.options(config.task.name)
        if known is not None and (lacking := [name for name in own if name not in known]):
            takes = f"must take {', '.join(own)}, and lacks {', '.join(lacking)}"
            raise ConfigError(f"the constructor of task '{config.task.name}' {takes}")
        task: Task = TASKS.build(config.task.name, **own, **config.task.options)
    return task


def build_model(config: Config, task: Task) -> nn.Module:
    """The model, initialised from the seed.

    Raises:
        ConfigError: unknown, or with options it does not have.
    """
    with building(f"model_options of task '{config.task.name}'"):
        offered = dict(task.model_options())
    with building(f"model '{config.model.name}'"):
        MODELS.check_options(config.model.name, config.model.options)
        known = MODELS.options(config.model.name)
        accepted = {key: value for key, value in offered.items() if known is None or key in known}
        torch.manual_seed(config.seed)
        model: nn.Module = MODELS.build(config.model.name, **{**accepted, **config.model.options})
    return model


def build_rule(config: Config, model: nn.Module, epoch: int = 1) -> Rule:
    """The rule, hooked on the model.

    Args:
        epoch: batches in an epoch, which the value "epoch" of an option becomes.

    Raises:
        ConfigError: unknown, with options it does not have, or patterns that fit nothing.
    """
    placement = {"points": config.model.points, "error_at": config.model.error_at, "silent": config.model.silent}
    with building(f"rule '{config.rule.name}'"):
        options = {name: epoch if value == WHOLE_EPOCH else value for name, value in config.rule.options.items()}
        rule: Rule = RULES.build(config.rule.name, model, **placement, **options)
    return rule


@contextmanager
def building(what: str) -> Iterator[None]:
    """Report whatever goes wrong in making a part from the configuration in one line."""
    try:
        yield
    except SuiteError:
        raise
    except MISFITS as error:
        raise ConfigError(str(error)) from None
    except (Exception, SystemExit) as error:
        if isinstance(error, Exception) and out_of_memory(error):
            raise
        raise ConfigError(f"{what} cannot be made: {type(error).__name__}: {error}{own_place(error)}") from error
