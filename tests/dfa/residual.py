"""Residual models, and the waves of `highway` on them, computed from whole Jacobian matrices."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn.functional import cross_entropy

WIDTH, BLOCKS = 4, 3
POINTS = [str(index) for index in range(BLOCKS + 1)]
"""What goes into the first block, and the output of each."""
LAST = POINTS[-1]


class Residual(nn.Module):
    """Two dense layers with a residual connection, normalised before ("pre"), after the sum ("post"), or not."""

    def __init__(self, norm: str = "none") -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH) if norm == "pre" else nn.Identity()
        self.up, self.act, self.down = nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, WIDTH)
        self.after = nn.LayerNorm(WIDTH) if norm == "post" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.down(self.act(self.up(self.before(x)))))


class Doubled(nn.Module):
    """A dense layer x ↦ W x + b whose Jacobian with respect to x is B."""

    def __init__(self, layer: nn.Linear, feedback: Tensor) -> None:
        super().__init__()
        self.layer, self.feedback = layer, feedback

    def forward(self, x: Tensor) -> Tensor:
        sent = x @ self.feedback.T
        return self.layer(x.detach()) + sent - sent.detach()


def residual_network(norm: str = "none") -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, WIDTH), *(Residual(norm) for _ in range(BLOCKS)), nn.Linear(WIDTH, 3)).double()
    for name, parameter in model.named_parameters():
        if name.endswith(("before.weight", "after.weight")):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def with_feedback(block: nn.Module, prefix: str, feedback: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a block through whose weights signals go by `feedback`."""
    twin = copy.deepcopy(block)
    for name in ("up", "down"):
        setattr(twin, name, Doubled(twin.get_submodule(name), feedback[f"{prefix}.{name}.weight"]))  # type: ignore[arg-type]
    return twin


def path_matrix(block: Residual, x: Tensor) -> Tensor:
    """The Jacobian of a block's last normalisation, flat; the identity where there is none."""
    return jacobian_matrix(block.after, x + block.down(block.act(block.up(block.before(x)))))


def jacobian_matrix(block: nn.Module, x: Tensor) -> Tensor:
    """The Jacobian of a block's flat output with respect to its flat input, row by row."""
    found = jacobian(block, x)
    assert isinstance(found, Tensor)
    return found.reshape(x.numel(), x.numel())


def wave_signals(jacobians: Sequence[Tensor], path: Sequence[Tensor], error: Tensor, waves: int) -> list[Tensor]:
    """s_l = K_{l+1}ᵀ ⋯ K_Lᵀ e, then so often s_l' = K_{l+1}ᵀ ⋯ K_Lᵀ e + Σ_{j>l} K_{l+1}ᵀ ⋯ K_{j-1}ᵀ (J_j - K_j)ᵀ s_j.

    Args:
        jacobians: J_1 … J_L, square.
        path: K_1 … K_L, square; both in the order of rows of outputs.
        error: e, flat.
        waves: how often.

    Returns:
        s_0 … s_L, flat.
    """
    count = len(jacobians)

    def along_path(signal: Tensor, start: int, end: int) -> Tensor:
        for step in reversed(path[end:start]):
            signal = step.T @ signal
        return signal

    start = [along_path(error, count, end) for end in range(count + 1)]
    signals = start
    for _ in range(waves):
        beyond = [(jacobians[j] - path[j]).T @ signals[j + 1] for j in range(count)]
        signals = [
            start[end] + sum((along_path(beyond[j], j, end) for j in range(end, count)), torch.zeros_like(error))
            for end in range(count + 1)
        ]
    return signals


def wave_gradients(
    model: nn.Sequential,
    batch: tuple[Tensor, Tensor],
    waves: int,
    damping: float = 1.0,
    norms: bool = False,
    feedback: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gradients of mean cross-entropy: each part of the network alone, driven by its own signal."""
    x, targets = batch
    embed, *blocks, head = model
    outputs = [embed(x)]
    for block in blocks:
        outputs.append(block(outputs[-1].detach()))
    top = outputs[-1].detach().requires_grad_()
    loss = cross_entropy(head(top), targets)
    (error,) = torch.autograd.grad(loss, top, retain_graph=True)
    jacobians, path = [], []
    for number, (block, entering) in enumerate(zip(blocks, outputs[:-1], strict=True), start=1):
        sending = block if feedback is None else with_feedback(block, str(number), feedback)
        jacobians.append(jacobian_matrix(sending, entering.detach()))
        assert isinstance(block, Residual)
        through = path_matrix(block, entering.detach()) if norms else torch.eye(entering.numel(), dtype=entering.dtype)
        path.append(damping * through)
    signals = wave_signals(jacobians, path, error.flatten(), waves)
    parameters = dict(model.named_parameters())
    tensors = [loss, *outputs]
    weights = [None, *(signal.reshape(top.shape) for signal in signals)]
    found = torch.autograd.grad(tensors, list(parameters.values()), weights)
    return dict(zip(parameters, found, strict=True))
