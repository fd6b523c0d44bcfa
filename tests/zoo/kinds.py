"""What a builder of the zoo makes."""

from collections.abc import Callable

from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]
Built = tuple[nn.Module, Loss]
"""A model, and the function that computes its loss."""
