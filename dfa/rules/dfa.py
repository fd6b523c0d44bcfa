"""Direct feedback alignment."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from dfa.base.direct import DirectRule, DirectRuleOptions, Memory
from dfa.base.rule import RULES, Patterns, Points, Uses
from dfa.errors import FeedbackError
from dfa.feedback.matrices import Draw, FeedbackMatrices, MatrixOptions, Sharing
from dfa.feedback.order import IN_ORDER
from dfa.feedback.states import check_counter, check_entries, check_matrices, check_tensor, matrix_keys, without_entry
from dfa.hooks.points import Point

SEED = "seed"
"""Entry of a saved state for matrices that are generated anew."""


class DirectOptions(MatrixOptions, DirectRuleOptions, total=False):
    """Options of `DirectFeedbackAlignment`."""


@RULES.register("dfa")
class DirectFeedbackAlignment(DirectRule):
    """Direct feedback alignment (Nøkland, 2016), as run by Launay et al. (2020).

    The signal of point l is e B_l instead of backpropagation's e ∂(error tensor)/∂h_l, with B_l fixed and random.

    Args:
        model, points, error_at, silent, memory, segments, parallel, codec: see `DirectRule`.
        distribution, sharing, normalise, scale, density, batch_dims, seed, draw, keep: see `FeedbackMatrices`.

    Raises:
        FeedbackError: names of modules, as `a.b` and `a/b`, give two matrices one key.
    """

    name = "dfa"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        distribution: str = "uniform",
        sharing: Sharing = "shared",
        normalise: bool = True,
        scale: float = 1.0,
        density: float = 1.0,
        batch_dims: int | None = None,
        seed: int = 0,
        draw: Draw = "torch",
        keep: bool = True,
        memory: Memory = "keep",
        segments: Patterns | None = None,
        parallel: int = 1,
        codec: str | None = None,
    ) -> None:
        self.feedback = FeedbackMatrices(
            distribution=distribution,
            sharing=sharing,
            normalise=normalise,
            scale=scale,
            density=density,
            batch_dims=batch_dims,
            seed=seed,
            draw=draw,
            keep=keep,
        )
        super().__init__(
            model, points, error_at, silent, memory=memory, segments=segments, parallel=parallel, codec=codec
        )
        try:
            self._keys()
        except FeedbackError:
            self.hooks.close()  # the model may have another rule
            raise

    @property
    def rows_are_known(self) -> bool:
        return self.feedback.batch_dims is not None

    @property
    def uses(self) -> Uses:
        return Uses(extra_forwards=super().uses.extra_forwards, state="fixed feedback")

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        return self.feedback.signals(error_name, error, points)

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        self.feedback.prepare(error_name, error, points)

    def matrix_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.feedback.shapes

    def state_dict(self) -> dict[str, Any]:
        seed = {} if self.feedback.keep else {SEED: self.feedback.seed}
        return {**seed, **self.feedback.state_dict(), **self.feedback.order.state(self.hooks.points)}

    def check_state_dict(self, state: dict[str, Any]) -> None:
        matrices = without_entry(state, IN_ORDER)
        if not self.feedback.keep:
            self._check_seed(matrices)
            matrices = without_entry(matrices, SEED)
        check_matrices(matrices, self._keys() if self.feedback.keep else [])
        self.feedback.check_state_dict(matrices)
        if IN_ORDER in state:
            check_tensor(IN_ORDER, state[IN_ORDER], [len(self.hooks.points)])

    def _check_seed(self, state: Any) -> None:
        """Check that matrices that are generated anew would be those of a saved state.

        Raises:
            FeedbackError: they would be others.
        """
        check_entries(self.name, state, [SEED])
        check_counter(SEED, state[SEED])
        if (saved := int(state[SEED])) != self.feedback.seed:
            raise FeedbackError(
                f"the saved state is of matrices of seed {saved}, and rule '{self.name}' generates those of seed"
                f" {self.feedback.seed}"
            )

    def _keys(self) -> list[str]:
        return matrix_keys(self.hooks.error_names, self.hooks.points, self.feedback.sharing == "shared")

    def _take_up(self, state: dict[str, Any]) -> None:
        self.feedback.load_state_dict(without_entry(without_entry(state, IN_ORDER), SEED))
        self.feedback.order.load(state, self.hooks.points)
