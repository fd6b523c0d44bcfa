"""Distributions that feedback matrices and weights are drawn from, on the CPU, each from a seed of its own.

Numbers are drawn in float32, whatever torch's default: a seed gives others in another precision.
"""

import zlib
from collections.abc import Callable, Mapping
from math import sqrt

import torch
from torch import Generator, Tensor


def _uniform(rows: int, columns: int, generator: Generator) -> Tensor:
    return torch.rand(rows, columns, generator=generator, device=generator.device, dtype=torch.float32) * 2 - 1


def _gaussian(rows: int, columns: int, generator: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device, dtype=torch.float32)


def _orthogonal(rows: int, columns: int, generator: Generator) -> Tensor:
    """Orthonormal rows (or columns, where there are fewer), times √columns so that scaling by 1/√columns undoes it."""
    q, r = torch.linalg.qr(_gaussian(max(rows, columns), min(rows, columns), generator))
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


def gaussian_like(weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Draw for each weight a Gaussian tensor of its standard deviation, in its memory layout.

    A weight without spread, as one that begins at zero, counts as having 1/√inputs.
    """
    drawn = {}
    for name, weight in weights.items():
        spread = weight.detach().std().item() if weight.numel() > 1 else 0.0
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        kind = torch.complex64 if weight.is_complex() else torch.float32
        values = torch.randn(weight.shape, generator=generator, dtype=kind, device="cpu")
        values *= spread or weight[0].numel() ** -0.5
        drawn[name] = torch.empty_like(weight, requires_grad=False).copy_(values)
    return drawn
