"""A graph network of one's own, of PyTorch Geometric's layers; its graph joins each digit to those most like it."""

import torch
from digits import accuracy, digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.nn import GATv2Conv, SAGEConv

import dfa

POINTS = ["acts.*"]  # not `convs.*`: the last of them is the output layer, which learns from the error itself


class Network(nn.Module):
    """Neighbourhoods' means, then attention, then means again."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([SAGEConv(64, 32), GATv2Conv(32, 8, heads=4), SAGEConv(32, 10)])
        self.acts = nn.ModuleList([nn.ReLU(), nn.ReLU()])

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for conv, act in zip(self.convs, self.acts, strict=False):
            x = act(conv(x, edges))
        return self.convs[-1](x, edges)


def neighbours(pictures: Tensor, count: int = 5) -> Tensor:
    """Edges (2, nodes × count) to each picture from those nearest to it."""
    near = torch.cdist(pictures, pictures).topk(count + 1, largest=False).indices[:, 1:]
    return torch.stack([near.flatten(), torch.arange(len(pictures)).repeat_interleave(count)])


def train(name: str = "dfa", steps: int = 40) -> float:
    """Train on the classes of the first 200 nodes; accuracy on all others."""
    torch.manual_seed(0)
    pictures, classes = digits()
    edges, model = neighbours(pictures), Network()
    rule = dfa.RULES.build(name, model, POINTS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        rule.backward(cross_entropy(model(pictures, edges)[:200], classes[:200]))
        optimizer.step()
    rule.close()
    return accuracy(model(pictures, edges)[200:], classes[200:])


if __name__ == "__main__":
    for name in ("bp", "dfa", "shallow"):
        print(f"{name}: accuracy {train(name):.3f}")
