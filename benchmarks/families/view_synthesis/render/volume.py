"""Volume rendering of radiance fields along rays (Mildenhall et al. 2020)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.view_synthesis.render.rays import Rays
from benchmarks.families.view_synthesis.render.sampling import importance_depths, stratified_depths

LAST_INTERVAL = 1e10
"""Length of the last sample's interval, which stands for infinity: any density there is fully opaque.

A softplus density is nowhere zero and would hide the background, so that its last interval repeats the one before."""


def _shifted_softplus(raw: Tensor) -> Tensor:
    return F.softplus(raw - 1)


DENSITIES: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "softplus": _shifted_softplus}
"""Density σ of a raw output x: relu(x) (Mildenhall et al. 2020), or softplus(x − 1) = log(1 + exp(x − 1)) (Barron et
al., *Mip-NeRF*, 2021). The gradient of the latter is never zero, so that a scene that has become empty can recover."""


@dataclass(frozen=True)
class RenderSettings:
    """Settings of the renderer.

    Attributes:
        near, far: range of depths at which the fields are evaluated.
        white_background: whether the background is white; black otherwise.
        coarse_samples: depths per ray for the coarse field.
        fine_samples: additional depths per ray by importance sampling; 0 for no fine field.
        chunk: greatest number of points in one call of a field (whole rays, at least one); does not affect results.
        density: key of `DENSITIES`.
    """

    near: float
    far: float
    white_background: bool
    coarse_samples: int
    fine_samples: int = 0
    chunk: int = 65_536
    density: str = "relu"


@dataclass(frozen=True)
class Draws:
    """Random numbers for a batch of rays; None stands for the deterministic value.

    Attributes:
        stratified: see `stratified_depths`, (rays, coarse samples) in [0, 1).
        importance: see `importance_depths`, (rays, fine samples) in [0, 1).
        coarse_noise, fine_noise: noise added to the raw density, (rays, samples).
    """

    stratified: Tensor | None = None
    importance: Tensor | None = None
    coarse_noise: Tensor | None = None
    fine_noise: Tensor | None = None

    @classmethod
    def draw(cls, rays: int, settings: RenderSettings, noise: float, generator: torch.Generator) -> "Draws":
        """Draw the numbers for a training batch; `noise` is the standard deviation of the density noise."""
        coarse, fine = settings.coarse_samples, settings.fine_samples
        device = generator.device

        def normal(samples: int) -> Tensor | None:
            wanted = noise > 0 and samples > 0
            return noise * torch.randn(rays, samples, generator=generator, device=device) if wanted else None

        stratified = torch.rand(rays, coarse, generator=generator, device=device)
        importance = torch.rand(rays, fine, generator=generator, device=device) if fine else None
        return cls(stratified, importance, normal(coarse), normal(coarse + fine) if fine else None)

    def __getitem__(self, which: slice) -> "Draws":
        parts = (self.stratified, self.importance, self.coarse_noise, self.fine_noise)
        return Draws(*(None if part is None else part[which] for part in parts))


NO_RANDOMNESS = Draws()
"""Evenly spaced depths and no noise, for evaluation."""


@dataclass(frozen=True)
class Render:
    """Rendered rays.

    Attributes:
        colors: (rays, 3) in [0, 1].
        weights: weight of each sample in the colour, (rays, samples).
        depths: depths of the samples, (rays, samples).
    """

    colors: Tensor
    weights: Tensor
    depths: Tensor

    @property
    def depth(self) -> Tensor:
        """Expected depth of each ray, (rays,); 0 for an empty ray."""
        return (self.weights * self.depths).sum(dim=-1)


def volume_render(
    raw: Tensor,
    depths: Tensor,
    directions: Tensor,
    white_background: bool,
    noise: Tensor | None = None,
    density: str = "relu",
) -> Render:
    """Integrate colour and density along rays, with both constant from each sample to the next.

    C = Σ T_i (1 − exp(−σ_i δ_i)) c_i with T_i = exp(−Σ_{j<i} σ_j δ_j), σ = relu(raw density + noise) or another of
    `DENSITIES`, c = sigmoid(raw colour) (Mildenhall et al. 2020, equation 3); see `LAST_INTERVAL` for the last δ.

    Args:
        raw: (rays, samples, 4): red, green, blue, density.
        depths: t of the samples, (rays, samples), ascending.
        directions: (rays, 3); their norm converts differences of t to distances.
        white_background: whether the background is white; black otherwise.
        noise: added to the raw density, (rays, samples), or None.
        density: key of `DENSITIES`.
    """
    color, raw_density = raw.split((3, 1), dim=-1)
    raw_density = raw_density.squeeze(-1) if noise is None else raw_density.squeeze(-1) + noise
    lengths = directions.norm(dim=-1, keepdim=True)
    gaps = torch.diff(depths, dim=-1) * lengths
    if density == "softplus":
        last = gaps[:, -1:] if gaps.shape[1] else lengths
    else:
        last = torch.full_like(gaps[:, :1], LAST_INTERVAL) if gaps.shape[1] else LAST_INTERVAL * lengths
    optical = DENSITIES[density](raw_density) * torch.cat((gaps, last), dim=-1)
    before = torch.nn.functional.pad(torch.cumsum(optical[:, :-1], dim=-1), (1, 0))
    weights = torch.exp(-before) * -torch.expm1(-optical)
    colors = torch.einsum("rs,rsc->rc", weights, torch.sigmoid(color))
    if white_background:
        colors = colors + (1 - weights.sum(dim=-1, keepdim=True))
    return Render(colors, weights, depths)


def query(model: nn.Module, level: str, rays: Rays, depths: Tensor, chunk: int) -> Tensor:
    """Evaluate a field at depths along rays; return its raw outputs, (rays, samples, 4).

    Args:
        model: called as `model(level, positions (rays, samples, 3), view directions (rays, 3))`.
        level: "coarse" or "fine".
        rays: the rays.
        depths: t of the points, (rays, samples).
        chunk: greatest number of points in one call, see `RenderSettings`.
    """
    outputs = []
    for part in _parts(len(rays), chunk // max(1, depths.shape[1])):
        some = rays[part]
        positions = torch.addcmul(some.origins[:, None], some.directions[:, None], depths[part, :, None])
        outputs.append(model(level, positions, some.view))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def render_rays(
    model: nn.Module, rays: Rays, settings: RenderSettings, draws: Draws = NO_RANDOMNESS, dual: bool = False
) -> dict[str, Render]:
    """Render rays with the coarse field and, if there are fine samples, with the fine one.

    Args:
        model: see `query`.
        rays: the rays.
        settings: settings of the renderer.
        draws: random numbers for depths and noise.
        dual: whether to render the mean of both fields' raw outputs at the fine depths too (evaluation only).

    Returns:
        Level ("coarse", "fine", "dual", as far as requested) → render; the fine depths include the coarse ones.
    """
    near, far = settings.near, settings.far
    integrate = partial(volume_render, white_background=settings.white_background, density=settings.density)
    depths = stratified_depths(near, far, settings.coarse_samples, len(rays), draws.stratified, rays.origins)
    raw = query(model, "coarse", rays, depths, settings.chunk)
    renders = {"coarse": integrate(raw.to(depths.dtype), depths, rays.directions, noise=draws.coarse_noise)}
    if settings.fine_samples:
        new = importance_depths(depths, renders["coarse"].weights, settings.fine_samples, draws.importance)
        depths = torch.sort(torch.cat((depths, new), dim=-1), dim=-1).values
        raw = query(model, "fine", rays, depths, settings.chunk)
        renders["fine"] = integrate(raw.to(depths.dtype), depths, rays.directions, noise=draws.fine_noise)
        if dual:
            mean = 0.5 * (raw + query(model, "coarse", rays, depths, settings.chunk))
            renders["dual"] = integrate(mean.to(depths.dtype), depths, rays.directions)
    return renders


def _parts(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, count, size))
