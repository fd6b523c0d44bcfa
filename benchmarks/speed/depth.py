"""Activation memory of a training step against the number of blocks."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from benchmarks.speed.measure import Step, peak_megabytes, time_steps
from benchmarks.speed.workloads import Workload, build_workload, load_settings
from dfa import RULES

Row = dict[str, Any]
METHODS = ("bp", "bp_checkpoint", "dfa", "dfa_recompute")
"""Backpropagation; the same with a checkpoint at every block; DFA; DFA with memory="recompute"."""


def bench_depth(
    device: torch.device, rounds: int, depths: Sequence[int] = (), networks: Sequence[str] = ()
) -> list[Row]:
    """Measure the rows of `memory.json`, one per network, depth and method.

    Args:
        device: device to run on.
        rounds: timed steps of each method; the methods take turns.
        depths: numbers of blocks; empty for those of `configs/bench/depth.yaml`.
        networks: names of networks in that file; empty for all.

    Returns:
        Rows with `network`, `title`, `blocks`, `method`, `peak_mb` (MB, without the gradients of parameters),
        `median_ms` and the median ratios to backpropagation.
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
    """Return the options of `build_workload` for a network with `blocks` blocks."""
    if network == "perceptron":
        width = options["width"]
        return {"inputs": width, "widths": [width] * blocks, "outputs": width, "rows": options["rows"]}
    return {**{key: value for key, value in options.items() if key != "title"}, "blocks": blocks}


def depth_step(workload: Workload, method: str) -> Step:
    """Return a step of forward and backward, after which the gradients of parameters stay allocated."""
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
    """Sequential network with an activation checkpoint at every block: each keeps only its input."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        assert isinstance(blocks, nn.Sequential)
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the sequence, with the shape that its last block gives."""
        hidden: Tensor = checkpoint_sequential(self.blocks, len(self.blocks), x, use_reentrant=False)
        return hidden


def _bench_network(entry: dict[str, Any], facts: Row, device: torch.device, rounds: int) -> list[Row]:
    rows: list[Row] = []
    steps: list[Callable[[], None]] = []
    for method in METHODS:
        step = depth_step(build_workload(entry, device), method)
        step()  # allocates the gradients of parameters and draws the feedback matrices
        rows.append({**facts, "method": method, "peak_mb": peak_megabytes(step, device)})
        steps.append(step)
    turns = [[time_steps(step, 1, device) for step in steps] for _ in range(rounds)]
    for index, row in enumerate(rows):
        row["median_ms"] = 1e3 * median(turn[index].wall for turn in turns)
        row["ratio_to_bp"] = median(turn[index].wall / turn[0].wall for turn in turns)
        row["cpu_ratio_to_bp"] = median(turn[index].cpu / turn[0].cpu for turn in turns)
    return rows
