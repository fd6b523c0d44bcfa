"""Matrices that are generated from a counter, kept or not."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

import dfa
import dfa.feedback.matrices as library
from dfa.feedback.counter import counter_block
from dfa.feedback.distributions import seed_of
from tests.dfa.feedback.test_matrices import drawn, points

GOLDEN, MODULUS = 0x9E3779B97F4A7C15, 2**64


def split_mix(state: int) -> int:
    """The output function, in Python's unbounded integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % MODULUS
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % MODULUS
    return state ^ (state >> 31)


def test_published_stream() -> None:
    """First numbers of SplitMix64 from seed 1234567, as printed with the reference implementation."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix((1234567 + k * GOLDEN) % MODULUS) for k in range(1, 5)] == expected


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_entries_against_unbounded_integers(seed: int) -> None:
    block = counter_block("uniform", seed, 3, 9, 11)
    for row in range(3, 9):
        start = split_mix((row * GOLDEN + seed) % MODULUS)
        for column in range(11):
            bits = split_mix((start + (column + 1) * GOLDEN) % MODULUS)
            signed = bits - MODULUS if bits >= MODULUS // 2 else bits
            assert block[row - 3, column].item() == (signed >> 40) / 2**23


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_any_block_is_a_part_of_the_whole(distribution: str) -> None:
    whole = counter_block(distribution, 5, 0, 50, 40)
    assert torch.equal(counter_block(distribution, 5, 17, 31, 40), whole[17:31])
    assert torch.equal(counter_block(distribution, 5, 17, 31, 8), whole[17:31, :8])
    assert not torch.equal(counter_block(distribution, 6, 0, 50, 40), whole)


@pytest.mark.parametrize(("distribution", "std", "kurtosis"), [("uniform", 1 / sqrt(3), 1.8), ("gaussian", 1.0, 3.0)])
def test_moments_and_independence(distribution: str, std: float, kurtosis: float) -> None:
    matrix = counter_block(distribution, 1, 0, 600, 500).double()
    assert matrix.mean().item() == pytest.approx(0, abs=4 * std / sqrt(matrix.numel()))
    assert matrix.std().item() == pytest.approx(std, rel=0.01)
    assert (matrix**4).mean().item() / std**4 == pytest.approx(kurtosis, rel=0.03)
    for between in (torch.corrcoef(matrix), torch.corrcoef(matrix.T)):  # of rows, of columns
        off_diagonal = between - torch.diag(torch.diag(between))
        assert off_diagonal.abs().max() < 6 / sqrt(500)


@pytest.mark.parametrize("sharing", ["shared", "per_point"])
@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_generated_signals_are_those_of_the_kept_matrix(
    sharing: library.Sharing, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "BLOCK_ENTRIES", 900)  # 15 rows of 60 at a time
    error = torch.randn(5, 200)
    wanted = points(a=torch.zeros(5, 60), b=torch.zeros(10, 33))

    def signals(keep: bool) -> tuple[list[Tensor], list[Tensor]]:
        matrices = dfa.FeedbackMatrices(distribution, sharing, scale=0.7, seed=4, draw="counter", keep=keep)
        found = list(matrices.signals("logits", error, wanted))
        return found, list(matrices.drawn.values())

    kept, matrices = signals(keep=True)
    generated, nothing = signals(keep=False)
    assert not nothing
    for mine, theirs in zip(generated, kept, strict=True):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(kept[0], error @ matrices[0])
    assert kept[0].std() > 0.1


def test_scale_and_slices() -> None:
    wide, narrow = drawn(40, 900, 300, draw="counter", keep=False)
    assert 0.99 / 30 < wide.abs().max() <= 1 / 30
    assert torch.equal(narrow, wide[:, :300])


def test_a_generated_matrix_keeps_its_shape() -> None:
    matrices = dfa.FeedbackMatrices(draw="counter", keep=False)
    matrices.signals("", torch.zeros(2, 3), points(here=torch.zeros(2, 4)))
    with pytest.raises(dfa.FeedbackError, match=r"has shape \(3, 4\), error and points now need \(3, 5\)"):
        matrices.signals("", torch.zeros(2, 3), points(here=torch.zeros(2, 5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draw": "dice"}, "unknown draw 'dice'; known: torch, counter"),
        ({"keep": False}, "keep=False needs draw='counter'"),
        ({"draw": "counter", "distribution": "orthogonal"}, "draw='counter' has no distribution 'orthogonal'"),
    ],
)
def test_what_cannot_be_generated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(dfa.FeedbackError, match=message):
        dfa.FeedbackMatrices(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_bits_on_a_gpu() -> None:
    expected = counter_block("uniform", 9, 0, 300, 200)
    assert torch.equal(counter_block("uniform", 9, 0, 300, 200, torch.device("cuda")).cpu(), expected)


def test_default_draw_is_torch_generator() -> None:
    """Records of earlier runs depend on these numbers: uniform from torch's generator, seeded by seed and key."""
    (matrix,) = drawn(3, 8, seed=11)
    generator = torch.Generator().manual_seed(seed_of(11, "(output):shared"))
    torch.testing.assert_close(matrix, (torch.rand(3, 8, generator=generator) * 2 - 1) / sqrt(8), rtol=0, atol=1e-9)
