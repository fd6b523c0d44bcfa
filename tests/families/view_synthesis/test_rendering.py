"""Volume rendering against closed forms and loops in NumPy; independence of the chunk size."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.families.view_synthesis.models import RadianceFields, TinyField, nerf
from benchmarks.families.view_synthesis.render.rays import Rays
from benchmarks.families.view_synthesis.render.volume import Draws, RenderSettings, query, render_rays, volume_render
from dfa import RULES

DOUBLE = torch.float64


def straight_rays(count: int, speed: float = 1.0) -> Rays:
    directions = torch.tensor([[0.0, 0.0, -speed]], dtype=DOUBLE).expand(count, 3)
    return Rays(torch.zeros(count, 3, dtype=DOUBLE), directions, directions / speed)


def test_a_slab_of_constant_density_lets_exp_minus_density_times_thickness_through() -> None:
    """σ between depths 1 and 3, in samples that are constant in between: Beer and Lambert's law, for any number."""
    for samples in (4, 40):
        depths = torch.linspace(0, 4, samples + 1, dtype=DOUBLE)[None]
        raw = torch.full((1, samples + 1, 4), -50.0, dtype=DOUBLE)
        raw[..., :3] = torch.logit(torch.tensor([0.2, 0.5, 0.9], dtype=DOUBLE))
        raw[0, (depths[0] >= 1 - 1e-9) & (depths[0] < 3 - 1e-9), 3] = 0.8
        for speed in (1.0, 2.5):
            through = math.exp(-0.8 * 2 * speed)
            for white in (False, True):
                render = volume_render(raw, depths, straight_rays(1, speed).directions, white)
                expected = (1 - through) * np.array([0.2, 0.5, 0.9]) + through * white
                assert render.colors[0].numpy() == pytest.approx(expected, abs=1e-12)
                assert render.weights.sum().item() == pytest.approx(1 - through)


def test_density_at_the_last_sample_is_an_opaque_wall() -> None:
    raw = torch.tensor([[[0.0, 0, 0, -1], [2.0, 0, -2, 0.3]]], dtype=DOUBLE)
    depths = torch.tensor([[1.0, 2.0]], dtype=DOUBLE)
    render = volume_render(raw, depths, straight_rays(1).directions, white_background=True)
    assert torch.allclose(render.colors[0], torch.sigmoid(raw[0, 1, :3])) and render.depth.item() == pytest.approx(2)


class Ball(nn.Module):
    """A ball of constant density and colour around (0, 0, -4), as a field."""

    def __init__(self, radius: float, density: float) -> None:
        super().__init__()
        self.radius, self.density = radius, density

    def forward(self, level: str, positions: Tensor, directions: Tensor) -> Tensor:
        inside = (positions - positions.new_tensor([0.0, 0, -4])).norm(dim=-1) < self.radius
        density = torch.where(inside, self.density, -1.0)
        return torch.stack((*[torch.zeros_like(density)] * 3, density), dim=-1)


def test_a_ball_is_seen_through_the_length_of_its_chords() -> None:
    """A ray at distance h from the centre crosses 2√(r² − h²); many samples come close."""
    heights = torch.tensor([0.0, 0.3, 0.6, 0.9, 0.99, 1.2], dtype=DOUBLE)
    rays = straight_rays(len(heights))
    origins = rays.origins.clone()
    origins[:, 1] = heights
    rays = Rays(origins, rays.directions, rays.view)
    exact = 1 - torch.exp(-0.7 * 2 * torch.sqrt((1 - heights**2).clamp(min=0)))
    errors = {}
    for fine in (0, 4000):
        renders = render_rays(Ball(1.0, 0.7), rays, RenderSettings(2.0, 6.0, False, 200, fine))
        render = renders["fine" if fine else "coarse"]
        errors[fine] = (render.weights.sum(dim=1) - exact).abs().max().item()
        assert torch.allclose(render.colors, 0.5 * render.weights.sum(dim=1, keepdim=True).expand(-1, 3))
    assert errors[0] < 0.7 * 4 / 199 * 1.01, "an end of the chord is off by at most one gap"
    assert errors[4000] < 0.7 * 4 / 199 * 0.51, "fine samples fill the half gap around every coarse one that saw it"


def numpy_render(
    raw: np.ndarray, depths: np.ndarray, direction: np.ndarray, white: bool, softplus: bool = False
) -> np.ndarray:
    """One ray, sample by sample, with alphas and their running product."""
    passed, color = 1.0, np.zeros(3)
    for index in range(len(depths)):
        last = index + 1 == len(depths)
        gap = depths[index - last + 1] - depths[index - last] if softplus or not last else 1e10
        density = math.log1p(math.exp(raw[index, 3] - 1)) if softplus else max(raw[index, 3], 0.0)
        alpha = 1 - math.exp(-density * gap * np.linalg.norm(direction))
        color += passed * alpha / (1 + np.exp(-raw[index, :3]))
        passed *= 1 - alpha
    return color + passed * white


@pytest.mark.parametrize("white", [False, True])
def test_random_rays_agree_with_a_loop_in_numpy(white: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    raw = 2 * torch.randn(7, 12, 4, generator=generator, dtype=DOUBLE)
    depths = torch.rand(7, 12, generator=generator, dtype=DOUBLE).sort(dim=1).values
    directions = torch.randn(7, 3, generator=generator, dtype=DOUBLE)
    noise = torch.randn(7, 12, generator=generator, dtype=DOUBLE)
    noisy = raw.clone()
    noisy[..., 3] += noise
    for given, added in ((raw, None), (noisy, noise)):
        colors = volume_render(raw, depths, directions, white, added).colors.numpy()
        for ray in range(7):
            expected = numpy_render(given[ray].numpy(), depths[ray].numpy(), directions[ray].numpy(), white)
            assert colors[ray] == pytest.approx(expected, rel=1e-10)


def test_a_softplus_density_is_nowhere_zero_and_leaves_the_background_visible() -> None:
    generator = torch.Generator().manual_seed(1)
    raw = (2 * torch.randn(3, 9, 4, generator=generator, dtype=DOUBLE) - 4).requires_grad_()
    depths = torch.rand(3, 9, generator=generator, dtype=DOUBLE).sort(dim=1).values
    directions = torch.randn(3, 3, generator=generator, dtype=DOUBLE)
    render = volume_render(raw, depths, directions, True, density="softplus")
    for ray in range(3):
        expected = numpy_render(raw[ray].detach().numpy(), depths[ray].numpy(), directions[ray].numpy(), True, True)
        assert render.colors[ray].detach().numpy() == pytest.approx(expected, rel=1e-10)
    assert (render.weights.sum(dim=1) < 0.5).all()
    (gradient,) = torch.autograd.grad(render.colors.sum(), raw)
    assert (gradient[..., 3] != 0).all()


def test_gradients_of_the_render_are_those_of_finite_differences() -> None:
    raw = torch.randn(2, 5, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(4)).requires_grad_()
    depths = torch.linspace(0, 1, 5, dtype=DOUBLE).expand(2, -1)
    directions = straight_rays(2).directions
    assert torch.autograd.gradcheck(lambda r: volume_render(r, depths, directions, True).colors, (raw,))


def a_batch(rays: int, settings: RenderSettings) -> tuple[Rays, Draws, Tensor]:
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(rays, 3, generator=generator)
    made = Rays(torch.randn(rays, 3, generator=generator), directions, nn.functional.normalize(directions, dim=1))
    return made, Draws.draw(rays, settings, 0.5, generator), torch.rand(rays, 3, generator=generator)


def gradients(rule_name: str, chunk: int, parts: int, model: nn.Module) -> dict[str, Tensor]:
    """Of one step in double precision, computed in chunks, and in parts with a backward each."""
    settings = RenderSettings(0.0, 2.0, True, 8, 8, chunk)
    rays, draws, colors = a_batch(12, settings)
    rays = Rays(rays.origins.double(), rays.directions.double(), rays.view.double())
    options = {"seed": 3} if rule_name == "dfa" else {}
    points = ["*.trunk.*", "*.feature", "*.view"]
    rule = RULES.build(rule_name, model, points=points, error_at=["coarse", "fine"], **options)
    model.zero_grad()
    size = 12 // parts
    for part in (slice(start, start + size) for start in range(0, 12, size)):
        renders = render_rays(model, rays[part], settings, draws[part])
        loss = torch.stack([(render.colors - colors[part]).square().mean() for render in renders.values()]).sum()
        rule.backward(loss / parts)
    rule.close()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rule", ["bp", "dfa", "shallow"])
def test_chunks_and_parts_change_nothing(rule: str) -> None:
    torch.manual_seed(0)
    model = nerf(depth=3, width=8, skip=2).double()
    whole = gradients(rule, 10**6, 1, model)
    assert whole and any(value.abs().sum() > 0 for value in whole.values())
    for chunk, parts in ((1, 1), (40, 1), (64, 3), (10**6, 4)):
        again = gradients(rule, chunk, parts, model)
        assert again.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.allclose(again[name], value, rtol=1e-9, atol=1e-15), (name, chunk, parts)


def test_every_chunk_goes_through_the_field_and_none_is_larger() -> None:
    sizes: list[int] = []

    class Positions(nn.Module):
        def forward(self, level: str, positions: Tensor, directions: Tensor) -> Tensor:
            sizes.append(positions.shape[0] * positions.shape[1])
            return torch.cat((positions, positions[..., :1]), dim=-1)

    rays, *_ = a_batch(12, RenderSettings(0, 1, True, 8))
    depths = torch.rand(12, 8)
    out = query(Positions(), "coarse", rays, depths, 40)
    assert sizes == [40, 40, 16]
    assert torch.allclose(out[..., :3], rays.origins[:, None] + depths[..., None] * rays.directions[:, None])


def gradient(output: Tensor) -> Tensor:
    assert output.grad is not None
    return output.grad


def test_coarse_and_fine_have_errors_and_matrices_of_their_own() -> None:
    """The DFA gradient of a layer is its own error times its own matrix, through its ReLU, times its input."""
    torch.manual_seed(1)
    model = RadianceFields(TinyField((6, 5)), TinyField((6, 5))).double()
    settings = RenderSettings(0.0, 2.0, False, 4, 3, 14)
    rays, draws, colors = a_batch(6, settings)
    rays = Rays(rays.origins.double(), rays.directions.double(), rays.view.double())
    rule = RULES.build("dfa", model, points=["*.trunk.*"], error_at=["coarse", "fine"], seed=7)
    seen: dict[str, list[Tensor]] = {"coarse": [], "fine": []}
    hooks = [
        getattr(model, level).register_forward_hook(
            lambda module, inputs, output, level=level: seen[level].append(output)
        )
        for level in seen
    ]
    inputs: dict[str, list[Tensor]] = {"coarse": [], "fine": []}
    hooks += [
        getattr(model, level).encode_position.register_forward_hook(
            lambda module, arguments, output, level=level: inputs[level].append(output)
        )
        for level in inputs
    ]
    renders = render_rays(model, rays, settings, draws)
    for output in (output for outputs in seen.values() for output in outputs):
        output.retain_grad()
    loss = torch.stack([(render.colors - colors).square().mean() for render in renders.values()]).sum()
    rule.backward(loss)
    matrices = {key.split(":")[0]: value for key, value in rule.state_dict().items()}
    assert matrices["coarse"].shape == (4, 6) and not torch.equal(matrices["coarse"], matrices["fine"])
    for level in seen:
        assert len(seen[level]) > 1, "several chunks"
        error = torch.cat([gradient(output).flatten(0, 1) for output in seen[level]])
        encoded = torch.cat(inputs[level])
        first = getattr(model, level).trunk[0].linear
        positive = (encoded @ first.weight.T + first.bias > 0).double()
        signal = (error @ matrices[level].double()) * positive
        assert torch.allclose(first.weight.grad, signal.T @ encoded, rtol=1e-9, atol=1e-14)
    for hook in hooks:
        hook.remove()
    rule.close()


def test_dual_rendering_averages_raw_outputs_at_the_fine_depths() -> None:
    torch.manual_seed(2)
    model = nerf(depth=2, width=8, skip=0)
    settings = RenderSettings(0.0, 2.0, True, 8, 8)
    rays, *_ = a_batch(5, settings)
    with torch.no_grad():
        renders = render_rays(model, rays, settings, dual=True)
        depths = renders["fine"].depths
        raw = [query(model, level, rays, depths, 10**6) for level in ("coarse", "fine")]
        expected = volume_render((raw[0] + raw[1]) / 2, depths, rays.directions, True)
    assert depths.shape == (5, 16) and (depths.diff(dim=1) >= 0).all()
    assert torch.allclose(renders["dual"].colors, expected.colors, atol=1e-6)
    assert "dual" not in render_rays(model, rays, settings)
