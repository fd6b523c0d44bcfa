"""Walks through autograd's graph of a tensor."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def nodes_below(ends: Iterable[Any], until: str = "") -> Iterator[Any]:
    """Iterate over the nodes of the graph that ends in some nodes once, down to those of type `until`."""
    seen: set[Any] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if type(node).__name__ != until:
            waiting += [before for before, _ in node.next_functions]


def from_the_leaves(ends: Iterable[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Go through a graph so that every node comes after those that it was made from; yield these, too."""
    before: dict[Any, list[Any]] = {}
    done: set[Any] = set()
    waiting = list(ends)
    while waiting:
        node = waiting[-1]
        if node not in before:
            before[node] = [other for other, _ in node.next_functions]
            waiting += [other for other in before[node] if other is not None and other not in before]
        else:
            waiting.pop()
            if node not in done:
                done.add(node)
                yield node, before[node]


def leaves_below(tensor: Tensor) -> Iterator[Tensor]:
    """Iterate over the leaves that a tensor was computed from, each once: parameters, inputs."""
    for node in nodes_below([tensor.grad_fn]):
        if isinstance(variable := getattr(node, "variable", None), Tensor):
            yield variable


def next_node_number() -> int:
    """Return the number of the node that this thread adds next to a graph; autograd counts them as they are made."""
    return int(torch._C._autograd._get_sequence_nr())


def runs_again() -> bool:
    """Whether this runs in the middle of a backward pass, as when a checkpoint runs its part again."""
    return torch._C._current_graph_task_id() != -1


def backward_from(arriving: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Go backward from tensors with what arrives at each, but for those without a graph; return whether there were any.

    A point has none where layer drop, say, has left out all that lies below it.
    """
    reached = [(tensor, gradient) for tensor, gradient in arriving if tensor.requires_grad]
    if reached:
        tensors, gradients = zip(*reached, strict=True)
        torch.autograd.backward(tensors, gradients)
    return bool(reached)
