"""Feedback matrices: drawing, sharing, scaling, and projecting an error onto points."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from math import sqrt
from typing import Literal, TypedDict

import torch
from torch import Generator, Tensor

from dfa.compiling import run_eagerly
from dfa.errors import FeedbackError
from dfa.feedback.counter import counter_block
from dfa.feedback.distributions import DISTRIBUTIONS, seed_of
from dfa.feedback.order import RowOrder, check_samples
from dfa.feedback.rows import as_rows, check_inner_shapes, count_repeats, other_sizes, repeat_rows, row_shape
from dfa.feedback.states import matrix_key
from dfa.hooks.points import Point
from dfa.precision import at_least_single, without_autocast
from dfa.values import check_choice, check_count, check_number, check_seed

Sharing = Literal["shared", "per_point"]
Draw = Literal["torch", "counter"]
BLOCK_ENTRIES = 2**20
"""Entries of a counter-drawn matrix that a projection handles at a time."""


class MatrixOptions(TypedDict, total=False):
    """Options of `FeedbackMatrices`."""

    distribution: str
    sharing: Sharing
    normalise: bool
    scale: float
    batch_dims: int | None
    seed: int
    draw: Draw
    keep: bool
    density: float


class FeedbackMatrices:
    """Fixed random matrices B that carry an error e to the points: signal = e B.

    Default as in Launay et al. (2020): entries uniform in [-1, 1) divided by √(widest point's width), one matrix of
    shape (error width, widest point's width) for all points, of which a point d wide uses the first d columns.
    Matrices are drawn on the CPU from the seed when the first error arrives, whatever the device and the state of the
    global generator, and kept.

    Args:
        distribution: "uniform" in [-1, 1), "gaussian" (unit variance) or "orthogonal".
        sharing: "shared" (one matrix per error tensor, sliced) or "per_point" (one for each point).
        normalise: divide by √width, of the matrix that is drawn.
        scale: a further factor.
        batch_dims: number of leading dimensions of error and points that count rows; all others are flattened into
            features. None: all dimensions of the error but the last, at least one, and a point whose rows may be in
            another order than the error's is refused.
        seed: of the draw.
        draw: "torch" (its generator) or "counter" (entry by entry, see `dfa.feedback.counter`; not for "orthogonal").
        keep: False: nothing is kept but the seed, and every projection generates its matrix anew, some rows at a time;
            for errors as wide as a vocabulary. Needs draw="counter", and gives the same bits as keeping it.
        density: share of the entries that are kept, at random; the others are 0, and 1/√density makes up for them.

    Raises:
        FeedbackError: an unknown distribution, sharing or draw, a number out of range, or a matrix that can only be
            kept.

    Attributes:
        drawn: the matrices so far, (error width, width), by key: "<error tensor>:<point>" or "<error tensor>:shared",
            with "/" for the dots of names and "(output)" for the model itself.
        order: compares the order of rows.
    """

    def __init__(
        self,
        distribution: str = "uniform",
        sharing: Sharing = "shared",
        normalise: bool = True,
        scale: float = 1.0,
        batch_dims: int | None = None,
        seed: int = 0,
        draw: Draw = "torch",
        keep: bool = True,
        density: float = 1.0,
    ) -> None:
        check_choice("distribution", distribution, DISTRIBUTIONS)
        check_choice("sharing", sharing, ("shared", "per_point"))
        check_number("scale", scale)  # a negative one may be meant
        check_seed(seed)
        if batch_dims is not None:
            check_count("batch_dims", batch_dims)
        check_choice("draw", draw, ("torch", "counter"))
        if draw == "counter":
            counter_block(distribution, seed, 0, 0, 0)  # refuses a distribution that it lacks
        elif not keep:
            raise FeedbackError("keep=False needs draw='counter'")
        self.distribution = distribution
        self.sharing = sharing
        self.normalise = normalise
        self.scale = scale
        self.batch_dims = batch_dims
        self.seed = seed
        self.draw = draw
        if not 0 < density <= 1:
            raise FeedbackError(f"density must be above 0 and at most 1, got {density}")
        self.keep = keep
        self.density = density
        self.drawn: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._inner: dict[str, set[torch.Size]] = {}  # what the order of a point's columns depends on
        self.order = RowOrder(batch_dims)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the matrices drawn, generated or loaded so far, by key."""
        return {**self._shapes, **{key: tuple(matrix.shape) for key, matrix in self.drawn.items()}}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the matrices drawn so far, by key."""
        return dict(self.drawn)

    def check_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Check that saved matrices are those of the same points.

        Raises:
            FeedbackError: a matrix drawn here is missing or has another shape.
        """
        for key, matrix in self.drawn.items():
            if key not in state or state[key].shape != matrix.shape:
                raise FeedbackError(f"the saved state has no matrix '{key}' of shape {tuple(matrix.shape)}")

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy saved matrices, also those that have not been drawn here yet; they are checked first."""
        self.check_state_dict(state)
        for key, saved in state.items():
            if key in self.drawn:
                self.drawn[key].copy_(saved)  # in place: an optimiser may hold it
            else:
                self.drawn[key] = saved.clone()

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        """Compute the signal of each point: the error's rows times its matrix, in the activation's shape and type.

        Signals are computed as they are asked for; what several points share is projected and cast once.
        Where a point has k rows for each of the error's, the projected error is repeated k times and divided by √k.

        Raises:
            FeedbackError: a point's rows are no multiple of the error's, or perhaps in another order, or a width
                differs from the first time.
        """
        if not points:
            return iter(())
        self.order.check(error.shape, points)
        if self.batch_dims is None:
            check_samples(error.shape, points)
        batch_dims = self._batch_dims(error)
        error_rows = self.rows(error)
        shapes = [row_shape(point.activation, batch_dims) for point in points]
        counts = zip(points, shapes, strict=True)
        repeats = [count_repeats(rows, len(error_rows), point.name) for point, (rows, _) in counts]
        keys = self.prepare(error_name, error, points)
        return self._projections(keys, error_rows, points, repeats, [width for _, width in shapes])

    def _projections(
        self,
        keys: dict[str, str],
        error_rows: Tensor,
        points: Sequence[Point],
        repeats: Sequence[int],
        widths: Sequence[int],
    ) -> Iterator[Tensor]:
        error_rows = at_least_single(error_rows)
        exact = error_rows.dtype
        projected: dict[tuple[str, int, torch.dtype], Tensor] = {}
        for point, repeat, width in zip(points, repeats, widths, strict=True):
            if repeat == 0:  # a point without rows, as of an expert that a batch routes nothing to
                yield torch.zeros_like(point.activation)
                continue
            if self.sharing == "per_point":
                projected.clear()  # no other point needs what is in there
            key = keys[point.name]
            if (key, 1, exact) not in projected:
                projected[key, 1, exact] = self._project(key, error_rows)
            kind = key, repeat, point.activation.dtype
            if kind not in projected:
                rows = projected[key, 1, exact]
                projected[kind] = (repeat_rows(rows, repeat) if repeat > 1 else rows).to(point.activation.dtype)
            rows = projected[kind]
            yield (rows if rows.shape[1] == width else rows[:, :width]).reshape(point.activation.shape)

    def rows(self, error: Tensor) -> Tensor:
        """Reshape the error to (rows, width)."""
        return as_rows(error, self._batch_dims(error))

    def _batch_dims(self, error: Tensor) -> int:
        return self.batch_dims or max(1, error.ndim - 1)

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> dict[str, str]:
        """Draw the matrices that are not drawn yet, on the device of `error`, of which only the shape matters.

        Returns:
            The key of each point's matrix, by the point's name.

        Raises:
            FeedbackError: a width differs from the first time.
        """
        batch_dims = self._batch_dims(error)
        widths: dict[str, int] = {}
        for point in points:  # a module used twice may differ in width
            widths[point.name] = max(row_shape(point.activation, batch_dims)[1], widths.get(point.name, 0))
        check_inner_shapes(self._inner, points, batch_dims)
        keys = self._draw_missing(error_name, row_shape(error, batch_dims)[1], widths) if widths else {}
        for key in set(keys.values()):
            if key in self.drawn and self.drawn[key].device != error.device:
                self.drawn[key] = self.drawn[key].to(error.device)
        return keys

    def matrices(self, error_name: str, error: Tensor, points: Sequence[Point]) -> dict[str, Tensor]:
        """Return the matrix of each point by the point's name, drawn if need be; it may be changed in place.

        Raises:
            FeedbackError: a width differs from the first time.
        """
        return {name: self.drawn[key] for name, key in self.prepare(error_name, error, points).items()}

    def outer(self, error: Tensor, values: Tensor, name: str) -> Tensor:
        """Sum of the outer products of rows of `error` and rows of `values`, (error width, width).

        Where `values`, of the point `name`, has k rows for each of the error's, their sum divided by √k counts, the
        transpose of the way in which `signals` repeats an error.
        """
        batch_dims = self._batch_dims(error)
        error_rows, rows = at_least_single(self.rows(error)), as_rows(values, batch_dims)
        repeats = count_repeats(len(rows), len(error_rows), name)
        if repeats > 1:
            rows = rows.unflatten(0, (-1, repeats)).sum(1) / sqrt(repeats)
        with without_autocast(error):
            return error_rows.T @ rows.to(error_rows.dtype)

    def _draw_missing(self, error_name: str, height: int, widths: dict[str, int]) -> dict[str, str]:
        """Draw matrices that have not been drawn yet; return the key of each point's."""
        if self.sharing == "shared":
            key = matrix_key(error_name, "shared")
            self._draw_once(key, height, max(widths.values()), at_least=True)
            return dict.fromkeys(widths, key)
        keys = {name: matrix_key(error_name, name) for name in widths}
        for name, width in widths.items():
            self._draw_once(keys[name], height, width)
        return keys

    def _draw_once(self, key: str, height: int, width: int, at_least: bool = False) -> None:
        matrix = self.drawn.get(key)
        shape = self._shapes.get(key) if matrix is None else tuple(matrix.shape)
        if shape is None:
            shape = self._shapes[key] = height, width
            if self.keep:
                self.drawn[key] = self._draw(key, height, width)
        if shape[0] != height or (shape[1] < width if at_least else shape[1] != width):
            raise other_sizes(f"the feedback matrix has shape {shape}, error and points now need ({height}, {width})")

    @run_eagerly
    def _draw(self, key: str, height: int, width: int) -> Tensor:
        if self.draw == "counter":
            return self._block(key, 0, height, width)
        generator = Generator().manual_seed(seed_of(self.seed, key))
        return self._scaled(DISTRIBUTIONS[self.distribution](height, width, generator), key, 0)

    def _block(self, key: str, start: int, stop: int, width: int, device: torch.device | None = None) -> Tensor:
        entries = counter_block(self.distribution, seed_of(self.seed, key), start, stop, width, device)
        return self._scaled(entries, key, start)

    def _scaled(self, entries: Tensor, key: str, start: int) -> Tensor:
        """Rows of the matrix, from row `start`, in their final size."""
        rows, width = entries.shape
        entries = entries * self.scale
        if self.density < 1:
            mask = counter_block(
                "uniform", seed_of(self.seed, f"{key}:mask"), start, start + rows, width, entries.device
            )
            entries = entries * (mask < 2 * self.density - 1) / sqrt(self.density)
        return entries / sqrt(width) if self.normalise else entries

    def _project(self, key: str, error_rows: Tensor) -> Tensor:
        """Error rows (rows, height) times the matrix (height, width)."""
        matrix = self.drawn.get(key)
        device = error_rows.device
        reduced = torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False) if reduced else nullcontext():
            if matrix is not None and self.draw == "torch":
                return error_rows @ matrix.to(error_rows.dtype)
            height, width = self._shapes[key] if matrix is None else matrix.shape
            projected = error_rows.new_zeros(len(error_rows), width)
            step = max(1, BLOCK_ENTRIES // width)
            for start in range(0, height, step):  # in blocks when it is kept, too: the order of summation shows
                stop = min(start + step, height)
                block = self._block(key, start, stop, width, device) if matrix is None else matrix[start:stop]
                projected.addmm_(error_rows[:, start:stop], block.to(error_rows.dtype))
            return projected
