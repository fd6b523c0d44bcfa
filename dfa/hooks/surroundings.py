"""What goes on around a model's forward pass that a rule cannot take part in, told before it fails elsewhere."""

from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError


def check_no_transform(but_vmap: bool = False) -> None:
    """Check that no function transform is at work, or none but `vmap`, which takes no derivative.

    Raises:
        PointError: one is.
    """
    if torch._C._are_functorch_transforms_active() and not (but_vmap and _only_vmap()):
        raise PointError(
            "a rule has no part in transforms of torch.func (grad, vmap, jvp): go backwards by rule.backward, or call"
            " the model in rule.paused()"
        )


def check_no_backward_hooks(point: str, module: nn.Module) -> None:
    """Check that a point's module has no backward hooks.

    PyTorch puts them on what leaves the module, which is a copy that signals do not start at.

    Raises:
        PointError: it has.
    """
    if module._backward_hooks or module._backward_pre_hooks:
        raise PointError(
            f"feedback point '{point}' has a backward hook, which would never run, for signals start inside of it: put"
            " the hook on a module inside or below the point"
        )


def _only_vmap() -> bool:
    functorch: Any = torch._C._functorch
    return all(each.key() == functorch.TransformType.Vmap for each in functorch.get_interpreter_stack() or ())


def is_sharded(model: nn.Module) -> bool:
    """Whether parameters of a model are divided among processes, as FSDP2 does it."""
    return any(type(parameter.data) is not Tensor for parameter in model.parameters())
