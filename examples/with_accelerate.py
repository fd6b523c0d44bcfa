"""Hugging Face accelerate: `rule.backward` takes the place of `accelerator.backward`, and does all that this does."""

from accelerate import Accelerator
from digits import POINTS, accuracy, digits, make_network, make_optimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import dfa


def train(epochs: int = 30) -> nn.Module:
    """Train with each batch in two parts, whose gradients add up."""
    accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
    network = make_network()
    loader = DataLoader(TensorDataset(*digits()), batch_size=899)
    model, optimizer, loader = accelerator.prepare(network, make_optimizer(network), loader)
    rule = dfa.DirectFeedbackAlignment(model, POINTS)  # after `prepare`, which may wrap the model

    def backward(loss: Tensor) -> None:
        loss = loss / accelerator.gradient_accumulation_steps
        rule.backward(loss if accelerator.scaler is None else accelerator.scaler.scale(loss))

    for _ in range(epochs):
        for pictures, classes in loader:
            with accelerator.accumulate(model):
                backward(cross_entropy(model(pictures), classes))
                optimizer.step()
                optimizer.zero_grad()
    rule.close()
    return network


if __name__ == "__main__":
    pictures, classes = digits()
    print(f"accuracy {accuracy(train()(pictures), classes):.3f}")
