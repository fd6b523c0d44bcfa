"""Activation memory of a training step against the number of blocks."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from benchmarks.speed.measure import Step, peak_megabytes, time_turn
from benchmarks.speed.workloads import Workload, build_workload, load_settings
from dfa import RULES

Row = dict[str, Any]
METHODS = ("bp", "bp_checkpoint", "dfa", "dfa_recompute")
"""Backpropagation; the same with a checkpoint at every block; DFA; DFA with memory="recompute"."""


def bench_depth(
    device: torch.device, rounds: int, depths: Sequence[int] = (), networks: Sequence[str] = ()
) -> list[Row]:
    """Rows of `memory.json`: network, method, blocks, peak_mb (without gradients of parameters) and median_ms.

    Args:
        device: where to run.
        rounds: timed steps of each; the methods take turns.
        depths: numbers of blocks; empty: those of `configs/bench/depth.yaml`.
        networks: names of its networks; empty: all.
    """
    settings = load_settings("depth")
    rows = []
    for network, options in settings["networks"].items():
        if networks and network not in networks:
            continue
        for blocks in depths or settings["depths"]:
            entry = {"network": network, "options": network_options(network, options, blocks)}
            rows += _bench_network(
                entry, {"network": network, "title": options["title"], "blocks": blocks}, device, rounds
            )
    return rows


def network_options(network: str, options: dict[str, Any], blocks: int) -> dict[str, Any]:
    """The options of a network of so many blocks."""
    if network == "perceptron":
        width = options["width"]
        return {"inputs": width, "widths": [width] * blocks, "outputs": width, "rows": options["rows"]}
    return {**{key: value for key, value in options.items() if key != "title"}, "blocks": blocks}


def depth_step(workload: Workload, method: str) -> Step:
    """Forward and backward; gradients of parameters are there already and added to, so they are not counted."""
    if method == "bp_checkpoint":
        network = Checkpointed(workload.model)

        def checkpointed() -> None:
            workload.loss(network).backward()

        return checkpointed
    options = {"memory": "recompute"} if method == "dfa_recompute" else {}
    rule = RULES.build(method.partition("_")[0], workload.model, **workload.placement, **options)

    def step() -> None:
        rule.backward(workload.loss(workload.model))

    return step


class Checkpointed(nn.Module):
    """A sequence whose blocks keep their input only."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        assert isinstance(blocks, nn.Sequential)
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = checkpoint_sequential(self.blocks, len(self.blocks), x, use_reentrant=False)
        return hidden


def _bench_network(entry: dict[str, Any], facts: Row, device: torch.device, rounds: int) -> list[Row]:
    rows: list[Row] = []
    steps: list[Callable[[], None]] = []
    for method in METHODS:
        step = depth_step(build_workload(entry, device), method)
        step()  # gradients of parameters and feedback matrices come to be
        rows.append({**facts, "method": method, "peak_mb": peak_megabytes(step, device)})
        steps.append(step)
    turns = [[time_turn(step, 1, device) for step in steps] for _ in range(rounds)]
    for index, row in enumerate(rows):
        row["median_ms"] = 1e3 * median(turn[index].clock for turn in turns)
        row["ratio_to_bp"] = median(turn[index].clock / turn[0].clock for turn in turns)
        row["cpu_ratio_to_bp"] = median(turn[index].processor / turn[0].processor for turn in turns)
    return rows
