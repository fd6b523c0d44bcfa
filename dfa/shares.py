"""The backward pass of a direct rule, shared by several processes that all run the forward pass.

Once the error is known, no point waits for another: each process sends signals through its own share of the points, and
the gradients of all processes add up to those of one. Any model may be shared that way, for nothing of it is cut; what
is saved is time, not memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dfa.base.direct import DirectRule
from dfa.base.rule import Rule
from dfa.errors import PointError
from dfa.hooks.graphs import backward_from
from dfa.hooks.points import ForwardRecord, Point, Recorder
from dfa.hooks.segment_records import SegmentedRecord
from dfa.rules.shallow import Shallow


class _SharedRecorder(Recorder):
    """Keeps activations on their graph, and has the error arrive at a leaf."""

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        if torch.compiler.is_compiling():
            raise PointError("a backward pass that processes share cannot be compiled with the model")
        record = SegmentedRecord(name, points, output=tensor, leaf=tensor.detach().requires_grad_())
        return record, record.passed_on()


class BackwardShare:
    """One process's share of a rule's backward passes: every `of`-th point.

    The last process also trains what lies above the topmost point. Every process has the same parameters and runs the
    same forward passes, random numbers included, before `backward` takes the place of the rule's own.

    Args:
        rule: a direct rule with memory="keep", or `shallow`, of which the last process does all.
        number: of this process, from 0.
        of: how many there are.

    Raises:
        PointError: a rule whose points wait for each other, or that records more than activations; or there is no such
            process.
    """

    def __init__(self, rule: Rule, number: int, of: int) -> None:
        if not 0 <= number < of:
            raise PointError(f"processes are numbered from 0 to {of - 1}, got {number}")
        self._rule = rule
        self._last = number == of - 1
        if isinstance(rule, Shallow):
            return
        if not isinstance(rule, DirectRule) or (type(rule).backward, type(rule)._make_recorder, rule.memory) != (
            DirectRule.backward,
            DirectRule._make_recorder,
            "keep",
        ):
            raise PointError(
                f"the backward pass of rule '{rule.name}', with these options, cannot be shared by processes"
            )
        self._own = set(rule.hooks.points[number::of])
        rule.hooks.record_with(_SharedRecorder())
        rule.is_shared = True

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this share to the parameters' `.grad`.

        Raises:
            PointError: see `DirectRule.backward`.
        """
        if not isinstance(self._rule, DirectRule):
            if self._last:
                self._rule.backward(loss)
            return
        rule = self._rule
        passes = rule.recorded_passes(loss)
        records = [record for record in passes if isinstance(record, SegmentedRecord)]
        with rule.scaled_as(loss), rule.hooks.arrivals.expected():
            self._train(rule, loss, records)
        rule.forget_trained(records)
        for record in records:
            if record.error_received:
                record.release()

    def _train(self, rule: DirectRule, loss: Tensor, records: Sequence[SegmentedRecord]) -> None:
        arriving: list[tuple[Tensor, Tensor]] = []
        trained: list[SegmentedRecord] = []
        errors = self._errors(loss, [record.leaf for record in records])
        for record, error in zip(reversed(records), reversed(errors), strict=True):  # as autograd comes to them
            record.leaf.grad = None
            if error is None:
                continue
            trained.append(record)
            rule.hooks.trainable.check(record.points)
            signals = rule.training_signals(record.error_name, error, record.points)
            for point, signal in zip(record.points, signals, strict=True):
                if point.name in self._own:
                    arriving.append((point.activation, signal))
            if self._last:
                arriving.append((record.output, error))
        backward_from(arriving)
        if leaking := [record for record in records if record.leaf.grad is not None]:
            name = leaking[0].error_name or "model output"
            raise PointError(f"signals arrive at error tensor '{name}', too: the backward pass cannot be shared")
        for record in trained:
            record.error_received = True

    def _errors(self, loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
        if not self._last:
            return list(torch.autograd.grad(loss, leaves, allow_unused=True))
        loss.backward()
        return [leaf.grad for leaf in leaves]
