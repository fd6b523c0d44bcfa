"""What each rule's gradients are in the Transformer, by autograd on a forward pass cut by hand."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.config import compose_config, resolve
from benchmarks.families.language.models import Block, Transformer
from benchmarks.tables.spec import load_spec
from dfa import DirectFeedbackAlignment, Rule, Shallow, measure_alignment

MACRO = ["blocks.*", "last"]
MICRO = ["blocks.*.attended", "blocks.*.hidden", "blocks.*", "last.attended", "last.hidden", "last"]
MICRO_EXACT = MICRO[:-1]
Grads = dict[str, Tensor | None]


def _tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(11, (2, 6), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def _loss(model: nn.Module) -> Tensor:
    inputs, targets = _tokens()
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def _grads(model: nn.Module) -> Grads:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def _by_rule(model: Transformer, rule: Rule) -> Grads:
    model.zero_grad(set_to_none=True)
    rule.backward(_loss(model))
    rule.close()
    return _grads(model)


def _by_backpropagation(model: Transformer) -> Grads:
    model.zero_grad(set_to_none=True)
    _loss(model).backward()
    return _grads(model)


def _cut_by_hand(
    model: Transformer, matrix: Callable[[int], Tensor], points: Sequence[str], after_decoder: bool = False
) -> Grads:
    """Gradients where the output h of each point goes on detached and <h, e B> is added to what is differentiated.

    The error e is ∂loss/∂(output of the last block, or of the decoder); what lies above it learns from the loss.
    """
    kept: list[Tensor] = []

    def cut(name: str, h: Tensor) -> Tensor:
        if name not in points:
            return h
        kept.append(h)
        return h.detach()

    def block(name: str, layer: Block, x: Tensor) -> Tensor:
        a = cut(f"{name}.attended", layer.attended(x))
        hidden = cut(f"{name}.hidden", layer.hidden(layer.norm_before(a)))
        return cut(name, layer.norm_after(a + layer.out(hidden)))

    inputs, targets = _tokens()
    model.zero_grad(set_to_none=True)
    x = cut("embedding", model.embedding(inputs))
    for number, layer in enumerate(model.blocks):
        assert isinstance(layer, Block)
        x = block(f"blocks.{number}", layer, x)
    top = block("last", model.last, x)
    below = model.decoder(model.norm(top)) if after_decoder else top
    error_tensor = below.detach().requires_grad_()
    scores = error_tensor if after_decoder else model.decoder(model.norm(error_tensor))
    F.cross_entropy(scores.flatten(0, 1), targets.flatten()).backward()
    error = error_tensor.grad
    assert error is not None
    surrogate = sum(((h * (error @ matrix(h.shape[-1]))).sum() for h in kept), torch.zeros(()))
    if below.requires_grad:
        surrogate = surrogate + (below * error).sum()
    surrogate.backward()
    return _grads(model)


def _names(patterns: Sequence[str], model: Transformer) -> list[str]:
    return [p.replace("*", str(n)) for p in patterns for n in range(len(model.blocks))]


@pytest.mark.parametrize(
    "points", [MACRO, MICRO, ["blocks.*"], MICRO_EXACT, ["embedding", *MACRO]], ids=str
)  # fmt: skip
def test_gradients_are_those_of_a_pass_cut_by_hand(model: Transformer, points: list[str]) -> None:
    rule = DirectFeedbackAlignment(model, points, error_at="last", seed=5)
    found = _by_rule(model, rule)
    (matrix,) = [buffer.double() for buffer in rule.feedback.drawn.values()]
    assert matrix.shape == (8, 12 if "last.hidden" in points else 8)
    expected = _cut_by_hand(model, lambda width: matrix[:, :width], _names(points, model))
    assert all(gradient is not None for gradient in found.values())
    torch.testing.assert_close(found, expected)


def _agree(one: Tensor | None, other: Tensor | None) -> bool:
    assert one is not None and other is not None
    return torch.allclose(one, other)


def test_the_decoder_learns_from_the_true_error_and_the_rest_does_not(model: Transformer) -> None:
    exact = _by_backpropagation(model)
    found = _by_rule(model, DirectFeedbackAlignment(model, MACRO, error_at="last"))
    for name in exact:
        assert _agree(found[name], exact[name]) is name.startswith("decoder."), name


@pytest.mark.parametrize("points", [["blocks.*"], MICRO_EXACT], ids=["macro", "micro"])
def test_where_the_last_block_is_no_point_it_gets_the_exact_error(model: Transformer, points: list[str]) -> None:
    exact = _by_backpropagation(model)
    found = _by_rule(model, DirectFeedbackAlignment(model, points, error_at="last"))
    # In micro, the points inside the last block cut what lies below them from its exact error.
    trained_exactly = ("decoder.", "last.") if points == ["blocks.*"] else ("decoder.", "last.out.", "last.norm_after.")
    for name in exact:
        assert _agree(found[name], exact[name]) is name.startswith(trained_exactly), name


def test_its_control_trains_last_block_and_decoder_exactly_and_freezes_the_rest(model: Transformer) -> None:
    exact = _by_backpropagation(model)
    found = _by_rule(model, Shallow(model, ["blocks.*"], error_at="last"))
    for name, gradient in found.items():
        if name.startswith(("decoder.", "last.")):
            torch.testing.assert_close(gradient, exact[name])
        else:
            assert gradient is None, name


def test_shallow_trains_the_decoder_alone(model: Transformer) -> None:
    found = _by_rule(model, Shallow(model, MACRO, error_at="last"))
    assert {name for name, gradient in found.items() if gradient is not None} == {"decoder.weight", "decoder.bias"}


def test_the_error_can_be_taken_after_the_decoder(model: Transformer) -> None:
    rule = DirectFeedbackAlignment(model, MACRO, error_at="", seed=5)
    found = _by_rule(model, rule)
    (matrix,) = [buffer.double() for buffer in rule.feedback.drawn.values()]
    assert matrix.shape == (11, 8)
    torch.testing.assert_close(found, _cut_by_hand(model, lambda w: matrix[:, :w], _names(MACRO, model), True))
    torch.testing.assert_close(found["decoder.weight"], _by_backpropagation(model)["decoder.weight"])


def test_tied_weights_learn_from_decoder_and_first_point(model: Transformer) -> None:
    torch.manual_seed(0)
    tied = Transformer(11, 7, width=8, blocks=3, heads=2, hidden=12, dropout=0.0, tied=True).double()
    rule = DirectFeedbackAlignment(tied, MACRO, error_at="last")
    found = _by_rule(tied, rule)
    (matrix,) = [buffer.double() for buffer in rule.feedback.drawn.values()]
    torch.testing.assert_close(found, _cut_by_hand(tied, lambda width: matrix[:, :width], _names(MACRO, tied)))


def test_alignment_is_of_the_last_block_one_only_where_it_is_exact(model: Transformer) -> None:
    aligned = measure_alignment(DirectFeedbackAlignment(model, MACRO, error_at="last"), lambda: _loss(model))
    assert list(aligned) == ["blocks.0", "blocks.1", "last"]
    assert len(aligned["last"].cosines) == 2 * 5  # tokens and columns are rows
    assert all(abs(point.mean) < 0.9 for point in aligned.values())


@pytest.mark.parametrize(
    ("row", "rule", "points"),
    [
        ("dfa_macro", "dfa", MACRO),
        ("dfa_micro", "dfa", MICRO),
        ("dfa_macro_exact", "dfa", ["blocks.*"]),
        ("dfa_micro_exact", "dfa", MICRO_EXACT),
        ("exact_control", "shallow", ["blocks.*"]),
        ("shallow", "shallow", MACRO),
    ],
)
def test_rows_of_table_5_are_these_rules(row: str, rule: str, points: list[str]) -> None:
    cells = [cell for cell in load_spec("table_5").cells if cell.row == row]
    assert len(cells) == 5
    for cell in cells:
        config = resolve(compose_config(list(cell.overrides)))
        assert config.rule.name == rule and set(config.model.points) == set(points)
        assert config.model.error_at == ["last"] and config.model.name == "transformer"
