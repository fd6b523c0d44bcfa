"""The recipes of docs/integrations.md: each runs, and trains what a plain loop with the same rule trains."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dfa

EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARIES = {
    "with_trainer": ["transformers", "accelerate"],
    "with_checkpointing": ["transformers"],
    "with_accelerate": ["accelerate"],
    "with_lightning": ["lightning"],
    "with_lora": ["peft"],
    "timm_vit": ["timm"],
    "own_graph_model": ["torch_geometric"],
}


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import an example by name, as if it were run from its folder."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def load(name: str) -> Any:
        for library in LIBRARIES.get(name, []):
            if find_spec(library) is None:
                pytest.skip(f"{library} is not installed")
        return import_module(name)

    yield load
    torch.set_num_threads(threads)


def run(*command: str) -> float:
    """Accuracy that a script prints."""
    surroundings = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=240, env=surroundings)
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout.split("accuracy ")[1])


def plain_loop(recipe: Callable[[str], Any], steps: int, parts: int = 1) -> nn.Module:
    """DFA on the small network without any library."""
    common = recipe("digits")
    model, (pictures, classes) = common.make_network(), common.digits()
    rule, optimizer = dfa.DirectFeedbackAlignment(model, common.POINTS), common.make_optimizer(model)
    for _ in range(steps):
        optimizer.zero_grad()
        batches = zip(pictures.split(-(-1797 // parts)), classes.split(-(-1797 // parts)), strict=True)
        for batch, labels in batches:
            rule.backward(cross_entropy(model(batch), labels) / parts)
        optimizer.step()
    rule.close()
    return model


def assert_same_parameters(found: nn.Module, expected: nn.Module, tolerance: float = 1e-5) -> None:
    wanted = dict(expected.named_parameters())
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], rtol=tolerance, atol=tolerance, msg=name)


def test_accelerate(recipe: Callable[[str], Any]) -> None:
    """Two parts of 899 and 898 pictures a step, their mean losses weighing the same."""
    assert_same_parameters(recipe("with_accelerate").train(epochs=3), plain_loop(recipe, 3, parts=2))


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_lightning(manual: bool, recipe: Callable[[str], Any]) -> None:
    assert_same_parameters(recipe("with_lightning").train(manual, epochs=3), plain_loop(recipe, 3))


@pytest.mark.filterwarnings("ignore")
def test_trainer(recipe: Callable[[str], Any]) -> None:
    module = recipe("with_trainer")
    pictures, classes = recipe("digits").digits()
    model = module.make_model()
    rule = dfa.DirectFeedbackAlignment(model, module.POINTS, module.ERROR_AT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for rows in torch.arange(4 * 64).split(64):
        optimizer.zero_grad()
        rule.backward(cross_entropy(model(pictures[rows].view(-1, 1, 8, 8)).logits, classes[rows]))
        optimizer.step()
    rule.close()
    assert_same_parameters(module.train(steps=4), model)


def test_grad_scaler(recipe: Callable[[str], Any]) -> None:
    """The factor cancels, but for what half precision loses at its lower end without it."""
    module = recipe("with_grad_scaler")
    assert_same_parameters(module.train(scaled=True, steps=3), module.train(scaled=False, steps=3), tolerance=2e-3)


def test_compile(recipe: Callable[[str], Any]) -> None:
    torch.compiler.reset()
    assert_same_parameters(recipe("with_compile").train(backend="aot_eager", steps=3), plain_loop(recipe, 3))


def test_checkpointing(recipe: Callable[[str], Any]) -> None:
    module = recipe("with_checkpointing")
    assert_same_parameters(module.train(checkpointing=True, steps=3), module.train(checkpointing=False, steps=3))


def test_lora(recipe: Callable[[str], Any]) -> None:
    """Adapters and the last layer change, and the error falls; nothing else moves."""
    module = recipe("with_lora")
    pictures, classes = recipe("digits").digits()
    before, after = module.make_model(), module.train(steps=30)
    start = {name: weight.detach() for name, weight in before.named_parameters()}
    moved = {name for name, weight in after.named_parameters() if not torch.equal(weight, start[name])}
    assert moved == {name for name, weight in after.named_parameters() if weight.requires_grad}
    assert cross_entropy(after(pictures), classes) < 0.5 * cross_entropy(before(pictures), classes)


def test_vision_transformer(recipe: Callable[[str], Any]) -> None:
    module = recipe("timm_vit")
    assert module.train("identity", epochs=4) > module.train("shallow", epochs=4) + 0.05


def test_graph_model(recipe: Callable[[str], Any]) -> None:
    module = recipe("own_graph_model")
    assert module.train("dfa") > module.train("shallow") + 0.05


@pytest.mark.parametrize("name", ["with_ddp", "with_fsdp"])
def test_two_processes(name: str) -> None:
    """As the head of each file says that it is started."""
    pytest.importorskip("sklearn")
    processes = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert run(*processes, str(EXAMPLES / f"{name}.py")) > 0.85


@pytest.mark.parametrize("name", ["with_accelerate", "with_grad_scaler"])
def test_script(name: str, recipe: Callable[[str], Any]) -> None:
    recipe(name)
    assert run(str(EXAMPLES / f"{name}.py")) > 0.85


def test_every_recipe_is_shown() -> None:
    page = (EXAMPLES.parent / "docs" / "integrations.md").read_text("utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"digits.py"}
    assert not {name for name in names if name not in page}
