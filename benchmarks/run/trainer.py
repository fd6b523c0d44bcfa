"""The shared training loop: it holds a task, a model and a rule, and never asks which."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.config import Config
from benchmarks.run.alignment import alignment_metrics
from benchmarks.run.checkpoints import State, random_state, set_random_state
from benchmarks.run.distributed import Processes
from benchmarks.run.history import Row, is_row
from benchmarks.run.inputs import Inputs
from benchmarks.run.metrics import checked_metrics
from benchmarks.run.names import run_name
from benchmarks.run.optim import after_evaluation, after_step, make_optimizer, make_schedule
from benchmarks.run.position import Position
from benchmarks.run.records import RunFolder
from benchmarks.run.wandb import WandbCopy
from benchmarks.task import Task
from benchmarks.utils.machine import release_freed_memory
from benchmarks.utils.progress import Progress
from benchmarks.utils.signals import Interrupted, deferred, received
from dfa import Rule


class Diverged(Exception):
    """The training loss or a parameter is no longer finite, or the metric not a number."""


@dataclass
class Trainer:
    """One run in progress; `fit` takes it to its end, from a checkpoint where there is one."""

    config: Config
    task: Task
    model: nn.Module
    rule: Rule
    folder: RunFolder
    device: torch.device
    wandb: WandbCopy
    processes: Processes = field(default_factory=Processes)
    position: Position = field(default_factory=Position)
    best_weights: dict[str, Tensor] | None = None
    history: list[Row] = field(default_factory=list)
    inputs: Inputs = field(default_factory=Inputs)

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.config.optimizer, self.model)
        self.schedule = make_schedule(
            self.config.schedule, self.optimizer, self.task.higher_is_better, self._planned_steps()
        )
        compiled = torch.compile(self.model) if self.config.trainer.compile else self.model
        self.forward: nn.Module = compiled  # type: ignore[assignment]
        self.backward = self.processes.backward_of(self.rule)
        self.add_up_gradients = self.processes.gradient_sum(self.model)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.losses_summed = 0
        self._last_checkpoint = time.monotonic()
        self._sitting_began = time.monotonic()

    def fit(self) -> None:
        """Train to the last epoch, the last step, or until patience runs out.

        A request to stop is obeyed between two steps, from where the run can go on.

        Raises:
            Diverged: the loss or a parameter was not finite at an evaluation, or the validation metric not a number.
            Interrupted: the process was asked to stop; a checkpoint is saved.
        """
        self._resume()
        self.processes.broadcast_model(self.model)
        trainer = self.config.trainer
        with deferred(), Progress(self._planned_steps(), run_name(self.config), self.config.run.progress) as progress:
            progress.update(self.position.step, {})
            while self.position.epoch <= trainer.epochs and not self._over():
                self._epoch(progress)
            if self.position.evaluations == 0 or self.losses_summed:
                self._evaluate(progress)
            self._stop_if_asked()

    def restore_best(self) -> None:
        """Put the weights of the best evaluation back, if they are the ones to be tested."""
        if self.config.trainer.selection == "best" and self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)

    def seconds(self) -> float:
        """Training time over all sittings."""
        return self.position.seconds + time.monotonic() - self._sitting_began

    def _epoch(self, progress: Progress) -> None:
        trainer, position = self.config.trainer, self.position
        batches = self.task.steps_per_epoch()
        for batch in self.task.train_batches(position.epoch, position.batch):
            # The last group of an epoch may be smaller; it makes a step of its own, like a last, smaller batch.
            begun = position.batch - position.batch % trainer.accumulate
            self._train_on(batch, min(trainer.accumulate, batches - begun))
            position.batch += 1
            if position.batch % trainer.accumulate == 0 or position.batch == batches:
                self._step()
                progress.update(position.step, {})
                if trainer.evaluate_unit == "step" and position.step % trainer.evaluate_every == 0:
                    self._evaluate(progress)
                if self._over() and position.batch < batches:
                    return
                self._between_steps()
        if position.batch != batches:
            raise RuntimeError(f"the task gave {position.batch} batches in an epoch, of {batches} that it announced")
        position.epoch, position.batch = position.epoch + 1, 0
        if trainer.evaluate_unit == "epoch" and (position.epoch - 1) % trainer.evaluate_every == 0:
            self._evaluate(progress)
        self._between_steps()

    def _train_on(self, batch: Any, group: int) -> None:
        """Add the gradients of one batch, of a group whose mean loss makes a step."""
        reduced = self.config.trainer.precision == "bfloat16"
        if not self.model.training:
            self.model.train()
        # Feedback matrices are drawn with the first error, which would break a compiled graph.
        first = self.position.step == self.position.batch == 0
        batch, weight = self.processes.share(self.task, batch)
        self.processes.reseed(self.config.seed, self.position.epoch, self.position.batch)
        with torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext():
            loss = self.task.loss(self.model if first else self.forward, batch)
        if self.processes.share_rows:
            loss = loss * weight
        self.backward(loss if group == 1 else loss / group)
        # Summed where it is, not read: reading would make a GPU wait for the CPU at every step.
        self.loss_sum += self.processes.sum_losses(loss.detach(), weight)
        self.losses_summed += 1

    def _step(self) -> None:
        self.add_up_gradients()
        if self.config.trainer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.trainer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        after_step(self.schedule)
        self.position.step += 1

    def _over(self) -> bool:
        trainer, position = self.config.trainer, self.position
        out_of_steps = trainer.steps is not None and position.step >= trainer.steps
        out_of_patience = trainer.patience is not None and position.stale >= trainer.patience
        return out_of_steps or out_of_patience

    def _evaluate(self, progress: Progress) -> None:
        position = self.position
        loss = (self.loss_sum / max(1, self.losses_summed)).item()
        self.loss_sum.zero_()
        self.losses_summed = 0
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} at step {position.step}")
        # The last update may have spoilt what the loss before it does not show yet.
        spoilt = [name for name, parameter in self.model.named_parameters() if not parameter.sum().isfinite()]
        if spoilt:
            raise Diverged(f"parameter '{spoilt[0]}' is not finite at step {position.step}")
        metrics, aligned = self.processes.from_first(self._look)
        value = metrics[self.task.metric]
        if math.isnan(value):
            raise Diverged(f"validation {self.task.metric} is {value} at step {position.step}")
        position.evaluations += 1
        epoch = position.epoch - (position.batch == 0)
        if self._improves(value):
            position.best_value, position.best_epoch, position.best_step = value, epoch, position.step
            position.stale = 0
            if self.config.trainer.selection == "best":
                self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        else:
            position.stale += 1
        after_evaluation(self.schedule, value)
        row = {"epoch": epoch, "step": position.step, "train/loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {f"valid/{name}": metric for name, metric in metrics.items()} | aligned
        self.history.append(row)
        self.folder.append_metrics(row)
        self.wandb.log(row)
        progress.update(position.step, {"loss": loss, self.task.metric: value})

    def _look(self) -> tuple[dict[str, float], dict[str, float]]:
        """Metrics on validation, and mean alignment at every point where it is asked for."""
        aligned: dict[str, float] = {}
        if self.config.run.alignment == "evaluations":
            with self.processes.first_alone(self.model):
                aligned = alignment_metrics(self.task, self.model, self.rule)
        means = {name: value for name, value in aligned.items() if fnmatchcase(name, "alignment/?*/mean")}
        return evaluate(self.task, self.forward, "valid"), means

    def _improves(self, value: float) -> bool:
        best = self.position.best_value
        if best is None:
            return True
        return value > best if self.task.higher_is_better else value < best

    def _planned_steps(self) -> int:
        trainer = self.config.trainer
        planned = trainer.epochs * math.ceil(self.task.steps_per_epoch() / trainer.accumulate)
        return planned if trainer.steps is None else min(planned, trainer.steps)

    def _between_steps(self) -> None:
        """Save a checkpoint if it is time, or to stop."""
        if self.position.batch % self.config.trainer.accumulate:
            return  # half-accumulated gradients are not saved
        self._stop_if_asked()
        if time.monotonic() - self._last_checkpoint >= self.config.run.checkpoint_seconds:
            self._save_checkpoint()

    def _stop_if_asked(self) -> None:
        if asked := self.processes.greatest_signal(next(iter(received()), 0)):
            self._save_checkpoint()
            raise Interrupted(asked)

    def _save_checkpoint(self) -> None:
        self.position.seconds, self._sitting_began = self.seconds(), time.monotonic()
        self.folder.save_checkpoint(
            {
                "position": vars(self.position).copy(),
                "model": self.model.state_dict(),
                "best_weights": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "rule": self.rule.state_dict(),
                "loss": (self.loss_sum, self.losses_summed),
                "random": random_state(self.device),
                "history": self.history,
                "inputs": self.inputs.as_record(),
            }
        )
        release_freed_memory()  # here, as it is seldom enough to cost nothing
        self._last_checkpoint = time.monotonic()

    def _resume(self) -> None:
        state = self.processes.from_first(lambda: self.folder.load_checkpoint(self._take_up))
        if state is not None and (reason := self.inputs.differs_from(state)):
            print(f"the checkpoint in '{self.folder.path}' was made with {reason}: the run starts over", flush=True)
            self.folder.start_over()
            state = None
        if state is None:
            self.folder.rewrite_history([])
            return
        self._take_up(state)  # in the other processes, too
        if not self.folder.rewrite_history(self.history):
            print(f"the history in '{self.folder.path}' was damaged: put back from the checkpoint", flush=True)

    def _take_up(self, state: State) -> None:
        """Go on from a checkpoint, unless it was made with other data or code.

        Raises:
            Exception: of any kind; it is not one of this run, and another has to be taken up.
        """
        if self.inputs.differs_from(state):
            return
        trainer, rows = self.config.trainer, state["history"]
        batches = self.task.steps_per_epoch()
        self.position = Position.restored(state["position"], trainer.epochs, batches, trainer.accumulate)
        if len(rows) != self.position.evaluations or not all(map(is_row, rows)):
            raise ValueError(f"its history is not that of {self.position.evaluations} evaluations")
        self.history = rows
        self.best_weights = state["best_weights"]
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)  # that it fits is found out now
        elif self.position.best_value is not None and trainer.selection == "best":
            raise ValueError("it lacks the best weights")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rule.load_state_dict(state["rule"])
        self.loss_sum, self.losses_summed = state["loss"][0].to(self.device), state["loss"][1]
        set_random_state(self.device, state["random"])


def evaluate(task: Task, model: nn.Module, split: str) -> dict[str, float]:
    """The task's metrics on a split, in evaluation mode and without gradients.

    Raises:
        ConfigError: they are no numbers.
    """
    model.eval()
    with torch.no_grad():
        return checked_metrics(task, task.evaluate(model, split))
