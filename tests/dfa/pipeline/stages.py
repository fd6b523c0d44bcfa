"""A small model in stages: what each process of a test does, and the same in one process."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.pipelining import PipelineStage
from torch.nn.functional import cross_entropy

import dfa
from dfa.pipeline import ScheduleFeedback, cut
from tests.dfa.processes import leave_group
from tests.dfa.reference import gradients

ROWS, POINTS = 8, ["embedding", "blocks.*", "blocks.*.inner"]


class Residual(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.outer = nn.Sequential(nn.Linear(hidden, width), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(self.inner(x))


class Network(nn.Module):
    """Blocks as wide as the error; the widest point of all lies inside the first block."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(5, 6)
        self.blocks = nn.ModuleList(Residual(6, hidden) for hidden in (9, 8, 7, 7))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@dataclass(frozen=True)
class Case:
    """A rule in stages that begin at `at`, on micro-batches of the batch."""

    rule: str = "dfa"
    options: dict[str, Any] = field(default_factory=dict)
    error_at: str = ""
    at: tuple[str, ...] = ("blocks.2",)
    microbatches: int = 4
    bf16: bool = False
    steps: int = 2

    def build(self) -> tuple[Network, Tensor, Tensor, dfa.Rule]:
        torch.manual_seed(0)
        model, x = Network(), torch.randn(ROWS, 5)
        if not self.bf16:
            model, x = model.double(), x.double()
        rule = dfa.RULES.build(self.rule, model, POINTS, self.error_at, **self.options)
        return model, x, torch.arange(ROWS) % 6, rule


Found = tuple[dict[str, Tensor], dict[str, Tensor], list[float], Tensor | None]
"""Gradients, buffers, losses of the last step, and then the model's output without gradients."""


def in_one_process(case: Case) -> Found:
    """What the micro-batches of all steps leave when they are added up."""
    model, x, targets, rule = case.build()
    losses: list[float] = []
    for _ in range(case.steps):
        losses.clear()
        for rows, labels in zip(x.chunk(case.microbatches), targets.chunk(case.microbatches), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
                loss = cross_entropy(model(rows), labels)
            rule.backward(loss / case.microbatches)
            losses.append(loss.item())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
        output = torch.cat([model(rows) for rows in x.chunk(case.microbatches)])
    return gradients(model), dict(model.named_buffers()), losses, output


def in_stages(case: Case, rank: int, stages: int) -> Found:
    model, x, targets, rule = case.build()
    stage = PipelineStage(cut(model, case.at, rank), rank, stages, torch.device("cpu"))
    schedule = ScheduleFeedback(stage, case.microbatches, cross_entropy, rule, timeout=timedelta(seconds=60))
    losses: list[Tensor] = []
    for _ in range(case.steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            schedule.step(*[x] * (rank == 0), target=targets if rank == stages - 1 else None, losses=losses)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
        output = schedule.step(*[x] * (rank == 0))
    return gradients(model), dict(model.named_buffers()), [loss.item() for loss in losses], output


def work(rank: int, folder: str, cases: dict[str, Case]) -> None:
    """Carry out all cases as one of `len(at) + 1` processes."""
    torch.set_num_threads(1)
    stages = len(next(iter(cases.values())).at) + 1
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=stages)
    for name, case in cases.items():
        torch.save(in_stages(case, rank, stages), f"{folder}/{name}_{rank}.pt")
    leave_group()
