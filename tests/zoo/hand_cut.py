"""What direct rules must compute, one segment at a time: plain hooks cut the graph, each formula stands here again."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Any]
Signals = Callable[[str, Tensor, list["Fired"]], list[Tensor | None]]
Gradients = dict[str, Tensor]


@dataclass
class Fired:
    """What a point put out in one forward pass."""

    name: str
    output: Tensor


@dataclass
class Arrival:
    """An error tensor, the leaf that went on in its place, and the points that belong to it."""

    name: str
    output: Tensor
    leaf: Tensor
    points: list[Fired] = field(default_factory=list)


def matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that patterns name, in the order of the model."""
    found = [re.compile(re.escape(pattern).replace(r"\*", r"[^.]+")) for pattern in patterns]
    return [name for name, _ in model.named_modules() if any(pattern.fullmatch(name) for pattern in found)]


def hand_cut(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    points: Sequence[str],
    error_at: Sequence[str],
    signals: Signals | None,
) -> Gradients:
    """Gradients of a model cut at its points and error tensors, each piece driven by its own signal.

    Args:
        signals: (name of the error tensor, error, points) → a signal for each point. None: nothing is sent, and the
            error tensors are left alone.
    """
    waiting: list[Fired] = []
    arrivals: list[Arrival] = []

    def first(output: Any) -> Tensor:
        return output if isinstance(output, Tensor) else output[0]

    def instead(output: Any, tensor: Tensor) -> Any:
        if isinstance(output, Tensor):
            return tensor
        return (tensor, *(item.detach() if isinstance(item, Tensor) else item for item in output[1:]))

    def at_point(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            waiting.append(Fired(name, first(output)))
            return instead(output, first(output).detach().clone())

        return hook

    def at_error(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            leaf = first(output).detach().clone().requires_grad_()
            arrivals.append(Arrival(name, first(output), leaf, waiting.copy()))
            waiting.clear()
            return leaf if isinstance(output, Tensor) else (leaf, *output[1:])

        return hook

    for name in matching(model, points):
        model.get_submodule(name).register_forward_hook(at_point(name))
    if signals is not None:
        for name in matching(model, error_at):
            model.get_submodule(name).register_forward_hook(at_error(name))
    value = loss(model)
    parameters = dict(model.named_parameters())
    wanted = [*(arrival.leaf for arrival in arrivals), *parameters.values()]
    collected: dict[int, Tensor] = {}

    def pull(output: Tensor, signal: Tensor | None) -> None:
        if not output.requires_grad:
            return
        found = torch.autograd.grad(output, wanted, signal, retain_graph=True, allow_unused=True)
        for tensor, gradient in zip(wanted, found, strict=True):
            if gradient is not None:
                known = collected.get(id(tensor))
                collected[id(tensor)] = gradient if known is None else known + gradient

    pull(value, None)
    for arrival in reversed(arrivals):
        error = collected.get(id(arrival.leaf))
        if error is None:
            continue
        pull(arrival.output, error)
        assert signals is not None
        for point, signal in zip(arrival.points, signals(arrival.name, error, arrival.points), strict=True):
            if signal is not None:
                pull(point.output, signal.reshape(point.output.shape).to(point.output.dtype))
    return {name: collected[id(tensor)] for name, tensor in parameters.items() if id(tensor) in collected}


def as_rows(tensor: Tensor, leading: int) -> Tensor:
    return tensor.reshape(prod(tensor.shape[:leading]), -1)


def projected(error: Tensor, matrix: Tensor, point: Tensor) -> Tensor:
    """e B for every row of the error; where a point has k rows for each, k times and divided by √k.

    A matrix as high as the error of a sample takes that as a row.
    """
    leading = 1 if len(matrix) == error[0].numel() else max(1, error.ndim - 1)
    error_rows, rows = as_rows(error, leading), as_rows(point, leading)
    signal = error_rows @ matrix.to(error.dtype)[:, : rows.shape[1]]
    repeats = len(rows) // len(error_rows)
    return signal.repeat_interleave(repeats, dim=0) / sqrt(repeats)


def _key(error_name: str, point: str) -> str:
    return f"{error_name.replace('.', '/') or '(output)'}:{point.replace('.', '/')}"


def through_matrices(state: State, sharing: str) -> Signals:
    """e B: one matrix for all points of an error tensor, of which each uses its first columns, or one for each."""

    def signals(name: str, error: Tensor, points: list[Fired]) -> list[Tensor | None]:
        keys = [_key(name, "shared" if sharing == "shared" else point.name) for point in points]
        return [projected(error, state[key], point.output) for key, point in zip(keys, points, strict=True)]

    return signals


def of_targets(state: State) -> Signals:
    """- y* B / n: the target is where the error is negative, n the rows that the loss looks at."""

    def signals(name: str, error: Tensor, points: list[Fired]) -> list[Tensor | None]:
        rows = as_rows(error, max(1, error.ndim - 1))
        seen = rows.abs().sum(1) > 0
        targets = nn.functional.one_hot(rows.argmin(1), rows.shape[1]).to(rows) * seen[:, None]
        return through_matrices(state, "shared")(name, (-targets / seen.sum()).reshape(error.shape), points)

    return signals


def of_error_itself(state: State) -> Signals:
    """e at points of its shape, e B at others."""

    def signals(name: str, error: Tensor, points: list[Fired]) -> list[Tensor | None]:
        return [
            error if point.output.shape == error.shape else through_matrices(state, "shared")(name, error, [point])[0]
            for point in points
        ]

    return signals


def through_channel(state: State) -> Signals:
    """(e P) Q."""

    def signals(name: str, error: Tensor, points: list[Fired]) -> list[Tensor | None]:
        channel = state["channels"][name].to(error.dtype)
        rows = error.flatten(1) if len(channel) == error[0].numel() else error
        return through_matrices(state["feedback"], "per_point")(name, rows @ channel, points)

    return signals


def of_backpropagation(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], points: Sequence[str], error_at: Sequence[str]
) -> Signals:
    """The error's gradient at each point of a model that is not cut, except beside the points' first tensors."""
    outputs: dict[str, list[Tensor]] = {}

    def keep(name: str, cut_beside: bool) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            first, *others = (output,) if isinstance(output, Tensor) else output
            outputs.setdefault(name, []).append(first)
            if isinstance(output, Tensor) or not cut_beside:
                return None
            return (first, *(other.detach() if isinstance(other, Tensor) else other for other in others))

        return hook

    for name in matching(model, points):
        model.get_submodule(name).register_forward_hook(keep(name, cut_beside=True))
    for name in set(matching(model, error_at)) - set(matching(model, points)):
        model.get_submodule(name).register_forward_hook(keep(name, cut_beside=False))
    value = loss(model)

    def signals(error_name: str, error: Tensor, fired: list[Fired]) -> list[Tensor | None]:
        (tensor,) = outputs[error_name]
        (wanted,) = torch.autograd.grad(value, tensor, retain_graph=True)
        in_order = {name: iter(found) for name, found in outputs.items()}  # a module may run more than once
        at = [next(in_order[point.name]) for point in fired]
        return list(torch.autograd.grad(tensor, at, wanted, retain_graph=True, allow_unused=True))

    return signals
