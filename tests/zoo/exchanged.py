"""What sequential rules must compute: every product with a weight W carries gradient as if it were one with B.

A mode watches the functions of torch that take a weight, or a rearrangement of one. For a product f the output becomes
f(x held fast, W) + f(x, B) - (f(x, B) held fast): its value is f(x, W), ∂/∂W is exact and ∂/∂x goes through B. Nothing
here looks at what autograd keeps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

REARRANGING = {
    "t", "T", "mT", "transpose", "permute", "view", "reshape", "__getitem__", "chunk", "split", "unbind", "cat",
    "stack", "contiguous", "clone", "unsqueeze", "squeeze", "expand", "flatten", "to", "select", "narrow", "movedim",
    "type_as", "double", "float", "expand_as",
}  # fmt: skip
PRODUCTS = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "mul", "__mul__", "__rmul__",
    "conv1d", "conv2d", "einsum", "bilinear", "_grouped_mm", "grouped_mm", "conv_transpose2d", "mv",
}  # fmt: skip
ADDITIVE = {"add", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__rsub__", "embedding", "add_"}


class NotExchangeableError(Exception):
    """A weight has a part in the way down that B cannot take over, for it is not used as it is."""


class ExchangedBackward(TorchFunctionMode):
    """Runs a block so that gradient goes down through other weights.

    Args:
        feedback: B for each weight W.
    """

    def __init__(self, feedback: dict[nn.Parameter, Tensor]) -> None:
        super().__init__()
        self._twins: dict[int, tuple[Tensor, Tensor | None]] = {id(w): (w, b.detach()) for w, b in feedback.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        output = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        weights = [tensor for tensor in tensors if id(tensor) in self._twins]
        if not weights or not _has_gradient(output) or name in ADDITIVE:
            return output
        others = [t for t in tensors if id(t) not in self._twins and not _is_parameter(t) and t.is_floating_point()]
        if not others:
            known = name in REARRANGING and all(self._twins[id(weight)][1] is not None for weight in weights)
            twin = func(*self._with_feedback(args), **self._with_feedback(kwargs)) if known else None
            self._follow(output, twin)
        elif not any(tensor.requires_grad for tensor in others):
            return output  # of data: nothing goes down from here
        elif name in PRODUCTS:
            return self._exchanged(func, args, kwargs, weights)
        elif name not in REARRANGING:
            raise NotExchangeableError(f"a weight goes into {name}")
        return output

    def _exchanged(self, func: Callable[..., Any], args: Any, kwargs: Any, weights: list[Tensor]) -> Tensor:
        if any(self._twins[id(weight)][1] is None for weight in weights):
            raise NotExchangeableError(f"what is made of a weight goes into {_name(func)}")

        def held_fast(value: Any) -> Any:
            keeps = not isinstance(value, Tensor) or _is_parameter(value) or id(value) in self._twins
            return value if keeps else value.detach()

        by_weight = func(*tree_map(held_fast, args), **tree_map(held_fast, kwargs))
        by_feedback = func(*self._with_feedback(args), **self._with_feedback(kwargs))
        result: Tensor = by_weight + by_feedback - by_feedback.detach()
        return result

    def _with_feedback(self, value: Any) -> Any:
        """With B in the place of W; other parameters are held fast."""

        def twin(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and id(leaf) in self._twins:
                return self._twins[id(leaf)][1]
            return leaf.detach() if _is_parameter(leaf) else leaf

        leaves, structure = tree_flatten(value)
        return tree_unflatten([twin(leaf) for leaf in leaves], structure)

    def _follow(self, output: Any, twin: Any) -> None:
        outputs = [output] if isinstance(output, Tensor) else list(output)
        twins = [None] * len(outputs) if twin is None else [twin] if isinstance(twin, Tensor) else list(twin)
        for made, exchanged in zip(outputs, twins, strict=True):
            self._twins.setdefault(id(made), (made, exchanged))


def _name(func: Any) -> str:
    name = func.__name__
    return func.__self__.__name__ if name == "__get__" else str(name)


def _is_parameter(value: Any) -> bool:
    return isinstance(value, nn.Parameter)


def _has_gradient(output: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(output))


class PlainAttention(nn.MultiheadAttention):
    """Attention by its formula."""

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any
    ) -> Any:
        assert self.batch_first and self.in_proj_weight is not None
        parts = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (self._heads(nn.functional.linear(x, weight, bias)) for x, weight, bias in parts)
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        weights = (scores if attn_mask is None else scores + attn_mask).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), None

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)


class PlainLSTM(nn.LSTM):
    """One layer, one direction, batch first, step by step."""

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        h = c = x.new_zeros(len(x), self.hidden_size)
        outputs = []
        for step in x.unbind(1):
            gates = _product(self, "ih", step) + _product(self, "hh", h)
            i, f, g, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, 1), None


class PlainGRU(nn.GRU):
    """One layer, one direction, batch first, step by step."""

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        h = x.new_zeros(len(x), self.hidden_size)
        outputs = []
        for step in x.unbind(1):
            r_in, z_in, n_in = _product(self, "ih", step).chunk(3, 1)
            r_at, z_at, n_at = _product(self, "hh", h).chunk(3, 1)
            r, z = (r_in + r_at).sigmoid(), (z_in + z_at).sigmoid()
            n = (n_in + r * n_at).tanh()
            h = (1 - z) * n + z * h
            outputs.append(h)
        return torch.stack(outputs, 1), None


def _product(layer: nn.RNNBase, which: str, x: Tensor) -> Tensor:
    weight, bias = (layer.get_parameter(f"{kind}_{which}_l0") for kind in ("weight", "bias"))
    return nn.functional.linear(x, weight, bias)


PLAIN = {nn.MultiheadAttention: PlainAttention, nn.LSTM: PlainLSTM, nn.GRU: PlainGRU}


def exchanged_backward(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], feedback: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Gradients of a model, which is changed, with B for each weight by its name.

    Raises:
        NotExchangeableError: a weight has a part in the way down other than as a factor.
    """
    for module in model.modules():
        if type(module) in PLAIN:
            module.__class__ = PLAIN[type(module)]
    parameters = dict(model.named_parameters())
    with ExchangedBackward({parameters[name]: tensor for name, tensor in feedback.items()}):
        value = loss(model)
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}
