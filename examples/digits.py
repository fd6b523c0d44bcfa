"""What most of the recipes train on: the 1,797 pictures of digits that scikit-learn ships, and a small network."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

POINTS = ["1", "3"]


def digits() -> tuple[Tensor, Tensor]:
    """Pictures as (1797, 64) numbers of mean 0 and variance 1, and their classes (1797,)."""
    loaded, classes = load_digits(return_X_y=True)
    pictures = torch.tensor(loaded, dtype=torch.float32)
    return (pictures - pictures.mean()) / pictures.std(), torch.tensor(classes)


def make_network() -> nn.Sequential:
    """Two hidden layers; always the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 10))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Of the parameters that are trained."""
    return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1, momentum=0.9)


@torch.no_grad()
def accuracy(logits: Tensor, classes: Tensor) -> float:
    """Share of the pictures that are recognised."""
    return (logits.argmax(1) == classes).float().mean().item()
