"""The Transformer against PyTorch's own, its attention variants by hand, and its loss before training."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.families.language.attention import (
    ATTENTIONS,
    DenseSynthesizer,
    DotProductAttention,
    FixedAttention,
    RandomSynthesizer,
    WeightedAttention,
    fixed_patterns,
)
from benchmarks.families.language.models import Block, Embedding, Transformer, sinusoids
from benchmarks.speed.language import expected_first_loss

WIDTH, HEADS, WINDOW = 8, 4, 7


def _into_pytorch(block: Block, pre: bool) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with a block's weights."""
    attended, attention, hidden, out = block.attended, block.attended.attention, block.hidden[0], block.out[0]
    first, second = (attended.norm_before, block.norm_before) if pre else (attended.norm_after, block.norm_after)
    assert isinstance(attention, DotProductAttention) and isinstance(hidden, nn.Linear) and isinstance(out, nn.Linear)
    assert isinstance(first, nn.LayerNorm) and isinstance(second, nn.LayerNorm)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, hidden.out_features, 0.0, batch_first=True, norm_first=pre).double()
    pairs = {
        "self_attn.in_proj_weight": attention.project.weight, "self_attn.in_proj_bias": attention.project.bias,
        "self_attn.out_proj.weight": attention.out.weight, "self_attn.out_proj.bias": attention.out.bias,
        "linear1.weight": hidden.weight, "linear1.bias": hidden.bias,
        "linear2.weight": out.weight, "linear2.bias": out.bias,
        "norm1.weight": first.weight, "norm1.bias": first.bias,
        "norm2.weight": second.weight, "norm2.bias": second.bias,
    }  # fmt: skip
    layer.load_state_dict({name: value.detach() for name, value in pairs.items()})
    return layer


@pytest.mark.parametrize("normalisation", ["post", "pre"])
def test_it_is_pytorchs_encoder_with_a_causal_mask(normalisation: str) -> None:
    torch.manual_seed(0)
    model = Transformer(
        11, WINDOW, width=WIDTH, blocks=3, heads=2, hidden=12, dropout=0.0, normalisation=normalisation
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens = torch.randint(11, (2, 5))
    x = model.embedding.tokens.weight[tokens] * math.sqrt(WIDTH) + sinusoids(5, WIDTH).double()
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    for block in (*model.blocks, model.last):
        x = _into_pytorch(block, normalisation == "pre").eval()(x, mask, is_causal=True)
    if normalisation == "pre":
        assert isinstance(model.norm, nn.LayerNorm)
        x = F.layer_norm(x, (WIDTH,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(model(tokens), x @ model.decoder.weight.T + model.decoder.bias)


@pytest.mark.parametrize("normalisation", ["post", "pre", "none"])
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_nothing_is_learned_from_later_tokens_and_something_from_earlier_ones(
    attention: str, normalisation: str
) -> None:
    torch.manual_seed(0)
    model = Transformer(
        11, WINDOW, width=WIDTH, blocks=2, heads=HEADS, hidden=12, dropout=0.0, attention=attention,
        normalisation=normalisation,
    ).double()  # fmt: skip
    tokens = torch.randint(11, (1, 6))
    changed = tokens.clone()
    changed[0, 3] = (tokens[0, 3] + 1) % 11
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
    assert ((before - after)[0, 3:].abs().amax(dim=1) > 1e-6).all()


def test_a_shorter_window_gives_the_same_as_the_beginning_of_a_longer_one() -> None:
    for attention in ATTENTIONS:
        torch.manual_seed(0)
        model = Transformer(11, WINDOW, width=WIDTH, blocks=2, heads=HEADS, hidden=12, dropout=0.0, attention=attention)
        tokens = torch.randint(11, (2, WINDOW))
        torch.testing.assert_close(model(tokens[:, :4]), model(tokens)[:, :4])


def test_fixed_patterns_by_hand() -> None:
    itself, before, context, first = fixed_patterns(4)
    assert torch.equal(itself, torch.eye(4))
    assert before.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert first.tolist() == [[1, 0, 0, 0]] * 4
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1 / 9, 8 / 9, 0, 0]]
    torch.testing.assert_close(context, torch.tensor(expected))


def _mix(layer: WeightedAttention, weights: Tensor, x: Tensor) -> Tensor:
    """Heads of the given weights (columns, heads, length, length) over the values, then the output layer."""
    value = x @ layer.value.weight.T + layer.value.bias
    size = WIDTH // HEADS
    heads = [weights[:, h] @ value[..., h * size : (h + 1) * size] for h in range(HEADS)]
    return torch.cat(heads, dim=-1) @ layer.out.weight.T + layer.out.bias


def _causal(scores: Tensor) -> Tensor:
    allowed = torch.ones_like(scores).tril()
    raised = scores.exp() * allowed
    return raised / raised.sum(-1, keepdim=True)


def test_attention_variants_by_hand() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, WIDTH)
    shape = WIDTH, HEADS, 0.0, WINDOW
    fixed, dense, random = FixedAttention(*shape), DenseSynthesizer(*shape), RandomSynthesizer(*shape)
    torch.testing.assert_close(fixed(x), _mix(fixed, fixed_patterns(5).expand(2, -1, -1, -1), x))
    scores = random.scores[:, :5, :5].expand(2, -1, -1, -1)
    torch.testing.assert_close(random(x), _mix(random, _causal(scores), x))
    inner, _, outer = dense.scores
    assert isinstance(inner, nn.Linear) and isinstance(outer, nn.Linear)
    hidden = (x @ inner.weight.T + inner.bias).clamp(min=0)
    by_head = [hidden @ outer.weight[h * WINDOW : h * WINDOW + 5].T + outer.bias[h * WINDOW : h * WINDOW + 5]
               for h in range(HEADS)]  # fmt: skip
    torch.testing.assert_close(dense(x), _mix(dense, _causal(torch.stack(by_head, dim=1)), x))


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoids(9, 6)
    for position in range(9):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_initial_weights() -> None:
    model = Transformer(500, WINDOW, width=64, blocks=2, heads=4, hidden=32)
    for weight in (model.embedding.tokens.weight, model.decoder.weight):
        assert -0.1 <= weight.min() < -0.099 and 0.099 < weight.max() <= 0.1
        assert weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    assert not model.decoder.bias.any()
    assert {model.last.hidden[0].out_features, model.last.attended.attention.heads} == {32, 4}


@pytest.mark.parametrize(("vocabulary", "width"), [(2000, 64), (500, 256)])
def test_loss_before_training_is_log_vocabulary_and_the_spread_of_the_scores(vocabulary: int, width: int) -> None:
    """The loss is log V + width r²/6: 0.11 more than log V at width 64, 0.43 at 256 (0.85 at the paper's 512)."""
    torch.manual_seed(0)
    model = Transformer(vocabulary, 32, width=width, blocks=2, heads=4, hidden=2 * width)
    tokens = torch.randint(vocabulary, (16, 33))
    with torch.no_grad():
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).item()
    assert expected_first_loss(vocabulary, width) == pytest.approx(math.log(vocabulary) + width * 0.01 / 6)
    assert loss == pytest.approx(expected_first_loss(vocabulary, width), rel=0.01)
    assert abs(loss - math.log(vocabulary)) > 0.5 * width * 0.01 / 6


def test_tied_weights_are_one_parameter_and_learn_from_both_ends() -> None:
    model = Transformer(20, WINDOW, width=WIDTH, blocks=1, heads=2, hidden=8, tied=True)
    assert model.decoder.weight is model.embedding.tokens.weight
    assert "decoder.weight" not in dict(model.named_parameters())


def test_dropout_is_where_it_belongs_and_off_in_evaluation() -> None:
    torch.manual_seed(0)
    model = Transformer(20, WINDOW, width=WIDTH, blocks=2, heads=2, hidden=8, dropout=0.5)
    tokens = torch.randint(20, (3, WINDOW))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert (model.embedding(tokens) == 0).float().mean().item() == pytest.approx(0.5, abs=0.15)
    hidden = model.last.hidden(torch.ones(400, WIDTH))
    assert (hidden == 0).float().mean() > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "linear"}, "unknown attention 'linear'; known: dot_product, fixed"),
        ({"normalisation": "batch"}, "unknown normalisation 'batch'; known: post, pre, none"),
        ({"heads": 3}, "multiple of 2·heads"),
        ({"blocks": 0}, "0 blocks"),
        ({"attention": "fixed", "heads": 2}, "needs 4 heads, one for each pattern, not 2"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transformer(20, WINDOW, **({"width": 8, "blocks": 2, "heads": 4, "hidden": 8} | options))


def test_embedding_is_scaled() -> None:
    embedding = Embedding(20, WINDOW, WIDTH, 0.0)
    tokens = torch.randint(20, (2, 5))
    expected = embedding.tokens.weight[tokens] * math.sqrt(WIDTH) + sinusoids(WINDOW, WIDTH)[:5]
    torch.testing.assert_close(embedding(tokens), expected)
