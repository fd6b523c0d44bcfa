"""The schedule of a pipeline in which every stage learns as soon as the error of a micro-batch is known."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import P2POp, Work
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from dfa.base.rule import Rule
from dfa.errors import FeedbackError, PointError
from dfa.hooks.outputs import detach_all
from dfa.pipeline.broadcast import ErrorBroadcast, waiting
from dfa.pipeline.chunks import Chunk, ChunkRecorder
from dfa.pipeline.parts import Part


class ScheduleFeedback(PipelineScheduleSingle):
    """Runs a stage like PyTorch's schedules, but for a rule whose signals no stage has to wait for.

    Micro-batches go forward as in `Schedule1F1B`. When the last stage knows the error of one, it sends the error to
    all stages before its own backward part; each stage then computes the gradients of its own part, without
    waiting for the stages above. Gradients are those of one process that adds up the same micro-batches, and stay in
    `.grad`, added to what is there. When `step` returns, this stage is done, and its optimiser may step, whatever the
    others do.

    Under `torch.no_grad()` a step is a forward pass alone.

    Args:
        stage: PyTorch's stage around a part that `dfa.pipeline.cut` has made.
        n_microbatches: parts of a batch.
        loss_fn: loss of a micro-batch, from the model's output and the target.
        rule: `dfa`, `identity`, `highway` or `shallow`, made on the whole model before it was cut, with the same
            options in every process.
        args_chunk_spec, kwargs_chunk_spec, output_merge_spec: see PyTorch's schedules.
        scale_grads: whether losses are means over rows, so that each counts 1/n_microbatches.
        timeout: how long to wait for an error from the last stage; None: as the process group does.

    Raises:
        PointError: a rule or an option of it that does not go with stages, a stage that no part was made for, an error
            tensor outside the last stage, or, in a step, a part that does not end at a feedback point.
        PipelineError: in a step, another stage has ended or does not answer.
    """

    def __init__(
        self,
        stage: PipelineStage,
        n_microbatches: int,
        loss_fn: Callable[..., Tensor],
        rule: Rule,
        args_chunk_spec: Any = None,
        kwargs_chunk_spec: Any = None,
        output_merge_spec: Any = None,
        scale_grads: bool = True,
        timeout: timedelta | None = None,
    ) -> None:
        at_least = max(n_microbatches, stage.num_stages)  # which older versions of PyTorch ask of every schedule
        super().__init__(stage, at_least, loss_fn, args_chunk_spec, kwargs_chunk_spec, output_merge_spec, scale_grads)
        self._n_microbatches = n_microbatches
        if not isinstance(stage.submod, Part):
            raise PointError("the stage's module must be a part made by dfa.pipeline.cut")
        self._has_backward = False  # stages receive no gradients: what PyTorch would prepare for them is not needed
        self._chunks = ChunkRecorder(rule, stage.submod, stage.is_last)
        group = stage.group or distributed.group.WORLD
        assert group is not None
        self._errors = ErrorBroadcast(group, stage.stage_index, stage.num_stages, stage.device, timeout)
        self._share = 1 / n_microbatches if scale_grads else 1.0
        self._prepared = False

    def _step_microbatches(
        self,
        arg_mbs: list[Any] | None = None,
        kwarg_mbs: list[Any] | None = None,
        target_mbs: list[Any] | None = None,
        losses: list[Any] | None = None,
        return_outputs: bool = True,
        loss_kwargs: dict[str, Any] | None = None,
    ) -> None:
        arguments, named = self._check_inputs(arg_mbs, kwarg_mbs, target_mbs, losses)
        self._prepare(arguments[0], named[0])
        training, stage = torch.is_grad_enabled(), self._stage
        ahead = min(self._n_microbatches, self._num_stages - stage.stage_index)
        arriving = [_start(stage.get_fwd_recv_ops(index)) for index in range(self._n_microbatches)]
        leaving: list[Work] = []
        under_way: deque[Chunk] = deque()
        found: list[Tensor] = []
        for index in range(self._n_microbatches):
            with self._waiting("the output of the stage before"):
                _finish(arriving[index])
            chunk = self._forward(index, arguments[index], named[index], training)
            leaving += _start(stage.get_fwd_send_ops(index))
            if stage.is_last and target_mbs is not None:
                chunk.loss = self._loss_fn(chunk.output, target_mbs[index], **(loss_kwargs or {}))  # type: ignore[misc]
                found.append(chunk.loss.detach())
            if training:
                self._start_error(chunk)
                under_way.append(chunk)
            if len(under_way) == ahead:
                self._backward(under_way.popleft())
        while under_way:
            self._backward(under_way.popleft())
        with self._waiting("the next stage to take the output"):
            _finish(leaving)
        self._errors.finish()
        if losses is not None and stage.is_last:
            losses[:] = found

    def _prepare(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Let the stage find the shapes of what it receives, in the first step; it runs its module for that."""
        if self._prepared:
            return
        buffers = [(buffer, buffer.clone()) for buffer in self._stage.submod.buffers()]
        with torch.no_grad():
            self._initialize_stage(arguments, named)
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.clear_autocast_cache()  # older versions would keep the parameters that were cast without gradients
        self._prepared = True

    def _forward(self, index: int, arguments: tuple[Any, ...], named: dict[str, Any], training: bool) -> Chunk:
        stage = self._stage
        try:
            if not training:
                return Chunk(output=stage.forward_one_chunk(index, arguments, named))
            with self._chunks.recording() as chunk:
                chunk.output = stage.forward_one_chunk(index, arguments, named)
        except RuntimeError as error:
            if isinstance(error.__cause__, (PointError, FeedbackError)):  # which the stage wraps
                raise error.__cause__ from None
            raise
        if stage.is_last:
            stage.output_chunks[-1] = detach_all(stage.output_chunks[-1], "last stage")  # or they would keep the graphs
        return chunk

    def _start_error(self, chunk: Chunk) -> None:
        """Find the error of a chunk and send it, or begin to receive it."""
        if self._stage.is_last:
            self._chunks.backward_above(chunk, self._share)
        if self._chunks.needs_error:
            with self._waiting("the shapes of all stages"):
                self._errors.exchange_shapes(chunk.points, chunk.encoded)
                chunk.encoded, chunk.arrival = self._errors.start(chunk.encoded)

    def _backward(self, chunk: Chunk) -> None:
        if not self._chunks.needs_error:
            return
        assert chunk.arrival is not None
        if not self._stage.is_last:
            with self._waiting("the error of the last stage"):
                chunk.arrival.wait()
        self._chunks.backward(chunk, self._errors.shapes, self._errors)
        if self._stage.is_last:
            with self._waiting("the other stages to take the error"):
                chunk.arrival.wait()

    def _waiting(self, what: str) -> AbstractContextManager[None]:
        return waiting(self._stage.stage_index, self._num_stages, what)


def _start(operations: Sequence[P2POp]) -> list[Work]:
    started = (operation.op(operation.tensor, operation.peer, operation.group) for operation in operations)
    return [work for work in started if work is not None]


def _finish(works: Sequence[Work]) -> None:
    for work in works:
        work.wait()
