"""Keeping torch.compile away from code that it must not trace."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import torch

from dfa.errors import PointError

P = ParamSpec("P")
T = TypeVar("T")


def run_eagerly(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that torch.compile is to leave out of its graphs.

    Like `torch.compiler.disable`, but it imports the compiler, which takes seconds, at the first call, not before.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return cast(Callable[P, T], torch.compiler.disable(function))(*args, **kwargs)

    return run


def hidden(value: T) -> Callable[[], T]:
    """Put a value behind a function.

    torch.compile traces the hooks of a model, and must not meet the model that it compiles in what they read.
    """
    return lambda: value


def older_graph() -> str:
    """Say, once torch.compile has been used, how hooks are missed: it runs a graph made for a model without them."""
    if "torch._dynamo" not in sys.modules:
        return ""
    return (
        "; or torch.compile has reused a graph that it compiled before the rule was made, perhaps for an identical"
        " model: call torch.compiler.reset()"
    )


def enter_uncompiled(stack: ExitStack, name: str) -> None:
    """Disable compilation, which would lose what the rule `name` does to tensors, until the stack is closed.

    Raises:
        PointError: this runs inside torch.compile already.
    """
    refusal = PointError(f"rule '{name}' cannot run inside torch.compile")
    if torch.compiler.is_compiling():  # with fullgraph=True this ends it; otherwise the compiler leaves the caller out
        raise refusal
    try:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    except RuntimeError:
        raise refusal from None
