"""The contract of a training rule."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.points import Taps
from dfa.patterns import find_modules
from dfa.registry import Registry

Patterns = str | Sequence[str]


@dataclass(frozen=True)
class Uses:
    """What a rule takes beyond one forward pass and the error, so that rules can be compared fairly.

    Attributes:
        forward_weights: what of them the backward path knows: "none", "gains" (of normalisations), "signs" or "all".
        sequential: whether layers wait for the signal of the layer above.
        bp_batches: share of the batches that learn by exact backpropagation.
        extra_forwards: work beyond the forward pass, in forward passes per batch.
        state: what is held from batch to batch: "none", "fixed feedback" or "learned feedback".
    """

    forward_weights: str = "none"
    sequential: bool = False
    bp_batches: float = 0.0
    extra_forwards: float = 0.0
    state: str = "none"


class Rule(ABC):
    """Fills the `.grad` of a model's parameters from a loss; all that distinguishes one way to learn from another.

    Making a rule hooks the model's feedback points; `close()` unhooks them. Forward passes run as usual; those under
    `torch.no_grad()` are left alone. Several forward passes may precede one `backward`.

    Args:
        model: the module to train.
        points: name patterns of the feedback points (see `dfa.patterns.matches`).
        error_at: name pattern(s) of the modules whose output the error is taken at; "" is the model's output.
        silent: name patterns of modules whose output is cut but receives no signal.

    Attributes:
        whole_batches: whether signals depend on how many rows a forward pass sees, so that a batch must not be split:
            neither in parts whose gradients add up nor among processes.
    """

    name: ClassVar[str]
    whole_batches: bool = False

    def __init__(self, model: nn.Module, points: Patterns = (), error_at: Patterns = "", silent: Patterns = ()) -> None:
        self.model = model
        self.taps = self._tap(points, error_at, silent)

    @property
    def uses(self) -> Uses:
        """What this rule takes, with the options it was made with."""
        return Uses()

    @abstractmethod
    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        """Put this rule's hooks on the model."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add this rule's gradients to the parameters' `.grad`, as `loss.backward()` would add the true ones.

        Raises:
            PointError: the loss has no gradient.
        """

    def state_dict(self) -> dict[str, Any]:
        """What must be saved to go on training with the same feedback; tensors and plain numbers only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: the state holds something, and this rule keeps nothing.
        """
        if state:
            raise ValueError(f"rule '{self.name}' keeps no state, but was given {sorted(state)}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Forward passes inside are ordinary ones: nothing is cut or kept."""
        with self.taps.switched("off"):
            yield

    def discard(self) -> None:
        """Forget forward passes that will not be followed by a backward."""
        self.taps.discard()

    def close(self) -> None:
        """Take the rule's hooks off the model, which is then as it was."""
        self.taps.close()


def idle_taps(model: nn.Module, *patterns: Patterns) -> Taps:
    """Taps for a rule that cuts nothing. Patterns are checked, so that a typo shows under every rule."""
    for names in patterns:
        find_modules(model, names)
    return Taps(model, (), None)


def check_differentiable(loss: Tensor) -> None:
    """Raise PointError where nothing that can learn has gone into the loss."""
    if not loss.requires_grad:
        raise PointError("the loss has no gradient: no trainable parameter is connected to it by differentiable steps")


RULES: Registry[type[Rule]] = Registry("rule")
