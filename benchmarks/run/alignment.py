"""How well a run's rule points where backpropagation does, measured without a trace in the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from benchmarks.task import Task
from dfa import DirectRule, PointAlignment, Rule, measure_alignment


def alignment_metrics(task: Task, model: nn.Module, rule: Rule) -> dict[str, float]:
    """Alignment of the deepest point and, by name, of every point, as metrics; none for a rule without signals.

    In training mode, with the same dropout masks for both signals. Random numbers to come and running statistics are
    those of a run that measures nothing.
    """
    rule = rule.unwrapped
    measured = type(task).alignment_loss is not Task.alignment_loss
    if not (measured and isinstance(rule, DirectRule) and rule.hooks.points):
        return {}
    with _undisturbed(model):
        model.train()
        aligned = measure_alignment(rule, lambda: task.alignment_loss(model))
    metrics: dict[str, float] = {}
    for index, (name, point) in enumerate(aligned.items()):
        for prefix in ["alignment"] * (index == 0) + [f"alignment/{name}"]:
            metrics |= {f"{prefix}/mean": point.mean, f"{prefix}/std": point.std, f"{prefix}/idle": point.idle}
        metrics |= _norms(name, point)
    return metrics


def _norms(name: str, point: PointAlignment) -> dict[str, float]:
    return {
        f"norm/{name}/activation": point.activation_norm,
        f"norm/{name}/signal": point.signal_norm,
        f"norm/{name}/bp": point.bp_norm,
    }


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    buffers = list(model.buffers())
    copies = [buffer.clone() for buffer in buffers]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    for buffer, copy in zip(buffers, copies, strict=True):
        buffer.copy_(copy)
