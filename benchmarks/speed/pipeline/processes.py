"""The processes of a measurement: one for each stage, and one that has the whole network and all cores."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from benchmarks.errors import ResultsError
from benchmarks.speed.pipeline.stages import (
    BASELINES,
    ONE_PROCESS,
    Setting,
    StageTimes,
    make_schedule_step,
    make_step_alone,
    time_stage,
)
from benchmarks.speed.workloads import Step
from benchmarks.utils.files import write_text
from benchmarks.utils.machine import keep_freed_memory
from dfa.pipeline.timeline import Costs

Turns = dict[tuple[str, str, int], list[float]]
"""(rule, schedule or execution, micro-batches) → seconds of a step, in every round."""


def time_in_stages(setting: Setting) -> tuple[Turns, dict[int, StageTimes]]:
    """Time every schedule and one process with all cores, in turns that rotate.

    Returns:
        The turns, and the times of a stage for every number of micro-batches.

    Raises:
        ResultsError: a process has ended before its time.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.multiprocessing.spawn(_work, (folder, setting), nprocs=setting.stages + 1)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise ResultsError(f"pipeline: a process of {setting.entry['name']} has failed: {reason}") from None
        found = json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))
    turns = {(rule, schedule, count): seconds for rule, schedule, count, seconds in found["turns"]}
    times = {count: StageTimes(Costs(*costs), optimizer) for count, costs, optimizer in found["times"]}
    return turns, times


def _work(rank: int, folder: str, setting: Setting) -> None:
    alone = rank == setting.stages
    torch.set_num_threads(os.cpu_count() or 1 if alone else setting.threads)
    keep_freed_memory()  # as in a training run
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=setting.stages + 1)
    group = distributed.new_group(list(range(setting.stages)))
    steps: dict[tuple[str, str, int], Step | None] = {}
    for rule, execution in [("bp", ONE_PROCESS), *((setting.rule, name) for name in setting.executions())]:
        steps[rule, execution, 1] = make_step_alone(setting, rule, execution) if alone else None
    for count in setting.microbatches:
        for schedule in ("feedback", *BASELINES):
            if schedule != "Schedule1F1B" or count >= setting.stages:  # which it refuses
                key = setting.rule if schedule == "feedback" else "bp", schedule, count
                steps[key] = None if alone else make_schedule_step(setting, schedule, count, rank, group)
    turns = _time_in_turns(steps, setting.rounds)
    times = [] if alone else [(count, time_stage(setting, count)) for count in setting.microbatches]
    if rank == 0:
        found: dict[str, Any] = {
            "turns": [[*key, seconds] for key, seconds in turns.items()],
            "times": [[count, list(vars(own.costs).values()), own.optimizer] for count, own in times],
        }
        write_text(Path(folder, "found.json"), json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # gloo sometimes aborts a process whose interpreter shuts down


def _time_in_turns(steps: dict[tuple[str, str, int], Step | None], rounds: int) -> Turns:
    """Time a step of every contestant in every round, between barriers of all processes; the order rotates."""
    keys = list(steps)
    turns: Turns = {key: [] for key in keys}
    for number in range(-2, rounds):  # two rounds to warm up
        for offset in range(len(keys)):
            key = keys[(number + offset) % len(keys)]
            step = steps[key]
            distributed.barrier()
            start = time.perf_counter()
            if step is not None:
                step()
            distributed.barrier()
            if number >= 0:
                turns[key].append(time.perf_counter() - start)
    return turns
