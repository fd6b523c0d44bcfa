"""Mixed precision: the rule gets the scaled loss; whatever it puts into `.grad` is scaled, and the scaler undoes it."""

import torch
from digits import POINTS, accuracy, digits, make_network, make_optimizer
from torch import nn
from torch.nn.functional import cross_entropy

import dfa


def train(scaled: bool = True, steps: int = 30) -> nn.Module:
    """Train in half precision."""
    pictures, classes = digits()
    model = make_network()
    rule = dfa.DirectFeedbackAlignment(model, POINTS)
    optimizer = make_optimizer(model)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(model(pictures), classes)
        rule.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
    rule.close()
    return model


if __name__ == "__main__":
    pictures, classes = digits()
    print(f"accuracy {accuracy(train()(pictures), classes):.3f}")
