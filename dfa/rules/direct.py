"""Direct feedback alignment and the frame for rules that, like it, send the output error straight to every point."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.feedback import Draw, FeedbackMatrices, Sharing
from dfa.points import Pass, Point, Taps, check_trainable
from dfa.recompute import AfterStage, run_again
from dfa.rules.base import RULES, Patterns, Rule, check_differentiable
from dfa.stages import StagedPass, StagedTaps

Memory = Literal["keep", "recompute"]


class DirectRule(Rule):
    """A rule that turns the error at the error tensor into a signal for each point; `signals` says how.

    `backward` runs autograd from the loss down to the cut error tensor, which trains what lies above it with the true
    error, and then once from the error tensor and all points together. No gradient crosses a point.

    With memory="recompute" the forward pass builds no graph in the stages of the model. `backward` runs them again, one
    at a time, each with its own signals, and forgets it before the next: the gradients are the same, for one more
    forward pass, and activation memory does not grow with the number of stages, provided that each is fed by the one
    before and that they share one matrix. A stage may take other inputs too; those are kept. What it asks of a model:
    every point lies in a stage, a stage puts out nothing but what a point let through, the error arises outside, and
    a stage that is run twice on the same input does the same (dropout and batch norm do).

    Args:
        model, points, error_at, silent: see `Rule`.
        memory: "keep" or "recompute".
        stages: patterns of the modules to be run again. None: each point's own module, or in a plain `nn.Sequential`
            all modules since the point before.

    Attributes:
        after_stage: with memory="recompute", called during `backward` with the parameters of a stage as soon as their
            gradients are complete, so that an optimiser may step and free them there (not for parameters that are used
            outside the stages as well).
    """

    after_stage: AfterStage | None = None

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        memory: Memory = "keep",
        stages: Patterns | None = None,
    ) -> None:
        if memory not in ("keep", "recompute"):
            raise PointError(f"unknown memory '{memory}'; known: keep, recompute")
        if stages is not None and memory != "recompute":
            raise PointError("stages are for memory='recompute'")
        self.memory = memory
        self.stages = stages
        super().__init__(model, points, error_at, silent)

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        if self.memory == "recompute":
            return StagedTaps(self.model, points, error_at, silent, self.stages)
        return Taps(self.model, points, error_at, silent)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Signal for each point, shaped like its activation; they are taken one at a time.

        Args:
            error_name: module the error was taken at.
            error: ∂loss/∂(error tensor), in the error tensor's shape.
            points: the points of one forward pass.
        """
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        """Raise PointError where no forward pass was recorded, the loss does not reach the error tensor, a point
        never fired, or nothing below a point can learn."""
        if not self.taps.passes:
            raise PointError(
                "no forward pass with an error tensor was recorded since the last backward"
                f" (error_at: {', '.join(name or 'model output' for name in self.taps.error_names)})"
            )
        self.taps.check_all_fired()
        check_differentiable(loss)
        loss.backward()
        reached = [record for record in self.taps.passes if record.error.grad is not None]
        if not reached:
            raise PointError("the loss does not depend on the error tensor: no error arrived there")
        self.taps.passes = [record for record in self.taps.passes if record.error.grad is None]
        roots, gradients = self._roots(reached)
        if roots:
            torch.autograd.backward(roots, gradients)
        del roots, gradients
        if isinstance(self.taps, StagedTaps):
            staged = [record for record in reached if isinstance(record, StagedPass)]
            run_again(self.taps, staged, lambda record: iter(self._signals(record)), self.after_stage)

    def _roots(self, passes: Sequence[Pass]) -> tuple[list[Tensor], list[Tensor]]:
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for record in passes:
            assert record.error.grad is not None
            if record.output.requires_grad:  # not so where the error tensor is itself a point
                roots.append(record.output)
                gradients.append(record.error.grad)
            if not isinstance(record, StagedPass):
                check_trainable(record.points)
                roots += [point.activation for point in record.points]
                gradients += self._signals(record)
        if not roots and not any(record.points for record in passes):
            raise PointError("the model's output is not differentiable: nothing in it requires a gradient")
        return roots, gradients

    def _signals(self, record: Pass) -> Iterable[Tensor]:
        assert record.error.grad is not None
        return self.signals(record.error_name, record.error.grad, record.points)


@RULES.register("dfa")
class DirectFeedbackAlignment(DirectRule):
    """Direct feedback alignment (Nøkland, 2016), as run by Launay et al. (2020).

    The signal of point l is e B_l instead of backpropagation's e ∂(error tensor)/∂h_l, with B_l fixed and random.

    Args:
        model, points, error_at, silent, memory, stages: see `DirectRule`.
        distribution, sharing, normalise, scale, batch_dims, seed, draw, keep: of the matrices, see `FeedbackMatrices`.
    """

    name = "dfa"

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        distribution: str = "uniform",
        sharing: Sharing = "shared",
        normalise: bool = True,
        scale: float = 1.0,
        batch_dims: int | None = None,
        seed: int = 0,
        draw: Draw = "torch",
        keep: bool = True,
        memory: Memory = "keep",
        stages: Patterns | None = None,
    ) -> None:
        self.feedback = FeedbackMatrices(distribution, sharing, normalise, scale, batch_dims, seed, draw, keep)
        super().__init__(model, points, error_at, silent, memory=memory, stages=stages)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        if points and any(buffer.device != error.device for buffer in self.feedback.buffers()):
            self.feedback.to(error.device)
        return self.feedback.signals(error_name, error, points)

    def state_dict(self) -> dict[str, Any]:
        return self.feedback.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.feedback.load_state_dict(state)
