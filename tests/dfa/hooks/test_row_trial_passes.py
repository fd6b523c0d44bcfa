"""What the trial of rows does to the pass it is made in, and to those after it: nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import dfa
from tests.dfa.reference import assert_same, gradients, only_matrix

TARGETS = torch.arange(6) % 3


class Model(nn.Module):
    """Blocks, which are feedback points, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.3)) for _ in range(3))
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.call(block, x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = block(x)
        return out


class Checkpointed(Model):
    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        again: Tensor = checkpoint(block, x, use_reentrant=False)
        return again


class Whole(Model):
    """One checkpoint with all points in it."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(checkpoint(nn.Sequential(*self.blocks), x, use_reentrant=False))
        return logits


class Permuted(Model):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(0)


class Gains(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.gains * x)


class Once(torch.autograd.Function):
    """The identity, whose backward writes into what it has saved, as fused kernels do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.factor = torch.ones(())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = gradient * ctx.factor
        ctx.factor.zero_()
        return out


def inputs() -> Tensor:
    return torch.randn(6, 4, dtype=torch.double)


@pytest.mark.parametrize("kind", [Model, Checkpointed])
def test_gradients_and_random_numbers_of_every_pass(kind: type[Model]) -> None:
    """Blocks learn from e B, the same in the pass of the trial as in others, and in the last one as without a rule."""
    torch.manual_seed(0)
    model = kind().double()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    for number in range(4):
        x = inputs()
        torch.manual_seed(number)
        model.zero_grad()
        rule.backward(cross_entropy(model(x), TARGETS))
        after, found = torch.get_rng_state(), gradients(model)
        model.zero_grad()
        torch.manual_seed(number)
        with rule.paused():
            hidden = x
            outputs = []
            for block in model.blocks:
                outputs.append(block(hidden))
                hidden = outputs[-1].detach()
            output = model.head(model.norm(hidden))
            (error,) = torch.autograd.grad(cross_entropy(output, TARGETS), output, retain_graph=True)
            torch.autograd.backward([*outputs, output], [*[error @ only_matrix(rule)] * 3, error])
        assert torch.equal(torch.get_rng_state(), after)
        assert_same(found, gradients(model))


def _accumulated(model: Model, passes: int, steps: int = 3) -> list[dict[str, Tensor]]:
    """Gradients of several steps, each of several forward passes before one backward."""
    found: list[dict[str, Tensor]] = []
    with dfa.DirectFeedbackAlignment(model, "blocks.*", draw="counter", seed=1) as rule:
        generator = torch.Generator().manual_seed(5)
        for _ in range(steps):
            model.zero_grad()
            batches = [torch.randn(6, 4, dtype=torch.double, generator=generator) for _ in range(passes)]
            rule.backward(torch.stack([cross_entropy(model(batch), TARGETS) for batch in batches]).sum())
            found.append({name: value.clone() for name, value in gradients(model).items()})
    return found


@pytest.mark.parametrize("passes", [2, 3])
@pytest.mark.parametrize("kind", [Checkpointed, Whole])
def test_checkpoints_of_several_passes_find_what_they_found(kind: type[Model], passes: int) -> None:
    models: list[Model] = []
    for made in (kind, Model):
        torch.manual_seed(0)
        model = made().double()
        model.norm, model.blocks = nn.Identity(), nn.ModuleList(block[:2] for block in model.blocks)  # type: ignore
        models.append(model)
    for found, expected in zip(*(_accumulated(model, passes) for model in models), strict=True):
        assert_same(found, expected)


def test_several_passes_with_checkpoints_are_tried_in_the_second_step() -> None:
    class Wrong(Whole):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flip(0)

    _accumulated(Wrong().double(), 2, steps=1)
    with pytest.raises(dfa.FeedbackError, match="row"):
        _accumulated(Wrong().double(), 2, steps=2)


def test_one_pass_alone_is_tried() -> None:
    model, handed_on = Model().double(), []
    model.norm.register_forward_pre_hook(lambda module, arguments: handed_on.append(arguments[0].requires_grad))
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    for _ in range(4):
        rule.backward(cross_entropy(model(inputs()), TARGETS))
    assert handed_on == [False, True, False, False]


def test_loop_that_evaluates_before_every_step() -> None:
    model: Any = Permuted().double()
    model.norm = nn.Identity()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")

    def step() -> None:
        model.eval()(inputs())
        rule.backward(cross_entropy(model.train()(inputs()), TARGETS))

    with pytest.raises(dfa.FeedbackError, match="row"):
        for _ in range(3):
            step()


class Pairs(Model):
    """Two views of every sample in one batch, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = super().forward(torch.cat([x, x.flip(1)])).chunk(2)
        return one + other


@pytest.mark.parametrize("acts_first", [False, True])
@pytest.mark.parametrize("kind", [Permuted, Pairs])
def test_loop_that_acts_on_single_samples_between_the_steps(kind: type[Model], acts_first: bool) -> None:
    """Whether their order is a question depends on the sizes, which go on being asked for."""
    model: Any = kind().double()
    model.norm = nn.Identity()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    with pytest.raises(dfa.FeedbackError, match="row"):
        for step in range(3):
            for _ in range(3 if acts_first or step else 0):
                model(inputs()[:1])
            rule.backward(cross_entropy(model(inputs()), TARGETS))


@pytest.mark.parametrize("kind", [Checkpointed, Whole])
def test_checkpoints_find_what_they_found_where_nothing_is_to_be_tried(kind: type[Model]) -> None:
    model: Any = kind().double()
    model.norm = nn.Identity()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    for count in (6, 1, 1, 6, 6):
        rule.backward(cross_entropy(model(inputs()[:count]), TARGETS[:count]))


class TimeMajor(Model):
    """(time, batch) as one dimension inside, (batch, time, …) outside."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1).flatten(0, 1)).unflatten(0, x.shape[1::-1]).transpose(0, 1)


def test_whether_there_is_a_question_depends_on_the_sizes_of_the_error_too() -> None:
    """One sample of twelve steps has as many rows as three of four."""
    model: Any = TimeMajor().double()
    model.norm = nn.Identity()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    with pytest.raises(dfa.FeedbackError, match="row"):
        for sizes in ((3, 4), (1, 12), (3, 4), (3, 4)):
            rule.backward(model(torch.randn(*sizes, 4, dtype=torch.double)).square().mean())


def test_sizes_that_leave_no_question_are_tried_once() -> None:
    handed_on: list[bool] = []
    model: Any = Model().double()
    model.norm = nn.Identity()
    model.head.register_forward_pre_hook(lambda module, arguments: handed_on.append(arguments[0].requires_grad))
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    rule.backward(cross_entropy(model(inputs()), TARGETS))
    for count in (1, 1, 1, 6, 1, 6):
        model(inputs()[:count])
    assert handed_on == [False, True, False, False, True, False, False]


@pytest.mark.parametrize("above", [1, 2])
def test_functions_that_go_backward_once_are_not_asked(above: int) -> None:
    model: Any = Model().double()
    model.norm = nn.Identity()
    model.blocks[above].register_forward_pre_hook(lambda module, arguments: Once.apply(arguments[0]))
    rule = dfa.RULES.build("dfa", model, "blocks.*")
    for _ in range(3):
        model.zero_grad()
        rule.backward(cross_entropy(model(inputs()), TARGETS))
        assert all(gradient.any() for gradient in gradients(model).values())


def test_hooks_on_backward_passes_are_called_once_in_each() -> None:
    model, calls = Model().double(), []
    model.norm.register_full_backward_hook(lambda *call: calls.append(1))
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    for _ in range(3):
        rule.backward(cross_entropy(model(inputs().requires_grad_()), TARGETS))
    assert len(calls) == 3


def test_compiled_parts_are_not_compiled_anew() -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        compiled.append(graph)
        return aot_eager(graph, examples)

    torch.compiler.reset()
    model: Any = Model().double()
    model.norm = Gains().double()
    model.norm.compile(backend=backend)
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*")
    for _ in range(3):
        rule.backward(cross_entropy(model(inputs()), TARGETS))
    assert len(compiled) == 1


def test_calibrated_rules_are_tried_in_their_own_batches() -> None:
    model: Any = Permuted().double()
    model.norm = nn.Identity()
    rule = dfa.RULES.build("calibrate", model, "blocks.*", every=2)
    for _ in range(3):  # exact, the rule's, exact
        rule.backward(cross_entropy(model(inputs()), TARGETS))
    with pytest.raises(dfa.FeedbackError, match=r"point 'blocks.0' .* rows are not in the error's order"):
        model(inputs())


@pytest.mark.parametrize("name", ["dfa", "dkp", "identity", "fdfa"])
def test_several_error_tensors(name: str) -> None:
    """The trial at one sends nothing to the points of another."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(5)), nn.Linear(4, 3)).double()
    rule = dfa.RULES.build(name, model, ["0", "1", "3"], error_at=["2", ""])
    for _ in range(4):
        rule.backward(cross_entropy(model(inputs()), TARGETS))


def test_order_that_the_user_has_named() -> None:
    model = Permuted().double()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*", batch_dims=1)
    for _ in range(3):
        rule.backward(cross_entropy(model(inputs()), TARGETS))
