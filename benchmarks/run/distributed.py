"""One run on several devices: what the processes that torchrun started do together.

Every process holds the whole model and trains on its rows of every batch. Its loss counts by its share of the batch, so
that the errors a rule meets are, row by row, those of the whole batch, and the gradients that the rule leaves are added
up. DistributedDataParallel works with the library's rules, too (docs/several_devices.md), but here every task and rule
must do: it averages instead of adding, so a rule that is not linear in the error would see another one; it wants to run
every forward pass itself, and a radiance field is asked many times a step; it wants each gradient to come once, and
`memory="recompute"` may bring it by several calls. All that is asked of a rule here is its contract, that it fills
`.grad`. The price is that gradients travel after the backward pass and not during it.
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
from benchmarks.run.records import Record, RunBusy, RunFolder
from benchmarks.task import Task
from benchmarks.utils.torchrun import several_started, variable

T = TypeVar("T")
_PATIENCE = timedelta(days=2)
"""How long a process waits for another, which may be evaluating; that one has died is noticed at once."""
_BUCKET_BYTES = 25 << 20


def join(device: str) -> "Processes":
    """The processes of a run on a kind of device: those that torchrun started, or this one alone."""
    return _join("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo") if several_started() else Processes()


@cache
def _join(backend: str) -> "Processes":
    if not distributed.is_initialized():
        store, rank, world = next(iter(distributed.rendezvous("env://", timeout=_PATIENCE)))
        # torchrun may keep its store when it starts processes again, with the addresses of those that are gone in it.
        store = distributed.PrefixStore(f"attempt {variable('TORCHELASTIC_RESTART_COUNT')}", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return Processes(distributed.get_rank(), distributed.get_world_size(), distributed.new_group([0]))


@dataclass(frozen=True)
class Processes:
    """The processes of one run, as seen from one of them; by default it is alone, and everything here does nothing.

    Attributes:
        rank: number of this process; the first, 0, evaluates, decides, writes and prints.
        world: how many there are.
        only_first: the group of the first process alone.
    """

    rank: int = 0
    world: int = 1
    only_first: Any = None

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def own_config(self, config: Config) -> Config:
        """The configuration for this process: all but the first are silent."""
        if self.rank == 0:
            return config
        return replace(config, run=replace(config.run, wandb="disabled", progress=False))

    def own_folder(self, config: Config) -> RunFolder:
        """The run's folder, in which all but the first process write nothing."""
        return RunFolder.of(config) if self.rank == 0 else _Onlooker.of(config)

    def own_device(self, name: str) -> str:
        """The device of this process: on a machine with several GPUs, one for each.

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
        """What `action` returns in the first process, in all of them; what it raises there, all raise."""
        if not self.several:
            return action()
        result, error = _attempt(action) if self.rank == 0 else (None, None)
        told: list[Any] = [result, _portable(error)]
        distributed.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        _raise_first([error, told[1]])
        return told[0]

    def together(self, action: Callable[[], T]) -> T:
        """What `action` returns in this process, after all have run it; what one raises, all raise.

        The first process goes first, so that the others find in the caches what it has put there.
        """
        if not self.several:
            return action()
        result: T | None = None
        for turn in (self.rank == 0, self.rank > 0):
            result, error = _attempt(action) if turn else (result, None)
            told: list[Any] = [None] * self.world
            distributed.all_gather_object(told, _portable(error))
            _raise_first([error, *told])
        return result  # type: ignore[return-value]

    def share_batch_norms(self, model: nn.Module, device: torch.device) -> None:
        """Have batch normalisation see whole batches; to be called before rule and optimiser meet the model."""
        if self.several:
            share_batch_norms(model, device)

    @contextmanager
    def first_alone(self, model: nn.Module) -> Iterator[None]:
        """In the first process: run the model, in training mode too, while the others do something else."""
        norms = shared_batch_norms(model)
        for norm in norms:
            norm.process_group = self.only_first
        try:
            yield
        finally:
            for norm in norms:
                norm.process_group = None

    def spread(self, model: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.several:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def share(self, task: Task, batch: Any) -> tuple[Any, float]:
        """This process's part of a batch, and what its mean loss counts for in that of the whole batch.

        Raises:
            ConfigError: see `Task.share`.
        """
        return task.share(batch, self.rank, self.world) if self.several else (batch, 1.0)

    def reseed(self, *position: int) -> None:
        """Have every process draw dropout masks of its own; they follow from the position, so a resumed run agrees."""
        if self.several:
            words = np.random.SeedSequence([*position, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(words[0]))

    def summed(self, loss: Tensor, weight: float) -> Tensor:
        """The loss of the whole batch, from every process's weighted one."""
        if not self.several:
            return loss
        total = loss.clone() if weight else torch.zeros_like(loss)  # the mean of no rows is not a number
        distributed.all_reduce(total)
        return total

    def any_of(self, signal: int) -> int:
        """The greatest of the signals that processes have received, 0 for none: they stop after the same step."""
        if not self.several:
            return signal
        greatest = torch.tensor(signal)
        distributed.all_reduce(greatest, op=distributed.ReduceOp.MAX)
        return int(greatest)

    def gradient_sum(self, model: nn.Module) -> "GradientSum":
        """What adds up the gradients of a model."""
        return GradientSum(self, model.parameters())


class GradientSum:
    """Replaces every gradient by its sum over the processes, in buckets that are under way at the same time.

    Which parameters have one is agreed upon every time: those that have none in any process, below a cut, stay without.
    """

    def __init__(self, processes: Processes, parameters: Iterable[nn.Parameter]) -> None:
        self._several = processes.several
        self._parameters = list(parameters)
        self._present: list[int] = []
        self._buckets: list[list[nn.Parameter]] = []

    def __call__(self) -> None:
        """Add up, and leave the sums in `.grad`."""
        if not self._several:
            return
        present = torch.tensor([int(parameter.grad is not None) for parameter in self._parameters])
        distributed.all_reduce(present, op=distributed.ReduceOp.MAX)
        if present.tolist() != self._present:
            self._present = present.tolist()
            self._buckets = self._fill()
        flat = [torch.cat([_gradient(parameter) for parameter in bucket]) for bucket in self._buckets]
        for work in [distributed.all_reduce(bucket, async_op=True) for bucket in flat]:
            work.wait()
        for bucket, sums in zip(self._buckets, flat, strict=True):
            for parameter, part in zip(bucket, sums.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter)

    def _fill(self) -> list[list[nn.Parameter]]:
        buckets: list[list[nn.Parameter]] = []
        room, kind = 0, None
        for parameter in (p for p, there in zip(self._parameters, self._present, strict=True) if there):
            size = parameter.numel() * parameter.element_size()
            if size > room or parameter.dtype != kind:
                buckets.append([])
                room, kind = _BUCKET_BYTES, parameter.dtype
            buckets[-1].append(parameter)
            room -= size
        return buckets


def _gradient(parameter: nn.Parameter) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.reshape(-1)


class _Onlooker(RunFolder):
    """A run's folder for a process that is not to touch it."""

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[None]:
        yield

    def begin(self, config: Config) -> None: ...

    def abandon(self) -> None: ...

    def finish(self, record: Record) -> None: ...

    def append_metrics(self, row: dict[str, Any]) -> None: ...

    def truncate_history(self, rows: int) -> None: ...

    def save_checkpoint(self, state: dict[str, Any]) -> None: ...

    def save_weights(self, which: str, model: nn.Module) -> None: ...

    def start_over(self) -> None: ...


def _attempt(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error


def _portable(error: Exception | None) -> Exception | None:
    """An error that can be sent to another process."""
    if error is None or isinstance(error, (SuiteError, RunBusy)):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _raise_first(errors: Iterable[Exception | None]) -> None:
    for error in errors:
        if error is not None:
            raise error
