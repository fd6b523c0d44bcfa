"""Walks through autograd's graph of a tensor."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def nodes_below(tensor: Tensor, until: str = "") -> Iterator[Any]:
    """Iterate over the nodes of a tensor's graph, each once, down to those of the type named `until`."""
    seen: set[Any] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if type(node).__name__ == until:
            continue
        waiting += [before for before, _ in node.next_functions]


def leaves_below(tensor: Tensor) -> Iterator[Tensor]:
    """Iterate over the leaves that a tensor was computed from, each once: parameters, inputs."""
    for node in nodes_below(tensor):
        if isinstance(variable := getattr(node, "variable", None), Tensor):
            yield variable
