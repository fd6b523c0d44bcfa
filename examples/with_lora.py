"""PEFT: low-rank adapters of a frozen network, trained by a rule. Names get a prefix, so patterns begin with `**`."""

from digits import accuracy, digits, make_network, make_optimizer
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy

import dfa

POINTS = ["**.model.1", "**.model.3"]


def make_model() -> nn.Module:
    """Two layers with adapters, and a last one that is trained in full."""
    return get_peft_model(make_network(), LoraConfig(r=8, target_modules=["0", "2"], modules_to_save=["4"]))


def train(steps: int = 30) -> nn.Module:
    """Train adapters and last layer; the rest stays as it is."""
    pictures, classes = digits()
    model = make_model()
    rule = dfa.DirectFeedbackAlignment(model, POINTS)
    optimizer = make_optimizer(model)
    for _ in range(steps):
        optimizer.zero_grad()
        rule.backward(cross_entropy(model(pictures), classes))
        optimizer.step()
    rule.close()
    return model


if __name__ == "__main__":
    pictures, classes = digits()
    print(f"accuracy {accuracy(train()(pictures), classes):.3f}")
