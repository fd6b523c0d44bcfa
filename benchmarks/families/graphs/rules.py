"""Rules for graphs: feedback along the edges, and pseudo-errors for nodes without a label (DFA-GNN)."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from typing_extensions import Unpack

from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.sparse import SparseProduct
from dfa import RULES, Backpropagation, DirectFeedbackAlignment, FeedbackError, PointError
from dfa.base.rule import Patterns
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.placing import Hook
from dfa.hooks.points import Point
from dfa.hooks.weights import declare_product
from dfa.rules.dfa import DirectOptions

declare_product(SparseProduct)  # of sparse node features and weights


class PseudoError:
    """Hook that gives every node of a classifier's output an error, propagated from the labelled nodes.

    A variant of the pseudo-error generator of DFA-GNN (Zhao et al., *Forward Learning of Graph Neural Networks by
    Direct Feedback Alignment*, 2024), which is label spreading applied to errors. With Â the normalised adjacency,

        E ← α Â E + (1 - α) e,    `steps` times from E = e.

    Nodes with an error keep it. The others get E, scaled to the mean row norm of the errors e.

    Args:
        model: model whose first argument is a `Graph`.
        hooks: hooks of the rule; errors are not propagated while they are switched off.
        alpha: α in [0, 1); 0 leaves the errors unchanged.
        steps: number of iterations, at least 1: the distance in edges that an error propagates.

    Attributes:
        graphs: the graph that each feedback point's output was computed from, in the passes that the rule has recorded.
    """

    def __init__(self, model: nn.Module, hooks: FeedbackHooks, alpha: float, steps: int) -> None:
        self.alpha, self.steps = alpha, steps
        self._hooks = hooks
        self.graphs: MutableMapping[Point, Graph] = WeakIdKeyDictionary()
        self._hook = model.register_forward_hook(Hook(self._after_forward))

    def close(self) -> None:
        """Remove the hook from the model."""
        self._hook.remove()

    def propagate(self, graph: Graph, error: Tensor) -> Tensor:
        """Return the error of every node, (nodes, classes); rows of zeros in `error` are unlabelled nodes."""
        if self.alpha == 0:
            return error
        adjacency = graph.normalised_adjacency()
        known = error.ne(0).any(dim=1, keepdim=True)
        propagated = error
        for _ in range(self.steps):
            propagated = self.alpha * (adjacency @ propagated) + (1 - self.alpha) * error
        length = error.norm(dim=1).sum() / known.sum().clamp(min=1)
        others = propagated * (~known)
        mean = others.norm(dim=1).sum() / others.ne(0).any(dim=1).sum().clamp(min=1)
        return torch.where(known, error, others * (length / mean.clamp(min=1e-30)))

    def _after_forward(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if not arguments or not isinstance(arguments[0], Graph):
            raise PointError("the rules graph_dfa and graph_bp need a model whose first argument is a Graph")
        if self._hooks.mode == "off" or not torch.is_grad_enabled():
            return
        graph = arguments[0]
        for record in self._hooks.records:
            for point in record.points:
                self.graphs.setdefault(point, graph)
        if output.requires_grad:
            output.register_hook(partial(self.propagate, graph))


def _check_propagation(alpha: float, steps: int) -> None:
    """Check options before the rule puts hooks on the model, which would stay there."""
    if not 0 <= alpha < 1 or steps < 1:
        raise FeedbackError(f"alpha must be in [0, 1) and steps at least 1, got {alpha} and {steps}")


@RULES.register("graph_bp")
class GraphBackpropagation(Backpropagation):
    """Backpropagation from pseudo-errors, the baseline of `graph_dfa`.

    Args:
        model, points, error_at, silent: see `dfa.Rule`.
        alpha, steps: see `PseudoError`.
    """

    name = "graph_bp"

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        alpha: float = 0.9,
        steps: int = 10,
    ) -> None:
        _check_propagation(alpha, steps)
        super().__init__(model, points, error_at, silent)
        self.pseudo = PseudoError(model, self.hooks, alpha, steps)

    def close(self) -> None:
        """Remove all hooks from the model."""
        self.pseudo.close()
        super().close()


@RULES.register("graph_dfa")
class GraphFeedback(DirectFeedbackAlignment):
    """DFA along the edges of a graph (DFA-GNN, 2024): the signal at point l is Âᵏ e B_l.

    The error of a graph convolution Â h W is Âᵀ δ Wᵀ for its input. The adjacency Â is kept and only the weights are
    replaced by a random matrix. k is the number of graph convolutions from the point to the output; each feedback point
    from this one up counts as one.

    Args:
        model, points, error_at, silent and others: see `dfa.DirectFeedbackAlignment`.
        hops: whether to multiply by Âᵏ; False gives the signals of `dfa`.
        alpha, steps: see `PseudoError`; alpha=0 switches pseudo-errors off.
    """

    name = "graph_dfa"

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        hops: bool = True,
        alpha: float = 0.9,
        steps: int = 10,
        **options: Unpack[DirectOptions],
    ) -> None:
        _check_propagation(alpha, steps)
        super().__init__(model, points, error_at, silent, **options)
        self.hops = hops
        # Registered after the hook of the error tensor, because it changes that tensor's error.
        self.pseudo = PseudoError(model, self.hooks, alpha, steps)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Return the signal of each point, with the shape of its activation; see `dfa.DirectFeedbackAlignment`."""
        return (
            self._through_edges(error_name, error, points) if self.hops else super().signals(error_name, error, points)
        )

    def _through_edges(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        self.feedback.prepare(error_name, error, points)  # for all points at once, because they may share a matrix
        errors = []
        for point in points:
            if point not in self.pseudo.graphs:
                raise PointError(
                    f"rule '{self.name}' knows no graph of point '{point.name}': call the model as a whole, uncompiled"
                )
            error = self.pseudo.graphs[point].normalised_adjacency() @ error
            errors.append(error)
        for point, propagated in zip(points, reversed(errors), strict=True):
            yield next(iter(super().signals(error_name, propagated, [point])))

    def close(self) -> None:
        """Remove all hooks from the model."""
        self.pseudo.close()
        super().close()
