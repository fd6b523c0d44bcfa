"""Independent statements of what the library should do, in NumPy or by running each segment of a network alone."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import dfa

Array = np.ndarray


def softmax_error(logits: Array, targets: Array) -> Array:
    """∂(mean cross-entropy)/∂logits = (softmax − one-hot) / rows."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponentials / exponentials.sum(axis=-1, keepdims=True) - np.eye(logits.shape[-1])[targets]) / len(targets)


def only_matrix(rule: dfa.DirectFeedbackAlignment) -> Tensor:
    (matrix,) = rule.feedback.drawn.values()
    return matrix.double()


def as_array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def assert_close(actual: Tensor | None, expected: Array | Tensor, tolerance: float = 1e-6) -> None:
    """Compare with an absolute and relative tolerance; an expectation that is all zero would prove nothing."""
    assert actual is not None
    expected = np.asarray(expected)
    assert np.abs(expected).max() > 1e-5, "the expectation is zero"
    np.testing.assert_allclose(as_array(actual), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        scale = max(1e-9, expected[name].abs().max().item())
        assert (gradient - expected[name]).abs().max().item() <= tolerance * scale, name


def backpropagated(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Autograd's gradients of a model without hooks."""
    model.zero_grad()
    loss().backward()
    found = gradients(model)
    model.zero_grad()
    return found


def segment_gradients(
    model: nn.Module, segments: Sequence[Callable[[Tensor], Tensor]], data: Tensor, targets: Tensor, matrix: Tensor
) -> dict[str, Tensor]:
    """DFA's gradients, one segment at a time: each is run from a detached input and driven by its own signal.

    The last segment puts out the logits; its error is the closed form for softmax cross-entropy over all rows.
    """
    model.zero_grad()
    outputs = []
    for segment in segments:
        outputs.append(segment(data))
        data = outputs[-1].detach()
    logits = as_array(data).reshape(-1, data.shape[-1])
    error = torch.from_numpy(softmax_error(logits, targets.flatten().numpy()))
    for output in outputs[:-1]:
        width = output.numel() // len(error)
        output.backward((error @ matrix[:, :width]).reshape(output.shape))
    outputs[-1].backward(error.reshape(outputs[-1].shape))
    found = gradients(model)
    model.zero_grad()
    return found
