"""Feedback matrices: drawing, sharing, scaling, and projecting an error onto points."""

import zlib
from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from dfa.errors import FeedbackError
from dfa.points import Point

Sharing = Literal["shared", "per_point"]


def _uniform(rows: int, columns: int, generator: Generator) -> Tensor:
    return torch.rand(rows, columns, generator=generator) * 2 - 1


def _gaussian(rows: int, columns: int, generator: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator)


def _orthogonal(rows: int, columns: int, generator: Generator) -> Tensor:
    """Orthonormal rows (or columns, where there are fewer), times √columns so that scaling by 1/√columns undoes it."""
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.sign(torch.diagonal(r))  # makes the draw uniform over orthogonal frames
    return (q.T if rows < columns else q) * sqrt(columns)


DISTRIBUTIONS: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "uniform": _uniform,
    "gaussian": _gaussian,
    "orthogonal": _orthogonal,
}


class FeedbackMatrices(nn.Module):
    """Fixed random matrices B that carry an error e to the points: signal = e B.

    Default as in Launay et al. (2020): entries uniform in [-1, 1) divided by √(widest point's width), one matrix of
    shape (error width, widest point's width) for all points, of which a point d wide uses the first d columns.
    Matrices are drawn on the CPU from the seed when the first error arrives, whatever the device and the state of the
    global generator, and kept as buffers.

    Args:
        distribution: "uniform" in [-1, 1), "gaussian" (unit variance) or "orthogonal".
        sharing: "shared" (one matrix per error tensor, sliced) or "per_point" (one for each point).
        normalise: divide by √width, of the matrix that is drawn.
        scale: a further factor.
        batch_dims: how many leading dimensions of error and points are rows that share the matrix; all others are
            flattened into features. None: all dimensions of the error but the last, at least one.
        seed: of the draw.

    Raises:
        FeedbackError: an unknown distribution or sharing.
    """

    def __init__(
        self,
        distribution: str = "uniform",
        sharing: Sharing = "shared",
        normalise: bool = True,
        scale: float = 1.0,
        batch_dims: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if distribution not in DISTRIBUTIONS:
            raise FeedbackError(f"unknown distribution '{distribution}'; known: {', '.join(DISTRIBUTIONS)}")
        if sharing not in ("shared", "per_point"):
            raise FeedbackError(f"unknown sharing '{sharing}'; known: shared, per_point")
        if batch_dims is not None and batch_dims < 1:
            raise FeedbackError(f"batch_dims must be at least 1, got {batch_dims}")
        self.distribution = distribution
        self.sharing = sharing
        self.normalise = normalise
        self.scale = scale
        self.batch_dims = batch_dims
        self.seed = seed

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> list[Tensor]:
        """The signal of each point: the error's rows times its matrix, in the shape and type of its activation.

        Where a point has k rows for each of the error's, the projected error is repeated k times and divided by √k.

        Raises:
            FeedbackError: a point's rows are no multiple of the error's, or a width differs from the first time.
        """
        if not points:
            return []
        batch_dims = self.batch_dims or max(1, error.ndim - 1)
        error_rows = as_rows(error, batch_dims)
        point_rows = [_row_shape(point.activation, batch_dims) for point in points]
        widths: dict[str, int] = {}
        for point, (_, width) in zip(points, point_rows, strict=True):  # a module used twice may differ in width
            widths[point.name] = max(width, widths.get(point.name, 0))
        matrices = self._matrices(error_name, error_rows.shape[1], widths)
        dtype = torch.promote_types(error.dtype, torch.float32)
        projected: dict[str, Tensor] = {}
        signals = []
        with torch.no_grad(), torch.autocast(error.device.type, enabled=False):
            for point, (rows, width) in zip(points, point_rows, strict=True):
                key, matrix = matrices[point.name]
                if key not in projected:
                    projected[key] = error_rows.to(dtype) @ matrix.to(dtype)
                signal = _repeat_rows(projected[key][:, :width], rows, point.name)
                signals.append(signal.reshape(point.activation.shape).to(point.activation.dtype))
        return signals

    def _matrices(self, error_name: str, height: int, widths: dict[str, int]) -> dict[str, tuple[str, Tensor]]:
        """Buffer key and matrix of each point, drawn now if this is the first time."""
        if self.sharing == "shared":
            key = f"{_buffer_key(error_name)}:shared"
            matrix = self._matrix(key, height, max(widths.values()), at_least=True)
            return dict.fromkeys(widths, (key, matrix))
        keys = {name: f"{_buffer_key(error_name)}:{_buffer_key(name)}" for name in widths}
        return {name: (key, self._matrix(key, height, widths[name])) for name, key in keys.items()}

    def _matrix(self, key: str, height: int, width: int, at_least: bool = False) -> Tensor:
        matrix = self._buffers.get(key)
        if matrix is None:
            self.register_buffer(key, self._draw(key, height, width))
            matrix = self._buffers[key]
        assert matrix is not None
        fits = matrix.shape[1] >= width if at_least else matrix.shape[1] == width
        if matrix.shape[0] != height or not fits:
            raise FeedbackError(
                f"the feedback matrix has shape {tuple(matrix.shape)}, error and points now need ({height}, {width})"
            )
        return matrix

    def _draw(self, key: str, height: int, width: int) -> Tensor:
        generator = Generator().manual_seed(_mix(self.seed, key))
        matrix = DISTRIBUTIONS[self.distribution](height, width, generator) * self.scale
        return matrix / sqrt(width) if self.normalise else matrix

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):  # type: ignore[no-untyped-def]
        # Matrices are drawn lazily: a checkpoint may hold some that this object has not drawn yet.
        for name, value in state_dict.items():
            key = name.removeprefix(prefix)
            if name.startswith(prefix) and self._buffers.get(key) is None:
                self.register_buffer(key, value.clone())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def as_rows(tensor: Tensor, batch_dims: int) -> Tensor:
    """The tensor as (rows, width), its first `batch_dims` dimensions being rows."""
    rows, width = _row_shape(tensor, batch_dims)
    return tensor.reshape(rows, width)


def _row_shape(tensor: Tensor, batch_dims: int) -> tuple[int, int]:
    """Rows and row width; a tensor with too few dimensions keeps at least its last one as features."""
    leading = min(batch_dims, max(1, tensor.ndim - 1))
    return prod(tensor.shape[:leading]), prod(tensor.shape[leading:])


def _repeat_rows(projected: Tensor, rows: int, name: str) -> Tensor:
    have = projected.shape[0]
    if rows == have:
        return projected
    if have == 0 or rows % have:
        raise FeedbackError(f"point '{name}' has {rows} rows, which is no multiple of the error's {have}")
    repeats = rows // have
    return projected.repeat_interleave(repeats, dim=0) / sqrt(repeats)


def _buffer_key(name: str) -> str:
    return name.replace(".", "/") or "(output)"


def _mix(seed: int, key: str) -> int:
    """A seed of its own for each matrix, the same in every process."""
    return zlib.crc32(f"{seed}/{key}".encode()) + (seed << 32) & 0x7FFF_FFFF_FFFF_FFFF
