"""Models of Hugging Face's transformers, built from a configuration."""

import torch
from torch import Tensor

from tests.zoo.kinds import Built, Loss

ROWS, STEPS, VOCABULARY = 2, 5, 11
SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def _labelled(steps: int = STEPS) -> tuple[Tensor, Loss]:
    tokens = torch.randint(VOCABULARY, (ROWS, steps))
    return tokens, lambda model: model(input_ids=tokens, labels=tokens).loss


def gpt2() -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_layer=2, n_head=2, **rates)
    return GPT2LMHeadModel(config), _labelled()[1]


def llama() -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=1, max_position_embeddings=8, **SMALL)
    return LlamaForCausalLM(config), _labelled()[1]


def mixtral() -> Built:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=VOCABULARY, num_key_value_heads=1, max_position_embeddings=8, num_local_experts=3, **SMALL
    )
    config.output_router_logits = True  # the loss that balances the experts has a part in their gradients
    return MixtralForCausalLM(config), _labelled()[1]


def mamba() -> Built:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=8, state_size=4, num_hidden_layers=2, time_step_rank=2)
    return MambaForCausalLM(config), _labelled()[1]


def bert() -> Built:
    from transformers import BertConfig, BertForSequenceClassification

    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=8, num_labels=3, **SMALL, **rates)
    tokens, labels = torch.randint(VOCABULARY, (ROWS, STEPS)), torch.arange(ROWS)
    return BertForSequenceClassification(config), lambda model: model(input_ids=tokens, labels=labels).loss


def t5() -> Built:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    source, target = torch.randint(1, VOCABULARY, (ROWS, 6)), torch.randint(1, VOCABULARY, (ROWS, 4))
    return T5ForConditionalGeneration(config), lambda model: model(input_ids=source, labels=target).loss


def vit() -> Built:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=3, **SMALL)
    images, labels = torch.randn(ROWS, 1, 8, 8), torch.arange(ROWS)
    return ViTForImageClassification(config), lambda model: model(pixel_values=images, labels=labels).loss
