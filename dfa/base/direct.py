"""The frame for rules that send the output error straight to every point."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from dfa.base.rule import Patterns, Rule, Uses, check_differentiable
from dfa.errors import PointError
from dfa.feedback.codecs import parse_codec
from dfa.hooks.points import Point, Taps, check_trainable
from dfa.hooks.recompute import AfterStage, run_again
from dfa.hooks.stages import StagedPass, StagedTaps

Memory = Literal["keep", "recompute"]


class PassOptions(TypedDict, total=False):
    """Options of `DirectRule`."""

    memory: Memory
    stages: Patterns | None
    parallel: int
    codec: str | None


class DirectRule(Rule):
    """A rule that turns the error at the error tensor into a signal for each point; `signals` says how.

    `backward` is one run of autograd. From the loss down to the error tensor it is ordinary, which trains what lies
    above with the true error; there the error goes on, and signals start at the points. No gradient crosses a point.

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
        parallel: with memory="recompute", through how many stages signals go at the same time: by threads on a CPU, by
            CUDA streams on a GPU. The gradients are the same, and as many graphs are held. Stages that share parameters
            or lie on several devices take their turns.
        codec: what becomes of the error on its way to the points: None, "sign", "ternary:<threshold>", "bits:<n>" or
            "noise:<level>", see `dfa.feedback.codecs`. What lies above the error tensor learns from the error as it is.

    Attributes:
        after_stage: with memory="recompute", called during `backward` with the parameters of a stage as soon as their
            gradients are complete, so that an optimiser may step and free them there (not for parameters that are used
            outside the stages as well). With `parallel` it is called from other threads, never twice at once.
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
        parallel: int = 1,
        codec: str | None = None,
    ) -> None:
        if memory not in ("keep", "recompute"):
            raise PointError(f"unknown memory '{memory}'; known: keep, recompute")
        if stages is not None and memory != "recompute":
            raise PointError("stages are for memory='recompute'")
        if parallel < 1 or (parallel > 1 and memory != "recompute"):
            raise PointError(f"parallel must be 1, or above with memory='recompute'; got {parallel}")
        self.memory = memory
        self.stages = stages
        self.parallel = parallel
        self._codec = parse_codec(codec)
        super().__init__(model, points, error_at, silent)

    @property
    def uses(self) -> Uses:
        return Uses(extra_forwards=float(self.memory == "recompute"))

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        if self.memory == "recompute":
            return StagedTaps(self.model, points, error_at, silent, self.stages)
        return Taps(self.model, points, error_at, silent, self)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Signal for each point, shaped like its activation; they are taken one at a time.

        Args:
            error_name: module the error was taken at.
            error: ∂loss/∂(error tensor), in the error tensor's shape, as the codec delivers it.
            points: the points of one forward pass.
        """
        raise NotImplementedError

    def coded(self, error: Tensor) -> Tensor:
        """The error as the codec delivers it."""
        return error if self._codec is None else self._codec(error)

    def send(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """The error of a training pass has come: its `signals`. Here a rule may learn from the occasion."""
        return self.signals(error_name, self.coded(error), points)

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Called while a forward pass is compiled, with the error tensor in the error's place: the time to make what
        `signals` needs, since from within a compiled graph it can only read."""

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
        for record in self.taps.passes:
            if not isinstance(record, StagedPass):
                check_trainable(record.points)
        loss.backward()
        staged = [record for record in self.taps.passes if isinstance(record, StagedPass)]
        for record in staged:
            record.arrived = record.leaf.grad is not None
        if not any(record.arrived or record.compiled for record in self.taps.passes):
            raise PointError("the loss does not depend on the error tensor: no error arrived there")
        self.taps.passes = [record for record in self.taps.passes if not (record.arrived or record.compiled)]
        if isinstance(self.taps, StagedTaps):
            self._run_stages(self.taps, [record for record in staged if record.arrived])

    def _run_stages(self, taps: StagedTaps, passes: Sequence[StagedPass]) -> None:
        heads = [record for record in passes if record.output.requires_grad]  # not so where it comes from a stage
        if heads:
            errors = [record.leaf.grad for record in heads]
            torch.autograd.backward([record.output for record in heads], errors)

        def signals(record: StagedPass) -> Iterator[Tensor]:
            assert record.leaf.grad is not None
            return iter(self.send(record.error_name, record.leaf.grad, record.points))

        run_again(taps, passes, signals, self.after_stage, self.parallel)
