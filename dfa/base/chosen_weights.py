"""Which parameters of a model take feedback weights in a sequential rule, and whether they can."""

import re
from collections.abc import Sequence

from torch import Tensor, nn

from dfa.errors import PointError
from dfa.patterns import inner_model, matches

_OF_A_FUNCTION = re.compile(r"(.*)_(orig|g|v)")
_BESIDE = {"orig": ("_mask", "_u"), "g": ("_v",), "v": ("_g",)}
"""Endings that PyTorch gives to parameters from which it computes a module's weight, and to what it puts beside them.

They are those of weight_norm, spectral_norm and pruning; of parametrizations, the whole name tells.
"""


def choose_weights(
    model: nn.Module, patterns: Sequence[str], rule: str, takes_complex: bool
) -> tuple[dict[str, nn.Parameter], list[nn.Parameter]]:
    """Return a model's weights that match patterns, by name, and its other parameters.

    Args:
        model: any module.
        patterns: of names of parameters; of those that match, the ones with two dimensions or more count as weights.
        rule: its name, for messages.
        takes_complex: whether weights may be complex.

    Raises:
        PointError: none matches; or one matches by another than its first name, has no shape or no numbers yet, holds
            whole numbers, is sharded, or is complex where that has no meaning.
    """
    named = dict(inner_model(model).named_parameters())
    chosen = [name for name in named if any(matches(name, pattern) for pattern in patterns)]
    first_names = {id(parameter): name for name, parameter in named.items()}
    for name, parameter in inner_model(model).named_parameters(remove_duplicate=False):
        first = first_names[id(parameter)]
        if first not in chosen and parameter.ndim >= 2 and any(matches(name, pattern) for pattern in patterns):
            raise PointError(
                f"weights: '{name}' is the same weight as '{first}': name it '{first}', too, or leave '{name}' out"
            )
    for name in chosen:
        _check_made(name, named[name], rule)
    weights = {name: named[name] for name in chosen if named[name].ndim >= 2 and named[name].numel()}
    if not weights:
        raise PointError(f"no weight of two dimensions or more matches {', '.join(patterns)}")
    for name, weight in weights.items():
        _check_numbers(name, weight, rule, takes_complex)
    return weights, [parameter for name, parameter in named.items() if name not in weights]


def _check_made(name: str, parameter: nn.Parameter, rule: str) -> None:
    if nn.parameter.is_lazy(parameter):
        raise PointError(
            f"'{name}' has no shape yet (a lazy module): run one batch through the model, then make rule '{rule}'"
        )
    if parameter.is_meta:
        raise PointError(f"'{name}' has no numbers yet (device 'meta'): load it, then make rule '{rule}'")


def _check_numbers(name: str, weight: nn.Parameter, rule: str, takes_complex: bool) -> None:
    if type(weight.data) is not Tensor:
        kind = type(weight.data).__name__
        raise PointError(f"rule '{rule}' needs whole weights, but '{name}' is a {kind} (FSDP2): use DDP")
    if not (weight.is_floating_point() or weight.is_complex()):
        raise PointError(f"'{name}' holds whole numbers, which take no feedback weights: leave it out of weights")
    if weight.is_complex() and not takes_complex:
        raise PointError(f"rule '{rule}' takes real weights only, and '{name}' is complex")


def is_of_a_function(model: nn.Module, name: str) -> bool:
    """Whether a parameter is one that PyTorch computes a module's weight from."""
    if "parametrizations." in name:
        return True
    if not (ending := _OF_A_FUNCTION.fullmatch(name)):
        return False
    named = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return any(ending[1] + other in named for other in _BESIDE[ending[2]])


def owner_of(model: nn.Module, name: str) -> nn.Module:
    """Return the module that computes with a weight, or with what a parametrization makes of it."""
    parametrized, mark, _ = name.partition(".parametrizations.")
    return model.get_submodule(parametrized if mark else name.rpartition(".")[0])
