"""Fields: sizes, the encoding, and layers with a further input, against plain formulas."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.families.view_synthesis.models import Encoding, Field, Layer, TinyField
from benchmarks.registry import MODELS


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_the_networks() -> None:
    """Mildenhall's network has 595,844 parameters, the released one 84,548."""
    assert size(MODELS.build("nerf").coarse) == size(MODELS.build("nerf").fine) == 595_844
    assert size(MODELS.build("nerf_release").coarse) == 84_548
    assert size(MODELS.build("tiny_nerf")) == 64 * 128 + 129 * 128 + 129 * 4
    xl = MODELS.build("nerf_xl")
    assert size(xl.coarse) == 595_844
    w = 512
    widths = [63 * w, *[w * w] * 4, (w + 63) * w, *[w * w] * 2, w, w * w, (w + 27) * w // 2, 3 * w // 2]
    assert size(xl.fine) == sum(widths) + 9 * w + 1 + w // 2 + 3


@pytest.mark.parametrize("frequencies", [4, 10])
def test_the_encoding_is_sines_and_cosines_of_doubling_frequency(frequencies: int) -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (50, 3))
    parts = [x]
    for exponent in range(frequencies):
        parts += [np.sin(2**exponent * x), np.cos(2**exponent * x)]
    expected = np.concatenate(parts, axis=1)
    module = Encoding(frequencies)
    assert module.width == expected.shape[1]
    assert module.double()(torch.from_numpy(x)).numpy() == pytest.approx(expected, abs=1e-6)
    # In single precision the highest frequency multiplies the rounding of x, up to 2^-23 · 4 / 2.
    rounded = 2 ** (frequencies - 1) * 4 * 2.0**-23
    assert Encoding(frequencies)(torch.from_numpy(x).float()).numpy() == pytest.approx(expected, abs=2 * rounded)


@pytest.mark.parametrize("joined", [False, True])
def test_a_layer_with_a_further_input_is_the_layer_of_the_concatenation(joined: bool) -> None:
    torch.manual_seed(0)
    layer = Layer(5, 4, 3, joined)
    calls: list[Tensor] = []
    layer.linear.register_forward_hook(lambda _, arguments, output: calls.append(output))
    x = torch.randn(6, 5, requires_grad=True)
    by_row, by_ray = torch.randn(6, 3), torch.randn(2, 3)
    for extra, repeated in ((by_row, by_row), (by_ray, by_ray.repeat_interleave(3, dim=0))):
        out = layer(x, extra)
        assert len(calls) == joined
        expected = torch.relu(layer.linear(torch.cat((x, repeated), dim=1)))
        assert torch.allclose(out, expected, atol=1e-6)
        weights = torch.randn_like(out)
        found = torch.autograd.grad((out * weights).sum(), (x, layer.linear.weight))
        wanted = torch.autograd.grad((expected * weights).sum(), (x, layer.linear.weight))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))
        calls.clear()


def trunk(field: Field) -> Iterator[Layer]:
    for layer in field.trunk:
        assert isinstance(layer, Layer)
        yield layer


def test_the_position_is_given_again_after_the_layer_that_is_named() -> None:
    field = Field(depth=8, width=16, skip=5)
    assert [layer.linear.in_features for layer in trunk(field)] == [63, 16, 16, 16, 16, 79, 16, 16]
    assert all(layer.linear.in_features != 79 for layer in trunk(Field(depth=4, width=16, skip=0)))


def reference(field: Field, position: Tensor, direction: Tensor) -> Tensor:
    """One point through a field, layer by layer, with concatenations."""
    encoded = field.encode_position(position[None])[0]
    hidden = encoded
    for number, layer in enumerate(trunk(field)):
        given = torch.cat((hidden, encoded)) if number == field.skip and number else hidden
        hidden = torch.relu(layer.linear(given))
    feature = torch.relu(field.feature.linear(hidden))
    seen = torch.relu(field.view.linear(torch.cat((feature, field.encode_direction(direction[None])[0]))))
    return torch.cat((field.color(seen), field.density(hidden)))


def test_a_field_point_by_point() -> None:
    torch.manual_seed(1)
    field = Field(depth=4, width=12, skip=2)
    positions, directions = torch.randn(3, 5, 3), torch.randn(3, 3)
    with torch.no_grad():
        raw = field(positions, directions)
        assert raw.shape == (3, 5, 4)
        for ray in range(3):
            for sample in range(5):
                assert torch.allclose(
                    raw[ray, sample], reference(field, positions[ray, sample], directions[ray]), atol=1e-5
                )


def test_density_does_not_depend_on_the_direction_and_tiny_nerf_on_nothing_but_the_position() -> None:
    torch.manual_seed(2)
    positions = torch.randn(4, 2, 3)
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    with torch.no_grad():
        field = Field(depth=2, width=12, skip=0)
        difference = field(positions, one) - field(positions, other)
        assert difference[..., :3].abs().max() > 1e-3 and not difference[..., 3].any()
        tiny = TinyField((8,))
        assert torch.equal(tiny(positions, one), tiny(positions, other))


def test_gradients_reach_no_positions() -> None:
    positions = torch.randn(2, 2, 3, requires_grad=True)
    TinyField((8,))(positions, torch.randn(2, 3)).sum().backward()
    assert positions.grad is None


def test_a_level_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="this model has no fine field"):
        MODELS.build("tiny_nerf")("fine", torch.zeros(1, 1, 3), torch.zeros(1, 3))


@pytest.mark.parametrize("name", ["nerf", "nerf_release"])
def test_a_fresh_field_is_a_thin_fog_and_never_empty(name: str) -> None:
    """With raw densities below 0 everywhere the render would have no gradient and the field never learn."""
    for seed in range(4):
        torch.manual_seed(seed)
        model = MODELS.build(name)
        for level in ("coarse", "fine"):
            with torch.no_grad():
                raw = model(level, 4 * torch.rand(100, 8, 3) - 2, torch.ones(100, 3) / math.sqrt(3))
            assert (raw[..., 3] > 0).double().mean() > 0.5 and raw[..., 3].max() < 0.5
