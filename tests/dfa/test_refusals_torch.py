"""Where torch itself would stop a rule with an error of its own: the right gradients, or one line of what to do."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import dfa
from dfa.hooks.first_passes import refuse_cut_checkpoints
from tests.dfa.reference import assert_same, backpropagated
from tests.dfa.refusals import REFUSALS, assert_right_or_refused, one_step

Batch = tuple[Tensor, Tensor]
FORWARD_MODE = ["fdfa", "grape"]


class NoForwardMode(torch.autograd.Function):
    """An operation without a forward derivative, as fused kernels are."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Fused(nn.Module):
    """A module around such an operation."""

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = NoForwardMode.apply(x)
        return doubled


class Recurrent(nn.Module):
    """In single precision on a CPU, a fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.layer = nn.Linear(5, 4), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(self.lower(x)[:, None])[0][:, 0]
        return outputs


@pytest.mark.parametrize("kind", ["an LSTM", "a function of the user's"])
@pytest.mark.parametrize("name", FORWARD_MODE)
def test_no_forward_mode(name: str, kind: str, batch: Batch) -> None:
    """The refusal names the module that has none."""
    above: nn.Module = Recurrent() if kind == "an LSTM" else nn.Sequential(nn.Linear(5, 4), Fused())
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), above, nn.Linear(4, 3))
    rule = dfa.RULES.build(name, model, "1")
    with pytest.raises(REFUSALS, match=r"rule '\w+'.*'2"):
        rule.backward(cross_entropy(model(batch[0].float()), batch[1]))


@pytest.mark.parametrize("name", FORWARD_MODE)
def test_a_refused_forward_pass_leaves_no_dual_level(name: str, batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 5), Fused(), nn.Linear(5, 3)).double()
    rule = dfa.RULES.build(name, model, "0")
    with pytest.raises((RuntimeError, *REFUSALS)):
        model(batch[0])
    with torch.autograd.forward_ad.dual_level():
        pass
    rule.close()


class Faulty(nn.Module):
    """A module with an error of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.ones(2, 2, dtype=x.dtype)


def test_errors_of_the_model_itself_stay_what_they_are(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 5), Faulty()).double()
    rule = dfa.ForwardDirectFeedback(model, "0")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(batch[0])
    rule.close()
    assert model._compiled_call_impl is None


class Detaching(nn.Module):
    """Where nothing of what lies below arrives, though the module learns."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * self.own


@pytest.mark.parametrize("name", FORWARD_MODE)
def test_an_error_that_does_not_respond(name: str, batch: Batch) -> None:
    """Nothing could be learned."""
    model = nn.Sequential(nn.Linear(5, 5), Detaching(), nn.Linear(5, 3)).double()
    rule = dfa.RULES.build(name, model, "0")
    with pytest.raises(dfa.PointError, match="nothing of them arrives"):
        model(batch[0])
    rule.close()


@pytest.mark.parametrize("transform", ["grad", "vmap"])
@pytest.mark.parametrize("name", ["dfa", "fa", "fdfa", "shallow"])
def test_function_transforms(name: str, transform: str, mlp: nn.Sequential, batch: Batch) -> None:
    """`torch.func` asks for gradients in its own way, and gets none of a rule's."""
    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    parameters = {key: weight.detach() for key, weight in mlp.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(torch.func.functional_call(mlp, parameters, (x,)), target)

    with pytest.raises(REFUSALS, match=r"torch\.func"):
        if transform == "grad":
            torch.func.grad(loss)(parameters, *batch)
        else:
            torch.vmap(loss, (None, 0, 0))(parameters, batch[0][:, None], batch[1][:, None])
    rule.close()


class Checkpointed(nn.Module):
    """Blocks that are run again on the way back."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))
        self.embed, self.head, self._reentrant = nn.Linear(5, 6), nn.Linear(6, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x) if self._reentrant is None else checkpoint(block, x, use_reentrant=self._reentrant)
        return self.head(x)


POINTS = {"at the blocks": ["blocks.*"], "inside": ["blocks.*.1"], "below": ["embed"]}


@pytest.mark.filterwarnings("ignore:.*None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("name", ["dfa", "shallow", "drtp", "dkp", "fdfa"])
def test_checkpointing(name: str, points: str, reentrant: bool, batch: Batch) -> None:
    """Hooks inside a block run once more with it; a block whose input wants no gradient may be left out."""

    def train(reentrant: bool | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Checkpointed(reentrant).double()
        rule = dfa.RULES.build(name, model, POINTS[points])
        return one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1]))

    assert_right_or_refused(lambda: train(reentrant), train(None))


@pytest.mark.parametrize("name", ["dfa", "fdfa"])
def test_a_model_compiled_in_parts_gets_no_hooks_that_come_and_go(name: str) -> None:
    """They would have it compiled anew."""
    model = Checkpointed(None).double()
    with dfa.RULES.build(name, model, POINTS["below"]):
        assert len(refuse_cut_checkpoints(model)) > 0
        model.blocks[0].compile(backend="eager")
        assert refuse_cut_checkpoints(model) == []


class TrainedInCheckpoints(nn.Module):
    """As models of transformers: evaluation runs without checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(5, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(checkpoint(self.block, x, use_reentrant=True) if self.training else self.block(x))


@pytest.mark.filterwarnings("ignore:.*None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("name", ["dfa", "shallow", "dkp"])
def test_reentrant_checkpoints_after_a_first_pass_without_any(name: str, batch: Batch) -> None:
    """They would leave the block above the point without gradient."""
    model = TrainedInCheckpoints().double()
    rule = dfa.RULES.build(name, model, "embed")
    model.eval()(batch[0])
    with pytest.raises(dfa.PointError, match="use_reentrant=False"):
        one_step(rule, model.train(), lambda: cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize("name", ["dfa", "fdfa", "shallow", "fa"])
def test_model_compiled_and_run_before_the_rule_was_made(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """The graph that is there knows no hooks: the rule must be heard, or refused."""
    twin = copy.deepcopy(mlp)
    torch.manual_seed(1)
    rule = dfa.RULES.build(name, twin, ["1", "3"])
    expected = one_step(rule, twin, lambda: cross_entropy(twin(batch[0]), batch[1]))
    torch.compiler.reset()
    compiled = torch.compile(mlp, backend="aot_eager")
    cross_entropy(compiled(batch[0]), batch[1]).backward()
    torch.manual_seed(1)
    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    assert_right_or_refused(lambda: one_step(rule, mlp, lambda: cross_entropy(compiled(batch[0]), batch[1])), expected)
    rule.close()


@pytest.mark.parametrize("name", ["dfa", "shallow", "window"])
def test_a_graph_of_a_model_alike_without_hooks_is_told(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """As in a loop over rules that compares them with a model that has none."""
    twin = copy.deepcopy(mlp)
    torch.compiler.reset()
    cross_entropy(torch.compile(twin, backend="aot_eager")(batch[0]), batch[1]).backward()
    compiled = torch.compile(mlp, backend="aot_eager")
    with dfa.RULES.build(name, mlp, ["1", "3"]) as rule:
        with pytest.raises(dfa.PointError, match=r"torch\.compiler\.reset\(\)$"):
            rule.backward(cross_entropy(compiled(batch[0]), batch[1]))
        torch.compiler.reset()
        if name != "window":
            rule.backward(cross_entropy(compiled(batch[0]), batch[1]))


GROUP_NORM_ABOVE_A_POINT = """
import torch, dfa
from torch import nn
layers = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3)
model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
rule = dfa.DirectFeedbackAlignment(model, "0")
images = torch.randn(3, 2, 4, 4).to(memory_format=torch.channels_last)
rule.backward(nn.functional.cross_entropy(model(images), torch.arange(3)))
"""


def test_group_norm_in_channels_last_above_a_point() -> None:
    subprocess.run([sys.executable, "-c", GROUP_NORM_ABOVE_A_POINT], check=True)


@pytest.mark.filterwarnings("ignore:.*no point has the shape of the error:UserWarning")
@pytest.mark.parametrize("name", ["dfa", "drtp", "identity", "highway", "dkp", "low_rank", "fdfa", "grape"])
def test_a_gradient_penalty_is_refused_or_exact_in_a_pause(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """Through the rule's signals it would be the derivative of something else; in a pause it is autograd's."""

    def penalty() -> Tensor:
        x = batch[0].flip(0).requires_grad_()
        (slope,) = torch.autograd.grad(mlp(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    exact = backpropagated(mlp, penalty)
    with dfa.RULES.build(name, mlp, ["1", "3"]) as rule:
        usual = one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    with pytest.raises(dfa.PointError, match=r"create_graph.*rule\.paused"):
        penalty()
    rule.discard()
    with rule.paused():
        paused = penalty()
    found = one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]) + paused)
    expected = {key: gradient + exact[key] if key in exact else gradient for key, gradient in usual.items()}
    if name not in ("fdfa", "grape"):  # which have learned something else from the pass that was refused
        assert_same(found, expected)


def exact(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize("where", ["points", "silent", "error_at"])
def test_a_scripted_module_that_takes_no_hook_is_refused_and_leaves_the_model_as_it_was(
    where: str, mlp: nn.Sequential, batch: Batch
) -> None:
    scripted = copy.deepcopy(mlp)
    scripted[3] = torch.jit.script(scripted[3])
    arguments: dict[str, Any] = {"points": ["1"], where: ["1", "3"] if where == "points" else "3"}
    with pytest.raises(dfa.PointError, match=r"'3' is scripted \(torch\.jit\.script\)"):
        dfa.DirectFeedbackAlignment(scripted, **arguments)
    assert_same(exact(scripted, batch), exact(mlp, batch), 0.0)
    with dfa.DirectFeedbackAlignment(scripted, ["1"]):
        pass


def test_hooks_that_cannot_all_be_put_are_taken_off_again(
    mlp: nn.Sequential, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no hook here")

    expected = exact(mlp, batch)
    monkeypatch.setattr(mlp[3], "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hook here"):
        dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    assert_same(exact(mlp, batch), expected, 0.0)
    with dfa.DirectFeedbackAlignment(mlp, ["1"]):
        pass


@pytest.mark.parametrize("name", ["dfa", "shallow", "drtp", "dkp", "highway", "window"])
def test_a_scripted_module_elsewhere_is_trained(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    scripted = copy.deepcopy(mlp)
    scripted[4] = torch.jit.script(scripted[4])
    found = []
    for model in (mlp, scripted):
        with dfa.RULES.build(name, model, ["1", "3"]) as rule:
            found.append(one_step(rule, model, lambda model=model: cross_entropy(model(batch[0]), batch[1])))  # type: ignore[misc]
    assert_same(found[1], found[0])


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_nested_tensors_are_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3))
    rule = dfa.DirectFeedbackAlignment(model, "1", batch_dims=1)
    samples = torch.nested.nested_tensor([torch.randn(4, 5), torch.randn(2, 5)], layout=torch.jagged)
    with pytest.raises(dfa.FeedbackError, match="rule 'dfa' has no part in nested tensors: pad them"):
        rule.backward(model(samples).values().square().mean())
