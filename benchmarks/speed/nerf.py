"""Speed of a NeRF training step under each rule, optionally compared with the public nerf-pytorch.

    python -m benchmarks bench nerf --rays 1024 --peer ../nerf-pytorch

Uses the paper's networks and numbers of samples on rays of a stand-in scene, since the time of a step does not depend
on the pictures. The candidates take turns in one process with one thread; peak memory is measured in a process for
each. On a CPU times are CPU seconds, which other processes hardly disturb. Prints a JSON object; --out writes it too.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.families.view_synthesis.task import ViewSynthesis
from benchmarks.run.build import build_model, build_rule, build_task, find_device, load_components
from benchmarks.run.optim import make_optimizer
from benchmarks.speed.measure import Step, in_subprocess, seconds_of
from benchmarks.speed.nerf_pytorch import nerf_pytorch
from benchmarks.utils.machine import PeakMemory, commit, device_name, keep_freed_memory, versions

Make = Callable[[], Step]
RULES = ("bp", "dfa", "shallow")
PEER = "nerf-pytorch"


def bench(
    model: str, rays: int, parts: int, rounds: int, device: str = "cpu", peer: Path | None = None
) -> dict[str, Any]:
    """Time training steps under each rule.

    Args:
        model: model of the view-synthesis family.
        rays: rays per step; 0 for the configured number.
        parts: batches that a step of this suite is divided into; 0 for the configured number.
        rounds: timed steps of each candidate, after one warm-up step.
        device: e.g. "cpu" or "cuda".
        peer: folder of nerf-pytorch's sources, to compare with; it implements the network `nerf` only.

    Returns:
        The setting; under `candidates` for each rule median and least seconds of a step, rays per second (by the
        median) and peak memory in MB; under `ratios` ratios of the medians.

    Raises:
        ConfigError: an option is not usable.
        ResultsError: a process that measures memory was killed.
    """
    if peer is not None and model != "nerf":
        raise ConfigError("--peer goes with --model nerf")
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a training run
    makers: dict[str, Make] = {rule: partial(our_step, model, rule, rays, parts, device) for rule in RULES}
    if peer is not None:
        makers[PEER] = partial(nerf_pytorch, peer, rays, device)
    steps = {name: make() for name, make in makers.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            seconds = seconds_of(step, find_device(device))
            if number:
                taken[name].append(seconds)
    task = _configured(model, "bp", rays, parts, device)[1]
    medians = {name: statistics.median(values) for name, values in taken.items()}
    candidates = {
        name: {
            "seconds": medians[name],
            "least_seconds": min(values),
            "rays_per_second": task.rays / medians[name],
            "peak_memory_mb": in_subprocess(partial(peak_memory, makers[name], device), name),
        }
        for name, values in taken.items()
    }
    ratios = {"dfa_to_bp": medians["dfa"] / medians["bp"], "shallow_to_bp": medians["shallow"] / medians["bp"]}
    if peer is not None:
        ratios |= {f"speedup_{rule}": medians[PEER] / medians[rule] for rule in ("bp", "dfa")}
    samples = {"coarse": task.settings.coarse_samples, "fine": task.settings.fine_samples}
    return {
        "model": model,
        "rays": task.rays,
        "parts": task.parts,
        "samples": samples,
        "rounds": rounds,
        "clock": "seconds" if device != "cpu" else "CPU seconds, one thread",
        "candidates": candidates,
        "ratios": ratios,
        "device": device_name(find_device(device)),
        "versions": versions(),
        "commit": commit()[0],
    }


def our_step(model: str, rule: str, rays: int, parts: int, device: str) -> Step:
    """Return a training step of this suite, with the batches, rule and optimiser of a run."""
    config, task = _configured(model, rule, rays, parts, device)
    network = build_model(config, task).to(find_device(device))
    task.to(find_device(device))
    training_rule = build_rule(config, network)
    optimizer = make_optimizer(config.optimizer, network)
    batches = iter(task.train_batches(1))

    def step() -> None:
        for _ in range(task.parts):
            training_rule.backward(task.loss(network, next(batches)) / task.parts)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _configured(model: str, rule: str, rays: int, parts: int, device: str) -> tuple[Any, ViewSynthesis]:
    name = "tiny_nerf_lego" if model == "tiny_nerf" else "blender_lego"
    overrides = [f"task={name}", f"model={model}", f"rule={rule}", "task.source=stand_in", "task.options.width=100"]
    overrides += ["task.options.stand_in_views=10", f"run.device={device}"]
    overrides += [f"task.options.rays={rays}"] if rays else []
    overrides += [f"task.options.parts={parts}"] if parts else []
    config = resolve(compose_config(overrides))
    load_components(config)
    task = build_task(config)
    assert isinstance(task, ViewSynthesis)
    return config, task


def peak_memory(make: Make, device: str) -> float:
    """Return the peak memory of two steps in MB, beyond what the process held before them."""
    torch.set_num_threads(1)
    step = make()
    memory = PeakMemory(find_device(device))
    before = memory.megabytes()
    step()
    step()
    return memory.megabytes() - before
