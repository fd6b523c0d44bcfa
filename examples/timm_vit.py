"""A vision Transformer of timm on pictures of digits: a rule that follows the residual path, and two controls."""

import torch
from digits import accuracy, digits
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.functional import cross_entropy

import dfa

POINTS, ERROR_AT = "blocks.*", "norm"  # the error at the end of the residual path has the shape of every block's output
HELD_OUT = 360


def train(name: str = "identity", epochs: int = 8) -> float:
    """Train on all pictures but the last 360; accuracy on those."""
    torch.manual_seed(0)
    model: nn.Module = VisionTransformer(
        img_size=8, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=3, num_heads=4, global_pool="avg",
        class_token=False,
    )  # fmt: skip
    rule = dfa.RULES.build(name, model, POINTS, ERROR_AT)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pictures, classes = digits()
    pictures = pictures.view(-1, 1, 8, 8)
    for _ in range(epochs):
        for rows in torch.randperm(len(pictures) - HELD_OUT).split(64):
            optimizer.zero_grad()
            rule.backward(cross_entropy(model(pictures[rows]), classes[rows]))
            optimizer.step()
    rule.close()
    return accuracy(model.eval()(pictures[-HELD_OUT:]), classes[-HELD_OUT:])


if __name__ == "__main__":
    for name in ("bp", "identity", "shallow"):
        print(f"{name}: accuracy {train(name):.3f}")
