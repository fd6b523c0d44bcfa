"""Radiance fields: networks from a position and a viewing direction to a raw colour and density."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import ConfigError
from benchmarks.registry import MODELS

OUTPUTS = 4
"""Channels of the raw output: red, green, blue (before the sigmoid) and density (before the ReLU)."""
INITIAL_DENSITY = 0.1
"""Initial bias of the density. A deep network starts nearly constant; if it were negative, the ReLU would block all
gradients."""


class Encoding(nn.Module):
    """Positional encoding x ↦ (x, sin 2⁰x, cos 2⁰x, …, sin 2^{L−1}x, cos 2^{L−1}x) (Mildenhall et al., 2020, eq. 4).

    Applied to each component of the rows x; passes no gradient to x. The cosine is computed as a shifted sine, so that
    one pass covers all frequencies; in float32 the error is below that of rounding x at the highest frequency.

    Args:
        frequencies: L.
        components: number of components of x.
    """

    phases: Tensor
    factors: Tensor

    def __init__(self, frequencies: int, components: int = 3) -> None:
        super().__init__()
        self.width = components * (1 + 2 * frequencies)
        self.frequencies = frequencies
        factors = (2.0 ** torch.arange(frequencies)).repeat_interleave(2 * components)
        phases = torch.tensor([0.0, 0.5 * math.pi]).repeat_interleave(components).repeat(frequencies)
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("phases", phases, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Encode rows (rows, components) → (rows, components · (1 + 2 L))."""
        repeated = x.repeat(1, 2 * self.frequencies)
        return torch.cat((x, torch.addcmul(self.phases, repeated, self.factors).sin_()), dim=-1)


class Layer(nn.Module):
    """Linear layer and ReLU on one input, or on the concatenation of two.

    Args:
        inputs: width of the first input.
        outputs: width of the output.
        extra: width of the second input; 0 for none.
        joined: copy two inputs together, which takes longer, so that the linear layer is called; a rule that looks at
            what layers take in needs that.
    """

    def __init__(self, inputs: int, outputs: int, extra: int = 0, joined: bool = False) -> None:
        super().__init__()
        self.inputs = inputs
        self.joined = joined
        self.linear = nn.Linear(inputs + extra, outputs)
        # In place on the output of the linear layer, never on a view of it, which autograd would copy.
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map x (rays · samples, inputs) to (rays · samples, outputs).

        `extra` has a row for each row of x, or one for each ray, shared by its samples: (rays, extra).
        """
        if extra is None:
            return self.act(self.linear(x))
        if self.joined:
            extra = extra.repeat_interleave(len(x) // len(extra), dim=0)
            return self.act(self.linear(torch.cat((x, extra.to(x.dtype)), dim=1)))
        weight, more = self.linear.weight.split((self.inputs, extra.shape[1]), dim=1)
        hidden = F.linear(x, weight, self.linear.bias)
        if len(extra) == len(x):
            return self.act(
                hidden.addmm_(extra.to(hidden.dtype), more.T.to(hidden.dtype))
            )  # hidden is bfloat16 under autocast
        by_ray = hidden.unflatten(0, (len(extra), -1)) + F.linear(extra, more)[:, None]
        return self.act(by_ray).flatten(0, 1)


class Field(nn.Module):
    """Network of Mildenhall et al. (2020): density from the position, colour from position and viewing direction.

    Args:
        depth, width: layers of the trunk, which sees the position only, and their width.
        skip: number of the layer (from 1) after which the encoded position is concatenated again; 0 for none.
        position_frequencies, direction_frequencies: L of the encodings.
        joined: see `Layer`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        skip: int,
        position_frequencies: int = 10,
        direction_frequencies: int = 4,
        joined: bool = False,
    ) -> None:
        super().__init__()
        self.encode_position = Encoding(position_frequencies)
        self.encode_direction = Encoding(direction_frequencies)
        encoded = self.encode_position.width
        layers = [Layer(encoded, width)]
        layers += [Layer(width, width, encoded if number == skip else 0, joined) for number in range(1, depth)]
        self.trunk = nn.ModuleList(layers)
        self.skip = skip
        self.density = nn.Linear(width, 1)
        nn.init.constant_(self.density.bias, INITIAL_DENSITY)
        self.feature = Layer(width, width)
        self.view = Layer(width, width // 2, self.encode_direction.width, joined)
        self.color = nn.Linear(width // 2, 3)

    def forward(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Map positions (rays, samples, 3) and unit directions (rays, 3) to raw outputs (rays, samples, 4)."""
        encoded = self.encode_position(positions.flatten(0, 1))
        hidden = encoded
        for number, layer in enumerate(self.trunk):
            hidden = layer(hidden, encoded if 0 < number == self.skip else None)
        seen = self.view(self.feature(hidden), self.encode_direction(directions))
        return torch.cat((self.color(seen), self.density(hidden)), dim=-1).unflatten(0, positions.shape[:2])


class TinyField(nn.Module):
    """Perceptron of the position only (Tiny-NeRF).

    Args:
        widths: widths of the hidden layers.
        position_frequencies: L of the encoding.
    """

    def __init__(self, widths: Sequence[int], position_frequencies: int = 10) -> None:
        super().__init__()
        self.encode_position = Encoding(position_frequencies)
        sizes = [self.encode_position.width, *widths]
        self.trunk = nn.ModuleList(Layer(*pair) for pair in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], OUTPUTS)

    def forward(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Map positions (rays, samples, 3) to raw outputs (rays, samples, 4); the directions are ignored."""
        hidden = self.encode_position(positions.flatten(0, 1))
        for layer in self.trunk:
            hidden = layer(hidden)
        out: Tensor = self.output(hidden)
        return out.unflatten(0, positions.shape[:2])


class RadianceFields(nn.Module):
    """Model of a scene: a coarse field and, if rays are sampled twice, a fine one.

    Args:
        coarse, fine: fields; `fine` is None for models without importance sampling.
    """

    def __init__(self, coarse: nn.Module, fine: nn.Module | None = None) -> None:
        super().__init__()
        self.coarse = coarse
        self.fine = fine

    def forward(self, level: str, positions: Tensor, directions: Tensor) -> Tensor:
        """Return the raw outputs of the field `level`, "coarse" or "fine"; see `Field.forward`.

        Raises:
            ConfigError: the model has no fine field.
        """
        field = {"coarse": self.coarse, "fine": self.fine}[level]
        if field is None:
            raise ConfigError("this model has no fine field; set task.options.fine_samples=0")
        out: Tensor = field(positions, directions)
        return out


@MODELS.register("nerf")
def nerf(
    depth: int = 8, width: int = 256, fine_width: int | None = None, skip: int = 5, joined: bool = False
) -> nn.Module:
    """Build NeRF (Mildenhall et al., 2020).

    Args:
        depth, width, skip, joined: see `Field`.
        fine_width: width of the fine network if it differs.
    """
    return RadianceFields(*(Field(depth, each, skip, joined=joined) for each in (width, fine_width or width)))


# The network in the paper's released code, 4 layers of 128, and its NeRF-XL, with a wider fine network.
MODELS.register("nerf_release")(partial(nerf, depth=4, width=128, skip=0))
MODELS.register("nerf_xl")(partial(nerf, fine_width=512))


@MODELS.register("tiny_nerf")
def tiny_nerf(widths: Sequence[int] = (128, 128)) -> nn.Module:
    """Build the single perceptron of Tiny-NeRF, 63-128-128-4."""
    return RadianceFields(TinyField(widths))
