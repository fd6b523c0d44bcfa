"""Radiance fields: from a position and a viewing direction to a raw colour and density."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.registry import MODELS

OUTPUTS = 4
"""Red, green, blue and density, before sigmoid and ReLU."""


FOG = 0.1
"""Raw density at the start. Deep networks start nearly constant; below 0 everywhere, ReLU would pass no gradient."""


class Encoding(nn.Module):
    """x ↦ (x, sin 2⁰x, cos 2⁰x, …, sin 2^{L−1}x, cos 2^{L−1}x), component-wise on the rows x; no gradient to x.

    The cosine is the sine a quarter turn on: one pass over all frequencies. In float32 that is off by less than the
    rounding of x itself makes of the highest frequency.

    Args:
        frequencies: L.
        components: of x.
    """

    turns: Tensor
    factors: Tensor

    def __init__(self, frequencies: int, components: int = 3) -> None:
        super().__init__()
        self.width = components * (1 + 2 * frequencies)
        self.frequencies = frequencies
        factors = (2.0 ** torch.arange(frequencies)).repeat_interleave(2 * components)
        turns = torch.tensor([0.0, 0.5 * math.pi]).repeat_interleave(components).repeat(frequencies)
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("turns", turns, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        repeated = x.repeat(1, 2 * self.frequencies)
        return torch.cat((x, torch.addcmul(self.turns, repeated, self.factors).sin_()), dim=-1)


class Layer(nn.Module):
    """Linear and ReLU. What a further input adds joins as if it were concatenated to the first, without the copy.

    Args:
        inputs: width of the first input.
        outputs: width of the output.
        extra: width of the further input; 0: there is none.
    """

    def __init__(self, inputs: int, outputs: int, extra: int = 0) -> None:
        super().__init__()
        self.inputs = inputs
        self.linear = nn.Linear(inputs + extra, outputs)
        # In place on what a linear layer puts out, never on a view of it, for which autograd would copy everything.
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Rows (rays · samples, outputs) of rows x, and of rows `extra` or, one for all samples of a ray, (rays, …)."""
        if extra is None:
            return self.act(self.linear(x))
        weight, more = self.linear.weight.split((self.inputs, extra.shape[1]), dim=1)
        hidden = F.linear(x, weight, self.linear.bias)
        if len(extra) == len(x):
            return self.act(hidden.addmm_(extra.to(hidden.dtype), more.T.to(hidden.dtype)))  # reduced under autocast
        by_ray = hidden.unflatten(0, (len(extra), -1)) + F.linear(extra, more)[:, None]
        return self.act(by_ray).flatten(0, 1)


class Field(nn.Module):
    """The network of Mildenhall et al. (2020): a trunk for the position, density from it, colour also by direction.

    Args:
        depth, width: of the trunk.
        skip: the position is given again to the layer after this one (counted from 1); 0: to none.
        position_frequencies, direction_frequencies: of the encodings.
    """

    def __init__(
        self, depth: int, width: int, skip: int, position_frequencies: int = 10, direction_frequencies: int = 4
    ) -> None:
        super().__init__()
        self.encode_position = Encoding(position_frequencies)
        self.encode_direction = Encoding(direction_frequencies)
        encoded = self.encode_position.width
        layers = [Layer(encoded, width)]
        layers += [Layer(width, width, encoded if number == skip else 0) for number in range(1, depth)]
        self.trunk = nn.ModuleList(layers)
        self.skip = skip
        self.density = nn.Linear(width, 1)
        nn.init.constant_(self.density.bias, FOG)
        self.feature = Layer(width, width)
        self.view = Layer(width, width // 2, self.encode_direction.width)
        self.color = nn.Linear(width // 2, 3)

    def forward(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Raw (rays, samples, 4) at positions (rays, samples, 3) seen along unit directions (rays, 3)."""
        encoded = self.encode_position(positions.flatten(0, 1))
        hidden = encoded
        for number, layer in enumerate(self.trunk):
            hidden = layer(hidden, encoded if 0 < number == self.skip else None)
        seen = self.view(self.feature(hidden), self.encode_direction(directions))
        return torch.cat((self.color(seen), self.density(hidden)), dim=-1).unflatten(0, positions.shape[:2])


class TinyField(nn.Module):
    """A perceptron from the position alone (Tiny-NeRF).

    Args:
        widths: of the hidden layers.
        position_frequencies: of the encoding.
    """

    def __init__(self, widths: Sequence[int], position_frequencies: int = 10) -> None:
        super().__init__()
        self.encode_position = Encoding(position_frequencies)
        sizes = [self.encode_position.width, *widths]
        self.trunk = nn.ModuleList(Layer(*pair) for pair in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], OUTPUTS)

    def forward(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Raw (rays, samples, 4) at positions (rays, samples, 3); the directions play no part."""
        hidden = self.encode_position(positions.flatten(0, 1))
        for layer in self.trunk:
            hidden = layer(hidden)
        out: Tensor = self.output(hidden)
        return out.unflatten(0, positions.shape[:2])


class RadianceFields(nn.Module):
    """A coarse and, mostly, a fine field.

    Args:
        coarse, fine: fields; no fine one for models that are asked once per ray.
    """

    def __init__(self, coarse: nn.Module, fine: nn.Module | None = None) -> None:
        super().__init__()
        self.coarse = coarse
        self.fine = fine

    def forward(self, level: str, positions: Tensor, directions: Tensor) -> Tensor:
        """Raw outputs of the field of that level, "coarse" or "fine", see `Field.forward`.

        Raises:
            ValueError: there is no field of that level.
        """
        field = {"coarse": self.coarse, "fine": self.fine}[level]
        if field is None:
            raise ValueError("this model has no fine field; set task.options.fine_samples=0")
        out: Tensor = field(positions, directions)
        return out


@MODELS.register("nerf")
def nerf(depth: int = 8, width: int = 256, fine_width: int | None = None, skip: int = 5) -> nn.Module:
    """Two networks of 8 layers of 256, the position given again after the fifth; `fine_width` widens the fine one."""
    return RadianceFields(Field(depth, width, skip), Field(depth, fine_width or width, skip))


# The network that the paper's authors released, 4 layers of 128; and their NeRF-XL, with a wider fine network.
MODELS.register("nerf_release")(partial(nerf, depth=4, width=128, skip=0))
MODELS.register("nerf_xl")(partial(nerf, fine_width=512))


@MODELS.register("tiny_nerf")
def tiny_nerf(widths: Sequence[int] = (128, 128)) -> nn.Module:
    """One perceptron 63-128-128-4."""
    return RadianceFields(TinyField(widths))
