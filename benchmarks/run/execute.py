"""Carrying out one run: from a configuration to a record on disk."""

import math
import random
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import torch

from benchmarks.config import Config
from benchmarks.errors import ConfigError, DataError, SuiteError
from benchmarks.run.alignment import alignment_metrics
from benchmarks.run.build import (
    build_model,
    build_rule,
    build_task,
    building,
    find_device,
    load_components,
    named_device,
)
from benchmarks.run.describe import check_recordable, description, failed, outline
from benchmarks.run.distributed import Processes, join
from benchmarks.run.inputs import inputs_of
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunFolder
from benchmarks.run.trainer import Diverged, Trainer, evaluate
from benchmarks.run.wandb import WandbCopy
from benchmarks.utils.machine import PeakMemory, keep_freed_memory, out_of_memory
from benchmarks.utils.signals import stop_if_asked
from dfa import FeedbackError, PointError, Rule

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
    processes = join(config.run.device).in_stages(config.run.stages)
    config = processes.own_config(config)
    folder = processes.own_folder(config)
    # A plug-in that has become unusable, or an invalid device, is reported, whatever is recorded.
    load_components(config)
    named_device(config.run.device)
    if (record := processes.from_first(lambda: _kept(folder, config))) is not None:
        return record
    device = find_device(processes.own_device(config.run.device))
    with ExitStack() as held:
        if (record := processes.from_first(lambda: _taken(held, folder, config, wait))) is not None:
            return record
        copy = WandbCopy(config, folder)
        try:
            outcome = _carry_out(config, folder, device, copy, processes)
        except (ConfigError, DataError):
            folder.abandon()
            raise
        record = processes.from_first(lambda: _written(folder, outcome))
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
        if (record := _kept(folder, config)) is not None:
            return record
        _begin(folder, config)
        folder.start_over()
        record = {**outline(config), "status": "failed", "reason": reason, "metrics": {}}
        folder.finish(record)
    return record


def _carry_out(
    config: Config, folder: RunFolder, device: torch.device, copy: WandbCopy, processes: Processes
) -> Record:
    memory = PeakMemory(device)
    try:
        trainer = processes.together(lambda: _prepare(config, folder, device, copy, processes))
    except Exception as error:
        if processes.several or not out_of_memory(error):
            folder.abandon()
            raise
        _begin(folder, config)
        return {**outline(config), **failed(error)}
    processes.from_first(lambda: _begin(folder, config))
    outcome = _train_and_test(trainer)
    return {**outline(config), **description(trainer, memory), **outcome}


def _taken(held: ExitStack, folder: RunFolder, config: Config, wait: bool) -> Record | None:
    """Take hold of a run; its record, where another process had it and has finished it, or where it was set aside."""
    held.enter_context(folder.locked(wait))
    record = _kept(folder, config)
    if record is None and (place := folder.bring_back(inputs_of(config, folder.read()).as_record())) is not None:
        print(f"'{folder.path}' was recorded with the data and code of now: it is back from '{place}'", flush=True)
        record = _kept(folder, config)
    return record


def _begin(folder: RunFolder, config: Config) -> None:
    """Begin a run; one that was recorded with other data or other code moves to a folder of its own."""
    if (superseded := folder.kept(config.run.retry)) is not None and (
        reason := inputs_of(config, superseded).differs_from(superseded)
    ):
        place = folder.set_aside(superseded)
        print(f"'{folder.path}' was recorded with {reason}: run again; the earlier run is now in '{place}'", flush=True)
    folder.begin(config)


def _kept(folder: RunFolder, config: Config) -> Record | None:
    """Return the record that makes running unnecessary: one that was made with the data and code that are here now."""
    record = folder.kept(config.run.retry)
    return None if record is None or inputs_of(config, record).differs_from(record) else record


def _written(folder: RunFolder, record: Record) -> Record:
    """Write the record of a run that is over."""
    if record["status"] != "done":
        folder.start_over()
    folder.finish(record)
    return record


def _prepare(config: Config, folder: RunFolder, device: torch.device, copy: WandbCopy, processes: Processes) -> Trainer:
    torch.set_num_threads(config.trainer.threads or _ALL_THREADS)
    keep_freed_memory()
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002  (libraries that draw from the global state)
    torch.manual_seed(config.seed)  # for a task that draws while it is made; the model is seeded anew
    inputs = inputs_of(config)  # before the data are read
    task = build_task(config)
    check_recordable(config, task)
    model = build_model(config, task).to(device)
    processes.share_batch_norms(model, device)
    task.to(device)
    with building(f"an epoch of task '{config.task.name}'"):
        batches = task.steps_per_epoch()
    rule = build_rule(config, model, batches)
    _check_split(config, rule, processes)
    with building("trainer"):
        return Trainer(config, task, model, rule, folder, device, copy, processes, inputs=inputs)


def _check_split(config: Config, rule: Rule, processes: Processes) -> None:
    """Refuse to cut batches for a rule that depends on seeing them whole."""
    if processes.share_rows and rule.uses.state == "learned feedback":
        raise ConfigError(
            f"rule '{config.rule.name}' learns its feedback from the rows it sees, so that {processes.world} processes"
            " would learn different ones; run it in one"
        )
    if rule.whole_batches and (processes.share_rows or config.trainer.accumulate > 1):
        raise ConfigError(
            f"rule '{config.rule.name}' needs whole batches: run it in one process and with trainer.accumulate=1"
        )


def _train_and_test(trainer: Trainer) -> Record:
    """Metrics and status; an exception that is the run's own becomes a record."""
    try:
        trainer.fit()
        metrics = trainer.processes.from_first(lambda: _test(trainer))
        _check_tested(metrics, trainer.task.metric)
    except (PointError, FeedbackError) as error:
        raise ConfigError(str(error)) from None
    except SuiteError:
        raise
    except Diverged as error:
        return {"status": "diverged", "reason": str(error), "metrics": {}}
    except Exception as error:
        if trainer.processes.several:
            raise  # the others wait for this process, and must be ended with it
        return failed(error)
    return {"status": "done", "metrics": metrics}


def _test(trainer: Trainer) -> dict[str, float]:
    """Metrics of a trained model, whose weights are kept."""
    with trainer.processes.first_alone(trainer.model):
        metrics = alignment_metrics(trainer.task, trainer.model, trainer.rule)
        trainer.folder.save_weights("last", trainer.model)
        if trainer.best_weights is not None:
            trainer.restore_best()
            trainer.folder.save_weights("best", trainer.model)
        for split in ("valid", "test"):
            found = evaluate(trainer.task, trainer.model, split)
            metrics |= {f"{split}/{name}": value for name, value in found.items()}
    return metrics


def _check_tested(metrics: Mapping[str, float], metric: str) -> None:
    """Raise where the weights that were tested have no result, which a mean over seeds would take over."""
    for split in ("valid", "test"):
        if math.isnan(value := metrics.get(f"{split}/{metric}", 0.0)):
            raise Diverged(f"{split} {metric} is {value} after training")
