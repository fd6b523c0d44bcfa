"""Collectives of one run's processes, which torchrun has started.

Every process holds the whole model and trains on its rows of every batch. Its loss is weighted by its share of the
batch, so the errors that a rule receives equal, row by row, those of the whole batch, and the gradients that the rule
leaves are summed. DistributedDataParallel works with the library's rules as well (docs/several_devices.md), but the
suite must support every task and rule: DistributedDataParallel averages gradients, so a rule that is not linear in the
error would receive another error; it has to run every forward pass itself, while a radiance field is evaluated many
times a step; and it expects each gradient once, while `memory="recompute"` may bring it in several calls. Here a rule
only has to fill `.grad`. The price is that gradients are exchanged after the backward pass and not during it.

With `run.stages` all processes run the forward pass of the whole batch, and share the layers of the backward pass
instead, which a direct rule allows (`dfa.shares`); their gradients are summed in the same way.
"""

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from benchmarks.config import Config
from benchmarks.errors import ConfigError, SuiteError
from benchmarks.run.batch_norm import share_batch_norms, shared_batch_norms
from benchmarks.run.gradients import GradientSum
from benchmarks.run.read_only import ReadOnlyRunFolder
from benchmarks.run.records import RunBusy, RunFolder
from benchmarks.task import Task
from benchmarks.utils.torchrun import several_started, variable
from dfa import Rule
from dfa.shares import BackwardShare

T = TypeVar("T")
_PATIENCE = timedelta(days=2)
"""How long a process waits for another, which may be evaluating; a process that dies is noticed at once."""


def join(device: str) -> "Processes":
    """Return the processes of a run on a kind of device: those that torchrun started, or this one alone."""
    return _join("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo") if several_started() else Processes()


@cache
def _join(backend: str) -> "Processes":
    if not distributed.is_initialized():
        store, rank, world = next(iter(distributed.rendezvous("env://", timeout=_PATIENCE)))
        # torchrun may keep its store over a restart, with the addresses of processes that no longer exist.
        store = distributed.PrefixStore(f"attempt {variable('TORCHELASTIC_RESTART_COUNT')}", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return Processes(distributed.get_rank(), distributed.get_world_size(), distributed.new_group([0]))


@dataclass(frozen=True)
class Processes:
    """The processes of one run, as seen from one of them; by default it is alone, and no method does anything.

    Attributes:
        rank: number of this process; process 0 evaluates, decides, writes and prints.
        world: how many there are.
        only_first: the group of the first process alone.
        staged: whether they share the layers of the backward pass, and not the rows of a batch.
    """

    rank: int = 0
    world: int = 1
    only_first: Any = None
    staged: bool = False

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    @property
    def share_rows(self) -> bool:
        """Whether there are others, each with its own rows of a batch."""
        return self.several and not self.staged

    def in_stages(self, stages: int) -> "Processes":
        """Return the processes of a run with `run.stages`.

        Raises:
            ConfigError: there are not as many processes as stages.
        """
        if stages == 1:
            return self
        if stages != self.world:
            raise ConfigError(
                f"run.stages={stages} needs {stages} processes, started by torchrun --nproc-per-node {stages};"
                f" found: {self.world}"
            )
        return replace(self, staged=True)

    def own_config(self, config: Config) -> Config:
        """Return the configuration for this process: without progress bar and W&B in all but the first."""
        if self.rank == 0:
            return config
        return replace(config, run=replace(config.run, wandb="disabled", progress=False))

    def own_folder(self, config: Config) -> RunFolder:
        """Return the run's folder, to which only the first process writes."""
        return RunFolder.of(config) if self.rank == 0 else ReadOnlyRunFolder.of(config)

    def own_device(self, name: str) -> str:
        """Return the device of this process; on a machine with several GPUs, each process has its own.

        Raises:
            ConfigError: one GPU was named for all, or there are not enough.
        """
        if not (self.several and name.startswith("cuda")):
            return name
        here = variable("LOCAL_RANK")
        if name != "cuda":
            raise ConfigError(
                f"run.device={name} is one device for {self.world} processes; run.device=cuda takes one each"
            )
        if here >= torch.cuda.device_count():
            raise ConfigError(f"{here + 1} processes need as many GPUs; found here: {torch.cuda.device_count()}")
        torch.cuda.set_device(here)
        return f"cuda:{here}"

    def from_first(self, action: Callable[[], T]) -> T:
        """Run `action` in the first process; return its result, or raise its error, in all of them."""
        if not self.several:
            return action()
        result, error = _attempt(action) if self.rank == 0 else (None, None)
        shared: list[Any] = [result, _portable(error)]
        distributed.broadcast_object_list(shared, src=0, device=torch.device("cpu"))
        _raise_first([error, shared[1]])
        return shared[0]

    def together(self, action: Callable[[], T]) -> T:
        """Run `action` in every process and return this one's result; an error in one is raised in all.

        The first process goes first, so that the others find its cached files.
        """
        if not self.several:
            return action()
        result: T | None = None
        for turn in (self.rank == 0, self.rank > 0):
            result, error = _attempt(action) if turn else (result, None)
            shared: list[Any] = [None] * self.world
            distributed.all_gather_object(shared, _portable(error))
            _raise_first([error, *shared])
        return result  # type: ignore[return-value]

    def share_batch_norms(self, model: nn.Module, device: torch.device) -> None:
        """Make batch normalisation use the whole batch; call it before the rule and the optimiser are made."""
        if self.share_rows:
            share_batch_norms(model, device)

    @contextmanager
    def first_alone(self, model: nn.Module) -> Iterator[None]:
        """Let the first process run the model alone, also in training mode, without waiting for the others."""
        norms = shared_batch_norms(model)
        for norm in norms:
            norm.process_group = self.only_first
        try:
            yield
        finally:
            for norm in norms:
                norm.process_group = None

    def broadcast_model(self, model: nn.Module) -> None:
        """Broadcast the first process's parameters and buffers."""
        if self.several:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def share(self, task: Task, batch: Any) -> tuple[Any, float]:
        """Return this process's part of a batch, and the weight of its mean loss in that of the whole batch.

        Raises:
            ConfigError: see `Task.share`.
        """
        return task.share(batch, self.rank, self.world) if self.share_rows else (batch, 1.0)

    def reseed(self, *position: int) -> None:
        """Seed this process's dropout masks from the position in the run, so that a resumed run draws the same."""
        if self.share_rows:
            words = np.random.SeedSequence([*position, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(words[0]))

    def sum_losses(self, loss: Tensor, weight: float) -> Tensor:
        """Return the loss of the whole batch, the sum of the processes' weighted losses."""
        if not self.share_rows:
            return loss
        total = loss.clone() if weight else torch.zeros_like(loss)  # the mean of no rows is not a number
        distributed.all_reduce(total)
        return total

    def greatest_signal(self, signal: int) -> int:
        """Return the greatest signal number any process received, 0 for none, so that all stop after the same step."""
        if not self.several:
            return signal
        greatest = torch.tensor(signal)
        distributed.all_reduce(greatest, op=distributed.ReduceOp.MAX)
        return int(greatest)

    def backward_of(self, rule: Rule) -> Callable[[Tensor], None]:
        """Return what adds this process's gradients to `.grad`: the rule's backward pass, or its share of one.

        Raises:
            PointError: a rule whose layers wait for each other cannot be shared.
        """
        return BackwardShare(rule, self.rank, self.world).backward if self.staged else rule.backward

    def gradient_sum(self, model: nn.Module) -> GradientSum:
        """Return an object that sums the gradients of a model over the processes."""
        return GradientSum(self.several, model.parameters())


def _attempt(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error


def _portable(error: Exception | None) -> Exception | None:
    """Return the error in a form that can be sent to another process."""
    if error is None or isinstance(error, (SuiteError, RunBusy)):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _raise_first(errors: Iterable[Exception | None]) -> None:
    for error in errors:
        if error is not None:
            raise error
