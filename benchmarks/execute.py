"""Carrying out one run: from a configuration to a record on disk."""

import random
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.alignment import alignment_metrics
from benchmarks.config import Config
from benchmarks.description import description, failed, out_of_memory, outline
from benchmarks.distributed import Processes, join
from benchmarks.environment import PeakMemory, keep_freed_memory
from benchmarks.errors import ConfigError, DataError, SuiteError
from benchmarks.interruption import stop_if_asked
from benchmarks.records import Record, RunFolder
from benchmarks.registry import MODELS, TASKS
from benchmarks.runner import Diverged, Trainer, evaluate
from benchmarks.task import Task
from benchmarks.wandb_copy import WandbCopy
from dfa import RULES, FeedbackError, PointError, Rule
from dfa.registry import OptionError, UnknownNameError

UNUSABLE = (UnknownNameError, OptionError, PointError, FeedbackError)
"""What the library and the registries raise when names, options or points do not fit together."""

WHOLE_EPOCH = "epoch"
"""Value of a rule's option that stands for the batches of an epoch."""

_ALL_THREADS = torch.get_num_threads()


def execute(config: Config, wait: bool = True) -> Record:
    """Run what `config` describes, or return its record if it has been run.

    A run that diverges or fails leaves a record with that status and the reason. Two processes never work on the same
    run: the second waits and takes over the first one's record.

    Raises:
        ConfigError, DataError: the run cannot be begun; nothing is recorded.
        ResultsError: the results folder cannot be written.
        RunBusy: another process has the run, and `wait` is False.
        Interrupted: the process was asked to stop; the run can go on from where it was.
    """
    stop_if_asked()
    everyone = join(config.run.device)
    config = everyone.own_config(config)
    folder = everyone.own_folder(config)
    if (record := everyone.from_first(lambda: folder.kept(config.run.retry))) is not None:
        return record
    load_components(config)
    device = find_device(everyone.own_device(config.run.device))
    with ExitStack() as held:
        if (record := everyone.from_first(lambda: _taken(held, folder, config, wait))) is not None:
            return record
        copy = WandbCopy(config, folder)
        try:
            outcome = _carry_out(config, folder, device, copy, everyone)
        except (ConfigError, DataError):
            folder.abandon()
            raise
        record = everyone.from_first(lambda: _written(folder, outcome))
        copy.finish(record)
    return record


def record_failure(config: Config, reason: str) -> Record:
    """Record that a run failed, for a process that did not live to do it itself.

    Raises:
        ResultsError: the results folder cannot be written.
        RunBusy: another process has taken the run up.
    """
    folder = RunFolder.of(config)
    with folder.locked(wait=False):
        if (record := folder.kept(config.run.retry)) is not None:
            return record
        folder.begin(config)
        folder.start_over()
        record = {**outline(config), "status": "failed", "reason": reason, "metrics": {}}
        folder.finish(record)
    return record


def _carry_out(config: Config, folder: RunFolder, device: torch.device, copy: WandbCopy, everyone: Processes) -> Record:
    memory = PeakMemory(device)
    try:
        trainer = everyone.together(lambda: _prepare(config, folder, device, copy, everyone))
    except Exception as error:
        if everyone.several or not out_of_memory(error):
            raise
        folder.begin(config)
        return {**outline(config), **failed(error)}
    everyone.from_first(lambda: folder.begin(config))
    outcome = _train_and_test(trainer)
    return {**outline(config), **description(trainer, memory), **outcome}


def _taken(held: ExitStack, folder: RunFolder, config: Config, wait: bool) -> Record | None:
    """Take hold of a run; its record, where another process had it and has finished it in the meantime."""
    held.enter_context(folder.locked(wait))
    return folder.kept(config.run.retry)


def _written(folder: RunFolder, record: Record) -> Record:
    """Write the record of a run that is over."""
    if record["status"] != "done":
        folder.start_over()
    folder.finish(record)
    return record


def load_components(config: Config) -> None:
    """Import the task's family and the user's plug-ins, which register what they hold.

    Raises:
        ConfigError: a family or plug-in that cannot be imported.
    """
    families = sorted(path.parent.name for path in Path(__file__).parent.glob("*/task.py"))
    if config.task.family is not None:
        if config.task.family not in families:
            raise ConfigError(f"unknown task family '{config.task.family}'; known: {', '.join(families)}")
        try:
            import_module(f"benchmarks.{config.task.family}")
        except ImportError as error:
            raise ConfigError(f"task family '{config.task.family}' cannot be imported: {error}") from error
    for plugin in config.plugins:
        _load_plugin(plugin)


def _load_plugin(plugin: str) -> None:
    try:
        if not plugin.endswith(".py"):
            import_module(plugin)
            return
        path = Path(plugin).resolve()
        name = "plugin_" + re.sub(r"\W", "_", str(path))
        specification = spec_from_file_location(name, path)
        if not path.exists() or specification is None or specification.loader is None:
            raise ConfigError(f"plugin '{plugin}' does not exist")
        if name not in sys.modules:
            # Known to the import system before it runs, as dataclasses and pickle require.
            sys.modules[name] = module_from_spec(specification)
            try:
                specification.loader.exec_module(sys.modules[name])
            except BaseException:
                del sys.modules[name]  # or the next run would take half of it for loaded
                raise
    except SuiteError:
        raise
    except Exception as error:
        raise ConfigError(f"plugin '{plugin}' cannot be imported: {type(error).__name__}: {error}") from error


def find_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        ConfigError: there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device '{name}' is not usable here: {reason}") from None
    return device


def build_task(config: Config) -> Task:
    """The task, with its data.

    Raises:
        ConfigError, DataError: it cannot be built.
    """
    settings = {"seed": config.seed, "source": config.task.source, "download": config.run.download}
    with _building(f"task '{config.task.name}'"):
        task: Task = TASKS.build(
            config.task.name, data_dir=Path(config.run.data_dir), **settings, **config.task.options
        )
    return task


def build_model(config: Config, task: Task) -> nn.Module:
    """The model, initialised from the seed.

    Raises:
        ConfigError: unknown, or with options it does not have.
    """
    with _building(f"model '{config.model.name}'"):
        MODELS.check_options(config.model.name, config.model.options)
        known = MODELS.options(config.model.name)
        accepted = {key: value for key, value in task.model_options().items() if known is None or key in known}
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
    with _building(f"rule '{config.rule.name}'"):
        options = {name: epoch if value == WHOLE_EPOCH else value for name, value in config.rule.options.items()}
        rule: Rule = RULES.build(config.rule.name, model, **placement, **options)
    return rule


@contextmanager
def _building(what: str) -> Iterator[None]:
    """Whatever goes wrong in making a part from the configuration is told in one line."""
    try:
        yield
    except SuiteError:
        raise
    except UNUSABLE as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ConfigError(f"{what} cannot be made: {type(error).__name__}: {error}") from error


def _prepare(config: Config, folder: RunFolder, device: torch.device, copy: WandbCopy, everyone: Processes) -> Trainer:
    torch.set_num_threads(config.trainer.threads or _ALL_THREADS)
    keep_freed_memory()
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002  (libraries that draw from the global state)
    task = build_task(config)
    model = build_model(config, task).to(device)
    everyone.share_batch_norms(model, device)
    task.to(device)
    rule = build_rule(config, model, task.steps_per_epoch())
    _check_split(config, rule, everyone)
    with _building("trainer"):
        return Trainer(config, task, model, rule, folder, device, copy, everyone)


def _check_split(config: Config, rule: Rule, everyone: Processes) -> None:
    """Refuse to cut batches for a rule that depends on seeing them whole."""
    if everyone.several and rule.uses.state == "learned feedback":
        raise ConfigError(
            f"rule '{config.rule.name}' learns its feedback from the rows it sees, so that {everyone.world} processes"
            " would learn different ones; run it in one"
        )
    if rule.whole_batches and (everyone.several or config.trainer.accumulate > 1):
        raise ConfigError(
            f"rule '{config.rule.name}' needs whole batches: run it in one process and with trainer.accumulate=1"
        )


def _train_and_test(trainer: Trainer) -> Record:
    """Metrics and status; an exception that is the run's own becomes a record."""
    try:
        trainer.fit()
        metrics = trainer.everyone.from_first(lambda: _test(trainer))
    except (PointError, FeedbackError) as error:
        raise ConfigError(str(error)) from None
    except SuiteError:
        raise
    except Diverged as error:
        return {"status": "diverged", "reason": str(error), "metrics": {}}
    except Exception as error:
        if trainer.everyone.several:
            raise  # the others wait for this process, and must be ended with it
        return failed(error)
    return {"status": "done", "metrics": metrics}


def _test(trainer: Trainer) -> dict[str, float]:
    """Metrics of a trained model, whose weights are kept."""
    with trainer.everyone.first_alone(trainer.model):
        metrics = alignment_metrics(trainer.task, trainer.model, trainer.rule)
        trainer.folder.save_weights("last", trainer.model)
        if trainer.best_weights is not None:
            trainer.restore_best()
            trainer.folder.save_weights("best", trainer.model)
        for split in ("valid", "test"):
            found = evaluate(trainer.task, trainer.model, split)
            metrics |= {f"{split}/{name}": value for name, value in found.items()}
    return metrics
