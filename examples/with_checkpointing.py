"""Activation checkpointing: non-reentrant, with blocks as points. `memory="recompute"` saves as much by itself."""

import torch
from digits import accuracy, digits
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification

import dfa

POINTS, ERROR_AT = ["vit.layers.*"], "classifier"


def train(checkpointing: bool = True, steps: int = 60) -> nn.Module:
    """Train with batches of 128 that follow each other."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=10, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=128,
    )  # fmt: skip
    model = ViTForImageClassification(config).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    rule = dfa.DirectFeedbackAlignment(model, POINTS, ERROR_AT)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pictures, classes = digits()
    batches = list(zip(pictures.view(-1, 1, 8, 8).split(128), classes.split(128), strict=True))
    for step in range(steps):
        optimizer.zero_grad()
        batch, labels = batches[step % len(batches)]
        rule.backward(cross_entropy(model(batch).logits, labels))
        optimizer.step()
    rule.close()
    return model.eval()


if __name__ == "__main__":
    pictures, classes = digits()
    print(f"accuracy {accuracy(train()(pictures.view(-1, 1, 8, 8)).logits, classes):.3f}")
