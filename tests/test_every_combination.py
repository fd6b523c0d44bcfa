"""Every task × model × rule that a table or a configuration's header puts together composes, and trains two steps.

New YAML files join by themselves; combinations with files that do not exist are left out.
"""

import math
import re
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf, open_dict

from benchmarks.config import SCALES, Config, compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.registry import TASKS
from benchmarks.run.build import build_model, build_rule, build_task, load_components
from benchmarks.run.execute import execute
from benchmarks.run.optim import make_optimizer
from benchmarks.tables.cells import Cell
from benchmarks.tables.schema import known_tables
from benchmarks.tables.spec import load_spec
from benchmarks.utils.paths import CONFIG_DIR
from dfa import FeedbackError

_RULES = tuple(sorted(file.stem for file in (CONFIG_DIR / "rule").glob("*.yaml")))
_EVERYWHERE = ("bp", "dfa", "shallow")
"""Rules that meet every task, in a run from beginning to end; the others meet every model once."""
_NO_CLASSIFIERS = ("gae", "nerf", "nerf_release", "nerf_xl", "tiny_nerf", "transformer_macro", "transformer_micro")

_GO_BACKWARDS = ("bp", "fa", "sign_symmetry", "kolen_pollack")
"""Rules that need no feedback point; the others refuse a model that has none."""


def _refuses(rule: str, config: Config) -> bool:
    return not config.model.points and rule not in _GO_BACKWARDS


def _choice(overrides: tuple[str, ...] | list[str], group: str) -> str:
    return next((item.split("=", 1)[1] for item in reversed(overrides) if item.startswith(f"{group}=")), "")


@cache
def _cells() -> list[Cell]:
    return [cell for table in known_tables() for cell in load_spec(table).cells]


@cache
def _pairs() -> list[tuple[str, str]]:
    runs = [run for cell in _cells() for run in cell.runs]
    headers = [
        re.sub(r"\s", " ", line).split()
        for file in sorted(CONFIG_DIR.glob("*/*.yaml"))
        for line in file.read_text().splitlines()
        if line.startswith("#") and "benchmarks train" in line
    ]
    found = {(_choice(list(overrides), "task"), _choice(list(overrides), "model")) for overrides in [*runs, *headers]}
    return sorted((t, m) for t, m in found if _exists("task", t) and _exists("model", m))


@cache
def _published_rules(model: str) -> set[str]:
    """The rules that tables train a model with, the frozen control aside."""
    return {cell.rule for cell in _cells() if not cell.control and _choice(cell.overrides, "model") == model}


@cache
def _different_pairs() -> list[tuple[str, str]]:
    """One pair of those whose tasks differ in nothing but their name, and so in nothing on stand-in data."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for task, model in _pairs():
        content = yaml.safe_load((CONFIG_DIR / "task" / f"{task}.yaml").read_text())
        found.setdefault((str({**content, "name": ""} if "defaults" in content else task), model), (task, model))
    return list(found.values())


def _each_model() -> list[tuple[str, str]]:
    """Every model with one of its tasks."""
    return sorted({model: (task, model) for task, model in reversed(_different_pairs())}.values())


def _exists(group: str, name: str) -> bool:
    return (CONFIG_DIR / group / f"{name}.yaml").exists()


def test_every_task_and_model_is_in_some_combination() -> None:
    for index, group in enumerate(("task", "model")):
        for file in (CONFIG_DIR / group).glob("*.yaml"):
            assert any(pair[index] == file.stem for pair in _pairs()), f"nothing runs {group} {file.stem}"


@pytest.mark.parametrize(("task", "model"), _pairs())
def test_it_composes_at_every_scale_under_every_rule(task: str, model: str) -> None:
    composed = compose_config([f"task={task}", f"model={model}"])
    for rule in (*_EVERYWHERE, "identity"):  # no configuration tells the others from the last
        for scale in SCALES:
            with open_dict(composed):
                composed.scale, composed.rule.name = scale, rule
            config = resolve(composed)
            assert config.model.points or _published_rules(model) == {"bp"}, "nowhere for a local rule to act"
            assert config.task.family is not None


@pytest.mark.parametrize("rule", _EVERYWHERE)
@pytest.mark.parametrize(("task", "model"), _different_pairs())
def test_it_trains_two_steps_on_stand_in_data(task: str, model: str, rule: str, tmp_path: Path) -> None:
    chosen = [f"task={task}", f"model={model}", f"rule={rule}", "scale=smoke", "task.source=stand_in"]
    settings = ["trainer.steps=2", f"run.results_dir={tmp_path}", f"run.data_dir={tmp_path}", "run.wandb=disabled"]
    config = resolve(compose_config([*chosen, *settings]))
    if _refuses(rule, config):
        with pytest.raises(ConfigError, match="without feedback points"):
            execute(config)
        return
    record = execute(config)
    assert record["status"] == "done", record.get("reason")
    assert record["steps"] == 2 and record["data"]["kind"] == "stand-in"
    metrics, chosen_by = record["metrics"], getattr(TASKS[config.task.name], "metric", None)
    assert math.isfinite(metrics[f"test/{chosen_by}"] if chosen_by else next(iter(metrics.values())))
    if rule == "dfa" and config.model.points:
        assert -1 <= metrics.get("alignment/mean", 0.0) <= 1


@pytest.mark.parametrize(("task", "model"), _each_model())
def test_every_other_rule_trains_it_two_steps(task: str, model: str, tmp_path: Path) -> None:
    chosen = [f"task={task}", f"model={model}", "scale=smoke", "task.source=stand_in", f"run.data_dir={tmp_path}"]
    composed = compose_config([*chosen, f"run.results_dir={tmp_path}"])
    load_components(resolve(composed))
    data = build_task(resolve(composed))
    for rule in sorted({*_RULES} - {*_EVERYWHERE}):
        if rule.startswith("graph_") and resolve(composed).task.family != "graphs":
            continue
        with open_dict(composed):
            composed.rule.name, composed.rule.options = (
                rule,
                OmegaConf.load(CONFIG_DIR / "rule" / f"{rule}.yaml").options,
            )
        config = resolve(composed)
        network = build_model(config, data)
        if _refuses(rule, config):
            with pytest.raises(ConfigError, match="without feedback points"):
                build_rule(config, network)
            continue
        trained = build_rule(config, network)
        optimizer = make_optimizer(config.optimizer, network)
        if rule == "drtp" and model in _NO_CLASSIFIERS:
            with pytest.raises(FeedbackError, match="rule 'drtp' is for classification"):
                trained.backward(data.loss(network, next(iter(data.train_batches(1)))))
            continue
        before = [parameter.detach().clone() for parameter in network.parameters()]
        for batch in islice((batch for epoch in (1, 2) for batch in data.train_batches(epoch)), 2):
            trained.backward(data.loss(network, batch))
            optimizer.step()
            optimizer.zero_grad()
        after = list(network.parameters())
        assert all(parameter.isfinite().all() for parameter in after), rule
        learned = sum(not torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert learned > (0 if rule == "window" else len(after) / 2), rule
        if rule in ("fdfa", "grape", "dkp", "low_rank"):
            assert trained.uses.state == "learned feedback"


@pytest.mark.parametrize(("task", "model"), _each_model())
def test_it_learns_in_half_precision(task: str, model: str, tmp_path: Path) -> None:
    chosen = [f"task={task}", f"model={model}", "scale=smoke", "task.source=stand_in", f"run.data_dir={tmp_path}"]
    for rule in ("bp", "dfa", "fdfa"):
        config = resolve(compose_config([*chosen, f"rule={rule}", f"run.results_dir={tmp_path}"]))
        load_components(config)
        data = build_task(config)
        network = build_model(config, data)
        if _refuses(rule, config):
            continue
        trained = build_rule(config, network)
        with torch.autocast("cpu", torch.bfloat16):
            loss = data.loss(network, next(iter(data.train_batches(1))))
        trained.backward(loss)
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients), rule
