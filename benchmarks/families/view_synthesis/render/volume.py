"""Volume rendering: from a field's raw outputs along rays to pictures."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.families.view_synthesis.render.rays import Rays
from benchmarks.families.view_synthesis.render.sampling import importance_depths, stratified_depths

INFINITELY_LONG = 1e10
"""Length of the last stretch of a ray: what it meets there is opaque, if it is there at all."""


@dataclass(frozen=True)
class RenderSettings:
    """How rays are rendered.

    Attributes:
        near, far: depths between which the field is asked.
        white_background: what an empty ray shows: white, else black.
        coarse_samples: depths per ray for the coarse field.
        fine_samples: further depths per ray, drawn where the coarse render saw something; 0: no fine field.
        chunk: at most so many points go through a field at a time (whole rays, at least one); changes no result.
    """

    near: float
    far: float
    white_background: bool
    coarse_samples: int
    fine_samples: int = 0
    chunk: int = 65_536


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of rays; those that are None are not wanted.

    Attributes:
        stratified: (rays, coarse samples) in [0, 1).
        importance: (rays, fine samples) in [0, 1).
        coarse_noise, fine_noise: added to the raw density, (rays, samples).
    """

    stratified: Tensor | None = None
    importance: Tensor | None = None
    coarse_noise: Tensor | None = None
    fine_noise: Tensor | None = None

    @classmethod
    def draw(cls, rays: int, settings: RenderSettings, noise: float, generator: torch.Generator) -> "Draws":
        """Numbers for a training batch; `noise` is the standard deviation of the density noise."""
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


EVENLY = Draws()
"""No randomness: evenly spaced depths and no noise, for evaluation."""


@dataclass(frozen=True)
class Render:
    """What rays show.

    Attributes:
        colors: (rays, 3) in [0, 1].
        weights: share of each sample in the colour, (rays, samples).
        depths: of the samples, (rays, samples).
    """

    colors: Tensor
    weights: Tensor
    depths: Tensor

    @property
    def opacity(self) -> Tensor:
        """How much of the background is hidden, (rays,)."""
        return self.weights.sum(dim=-1)

    @property
    def depth(self) -> Tensor:
        """Mean depth of what is seen, (rays,); 0 for an empty ray."""
        return (self.weights * self.depths).sum(dim=-1)


def volume_render(
    raw: Tensor, depths: Tensor, directions: Tensor, white_background: bool, noise: Tensor | None = None
) -> Render:
    """Colour of rays through a medium that is constant between one sample and the next.

    C = Σ T_i (1 − exp(−σ_i δ_i)) c_i with T_i = exp(−Σ_{j<i} σ_j δ_j), σ = relu(raw density + noise), c = sigmoid(raw
    colour) (Mildenhall et al. 2020, equation 3); the last stretch is infinitely long.

    Args:
        raw: (rays, samples, 4): red, green, blue, density.
        depths: t of the samples, (rays, samples), ascending.
        directions: (rays, 3); their length turns differences of t into distances.
        white_background: what shows behind the medium: white, else black.
        noise: (rays, samples), or None.
    """
    color, density = raw.split((3, 1), dim=-1)
    density = density.squeeze(-1) if noise is None else density.squeeze(-1) + noise
    lengths = directions.norm(dim=-1, keepdim=True)
    gaps = torch.diff(depths, dim=-1) * lengths
    last = torch.full_like(gaps[:, :1], INFINITELY_LONG) if gaps.shape[1] else INFINITELY_LONG * lengths
    optical = torch.relu(density) * torch.cat((gaps, last), dim=-1)
    before = torch.nn.functional.pad(torch.cumsum(optical[:, :-1], dim=-1), (1, 0))
    weights = torch.exp(-before) * -torch.expm1(-optical)
    colors = torch.einsum("rs,rsc->rc", weights, torch.sigmoid(color))
    if white_background:
        colors = colors + (1 - weights.sum(dim=-1, keepdim=True))
    return Render(colors, weights, depths)


def query(model: nn.Module, level: str, rays: Rays, depths: Tensor, chunk: int) -> Tensor:
    """Raw outputs of a field at depths along rays, (rays, samples, 4), at most `chunk` points at a time.

    Args:
        model: called as `model(level, positions (rays, samples, 3), view directions (rays, 3))`.
        level: "coarse" or "fine".
        rays: of the points.
        depths: (rays, samples).
        chunk: see `RenderSettings`.
    """
    outputs = []
    for part in _parts(len(rays), chunk // max(1, depths.shape[1])):
        some = rays[part]
        positions = torch.addcmul(some.origins[:, None], some.directions[:, None], depths[part, :, None])
        outputs.append(model(level, positions, some.view))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def render_rays(
    model: nn.Module, rays: Rays, settings: RenderSettings, draws: Draws = EVENLY, dual: bool = False
) -> dict[str, Render]:
    """Render rays with the coarse field and, if there are fine samples, with the fine one.

    Args:
        model: see `query`.
        rays, settings, draws: what to render, and how.
        dual: also render the mean of both fields' raw outputs at the fine field's depths (test time only).

    Returns:
        "coarse", "fine" and "dual", as far as they were asked for; the fine depths hold the coarse ones.
    """
    near, far, white = settings.near, settings.far, settings.white_background
    depths = stratified_depths(near, far, settings.coarse_samples, len(rays), draws.stratified, rays.origins)
    raw = query(model, "coarse", rays, depths, settings.chunk)
    renders = {"coarse": volume_render(raw.to(depths.dtype), depths, rays.directions, white, draws.coarse_noise)}
    if settings.fine_samples:
        new = importance_depths(depths, renders["coarse"].weights, settings.fine_samples, draws.importance)
        depths = torch.sort(torch.cat((depths, new), dim=-1), dim=-1).values
        raw = query(model, "fine", rays, depths, settings.chunk)
        renders["fine"] = volume_render(raw.to(depths.dtype), depths, rays.directions, white, draws.fine_noise)
        if dual:
            mean = 0.5 * (raw + query(model, "coarse", rays, depths, settings.chunk))
            renders["dual"] = volume_render(mean.to(depths.dtype), depths, rays.directions, white)
    return renders


def _parts(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, count, size))
