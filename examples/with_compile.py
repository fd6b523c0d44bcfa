"""torch.compile: first the rule, then the first call of the compiled model, which thus includes the rule's hooks."""

import torch
from digits import POINTS, accuracy, digits, make_network, make_optimizer
from torch import nn
from torch.nn.functional import cross_entropy

import dfa


def train(backend: str = "inductor", steps: int = 30) -> nn.Module:
    """Train a model that is compiled as a whole."""
    pictures, classes = digits()
    network = make_network()
    model = torch.compile(network, backend=backend)
    rule = dfa.DirectFeedbackAlignment(model, POINTS)
    optimizer = make_optimizer(network)
    for _ in range(steps):
        optimizer.zero_grad()
        rule.backward(cross_entropy(model(pictures), classes))
        optimizer.step()
    rule.close()
    return network


if __name__ == "__main__":
    pictures, classes = digits()
    print(f"accuracy {accuracy(train()(pictures), classes):.3f}")
