"""Models of PyTorch Geometric."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.zoo.kinds import Built

NODES, FEATURES, CLASSES = 7, 5, 3
SIZES: dict[str, Any] = {"in_channels": FEATURES, "hidden_channels": 8, "num_layers": 3, "out_channels": CLASSES}


def _nodes_classified(model: nn.Module) -> Built:
    ring = torch.arange(NODES)
    edges = torch.cat([torch.stack([ring, (ring + step) % NODES]) for step in (1, 3)], dim=1)
    features, labels = torch.randn(NODES, FEATURES), ring % CLASSES
    return model, lambda model: cross_entropy(model(features, edges)[:4], labels[:4])


def graph_sage() -> Built:
    from torch_geometric.nn import GraphSAGE

    return _nodes_classified(GraphSAGE(**SIZES))


def gin() -> Built:
    from torch_geometric.nn import GIN

    return _nodes_classified(GIN(**SIZES))


def gat_v2() -> Built:
    from torch_geometric.nn import GAT

    return _nodes_classified(GAT(**SIZES, v2=True, heads=2))


def gcn() -> Built:
    from torch_geometric.nn import GCN

    return _nodes_classified(GCN(**SIZES))
