"""The frame for rules that send the output error straight to every point."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor, nn

from dfa.base.rule import Patterns, Points, Rule, Uses, check_differentiable, check_some_points
from dfa.base.scaling import factors_of, scale_among
from dfa.compiling import older_graph
from dfa.errors import FeedbackError, PointError
from dfa.feedback.codecs import parse_codec
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.points import SECOND_BACKWARD, ForwardRecord, Point, Recorder, one_for_each
from dfa.hooks.recompute import AfterSegment, train_segments
from dfa.hooks.row_probe import ProbingRecorder
from dfa.hooks.segment_recorder import SegmentRecorder
from dfa.hooks.segment_records import SegmentedRecord
from dfa.hooks.segments import find_segments
from dfa.hooks.targets import error_patterns, patterns_of
from dfa.patterns import pattern_list
from dfa.values import check_choice, check_count

Memory = Literal["keep", "recompute"]

UNRELATED = (
    "the loss does not depend on the error tensor: no error arrived there; where a model computes the loss itself, the"
    " error is to be taken at one of its modules"
)


class DirectRuleOptions(TypedDict, total=False):
    """Options of `DirectRule`."""

    memory: Memory
    segments: Patterns | None
    parallel: int
    codec: str | None


class DirectRule(Rule):
    """A rule that computes a signal for each feedback point from the error at the error tensor, see `signals`.

    `backward` is one run of autograd. From the loss down to the error tensor it is ordinary, which trains the layers
    above with the true error; there the error goes on, and signals start at the points. No gradient crosses a point.

    With memory="recompute" the forward pass builds no graph in the segments of the model. `backward` runs them again,
    one at a time, each with its own signals, and frees it before the next: the gradients are the same, for one more
    forward pass, and activation memory does not grow with the number of segments, provided that each is fed by the one
    before and that they share one matrix. Other inputs of a segment are kept. Requirements: every point lies in a
    segment, a segment returns nothing but the output of a point or what depends on the segment through one, the error
    arises outside, and a segment that is run twice on the same input does the same (dropout and batch norm do). What it
    holds is put back for the second run; weights that have changed, and points that come out otherwise, are refused.

    Args:
        model, points, error_at, silent: see `Rule`.
        memory: "keep" or "recompute".
        segments: patterns of the modules to be run again. None: each point's own module, or in a plain `nn.Sequential`
            all modules since the point before.
        parallel: with memory="recompute", number of segments that signals go through at the same time: in threads on a
            CPU, in CUDA streams on a GPU. The gradients are the same, and as many graphs are held. Segments that share
            parameters or lie on several devices are trained one by one. On a CPU it takes the place of the threads
            inside each operation, which have to be off: `torch.set_num_threads(1)`.
        codec: how the error is encoded on its way to the points: None, "sign", "ternary:<threshold>", "bits:<n>" or
            "noise:<level>", see `dfa.feedback.codecs`. Layers above the error tensor receive the error itself.

    Attributes:
        is_shared: whether processes share its backward passes, see `dfa.shares.BackwardShare`.
        after_segment: with memory="recompute", called during `backward` with the parameters of a segment as soon as
            their gradients are complete, so that an optimiser may step and free them there (not for parameters that are
            used outside the segments as well). With `parallel` it is called from other threads, never twice at once.

    Raises:
        PointError: no points, `segments` or `parallel` without memory="recompute", or segments that do not meet the
            requirements.
        FeedbackError: an unknown `memory` or codec, or a `parallel` that is no count.
    """

    after_segment: AfterSegment | None = None
    is_shared: bool = False
    _factors: Sequence[Tensor | None] = ()

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        memory: Memory = "keep",
        segments: Patterns | None = None,
        parallel: int = 1,
        codec: str | None = None,
    ) -> None:
        check_choice("memory", memory, get_args(Memory))
        if segments is not None and memory != "recompute":
            raise PointError("segments are for memory='recompute'")
        segments = None if segments is None else pattern_list(segments, "segments")
        check_count("parallel", parallel)
        if parallel > 1 and memory != "recompute":
            raise PointError(f"parallel must be 1, or above with memory='recompute'; got {parallel}")
        if parallel > 1:
            _check_idle_cores(model, parallel)
        self.memory = memory
        self.segments = segments
        self.parallel = parallel
        self._codec = parse_codec(codec)
        self._warned: set[str] = set()
        check_some_points(self.name, points)
        super().__init__(model, points, error_at, silent)

    @property
    def rows_are_known(self) -> bool:
        """Whether it needs no trial which rows of a point belong to a row of the error."""
        return True

    @property
    def uses(self) -> Uses:
        return Uses(extra_forwards=float(self.memory == "recompute"))

    @property
    def loss_scale(self) -> Tensor | None:
        """During `backward`, the factor of a GradScaler, which the error has, too; None without one.

        Raises:
            PointError: it cannot be told, see `dfa.base.scaling`.
        """
        return scale_among(self._factors, self.name) if self._factors else None

    @contextmanager
    def scaled_as(self, loss: Tensor) -> Iterator[None]:
        """Run a block in which the error of a loss arrives."""
        self._factors = factors_of(loss)  # now, for the backward pass frees the graph
        try:
            yield
        finally:
            self._factors = ()

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        error_at = error_patterns(points, error_at)
        recorder = self._make_recorder(points, error_at)
        if self.memory == "keep" and not self.rows_are_known:
            recorder = ProbingRecorder(recorder)
        return FeedbackHooks(self.model, points, error_at, silent, recorder)

    def _make_recorder(self, points: Points, error_at: Patterns) -> Recorder:
        if self.memory == "recompute":
            return SegmentRecorder(find_segments(self.model, patterns_of(points), error_at, self.segments))
        return Recorder(self)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Compute a signal for each point, shaped like its activation; they are consumed one at a time.

        Args:
            error_name: module whose output is the error tensor ("" for the model).
            error: ∂loss/∂(error tensor), encoded by the codec, in the error tensor's shape.
            points: the points of one forward pass.
        """
        raise NotImplementedError

    def warn_once(self, what: str) -> None:
        """Warn, the first time, that in this model the rule is not what its name says."""
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(f"rule '{self.name}': {what}", UserWarning, stacklevel=3)

    def encode(self, error: Tensor) -> Tensor:
        """Encode the error by the codec, if there is one."""
        return error if self._codec is None else self._codec(error)

    def training_signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Compute the signals of a training pass; subclasses may also update their feedback."""
        return self.signals(error_name, self.arriving(error, points), points)

    def arriving(self, error: Tensor, points: Sequence[Point]) -> Tensor:
        """Encode an error that arrives in a training pass.

        Raises:
            FeedbackError: it is complex, and a point is not: the imaginary part would be lost; or one is nested.
        """
        if any(tensor.is_nested for tensor in (error, *(point.activation for point in points))):
            raise FeedbackError(f"rule '{self.name}' has no part in nested tensors: pad them")
        if error.is_complex() and (real := [point.name for point in points if not point.activation.is_complex()]):
            raise FeedbackError(
                f"the error is complex, and feedback point '{real[0]}' is not: take the error where it is"
            )
        return self.encode(error)

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Allocate what `signals` needs while a forward pass is compiled; a compiled graph can only read it.

        Args:
            error_name: module whose output is the error tensor ("" for the model).
            error: the error tensor itself; only its shape, type and device are those of the error.
            points: the points of the forward pass.
        """

    def backward(self, loss: Tensor) -> None:
        """Add this rule's gradients to the parameters' `.grad`.

        Raises:
            PointError: no forward pass was recorded, the loss does not depend on the error tensor, a point never ran,
                nothing below a point can learn, the pass has gone backward before, or processes share it.
        """
        if self.is_shared:
            raise PointError("processes share this rule's backward passes: call BackwardShare.backward instead")
        records = self.recorded_passes(loss)
        segmented = [record for record in records if isinstance(record, SegmentedRecord)]
        before = self._learned() if self.hooks.compiled_pass else None
        with self.scaled_as(loss), self.hooks.arrivals.expected():
            loss.backward()
            self._train_segments(segmented)
        if before is not None and before == self._learned():  # a compiled pass does not tell that it goes backward
            raise PointError(UNRELATED)
        self.forget_trained(records)

    def _learned(self) -> list[tuple[int, ...]]:
        """Tell states of the parameters and of their gradients apart; an optimiser may free these as they come."""
        gradients = [parameter.grad for parameter in self.model.parameters()]
        versions = [(id(gradient), gradient._version) for gradient in gradients if gradient is not None]
        return [*versions, *((parameter._version,) for parameter in self.model.parameters())]

    def recorded_passes(self, loss: Tensor) -> list[ForwardRecord]:
        """Return the forward passes that a loss may have been computed from.

        Raises:
            PointError: there is none, they have gone backward before, a point never ran, nothing below a point can
                learn, or the loss has no gradient.
        """
        check_differentiable(loss)
        known = self.hooks.records
        records = [record for record in known if not record.error_received]
        if not (records or self.hooks.compiled_pass):
            if known:
                raise PointError(SECOND_BACKWARD)
            raise PointError(
                "no forward pass with an error tensor was recorded since the last backward, or none in use: make the"
                " rule before the model is called, go backward once for each pass, and from a loss of the same model;"
                " where a model computes the loss itself, the error is to be taken at one of its modules"
                f" (error_at: {', '.join(name or 'model output' for name in self.hooks.error_names)}){older_graph()}"
            )
        self.hooks.check_all_reached()
        for record in records:
            if not isinstance(record, SegmentedRecord):
                self.hooks.trainable.check(record.points)
        return records

    def forget_trained(self, records: Sequence[ForwardRecord]) -> None:
        """Forget the passes at whose error tensor an error has arrived.

        Raises:
            PointError: there is none.
        """
        received = [record for record in records if record.error_received]
        if not (received or self.hooks.compiled_pass):
            raise PointError(UNRELATED)
        self.hooks.forget(received)

    def _train_segments(self, records: Sequence[SegmentedRecord]) -> None:
        def signals(record: SegmentedRecord) -> Iterator[Tensor]:
            assert record.leaf.grad is not None
            given = self.training_signals(record.error_name, record.leaf.grad, record.points)
            return one_for_each(record.points, given)

        train_segments(self.hooks, records, signals, self.after_segment, self.parallel)


def _check_idle_cores(model: nn.Module, parallel: int) -> None:
    """Refuse threads for segments that would compete with those inside each operation: measured, that is slower."""
    threads = torch.get_num_threads()
    if threads > 1 and all(parameter.device.type == "cpu" for parameter in model.parameters()):
        raise PointError(
            f"parallel={parallel} on a CPU competes with the {threads} threads of each operation and is slower: call"
            " torch.set_num_threads(1) first, or leave parallel at 1"
        )
