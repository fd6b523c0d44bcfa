"""Distributions that feedback matrices are drawn from, on the CPU, each matrix from a seed of its own."""

import zlib
from collections.abc import Callable
from math import sqrt

import torch
from torch import Generator, Tensor


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


def seed_of(seed: int, key: str) -> int:
    """Derive the seed of the matrix `key` from that of the rule, the same in every process."""
    return zlib.crc32(f"{seed}/{key}".encode()) + (seed << 32) & 0x7FFF_FFFF_FFFF_FFFF
