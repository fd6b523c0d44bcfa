"""Rules that know the graph: feedback through its edges, and errors for the papers whose class nobody knows."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from benchmarks.graphs.graph import Graph
from dfa import RULES, Backpropagation, DirectFeedbackAlignment, PointError
from dfa.base.rule import Patterns
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.points import Point
from dfa.rules.dfa import DirectOptions


class PseudoError:
    """Spreads the error at the output of a node classifier from the nodes that have one to the others.

    As the pseudo-error generator of DFA-GNN (Zhao et al., *Forward Learning of Graph Neural Networks by Direct Feedback
    Alignment*, 2024) in spirit: label spreading, applied to errors. With Â the normalised adjacency,

        E ← α Â E + (1 - α) e,    `steps` times from E = e,

    then nodes with an error keep it and the others get E, scaled so that the mean length of a row is theirs.

    Args:
        model: whose first argument is a `Graph`.
        hooks: of the rule; while `switched` off, as in a pause or a batch of exact backpropagation, nothing is spread.
        alpha: α; 0 leaves the error alone.
        steps: how far an error travels, in edges.

    Attributes:
        graph: of the last forward pass.
    """

    def __init__(self, model: nn.Module, hooks: FeedbackHooks, alpha: float, steps: int) -> None:
        if not 0 <= alpha < 1 or steps < 1:
            raise ValueError(f"alpha must be from 0 to below 1 and steps at least 1, got {alpha} and {steps}")
        self.alpha, self.steps = alpha, steps
        self._hooks = hooks
        self.graph: Graph | None = None
        self._hook = model.register_forward_hook(self._intercept)

    def close(self) -> None:
        """Take the hook off the model."""
        self._hook.remove()

    def spread(self, error: Tensor) -> Tensor:
        """The error of every node, (nodes, classes)."""
        if self.alpha == 0 or self.graph is None:
            return error
        adjacency = self.graph.normalised_adjacency()
        known = error.ne(0).any(dim=1, keepdim=True)
        spread = error
        for _ in range(self.steps):
            spread = self.alpha * (adjacency @ spread) + (1 - self.alpha) * error
        length = error.norm(dim=1).sum() / known.sum().clamp(min=1)
        others = spread * (~known)
        mean = others.norm(dim=1).sum() / others.ne(0).any(dim=1).sum().clamp(min=1)
        return torch.where(known, error, others * (length / mean.clamp(min=1e-30)))

    def _intercept(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if not arguments or not isinstance(arguments[0], Graph):
            raise PointError("the rules graph_dfa and graph_bp are for models of a graph")
        self.graph = arguments[0]
        if self._hooks.mode == "off":
            return
        if torch.is_grad_enabled() and output.requires_grad:
            output.register_hook(self.spread)


@RULES.register("graph_bp")
class GraphBackpropagation(Backpropagation):
    """Backpropagation from the pseudo-error: the fair baseline of `graph_dfa`.

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
        super().__init__(model, points, error_at, silent)
        self.pseudo = PseudoError(model, self.hooks, alpha, steps)

    def close(self) -> None:
        self.pseudo.close()
        super().close()


@RULES.register("graph_dfa")
class GraphFeedback(DirectFeedbackAlignment):
    """The signal of point l is Âᵏ e B_l, k the number of graph convolutions from it to the output (DFA-GNN, 2024).

    The way of an error back through a convolution Â h W is Âᵀ δ Wᵀ: the edges are known, and only the weights are
    replaced by random ones. One convolution counts for each point from this one up.

    Args:
        model, points, error_at, silent and others: see `dfa.DirectFeedbackAlignment`.
        hops: False: no Â, as in `dfa`.
        alpha, steps: see `PseudoError`; alpha=0 for none.
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
        super().__init__(model, points, error_at, silent, **options)
        self.hops = hops
        # After the hook of the error tensor, whose error it spreads.
        self.pseudo = PseudoError(model, self.hooks, alpha, steps)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        if not self.hops or self.pseudo.graph is None:
            return super().signals(error_name, error, points)
        return self._through_edges(error_name, error, points)

    def _through_edges(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        assert self.pseudo.graph is not None
        self.feedback.prepare(error_name, error, points)  # all at once: they may share a matrix
        adjacency = self.pseudo.graph.normalised_adjacency()
        errors = []
        for _ in points:
            error = adjacency @ error
            errors.append(error)
        for point, travelled in zip(points, reversed(errors), strict=True):
            yield next(iter(super().signals(error_name, travelled, [point])))

    def close(self) -> None:
        self.pseudo.close()
        super().close()
