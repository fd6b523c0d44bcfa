"""The frame for rules that go backwards layer by layer, as backpropagation does, but through other weights."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.base.chosen_weights import choose_weights, is_of_a_function, owner_of
from dfa.base.rule import Patterns, Points, Rule, Uses, check_differentiable, hooks_without_points
from dfa.compiling import enter_uncompiled
from dfa.errors import PointError
from dfa.feedback.states import check_entries, check_tensor
from dfa.hooks.graphs import next_node_number, nodes_below, runs_again
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.outputs import tensors_in
from dfa.hooks.placing import Hook
from dfa.hooks.surroundings import check_no_transform
from dfa.hooks.weights import WeightExchange
from dfa.patterns import inner_model, matches, pattern_list


class SequentialRule(Rule):
    """Backpropagation in which feedback weights of the same shape replace the weights W in the backward pass.

    For y = W x autograd computes ∂L/∂W from x and ∂L/∂x from W, and keeps both during the forward pass. `backward`
    replaces each W that is kept so by `feedback_weight`: in linear layers, convolutions, attention's projections, graph
    convolutions. All else is exact: activations, normalisations, attention patterns, propagation along edges, and ∂L/∂W
    given the signal. A weight that has a part otherwise is an error, see `dfa.hooks.weights.WeightExchange`.
    Of a weight that is frozen or detached the graph shows itself, its views and its copies alone. PyTorch's own
    functions of frozen weights are refused by their names; a layer of your own that computes with a function of one
    passes the exact signal on.

    Points are checked and not used, for nothing is cut.

    Args:
        model, points, error_at, silent: see `Rule`.
        weights: name patterns of the parameters that count as weights, of those with two dimensions or more.

    Attributes:
        replaced: names of the weights that the last `backward` went through.
        takes_complex: whether weights may be complex.

    Raises:
        PointError: no parameter matches, or one is no plain tensor (FSDP2), has no shape yet (lazy modules) or no
            numbers (device meta), or is complex where that has no meaning; in a forward pass, inside torch.compile.
    """

    takes_complex: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        weights: Patterns = "**",
    ) -> None:
        patterns = pattern_list(weights, "weights")
        self.weights, self._others = choose_weights(model, patterns, self.name, self.takes_complex)
        self._patterns = patterns
        super().__init__(model, points, error_at, silent)
        self.replaced: set[str] = set()
        self._running = self._in_call = False
        self._paused: list[range] = []  # numbers of the nodes made in pauses, in order
        self._uncompiled = ExitStack()
        self._handles: list[RemovableHandle] = []
        try:
            self._handles += self._attach()
            self._make_state()
        except BaseException:
            self.close()  # the model may have another rule
            raise

    @property
    def uses(self) -> Uses:
        return Uses(sequential=True)

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        return hooks_without_points(self.model, points, error_at, silent)

    def _attach(self) -> list[RemovableHandle]:
        """Put hooks around the model's forward pass, and on what has weights, which may be called by itself."""
        model = inner_model(self.model)
        owners = dict.fromkeys(owner_of(model, name) for name in self.weights)
        return [
            self.model.register_forward_pre_hook(Hook(self._enter), prepend=True),
            self.model.register_forward_hook(Hook(self._leave), always_call=True),
            *(
                part.register_forward_hook(Hook(self._leave_part))
                for part in owners
                if part is not model and not isinstance(part, torch.jit.ScriptModule)
            ),
        ]

    def _make_state(self) -> None:
        """Make what the feedback weights are computed from, at the end of the construction."""

    def feedback_weight(self, name: str) -> Tensor:
        """Return the tensor that replaces the weight `name`, in its shape and memory layout."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        """Add this rule's gradients to the parameters' `.grad`.

        Raises:
            PointError: the loss has no gradient, or a weight that has a part in it cannot be exchanged.
        """
        check_differentiable(loss)
        absent = self.exchange([loss])
        before = {name: _version(self.weights[name].grad) for name in absent}
        self.replaced.clear()
        self._running = True
        try:
            loss.backward()
        finally:
            self._running = False
        for name in absent:
            if _version(self.weights[name].grad) != before[name]:
                raise PointError(
                    f"weight '{name}' got a gradient in a part of the graph that is hidden (checkpointing)"
                )

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = next_node_number()
        try:
            with super().paused():
                yield
        finally:
            if made := range(start, next_node_number()):
                while self._paused and self._paused[-1].start >= start:  # pauses within this one
                    self._paused.pop()
                self._paused.append(made)

    def _was_paused(self, node: int) -> bool:
        """Whether a node of the graph, by its number, was made in a pause."""
        later = bisect_right(self._paused, node, key=lambda made: made.start)
        return later > 0 and node in self._paused[later - 1]

    def exchange(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor] = ()) -> list[str]:
        """Let `feedback_weight` take the place of every weight that autograd keeps in a graph.

        Args:
            outputs: that the graph ends in.
            inputs: tensors that it begins with, beside the model's parameters and input.

        Returns:
            Names of the trainable weights that have no part in the graph.

        Raises:
            PointError: a weight cannot be exchanged, or another tensor has taken its place.
        """
        self._check_frozen()
        self._check_not_paused(outputs)
        exchange = WeightExchange(self.weights, self._others, self._feedback_of)
        exchange.run(outputs)
        present = {id(leaf) for leaf in exchange.leaves}
        absent = [name for name, weight in self.weights.items() if weight.requires_grad and id(weight) not in present]
        self._check_leaves(exchange.leaves, inputs, absent)
        return absent

    def _check_not_paused(self, outputs: Sequence[Tensor]) -> None:
        """Check that no part of a graph was made in a pause, where gradients are exact.

        Raises:
            PointError: one was.
        """
        if self._paused and any(
            self._was_paused(node._sequence_nr()) for node in nodes_below([output.grad_fn for output in outputs])
        ):
            raise PointError(
                f"a part of the loss was computed in rule.paused(), where gradients are exact, and rule '{self.name}'"
                " cannot leave it out: call backward() on that part by itself"
            )

    def _check_leaves(self, leaves: Sequence[Tensor], inputs: Sequence[Tensor], absent: Sequence[str]) -> None:
        """Check that a graph has the model's own parameters, of which some are absent, and no others in their place.

        Raises:
            PointError: a tensor has taken a weight's place, or parameters are new.
        """
        known = {id(parameter) for parameter in (*self.weights.values(), *self._others)}
        strangers = [leaf for leaf in leaves if id(leaf) not in known and all(leaf is not one for one in inputs)]
        shapes = {self.weights[name].shape: name for name in absent}
        for leaf in strangers:
            if leaf.shape in shapes:
                raise PointError(
                    f"weight '{shapes[leaf.shape]}' took no part in the loss, but a tensor of its shape did: rule"
                    f" '{self.name}' does without torch.func.functional_call and FSDP, and is made after the parameters"
                )
        now = {id(parameter) for parameter in self.model.parameters()} if strangers else set()
        if any(id(leaf) in now for leaf in strangers) or known.isdisjoint(id(leaf) for leaf in leaves):
            raise PointError(f"the loss depends on parameters that the model did not have when '{self.name}' was made")

    def _check_frozen(self) -> None:
        """Check that no frozen weight is new or the parameter of a function, which no graph would show.

        Raises:
            PointError: one is.
        """
        for name, weight in self.weights.items():
            if not weight.requires_grad and is_of_a_function(inner_model(self.model), name):
                raise PointError(
                    f"weight '{name}' is frozen and used through a function (weight_norm, spectral_norm, pruning),"
                    f" which its graph does not show: rule '{self.name}' needs that module without it"
                )
        known = {id(parameter) for parameter in (*self.weights.values(), *self._others)}
        for name, parameter in inner_model(self.model).named_parameters():
            if id(parameter) in known or parameter.requires_grad or parameter.ndim < 2:
                continue
            if any(matches(name, pattern) for pattern in self._patterns):
                raise PointError(
                    f"frozen weight '{name}' is not the one that the model had when rule '{self.name}' was made: make"
                    " the rule after loading with assign=True and after replacing layers"
                )

    def _feedback_of(self, name: str) -> Tensor:
        self.replaced.add(name)
        feedback, weight = self.feedback_weight(name), self.weights[name]
        strides = zip(weight.shape, weight.stride(), feedback.stride(), strict=True)
        if any(size > 1 and own != other for size, own, other in strides):
            raise PointError(
                f"weight '{name}' is a view of other memory, as a slice of a larger tensor is: clone it first"
            )
        return feedback

    def _stored(self) -> dict[str, Tensor]:
        """Return the tensors saved with a checkpoint, one for each weight."""
        raise NotImplementedError

    def _stored_for(self, name: str) -> Tensor:
        """Return the tensor stored for the weight `name`, in its present device, type and memory layout."""
        stored, weight = self._stored(), self.weights[name]
        tensor = stored[name]
        if (tensor.device, tensor.dtype, tensor.stride()) != (weight.device, weight.dtype, weight.stride()):
            tensor = stored[name] = torch.empty_like(weight, requires_grad=False).copy_(tensor)
        return tensor

    def state_dict(self) -> dict[str, Any]:
        return dict(self._stored())

    def check_state_dict(self, state: dict[str, Any]) -> None:
        stored = self._stored()
        check_entries(self.name, state, stored)
        for name, tensor in stored.items():
            check_tensor(name, state[name], tensor.shape)

    def _take_up(self, state: dict[str, Any]) -> None:
        for name in self._stored():
            self._stored_for(name).copy_(state[name])

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._uncompiled.close()
        super().close()

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._uncompiled.close()
        self._in_call = True
        if self.hooks.mode != "off" and torch.is_grad_enabled():
            if not torch.compiler.is_compiling():
                check_no_transform()
            enter_uncompiled(self._uncompiled, self.name)

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._in_call = False
        self._uncompiled.close()
        self._watch(output, self._check_running)

    def _leave_part(self, module: nn.Module, arguments: Any, output: Any) -> None:
        # Checkpoints of a pass that was made in a pause run again outside of it.
        if not (self._in_call or torch.compiler.is_compiling() or runs_again()):
            self._watch(output, self._check_running_of_part)

    def _watch(self, output: Any, check: Callable[[Tensor], None]) -> None:
        """Have an error that arrives at an output refused, unless this rule's `backward` is under way."""
        if self.hooks.mode == "cut":
            for tensor in tensors_in(output):
                if tensor.grad_fn is not None:
                    tensor.register_hook(check)

    def _check_running_of_part(self, gradient: Tensor) -> None:
        if not torch.is_grad_enabled():  # not of a derivative that the loss is computed from, as forces are
            self._check_running(gradient)

    def _check_running(self, gradient: Tensor) -> None:
        if not self._running:
            raise PointError(f"rule '{self.name}': call rule.backward(loss), or make the forward pass in rule.paused()")


def _version(gradient: Tensor | None) -> tuple[int, int] | None:
    """Tell states of a gradient apart."""
    return None if gradient is None else (id(gradient), gradient._version)
