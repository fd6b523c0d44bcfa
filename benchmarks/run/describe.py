"""What a record says of a run, besides its metrics."""

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import torch

from benchmarks.config import Config, identity
from benchmarks.errors import ConfigError
from benchmarks.run.inputs import inputs_of, with_files_read
from benchmarks.run.record_schema import Record, fault_in
from benchmarks.run.trainer import Trainer
from benchmarks.task import KINDS, DataInfo, Task
from benchmarks.utils.machine import PeakMemory, commit, device_name, out_of_memory, versions
from benchmarks.utils.text import printable
from benchmarks.utils.traces import own_place, trace_of


def failed(error: Exception) -> Record:
    """A record's fields for a run that an error ended."""
    text = printable(str(error))
    reason = f"{type(error).__name__}: {text}{own_place(error)}"
    reason = f"out of memory: {text}".rstrip(": ") if out_of_memory(error) else reason
    return {"status": "failed", "reason": reason, "trace": trace_of(error), "metrics": {}}


def outline(config: Config) -> Record:
    """A record's fields for a run that never trained."""
    head, dirty = commit()
    kind = "stand-in" if config.task.source == "stand_in" else "real"
    return {
        "task": config.task.name,
        "model": config.model.name,
        "rule": config.rule.name,
        "uses": {},
        "seed": config.seed,
        "scale": config.scale,
        "config_hash": identity(config),
        "inputs": inputs_of(config).as_record(),
        "data": {"name": config.task.name, "kind": kind, "checksums": {}, "notes": {}},
        "best_epoch": 0,
        "best_step": 0,
        "best_valid": None,
        "valid_metric": "",
        "higher_is_better": True,
        "epochs": 0,
        "steps": 0,
        "seconds": 0.0,
        "steps_per_second": 0.0,
        "peak_memory_mb": 0.0,
        "parameters": 0,
        "device": config.run.device,
        "threads": config.trainer.threads or torch.get_num_threads(),
        "processes": 1,
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": head,
        "git_dirty": dirty,
    }


def check_recordable(config: Config, task: Task) -> None:
    """Check that a record can hold what a task says of itself, before anything is trained.

    Raises:
        ConfigError: it cannot.
    """
    info = getattr(task, "info", None)
    if not isinstance(info, DataInfo):
        raise ConfigError(f"task '{config.task.name}': info must be a DataInfo, got a {type(info).__name__}")
    if info.kind not in KINDS:
        raise ConfigError(
            f"task '{config.task.name}': the kind of its data must be one of {', '.join(KINDS)}, got {info.kind!r}"
        )
    if not hasattr(task, "metric"):
        raise ConfigError(f"task '{config.task.name}' has no metric, by which epochs are compared")
    said = {"data": vars(info), "valid_metric": task.metric, "higher_is_better": task.higher_is_better}
    try:
        fault = fault_in({**outline(config), **said, "status": "failed", "reason": "none yet", "metrics": {}})
    except TypeError as error:  # of json
        fault = f"cannot be written: {error}"
    if fault:
        raise ConfigError(f"task '{config.task.name}': its record {fault}")


def description(trainer: Trainer, memory: PeakMemory) -> Record:
    """A record's fields that training gives."""
    position, seconds = trainer.position, trainer.seconds()
    data: dict[str, Any] = vars(trainer.task.info).copy()
    return {
        "uses": asdict(trainer.rule.uses),
        "inputs": with_files_read(trainer.inputs, trainer.config, trainer.task.info).as_record(),
        "data": data,
        "best_epoch": position.best_epoch,
        "best_step": position.best_step,
        "best_valid": position.best_value,
        "valid_metric": trainer.task.metric,
        "higher_is_better": trainer.task.higher_is_better,
        "epochs": position.epoch - 1,
        "steps": position.step,
        "seconds": seconds,
        "steps_per_second": position.step / seconds if seconds else 0.0,
        "peak_memory_mb": memory.megabytes(),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "device": device_name(trainer.device),
        "threads": torch.get_num_threads(),
        "processes": trainer.processes.world,
    }
