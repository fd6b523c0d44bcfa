"""Workloads of the speed measurements: a model, its loss on a fixed batch, and the arguments of a rule."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.config import Config, compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.run.build import build_model, build_task, load_components
from benchmarks.run.optim import make_optimizer
from benchmarks.utils.paths import CONFIG_DIR
from dfa import RULES
from dfa.registry import Registry

MODES = ("eager", "recompute", "compiled", "cuda_graph")
"""Execution of a step: eager; with the rule option memory="recompute"; torch.compile, without and with CUDA graphs."""
Step = Callable[[], None]


@dataclass
class Workload:
    """Everything of a training step except the rule.

    Attributes:
        model: model on its device, in training mode.
        loss: function from the model (or its compiled form) to the loss on the fixed batch.
        placement: keyword arguments of a rule: points, error_at, silent.
        optimizer: optimiser of the model's parameters.
        clip_norm: greatest norm of the gradient; None for no clipping.
        batch: inputs and targets of plain networks, whose loss is the mean squared error.
    """

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]
    placement: dict[str, Any]
    optimizer: Optimizer
    clip_norm: float | None = None
    batch: tuple[Tensor, Tensor] | None = None


NETWORKS: Registry[Callable[..., Workload]] = Registry("network")


def load_settings(name: str) -> Any:
    """Read `configs/bench/<name>.yaml`."""
    return yaml.safe_load((CONFIG_DIR / "bench" / f"{name}.yaml").read_text(encoding="utf-8"))


def build_workload(entry: dict[str, Any], device: torch.device) -> Workload:
    """Build the workload of an entry, with seed 0.

    Args:
        entry: either `run`, the overrides of a configured run, or `network`, a key of `NETWORKS`, with `options`.
        device: device of model and batch.

    Raises:
        ConfigError: the entry names neither `run` nor a known `network`.
    """
    torch.manual_seed(0)
    if "run" in entry:
        return _from_run(entry["run"], device)
    if entry.get("network") in NETWORKS:
        workload: Workload = NETWORKS.build(entry["network"], device, **entry["options"])
        return workload
    raise ConfigError(f"bench entry '{entry.get('name')}' needs `run`, or a `network` of {', '.join(NETWORKS)}")


def make_step(workload: Workload, rule_name: str, mode: str = "eager") -> Step:
    """Return a training step under a rule, as in a run: loss, backward, clipping, optimiser.

    Args:
        workload: model, loss and optimiser.
        rule_name: name of a rule, or "package.module:function" for another implementation (a peer): the function takes
            the workload and returns its own step.
        mode: one of `MODES`.

    Raises:
        ConfigError: the peer cannot be imported.
    """
    if ":" in rule_name:
        return _peer(rule_name)(workload)
    options = {"memory": "recompute"} if mode == "recompute" else {}
    rule = RULES.build(rule_name, workload.model, **workload.placement, **options)
    if mode in ("compiled", "cuda_graph"):
        rule.backward(workload.loss(workload.model))  # draws the feedback matrices, which cannot be traced
        workload.optimizer.zero_grad(set_to_none=True)
    forward = _compiled(workload.model, mode)

    def step() -> None:
        rule.backward(workload.loss(forward))
        if workload.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(workload.model.parameters(), workload.clip_norm)
        workload.optimizer.step()
        workload.optimizer.zero_grad(set_to_none=True)

    return step


def _compiled(model: nn.Module, mode: str) -> nn.Module:
    if mode not in ("compiled", "cuda_graph"):
        return model
    compiled: nn.Module = torch.compile(model, mode="reduce-overhead" if mode == "cuda_graph" else None)  # type: ignore[assignment]
    return compiled


def _peer(path: str) -> Callable[[Workload], Step]:
    module, _, function = path.partition(":")
    try:
        found: Callable[[Workload], Step] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"peer '{path}' cannot be imported: {error}") from None
    return found


def _from_run(overrides: list[str], device: torch.device) -> Workload:
    config = resolve(compose_config([*overrides, "rule=dfa", "run.wandb=disabled"]))
    load_components(config)
    task = build_task(config)
    model = build_model(config, task).to(device).train()
    task.to(device)
    batch = next(iter(task.train_batches(1)))
    return Workload(
        model,
        lambda forward: task.loss(forward, batch),
        {"points": config.model.points, "error_at": config.model.error_at, "silent": config.model.silent},
        make_optimizer(config.optimizer, model),
        config.trainer.clip_norm,
    )


@NETWORKS.register("perceptron")
def perceptron(device: torch.device, inputs: int, widths: list[int], outputs: int, rows: int) -> Workload:
    """Build linear layers with ReLU and a feedback point after each, on random rows; mean squared error."""
    layers = [
        nn.Sequential(nn.Linear(below, above), nn.ReLU(inplace=True)) for below, above in pairwise([inputs, *widths])
    ]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], outputs)).to(device)
    points = [str(index) for index in range(len(widths))]
    return regression(model, torch.rand(rows, inputs, device=device), outputs, points)


@NETWORKS.register("transformer")
def transformer(
    device: torch.device, width: int, heads: int, blocks: int, columns: int, length: int, dropout: float = 0.1
) -> Workload:
    """Build PyTorch's encoder layers with a feedback point after each, on random embeddings; mean squared error."""
    layers = [nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, batch_first=True) for _ in range(blocks)]
    model = nn.Sequential(*layers, nn.Linear(width, width)).to(device)
    points = [str(index) for index in range(blocks)]
    return regression(model, torch.randn(columns, length, width, device=device), width, points)


def regression(model: nn.Module, x: Tensor, outputs: int, points: list[str]) -> Workload:
    """Return the workload of a network on the inputs `x`, with random targets `outputs` wide."""
    target = torch.rand(*x.shape[:-1], outputs, device=x.device)
    optimizer = make_optimizer(Config().optimizer, model)
    placement = {"points": points}
    return Workload(
        model, lambda forward: nn.functional.mse_loss(forward(x), target), placement, optimizer, batch=(x, target)
    )
