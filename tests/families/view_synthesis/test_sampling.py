"""Depths along rays: strata, and importance sampling against the densities it is to follow."""

import numpy as np
import pytest
import torch

from benchmarks.families.view_synthesis.render.sampling import importance_depths, sample_bins, stratified_depths

LIKE = torch.zeros(1, dtype=torch.float64)


def test_even_depths_include_both_ends() -> None:
    depths = stratified_depths(2.0, 6.0, 5, 3, None, LIKE)
    assert depths.shape == (3, 5) and depths[1].tolist() == [2, 3, 4, 5, 6]


def test_jittered_depths_stay_in_their_strata_and_fill_them() -> None:
    jitter = torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    depths = stratified_depths(2.0, 6.0, 5, len(jitter), jitter, LIKE).numpy()
    lower, upper = np.array([2, 2.5, 3.5, 4.5, 5.5]), np.array([2.5, 3.5, 4.5, 5.5, 6])
    assert (depths >= lower).all() and (depths <= upper).all()
    assert depths.mean(axis=0) == pytest.approx((lower + upper) / 2, abs=0.01)  # uniform: mean and spread
    assert depths.std(axis=0) == pytest.approx((upper - lower) / np.sqrt(12), abs=0.01)


def test_a_box_density_gives_uniform_samples_in_the_box() -> None:
    """All mass in the bin from 3 to 4."""
    edges = torch.arange(1.0, 7.0, dtype=torch.float64).expand(2, -1)
    weights = torch.zeros(2, 5, dtype=torch.float64)
    weights[:, 2] = 7.0
    uniform = torch.rand(2, 50_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    samples = sample_bins(edges, weights, 50_000, uniform)
    assert samples.min() >= 3 and samples.max() <= 4
    assert torch.allclose(samples, 3 + uniform), "the inverse of a box's distribution is a straight line"


def test_frequencies_follow_the_histogram() -> None:
    edges = torch.tensor([[0.0, 1.0, 1.5, 4.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64)
    uniform = torch.rand(1, 200_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    counts, _ = np.histogram(sample_bins(edges, weights, 200_000, uniform)[0].numpy(), edges[0].numpy())
    assert counts / 200_000 == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.005)


def test_without_random_numbers_the_quantiles_are_evenly_spaced() -> None:
    """Against NumPy's inverse of the piecewise linear distribution."""
    edges = torch.tensor([[0.0, 1.0, 1.5, 4.0], [2.0, 3.0, 5.0, 6.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0, 5.0], [0.5, 0.25, 0.25]], dtype=torch.float64)
    samples = sample_bins(edges, weights, 9, None)
    for row in range(2):
        cumulative = np.concatenate(([0], np.cumsum(weights[row]) / weights[row].sum()))
        expected = np.interp(np.linspace(0, 1, 9), cumulative, edges[row])
        assert samples[row].numpy() == pytest.approx(expected)


def test_fine_depths_gather_where_the_coarse_render_saw_something() -> None:
    depths = torch.linspace(2, 6, 65, dtype=torch.float64).expand(1, -1)
    weights = torch.zeros_like(depths)
    weights[0, 32] = 1.0  # at depth 4, of which the bin reaches half a gap to both sides
    uniform = torch.rand(1, 10_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    samples = importance_depths(depths, weights, 10_000, uniform)
    inside = ((samples - 4).abs() <= 1 / 32).double().mean()
    assert inside > 0.999, "all but the floor of 1e-5 a bin"


def test_an_empty_ray_is_sampled_evenly() -> None:
    depths = torch.linspace(2, 6, 17, dtype=torch.float64).expand(1, -1)
    samples = importance_depths(depths, torch.zeros_like(depths), 5, None)
    assert samples[0].tolist() == pytest.approx(np.linspace(2.125, 5.875, 5).tolist())


def test_no_gradient_reaches_the_coarse_weights() -> None:
    weights = torch.rand(2, 8, requires_grad=True)
    depths = torch.linspace(0, 1, 8).expand(2, -1)
    assert not importance_depths(depths, weights, 4, None).requires_grad
