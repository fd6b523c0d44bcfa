"""Every model of the suite under every rule: run again stage by stage, and compiled, it gets the same gradients."""

import os

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from benchmarks.config import compose_config, resolve
from benchmarks.run.build import build_model, build_task, load_components
from benchmarks.task import Task
from benchmarks.utils.paths import CONFIG_DIR
from dfa import RULES, Rule

TASKS = {
    "graphs": "cora",
    "recommenders": "click_log",
    "view_synthesis": "blender_lego",
    "language": "wikitext2",
    "tiny_nerf": "tiny_nerf_lego",
    "gae": "cora_links",
}
FAMILIES = {
    "graphs": ("cheb", "dna", "gae", "gat", "gcn", "spline"),
    "recommenders": ("afn", "autoint", "dcn", "deepfm", "fm"),
    "view_synthesis": ("nerf", "nerf_release", "nerf_xl", "tiny_nerf"),
    "language": ("transformer_macro", "transformer_micro"),
}
MODELS = {model: TASKS.get(model, TASKS[family]) for family, models in FAMILIES.items() for model in models}
COMPILED = ("dcn", "gcn", "tiny_nerf", "transformer_micro") if "DFA_SLOW_TESTS" not in os.environ else tuple(MODELS)
"""Compiling takes seconds each; DFA_SLOW_TESTS=1 in the environment adds all other models."""


def test_no_model_is_left_out() -> None:
    assert set(MODELS) == {path.stem for path in (CONFIG_DIR / "model").glob("*.yaml")}


class Case:
    """A model at its smallest, with one batch."""

    def __init__(self, model: str) -> None:
        overrides = [f"task={MODELS[model]}", f"model={model}", "rule=dfa", "scale=smoke", "task.source=stand_in"]
        self.config = resolve(compose_config([*overrides, "run.wandb=disabled"]))
        load_components(self.config)
        torch.set_num_threads(1)
        self.task: Task = build_task(self.config)
        self.model = build_model(self.config, self.task).train()
        self.batch = next(iter(self.task.train_batches(1)))

    def rule(self, name: str, **options: object) -> Rule:
        placement = {key: getattr(self.config.model, key) for key in ("points", "error_at", "silent")}
        built: Rule = RULES.build(name, self.model, **placement, **options)
        return built

    def gradients(self, rule: Rule, forward: nn.Module) -> dict[str, Tensor]:
        torch.manual_seed(1)
        self.model.zero_grad()
        rule.backward(self.task.loss(forward, self.batch))
        named = self.model.named_parameters()
        return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = expected[name].abs().max().item()
        assert (gradient - expected[name]).abs().max().item() <= tolerance * scale, name
    assert any(gradient.abs().max() > 0 for gradient in expected.values())


@pytest.mark.parametrize("model", [model for model in MODELS if model != "fm"])
def test_recomputed_gradients_are_the_ordinary_ones(model: str) -> None:
    case = Case(model)
    ordinary = case.rule("dfa")
    expected = case.gradients(ordinary, case.model)
    ordinary.close()
    assert_same(case.gradients(case.rule("dfa", memory="recompute"), case.model), expected, tolerance=1e-6)


@pytest.mark.parametrize("rule", ["bp", "dfa", "shallow"])
@pytest.mark.parametrize("model", COMPILED)
def test_compiled_gradients_are_the_eager_ones(model: str, rule: str) -> None:
    """In one graph, wherever the error is taken."""
    torch.compiler.reset()
    counters.clear()
    case = Case(model)
    made = case.rule(rule)
    expected = case.gradients(made, case.model)
    compiled = torch.compile(case.model, backend="aot_eager", fullgraph=True)
    assert isinstance(compiled, nn.Module)
    for _ in range(2):
        assert_same(case.gradients(made, compiled), expected, tolerance=1e-5)
    assert counters["stats"]["unique_graphs"] > 0
    torch.compiler.reset()
