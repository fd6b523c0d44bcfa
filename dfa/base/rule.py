"""The contract of a training rule."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal, NoReturn, SupportsIndex, TypeVar, get_args

from torch import Tensor, nn

from dfa.errors import PointError
from dfa.feedback.states import check_entries
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.targets import (
    Patterns,
    Points,
    error_patterns,
    find_error_tensors,
    find_targets,
    patterns_of,
)
from dfa.patterns import find_modules, inner_model
from dfa.registry import Registry
from dfa.values import check_choice, check_count

Self = TypeVar("Self", bound="Rule")
ForwardWeights = Literal["none", "gains", "signs", "all"]
State = Literal["none", "fixed feedback", "learned feedback"]


@dataclass(frozen=True)
class Uses:
    """Resources that a rule uses beyond one forward pass and the error, so that rules can be compared fairly.

    Attributes:
        forward_weights: the part of the weights that the backward path knows: "none", "gains" (of normalisations),
            "signs" or "all".
        sequential: whether layers wait for the signal of the layer above.
        waves: number of sequential waves, in each of which all points send signals to their neighbours.
        bp_batches: share of the batches, from 0 to 1, trained by exact backpropagation.
        extra_forwards: work beyond the forward pass, in forward passes per batch.
        state: kept from batch to batch: "none", "fixed feedback" or "learned feedback".

    Raises:
        FeedbackError: another word, or a number of waves below 0.
    """

    forward_weights: ForwardWeights = "none"
    sequential: bool = False
    waves: int = 0
    bp_batches: float = 0.0
    extra_forwards: float = 0.0
    state: State = "none"

    def __post_init__(self) -> None:
        check_choice("forward_weights", self.forward_weights, get_args(ForwardWeights))
        check_count("waves", self.waves, 0)
        check_choice("state", self.state, get_args(State))


class Rule(ABC):
    """Computes the `.grad` of a model's parameters from a loss; the base class of all rules.

    A new rule puts hooks on the model; `close()`, or the end of a `with` block, removes them. A model has one rule at a
    time; a copy of the model has none, and a rule itself cannot be copied. Forward passes run as usual; those under
    `torch.no_grad()` are left alone. Several forward passes may precede one `backward`.

    Args:
        model: the module to train.
        points: name patterns of the feedback points (see `dfa.patterns.matches`), or a mapping from patterns to the
            error tensor that each belongs to, in place of `error_at`.
        error_at: name pattern(s) of the modules whose output the error is taken at; "" is the model's output, and a
            word that no module is called a field of it.
        silent: name patterns of modules whose output is cut but receives no signal.

    Attributes:
        model: the module to train.
        hooks: on its feedback points and error tensors.
        whole_batches: whether signals depend on how many rows a forward pass sees, so that a batch must not be split:
            neither in parts whose gradients add up nor among processes.

    Raises:
        PointError: the model, or a part of it, has a rule already; or it is no module.
    """

    name: ClassVar[str]
    whole_batches: bool = False

    def __init__(self, model: nn.Module, points: Points = (), error_at: Patterns = "", silent: Patterns = ()) -> None:
        inner_model(model)  # refuses what is no module
        self.model = model
        self.hooks = self._make_hooks(points, error_at, silent)

    def __repr__(self) -> str:
        matrices = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in self.matrix_shapes().items())
        return (
            f"{type(self).__name__}(points: {', '.join(self.hooks.points) or 'none'};"
            f" error at: {', '.join(name or 'model output' for name in self.hooks.error_names) or 'none'};"
            f" matrices: {matrices or 'none'})"
        )

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise PointError(f"rule '{self.name}' belongs to its model and cannot be copied or pickled: close() it first")

    @property
    def unwrapped(self) -> "Rule":
        """The rule that computes signals: this one, or the other rule that it runs."""
        return self

    @property
    def uses(self) -> Uses:
        """Resources that this rule uses, with the options it was made with."""
        return Uses()

    @abstractmethod
    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        """Put this rule's hooks on the model."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add this rule's gradients to the parameters' `.grad`, as `loss.backward()` would add the true ones.

        Raises:
            PointError: the loss has no gradient.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state that training with the same feedback resumes from; tensors and plain numbers only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the state by a saved one, which is copied; one that is refused leaves everything as it was.

        Raises:
            FeedbackError: see `check_state_dict`.
        """
        self.check_state_dict(state)
        self._take_up(state)

    def check_state_dict(self, state: dict[str, Any]) -> None:
        """Check that a saved state is one of this rule's.

        Raises:
            FeedbackError: it has other entries, or tensors of other shapes.
        """
        check_entries(self.name, state, [])

    def _take_up(self, state: dict[str, Any]) -> None:  # noqa: B027  (some rules keep nothing)
        """Replace the state by a copy of a saved one, which has been checked."""

    def matrix_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the feedback matrices, or weights, that there are so far, by name."""
        return {
            name: tuple(value.shape)
            for name, value in self.state_dict().items()
            if isinstance(value, Tensor) and value.ndim >= 2
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run a block in which forward passes are ordinary ones: nothing is cut or recorded."""
        with self.hooks.switched("off"):
            yield

    def discard(self) -> None:
        """Forget forward passes that will not be followed by a backward."""
        self.hooks.discard()

    def close(self) -> None:
        """Remove the rule's hooks from the model."""
        self.hooks.close()


def hooks_without_points(model: nn.Module, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
    """Make the hooks of a rule that cuts nothing.

    Raises:
        PointError: see `check_placement`.
    """
    check_placement(model, points, error_at, silent)
    return FeedbackHooks(model, (), None)


def check_placement(model: nn.Module, points: Points, error_at: Patterns, silent: Patterns) -> None:
    """Check the names of points and error tensors, which some rules leave unused, so that every rule reports a typo.

    Raises:
        PointError: a pattern matches nothing, error tensors are named twice, or a point belongs to two of them.
    """
    find_modules(model, patterns_of(points))
    find_targets(model, points)
    find_error_tensors(model, error_patterns(points, error_at))
    find_modules(model, silent)


def check_some_points(name: str, points: Points) -> None:
    """Check that a rule is given feedback points.

    Raises:
        PointError: there are none.
    """
    if not patterns_of(points) and points != "":
        raise PointError(f"rule '{name}' without feedback points would be backpropagation: name some in points")


def check_differentiable(loss: Tensor) -> None:
    """Check that a loss is one number, and depends on something that can learn.

    Raises:
        PointError: it is no tensor, or several numbers, or has no gradient.
    """
    if not isinstance(loss, Tensor):
        raise PointError(f"the loss must be the tensor that the loss function gives, got a {type(loss).__name__}")
    if loss.numel() != 1:
        raise PointError(f"the loss is of shape {tuple(loss.shape)}: go backward from one number, its mean or sum, say")
    if not loss.requires_grad:
        raise PointError(
            "the loss has no gradient: the model was called under torch.no_grad(), or no trainable parameter is"
            " connected to it by differentiable steps"
        )


RULES: Registry[type[Rule]] = Registry("rule")
