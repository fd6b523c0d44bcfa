"""Depths along rays at which the fields are evaluated."""

import torch
from torch import Tensor


def stratified_depths(near: float, far: float, samples: int, rays: int, jitter: Tensor | None, like: Tensor) -> Tensor:
    """Return ascending depths from near to far, (rays, samples) (Mildenhall et al. 2020, equation 2).

    Args:
        near, far: the first and the last depth.
        samples: depths per ray.
        rays: number of rays.
        jitter: (rays, samples) in [0, 1), the position of each depth in its stratum, which extends half-way to its
            neighbours; None for evenly spaced depths.
        like: tensor whose device and dtype are used.
    """
    even = torch.linspace(near, far, samples, device=like.device, dtype=like.dtype)
    if jitter is None:
        return even.expand(rays, samples)
    middles = 0.5 * (even[1:] + even[:-1])
    lower = torch.cat((even[:1], middles))
    upper = torch.cat((middles, even[-1:]))
    return torch.addcmul(lower, upper - lower, jitter)


WEIGHT_EPSILON = 1e-5
"""Added to every weight, so that an empty ray is sampled uniformly."""


def importance_depths(depths: Tensor, weights: Tensor, samples: int, uniform: Tensor | None) -> Tensor:
    """Draw depths from the piecewise constant density given by a coarse render's weights, without gradient.

    Bin edges are the midpoints of neighbouring depths; the weight of each inner depth is the mass of the bin around it
    (Mildenhall et al. 2020, section 5.2).

    Args:
        depths: depths of the coarse samples, (rays, coarse samples), ascending.
        weights: their weights in the render, the same shape, ≥ 0.
        samples: depths to draw per ray.
        uniform: (rays, samples) in [0, 1), mapped by the inverse cumulative distribution; None for evenly spaced values
            from 0 to 1.

    Returns:
        (rays, samples), in the order of `uniform`.
    """
    edges = 0.5 * (depths[:, 1:] + depths[:, :-1])
    return sample_bins(edges, weights[:, 1:-1].detach() + WEIGHT_EPSILON, samples, uniform)


def sample_bins(edges: Tensor, weights: Tensor, samples: int, uniform: Tensor | None) -> Tensor:
    """Sample from a histogram by the inverse of its cumulative distribution, row by row.

    Args:
        edges: edges of the bins, (rows, bins + 1).
        weights: mass of each bin, (rows, bins), not all 0.
        samples, uniform: see `importance_depths`.

    Returns:
        (rows, samples).
    """
    cumulative = torch.cumsum(weights / weights.sum(dim=-1, keepdim=True), dim=-1)
    cumulative = torch.cat((torch.zeros_like(cumulative[:, :1]), cumulative), dim=-1)
    if uniform is None:
        even = torch.linspace(0, 1, samples, device=edges.device, dtype=edges.dtype)
        uniform = even.expand(len(edges), samples)
    uniform = uniform.contiguous()
    above = torch.searchsorted(cumulative, uniform, right=True).clamp(1, edges.shape[1] - 1)
    below = above - 1
    start, end = cumulative.gather(-1, below), cumulative.gather(-1, above)
    mass = end - start
    within = (uniform - start) / torch.where(mass < WEIGHT_EPSILON, 1.0, mass)
    low, high = edges.gather(-1, below), edges.gather(-1, above)
    return low + within.clamp(0, 1) * (high - low)
