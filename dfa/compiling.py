"""What torch.compile may not do: trace a draw, or compile a pass whose tensors a rule exchanges."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from dfa.errors import PointError

P = ParamSpec("P")
T = TypeVar("T")


def run_eagerly(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that torch.compile is to leave out of its graphs.

    Does as `torch.compiler.disable`, which takes seconds to import the compiler, at the first call instead of at once.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        disabled: Callable[P, T] = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return run


def enter_uncompiled(stack: ExitStack, name: str) -> None:
    """Until the stack is closed nothing is compiled, which would lose what the rule `name` does to tensors.

    Raises:
        PointError: it is happening inside torch.compile already.
    """
    refusal = PointError(f"rule '{name}' cannot run inside torch.compile")
    if torch.compiler.is_compiling():  # of a whole graph this is the end; otherwise the compiler leaves this place out
        raise refusal
    try:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    except RuntimeError:
        raise refusal from None
