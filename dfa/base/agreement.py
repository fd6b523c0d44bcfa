"""Changes of what a rule has learned: the same in all processes, and none from numbers that are no good."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dfa.errors import PointError
from dfa.patterns import wrapped_module


def agree(changes: Sequence[Tensor], model: nn.Module, rule: str) -> bool:
    """Average changes in place over the processes of DistributedDataParallel; return whether all are finite.

    Args:
        changes: to tensors that are alike in all processes, in the same order everywhere.
        model: that the rule was made on.
        rule: its name.

    Raises:
        PointError: there are several processes, and the model is not wrapped in DistributedDataParallel.
    """
    group = _group_of(model, rule)
    if group is not None:
        for change in changes:
            distributed.all_reduce(change, group=group)
            change.div_(group.size())
    return bool(torch.stack([change.isfinite().all() for change in changes]).all())


def _group_of(model: nn.Module, rule: str) -> distributed.ProcessGroup | None:
    while (inner := wrapped_module(model)) is not None:
        model = inner
    if isinstance(model, DistributedDataParallel):
        return model.process_group
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise PointError(
            f"rule '{rule}' would learn other matrices in every process: make it on the model that"
            " DistributedDataParallel has wrapped"
        )
    return None
