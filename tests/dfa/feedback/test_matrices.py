"""Feedback matrices: how they are drawn, shared, scaled and applied."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import Unpack

import dfa
from dfa.feedback.matrices import MatrixOptions
from dfa.hooks.points import Point


def points(**activations: Tensor) -> list[Point]:
    return [Point(name, activation) for name, activation in activations.items()]


def drawn(height: int, *widths: int, **options: Unpack[MatrixOptions]) -> list[Tensor]:
    """The matrices as the points see them: identity errors read them out row by row."""
    matrices = dfa.FeedbackMatrices(**options)
    wanted = points(**{f"p{index}": torch.zeros(height, width) for index, width in enumerate(widths)})
    return list(matrices.signals("", torch.eye(height), wanted))


def test_uniform_range_scale_and_slices() -> None:
    wide, narrow = drawn(40, 900, 300)
    bound = 1 / sqrt(900)
    assert wide.abs().max() <= bound
    assert wide.max() > 0.999 * bound
    assert wide.min() < -0.999 * bound
    assert wide.std().item() == pytest.approx(bound / sqrt(3), rel=0.02)
    assert abs(wide.mean().item()) < 4 * bound / sqrt(3) / sqrt(wide.numel())
    assert torch.equal(narrow, wide[:, :300])


def test_order_of_points_does_not_matter_when_shared() -> None:
    wide, narrow = drawn(3, 20, 10)
    narrow_first, wide_second = drawn(3, 10, 20)
    assert torch.equal(wide, wide_second)
    assert torch.equal(narrow, narrow_first)


def test_one_matrix_per_point() -> None:
    first, second = drawn(4, 30, 30, sharing="per_point")
    assert not torch.equal(first, second)
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()) < 0.4
    wide, narrow = drawn(50, 400, 100, sharing="per_point")
    assert wide.abs().max().item() == pytest.approx(1 / 20, rel=1e-2)
    assert narrow.abs().max().item() == pytest.approx(1 / 10, rel=1e-2)


def test_gaussian() -> None:
    (matrix,) = drawn(100, 400, distribution="gaussian")
    standard = matrix * 20
    assert standard.std().item() == pytest.approx(1, rel=0.02)
    assert (standard**4).mean().item() == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(6, 10), (10, 6), (5, 5)])
def test_orthogonal(height: int, width: int) -> None:
    (matrix,) = drawn(height, width, distribution="orthogonal")
    gram = matrix @ matrix.T if height <= width else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(height, width)), atol=1e-5, rtol=0)


def test_normalise_and_scale() -> None:
    (base,) = drawn(4, 25)
    (unscaled,) = drawn(4, 25, normalise=False)
    (tripled,) = drawn(4, 25, scale=3.0)
    torch.testing.assert_close(unscaled, 5 * base)
    torch.testing.assert_close(tripled, 3 * base)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian", "orthogonal"])
def test_seed_alone_decides(distribution: str) -> None:
    (first,) = drawn(4, 9, distribution=distribution, seed=3)
    state = torch.random.get_rng_state()
    torch.manual_seed(99)
    torch.rand(5)
    inside = torch.random.get_rng_state()
    (again,) = drawn(4, 9, distribution=distribution, seed=3)
    (other,) = drawn(4, 9, distribution=distribution, seed=4)
    assert torch.equal(torch.random.get_rng_state(), inside), "drawing moved the global generator"
    torch.random.set_rng_state(state)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian", "orthogonal"])
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_default_type_does_not_change_the_draw(distribution: str, default: torch.dtype) -> None:
    options: MatrixOptions = {"distribution": distribution, "seed": 3}
    matrices = [dfa.FeedbackMatrices(**options) for _ in range(2)]
    error, wanted = torch.ones(2, 4), points(p=torch.zeros(2, 9))
    matrices[0].prepare("", error, wanted)
    torch.set_default_dtype(default)
    try:
        matrices[1].prepare("", error, wanted)
    finally:
        torch.set_default_dtype(torch.float32)
    (expected,), (found,) = (one.drawn.values() for one in matrices)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_projection_of_rows() -> None:
    (matrix,) = drawn(3, 8)
    error = torch.randn(5, 3)
    (signal,) = dfa.FeedbackMatrices().signals("", error, points(p0=torch.zeros(5, 8)))
    torch.testing.assert_close(signal, error @ matrix)


def test_more_rows_than_the_error() -> None:
    """k rows for each of the error's: repeated in place and divided by √k."""
    (matrix,) = drawn(3, 8)
    error = torch.randn(2, 3)
    (signal,) = dfa.FeedbackMatrices().signals("", error, points(p0=torch.zeros(8, 8)))
    expected = torch.stack([error[row // 4] @ matrix for row in range(8)]) / 2
    torch.testing.assert_close(signal, expected)
    (per_token,) = dfa.FeedbackMatrices(batch_dims=2).signals("", error, points(p0=torch.zeros(2, 4, 8)))
    torch.testing.assert_close(per_token, expected.reshape(2, 4, 8))


def test_a_point_without_rows() -> None:
    """As of an expert that a batch routes nothing to."""
    (matrix,) = drawn(3, 8)
    error = torch.randn(2, 3)
    activations = points(p0=torch.zeros(2, 8), p1=torch.zeros(0, 8))
    full, empty = dfa.FeedbackMatrices().signals("", error, activations)
    torch.testing.assert_close(full, error @ matrix)
    assert empty.shape == (0, 8)


def test_tokens_share_a_matrix_unless_told_otherwise() -> None:
    error, point = torch.randn(2, 4, 3), points(p0=torch.zeros(2, 4, 6))
    per_token = dfa.FeedbackMatrices()
    (signal,) = per_token.signals("", error, point)
    (matrix,) = per_token.drawn.values()
    assert matrix.shape == (3, 6)
    torch.testing.assert_close(signal, torch.einsum("bto,of->btf", error, matrix))
    per_sequence = dfa.FeedbackMatrices(batch_dims=1)
    (signal,) = per_sequence.signals("", error, point)
    (matrix,) = per_sequence.drawn.values()
    assert matrix.shape == (12, 24)
    torch.testing.assert_close(signal, (error.reshape(2, 12) @ matrix).reshape(2, 4, 6))


@pytest.mark.parametrize("error", [torch.randn(5, 1), torch.randn(5)])
def test_fields_and_embedding_are_flattened_together(error: Tensor) -> None:
    """A recommender's single logit per sample, with or without its last dimension."""
    matrices = dfa.FeedbackMatrices()
    signals = list(matrices.signals("", error, points(table=torch.zeros(5, 4, 3), wide=torch.zeros(5, 7))))
    (matrix,) = matrices.drawn.values()
    assert matrix.shape == (1, 12)
    expected = error.reshape(5, 1) * matrix
    torch.testing.assert_close(signals[0], expected.reshape(5, 4, 3))
    torch.testing.assert_close(signals[1], expected[:, :7])


def test_state_survives_before_the_first_error(mlp: nn.Sequential) -> None:
    options = {"distribution": "gaussian", "sharing": "per_point"}
    old = dfa.RULES.build("dfa", mlp, ["1", "3"], seed=1, **options)
    error = torch.randn(4, 3)
    wanted = points(**{"1": torch.zeros(4, 8), "3": torch.zeros(4, 6)})
    expected = list(old.signals("", error, wanted))
    old.close()
    new = dfa.RULES.build("dfa", mlp, ["1", "3"], seed=2, **options)
    new.load_state_dict({key: value.clone() for key, value in old.state_dict().items()})
    for mine, theirs in zip(new.signals("", error, wanted), expected, strict=True):
        assert torch.equal(mine, theirs)
    new.close()
    drawn_already = dfa.RULES.build("dfa", mlp, ["1", "3"], seed=3, **options)
    drawn_already.signals("", error, wanted)
    drawn_already.load_state_dict(old.state_dict())
    assert torch.equal(next(iter(drawn_already.signals("", error, wanted))), expected[0])


def test_loading_copies(mlp: nn.Sequential) -> None:
    old = dfa.FeedbackMatrices()
    old.signals("", torch.eye(3), points(p=torch.zeros(3, 4)))
    state = old.state_dict()
    new = dfa.FeedbackMatrices(seed=5)
    new.load_state_dict(state)
    next(iter(new.drawn.values())).zero_()
    assert next(iter(old.drawn.values())).abs().max() > 0


def test_rules_without_matrices_refuse_a_state(mlp: nn.Sequential) -> None:
    rule = dfa.Shallow(mlp, "1")
    rule.load_state_dict(rule.state_dict())
    with pytest.raises(ValueError, match="shallow"):
        rule.load_state_dict({"(output):shared": torch.zeros(2, 2)})


def test_half_precision_errors_are_projected_in_single() -> None:
    error = torch.randn(4, 300).bfloat16()
    matrices = dfa.FeedbackMatrices()
    (signal,) = matrices.signals("", error, points(p0=torch.zeros(4, 6)))
    torch.testing.assert_close(signal, error.float() @ next(iter(matrices.drawn.values())))


def test_what_points_share_is_cast_once() -> None:
    """Points of single and half precision, one of each narrower, and with two rows for each of the error's."""
    error = torch.randn(4, 3)
    matrices = dfa.FeedbackMatrices()
    half = torch.zeros(4, 8).bfloat16()
    shapes = {"a": half, "b": half, "c": half[:, :6], "d": torch.zeros(8, 8).bfloat16(), "e": torch.zeros(4, 8)}
    found = dict(zip(shapes, matrices.signals("", error, points(**shapes)), strict=True))
    exact = error @ next(iter(matrices.drawn.values()))
    torch.testing.assert_close(found["e"], exact)
    assert torch.equal(found["a"], exact.bfloat16()) and torch.equal(found["c"], exact.bfloat16()[:, :6])
    assert torch.equal(found["d"], (exact.repeat_interleave(2, dim=0) / 2**0.5).bfloat16())
    assert found["a"].data_ptr() == found["b"].data_ptr() == found["c"].data_ptr()


def test_double_errors_keep_their_precision() -> None:
    error = torch.randn(4, 3).double()
    matrices = dfa.FeedbackMatrices()
    (signal,) = matrices.signals("", error, points(p0=torch.zeros(4, 6).double()))
    torch.testing.assert_close(signal, error @ next(iter(matrices.drawn.values())).double(), rtol=1e-14, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_does_not_change_the_draw() -> None:
    (expected,) = drawn(3, 8)
    on_device = points(p0=torch.zeros(3, 8, device="cuda"))
    rule = dfa.DirectFeedbackAlignment(nn.Linear(2, 2))
    (signal,) = rule.signals("", torch.eye(3, device="cuda"), on_device)
    torch.testing.assert_close(signal.cpu(), expected)


def test_module_names_that_are_also_attributes() -> None:
    """An error tensor may be called `scale`, like an attribute of the matrices; `output` is not the model's output."""
    matrices = dfa.FeedbackMatrices()
    wanted = points(p0=torch.zeros(2, 3))
    seen = [next(matrices.signals(name, torch.eye(2), wanted)) for name in ("scale", "type", "output", "")]
    assert len({tuple(signal.flatten().tolist()) for signal in seen}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "cauchy"}, "unknown distribution 'cauchy'; known: uniform, gaussian, orthogonal"),
        ({"sharing": "some"}, "unknown sharing 'some'; known: shared, per_point"),
        ({"batch_dims": 0}, "batch_dims must be at least 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(dfa.FeedbackError, match=message):
        dfa.FeedbackMatrices(**options)


def test_rows_that_do_not_divide() -> None:
    with pytest.raises(dfa.FeedbackError, match="point 'here' has 5 rows, which is no multiple of the error's 2"):
        dfa.FeedbackMatrices().signals("", torch.zeros(2, 3), points(here=torch.zeros(5, 4)))
    with pytest.raises(dfa.FeedbackError, match="no multiple"):
        dfa.FeedbackMatrices().signals("", torch.zeros(6, 3), points(here=torch.zeros(3, 4)))


def test_width_that_changed() -> None:
    matrices = dfa.FeedbackMatrices()
    matrices.signals("", torch.zeros(2, 3), points(here=torch.zeros(2, 4)))
    with pytest.raises(dfa.FeedbackError, match=r"has shape \(3, 4\), error and points now need \(3, 5\)"):
        matrices.signals("", torch.zeros(2, 3), points(here=torch.zeros(2, 5)))


def test_width_that_changed_under_a_wider_point() -> None:
    """The matrix is wide enough, but other columns would stand for the same entries, unless the first size changes."""
    matrices = dfa.FeedbackMatrices(batch_dims=1)
    first = points(wide=torch.zeros(2, 90), here=torch.zeros(2, 4, 6, 3))
    error = torch.randn(2, 3)
    (_, signal) = matrices.signals("", error, first)
    (_, shorter) = matrices.signals("", error, points(wide=torch.zeros(2, 90), here=torch.zeros(2, 3, 6, 3)))
    assert torch.equal(shorter, signal[:, :3])
    for changed in (torch.zeros(2, 4, 5, 3), torch.zeros(2, 4, 3, 6), torch.zeros(2, 72)):
        with pytest.raises(dfa.FeedbackError, match=r"rows of point 'here' had the shape \(…, 6, 3\) and now have "):
            matrices.signals("", error, points(wide=torch.zeros(2, 90), here=changed))


def test_a_point_that_runs_at_two_sizes() -> None:
    matrices = dfa.FeedbackMatrices(batch_dims=1)
    large, small = torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 4, 4)
    matrices.signals("", torch.zeros(2, 3), [Point("here", large), Point("here", small)])
    matrices.signals("", torch.zeros(2, 3), [Point("here", small)])
    with pytest.raises(dfa.FeedbackError, match=r"had the shape \(…, 4, 4\) or \(…, 8, 8\) and now have \(…, 6, 6\)"):
        matrices.signals("", torch.zeros(2, 3), [Point("here", large), Point("here", torch.zeros(2, 4, 6, 6))])


class Slashed(nn.Module):
    """Two modules whose names differ in a dot and a slash."""

    def __init__(self) -> None:
        super().__init__()
        self.d = nn.ModuleDict({"a/b": nn.Linear(4, 4), "a": nn.ModuleDict({"b": nn.Linear(4, 4)})})
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for name in ("d.a/b", "d.a.b"):
            x = self.get_submodule(name)(x)
        logits: Tensor = self.head(x)
        return logits


@pytest.mark.parametrize("name", ["dfa", "dkp", "fdfa"])
def test_points_whose_matrices_would_have_one_name(name: str) -> None:
    options: dict[str, Any] = {"sharing": "per_point"} if name == "dfa" else {}
    model = Slashed()
    with pytest.raises(dfa.FeedbackError, match=r"matrices of 'd.a/b' and 'd.a.b' would both be called"):
        dfa.RULES.build(name, model, ["d.a/b", "d.a.b"], **options)
    with pytest.raises(dfa.FeedbackError, match=r"matrices of 'd.a/b' and 'd.a.b' would both be called"):
        dfa.RULES.build(name, model, ["head"], error_at=["d.a/b", "d.a.b"], **options)
    with dfa.DirectFeedbackAlignment(model, ["d.a/b", "d.a.b"]) as rule:  # which share a matrix
        rule.backward(model(torch.randn(2, 4)).sum())
