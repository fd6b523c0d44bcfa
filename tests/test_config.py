"""Composition, checks and identity of configurations."""

import random
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config import Config, compose_config, from_dict, identity, register, resolve, to_dict
from benchmarks.errors import ConfigError
from benchmarks.utils.exits import one_line
from benchmarks.utils.paths import CONFIG_DIR, config_files
from tests.conftest import Toys


def test_execution_settings_are_no_part_of_the_identity(toys: Toys) -> None:
    settings = ["device=cuda:1", "data_dir=/elsewhere", "download=true", "wandb=online"]
    settings += [
        "wandb_group=table_3",
        "wandb_name=x",
        "progress=false",
        "checkpoint_seconds=1",
        "alignment=evaluations",
        "retry=true",
        "results_dir=/somewhere",
        "stages=2",
    ]
    plain = toys.config()
    assert {identity(toys.config(f"run.{setting}")) for setting in settings} == {identity(plain)}
    assert {setting.split("=")[0] for setting in settings} == set(vars(plain.run))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "scale=mini",
        "rule=dfa",
        "model=toy_wide",
        "model.points=[blocks.1.act]",
        "task.options.batch_size=13",
        "task.source=real",
        "optimizer.lr=0.0011",
        "optimizer.weight_decay=1e-9",
        "+optimizer.options.eps=1e-7",
        "+optimizer.options.fused=null",
        "schedule=noam",
        "trainer.epochs=4",
        "trainer.selection=last",
        "trainer.precision=bfloat16",
        "trainer.threads=2",
    ],
)
def test_what_changes_a_result_changes_the_identity(toys: Toys, override: str) -> None:
    assert identity(toys.config(override)) != identity(toys.config())


def test_an_option_of_a_rule_that_is_null_is_as_if_it_were_not_given(toys: Toys) -> None:
    assert identity(toys.config("rule=dfa", "+rule.options.codec=null")) == identity(toys.config("rule=dfa"))


def test_the_order_of_options_does_not_change_the_identity(toys: Toys) -> None:
    config = toys.config("rule=dfa", "+optimizer.options.eps=1e-7", "+optimizer.options.amsgrad=true")
    assert identity(from_dict(_shuffled(to_dict(config), random.Random(0)))) == identity(config)
    assert from_dict(to_dict(config)) == config


def _shuffled(value: Any, order: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = sorted(value)
    order.shuffle(keys)
    return {key: _shuffled(value[key], order) for key in keys}


def test_a_model_that_needs_an_option_of_other_tasks_says_so(toys: Toys) -> None:
    with pytest.raises(ConfigError, match=r"^model 'toy_mlp' does not fit task 'toy': there is no task.options.parts$"):
        toys.config("trainer.accumulate='${task.options.parts}'")
    with pytest.raises(ConfigError, match=r"^Interpolation key 'model.nothing' not found$"):
        toys.config("trainer.accumulate='${model.nothing}'")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scale=huge", "unknown scale 'huge'; known: paper, mini, smoke"),
        ("task.source=fake", "unknown task.source 'fake'; known: real, stand_in"),
        ("trainer.selection=first", "unknown trainer.selection 'first'; known: best, last"),
        ("trainer.evaluate_unit=day", "unknown trainer.evaluate_unit 'day'; known: epoch, step"),
        ("trainer.precision=float8", "unknown trainer.precision 'float8'; known: float32, bfloat16"),
        ("run.wandb=yes", "known: offline, online, disabled"),
        ("trainer.epochs=0", "trainer.epochs must be at least 1, got 0"),
        ("trainer.steps=0", "trainer.steps must be at least 1, got 0"),
        ("trainer.patience=0", "trainer.patience must be at least 1, got 0"),
        ("trainer.accumulate=-1", "trainer.accumulate must be at least 1, got -1"),
        ("trainer.evaluate_every=0", "trainer.evaluate_every must be at least 1"),
        ("trainer.threads=0", "trainer.threads must be at least 1, got 0"),
        ("trainer.clip_norm=0", "trainer.clip_norm must be positive and finite, got 0"),
        ("optimizer.lr=0", "optimizer.lr must be positive and finite, got 0"),
        ("optimizer.lr=nan", "optimizer.lr must be positive and finite, got nan"),
        ("seed=-1", "seed must be from 0"),
    ],
)
def test_values_that_types_leave_open_are_checked(toys: Toys, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        toys.config(override)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "override", ["trainer.epochs=many", "seed=1.5", "trainer.color=red", "model=resnet", "nonsense", "optimizer.lr=[1]"]
)
def test_overrides_that_do_not_fit_are_refused(toys: Toys, override: str) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)):
        toys.config(override)


def test_defaults_are_the_published_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFA_DATA_DIR", raising=False)
    config = resolve(compose_config([]))
    assert isinstance(config, Config)
    assert (config.scale, config.seed, config.run.wandb, config.task.source) == ("paper", 0, "offline", "real")
    assert (config.run.results_dir, config.run.data_dir, config.run.device) == ("results", "data", "cpu")


def test_the_environment_chooses_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_DATA_DIR", "/some/data")
    monkeypatch.setenv("DFA_RESULTS_DIR", "/some/results")
    monkeypatch.setenv("DFA_WANDB", "disabled")
    run = resolve(compose_config([])).run
    assert (run.data_dir, run.results_dir, run.wandb) == ("/some/data", "/some/results", "disabled")


@pytest.mark.parametrize("model", config_files("model"))
def test_no_model_replaces_the_optimizer_or_the_schedule_that_is_named(model: str) -> None:
    config = compose_config([f"model={model}", "optimizer=sgd", "schedule=plateau"])
    assert config.optimizer.name == "sgd"
    assert config.schedule == {"name": "plateau", "options": {"factor": 0.2, "patience": 1}}


def test_radiance_fields_choose_their_schedule_where_none_is_named() -> None:
    schedules = [
        resolve(compose_config([f"task={task}", "model=nerf", f"scale={scale}"])).schedule
        for task, scale in (("blender_lego", "paper"), ("llff_fern", "paper"), ("blender_lego", "mini"))
    ]
    assert {schedule.name for schedule in schedules} == {"exponential"}
    expected = [(0.1, 500_000), (0.1, 250_000), (0.3, 2400)]
    assert [(schedule.options["factor"], schedule.options["steps"]) for schedule in schedules] == expected


_OWN = ["task=cora", "model=gcn", "rule=dfa"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["scale=mini", "optimizer.lr=0.3", "seed=7"],
        ["optimizer=sgd", "+optimizer.options.momentum=0.9", "optimizer.options.momentum=0.8"],
        ["schedule=noam", "~schedule.options.warmup"],
        ["++run.device=cuda", "plugins=[one.py]", "run={retry: true}"],
        ["model.points=[convs.*]", "model.options.dropout='${optimizer.lr}'"],
    ],
)
def test_values_are_set_as_hydra_sets_them(overrides: list[str]) -> None:
    register()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        expected = compose("config", overrides=[*_OWN, *overrides])
    for _ in range(2):  # what is remembered must not have changed
        assert compose_config([*_OWN, *overrides]) == expected
        assert OmegaConf.is_struct(compose_config([*_OWN, *overrides]))


@pytest.mark.parametrize("override", ["optimizer.lr=0.1,0.2", "optimizer.color=red", "scale=[", "model=gcn,gat"])
def test_what_hydra_refuses_is_refused_in_the_same_words(override: str) -> None:
    register()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"), pytest.raises(HydraException) as expected:
        compose("config", overrides=[*_OWN, override])
    with pytest.raises(HydraException) as found:
        compose_config([*_OWN, override])
    assert one_line(found.value) == one_line(expected.value)


def test_text_that_looks_like_a_reference_is_refused() -> None:
    for value in (r"\${optimizer.name}", r"\${seed}", r"a\${seed}b"):
        with pytest.raises(ConfigError, match="looks like a reference"):
            resolve(compose_config([*_OWN, f"+task.options.note='{value}'"]))
