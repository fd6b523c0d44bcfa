"""Finding modules by the pattern of their name."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from dfa.errors import PointError

_CANDIDATES_SHOWN = 12


def matches(name: str, pattern: str) -> bool:
    """Whether a dotted module name fits a pattern.

    Between dots the shell's wildcards hold (`*`, `?`, `[0-3]`); `**` between dots stands for any number of names. So
    `blocks.*` names the blocks themselves, `blocks.*.act` one child of each, `**.act` every `act`. Only the empty
    pattern names the model itself, whose name is empty.
    """
    if not name or not pattern:
        return name == pattern
    return _match_parts(name.split("."), pattern.split("."))


def _match_parts(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_match_parts(name[skip:], pattern[1:]) for skip in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _match_parts(name[1:], pattern[1:])


def pattern_list(patterns: Any, option: str = "") -> list[str]:
    """Return name patterns, one or several, as a list.

    Args:
        patterns: as the user gives them.
        option: that they are given by, where the empty pattern, which names the model itself, is none of its values.

    Raises:
        PointError: one is no text, or empty and must not be; or they come from an iterator, which could not be read a
            second time.
    """
    if isinstance(patterns, Iterator):
        raise PointError(f"name modules in a list or tuple of patterns, not in a {type(patterns).__name__}")
    several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
    given = list(patterns) if several else [patterns]
    if option and not all(isinstance(pattern, str) and pattern for pattern in given):
        raise PointError(f"{option} must be a name pattern or several, none of them empty, got {patterns!r}")
    if strange := [pattern for pattern in given if not isinstance(pattern, str)]:
        raise PointError(f"modules are named by patterns, such as 'blocks.*', got a {type(strange[0]).__name__}")
    return given


def find_modules(model: nn.Module, patterns: str | Sequence[str]) -> dict[str, nn.Module]:
    """Find the modules whose name fits any of the patterns, by name, in the order that the model defines them.

    The empty pattern names the model itself.

    Raises:
        PointError: a pattern fits no module; the message names it and lists candidates. Or it fits a further name of a
            module, of whose names only the first one counts, and that is not found. Or see `pattern_list`.
    """
    given = pattern_list(patterns)
    modules = dict(inner_model(model).named_modules())
    modules[""] = _without_ddp(model)  # with what compiles it, so that its output is met outside the compiled region
    found = {name: module for name, module in modules.items() if any(matches(name, pattern) for pattern in given)}
    _check_further_names(model, given, modules, found)
    for pattern in given:
        if not any(matches(name, pattern) for name in found):
            raise PointError(f"pattern '{pattern}' matches no module; {candidates(pattern, list(modules))}")
    return found


def _check_further_names(
    model: nn.Module, patterns: Sequence[str], modules: dict[str, nn.Module], found: dict[str, nn.Module]
) -> None:
    """Check that no pattern means a module by another than its first name, and no other pattern means it by that."""
    first_names = {id(module): name for name, module in modules.items()}
    alone = [pattern for pattern in patterns if not any(matches(name, pattern) for name in found)]
    for name, module in inner_model(model).named_modules(remove_duplicate=False):
        first = first_names.get(id(module), "")
        if name in modules:
            continue
        asked = alone if first in found else patterns
        if pattern := next((pattern for pattern in asked if matches(name, pattern)), ""):
            raise PointError(
                f"pattern '{pattern}' matches '{name}', which is the same module as '{first}': name it '{first}', which"
                " stands for all places that it runs at, or let each place have a module of its own"
            )


def _without_ddp(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel, which looks through the graph of that one's output."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def inner_model(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile and DistributedDataParallel, whose names the user knows.

    Raises:
        PointError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise PointError(f"a rule is made on a model, an nn.Module, got a {type(model).__name__}")
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif (inner := wrapped_module(model)) is not None:
            model = inner
        else:
            return model


def children_first(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Iterate over the names of all modules in the order that the model defines them, those inside one before it."""
    for name, child in module.named_children():
        yield from children_first(child, f"{prefix}.{name}" if prefix else name)
    yield prefix


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has wrapped a module, or taken its place inside it (`module.compile()`)."""
    return wrapped_module(module) is not None or getattr(module, "_compiled_call_impl", None) is not None


def wrapped_module(module: nn.Module) -> nn.Module | None:
    """Return the module that torch.compile has wrapped in this one; None where it has not."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None


def candidates(pattern: str, names: list[str]) -> str:
    """Say which of the names a pattern is like, or the first ones."""
    names = [name for name in names if name]
    if not names:
        return "the model has no named modules"
    close = get_close_matches(pattern, names, n=_CANDIDATES_SHOWN, cutoff=0.4)
    shown = close or names[:_CANDIDATES_SHOWN]
    more = "" if len(shown) == len(names) else f" (of {len(names)})"
    return f"candidates: {', '.join(shown)}{more}"
