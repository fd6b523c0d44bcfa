"""Cases of a configuration file: which value counts, what takes its place, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from benchmarks.commands.train import main
from benchmarks.config import compose_config, register, resolve
from benchmarks.errors import ConfigError
from benchmarks.utils.config_cases import BLOCKS, FileConfigSource, with_cases
from benchmarks.utils.paths import CONFIG_DIR
from tests.conftest import Command, Toys

_NAMES = {"rule": {"bp", "dfa", "shallow"}, "task": {"llff_fern", "llff_room", "cora"}, "schedule": {"noam"}}


def _read(text: str) -> DictConfig:
    content = OmegaConf.create(yaml.safe_load(text))
    assert isinstance(content, DictConfig)
    return content


def _value(text: str, rule: str = "dfa", scale: str = "paper", task: str = "cora") -> Any:
    """The value of `lr` in a file that says this, in a configuration with these choices."""
    register()
    file = with_cases(_read(text), "file.yaml", _NAMES.__getitem__)
    choices = {"rule": {"name": rule}, "task": {"name": task}, "scale": scale, "steps": 12}
    return OmegaConf.to_container(OmegaConf.merge(choices, file), resolve=True)["lr"]  # type: ignore[call-overload, index]


def test_a_case_takes_the_place_of_the_plain_value() -> None:
    text = "{lr: 1, by_rule: {bp: {lr: 2}, shallow: {lr: 3}}}"
    assert [_value(text, rule) for rule in ("dfa", "bp", "shallow", "mine")] == [1, 2, 3, 1]


def test_the_last_block_that_names_a_value_decides_it() -> None:
    rule, scale = "by_rule: {bp: {lr: 2}}", "by_scale: {mini: {lr: 3}}"
    assert _value(f"{{lr: 1, {rule}, {scale}}}", "bp", "mini") == 3
    assert _value(f"{{lr: 1, {scale}, {rule}}}", "bp", "mini") == 2


def test_a_case_may_hold_blocks_of_its_own() -> None:
    scales = "{mini: {lr: 3, by_rule: {bp: {lr: 4}}}, smoke: {by_rule: {dfa: {lr: 5}}}}"
    text = f"{{lr: 1, by_rule: {{bp: {{lr: 2}}}}, by_scale: {scales}}}"
    values = {
        (rule, scale): _value(text, rule, scale) for rule in ("bp", "dfa") for scale in ("paper", "mini", "smoke")
    }
    assert list(values.values()) == [2, 4, 2, 1, 3, 5]


def test_the_first_case_that_fits_counts_and_a_name_fits_best() -> None:
    text = "{lr: 1, by_task: {'llff_*': {lr: 2}, llff_room: {lr: 3}, other: {lr: 4}}}"
    assert [_value(text, task=task) for task in ("llff_fern", "llff_room", "cora")] == [2, 3, 4]
    silent = "{lr: 1, by_task: {'llff_*': {}, other: {lr: 4}}}"
    assert [_value(silent, task=task) for task in ("llff_fern", "cora")] == [1, 4]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -3,
        5e-4,
        1e-9,
        1e20,
        "",
        "last",
        "null",
        "1",
        "true",
        "a'b",
        "a\\",
        "a\\'b",
        "x, {y: [z]}",
        [1, "a", None],
    ],
)
def test_values_keep_their_types(value: Any) -> None:
    for text in ({"lr": "?", "by_rule": {"bp": {"lr": value}}}, {"lr": value, "by_rule": {"bp": {"lr": "?"}}}):
        found = _value(yaml.safe_dump(text), "bp" if text["lr"] == "?" else "dfa")
        assert found == value and type(found) is type(value)


def test_a_case_may_refer_to_another_value() -> None:
    found = _value("{lr: 1, by_scale: {mini: {lr: '${steps}'}}}", scale="mini")
    assert found == 12 and isinstance(found, int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{lr: 1, by_rule: {dffa: {lr: 2}}}", "f.yaml: by_rule: unknown rule 'dffa'; known: bp, dfa, shallow"),
        ("{lr: 1, by_task: {'lff_*': {lr: 2}}}", "f.yaml: by_task: unknown task 'lff_*'; known: cora, "),
        ("{lr: 1, by_scale: {tiny: {lr: 2}}}", "f.yaml: by_scale: unknown scale 'tiny'; known: mini, smoke"),
        ("{lr: 1, by_scale: {paper: {lr: 2}}}", "f.yaml: by_scale: unknown scale 'paper'; known: mini, smoke"),
        ("{lr: 1, by_scale: {mini: {by_rule: {x: {lr: 2}}}}}", "f.yaml: by_rule: unknown rule 'x'"),
        ("{lr: 1, by_rule: {bp: {rl: 2}}}", "f.yaml: a case sets 'rl', which has no plain value in this file"),
        ("{lr: 1, by_rule: {bp: {lr.a: 2}}}", "f.yaml: a case sets 'lr.a', which has no plain value in this file"),
        ("{lr: 1, by_rule: {bp: 2}}", "f.yaml: by_rule must map cases to settings"),
        ("{lr: 1, by_rule: [bp]}", "f.yaml: by_rule must map cases to settings"),
    ],
)
def test_a_case_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        with_cases(_read(text), "f.yaml", _NAMES.__getitem__)
    assert str(raised.value).startswith(message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's configurations: a model with cases, one that starts from it, and a file to add on the command line."""
    cases = "by_scale: {smoke: {options.hidden: 4}}, by_rule: {own: {options.hidden: 6}}"
    files = {
        "model/own.yaml": f"{{name: toy_mlp, options: {{hidden: 8}}, {cases}}}",
        "model/derived.yaml": "{defaults: [own, _self_], options: {hidden: 12}}",
        "rule/own.yaml": "{name: own}",
        "chosen/found.yaml": "# @package _global_\nmodel: {options: {hidden: 16}}",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("overrides", "hidden"),
    [
        (["model=own"], 8),
        (["model=own", "scale=smoke"], 4),
        (["model=own", "scale=smoke", "rule=own"], 6),
        (["model=own", "scale=smoke", "model.options.hidden=5"], 5),
        (["model=own", "scale=smoke", "model.options.hidden=8"], 8),  # the plain value, but asked for
        (["model=own", "scale=smoke", "model.options={hidden: 5}"], 5),
        (["model=own", "scale=smoke", "+chosen=found"], 16),
        (["model=derived", "scale=smoke"], 12),
    ],
)
def test_what_is_merged_later_wins(folder: Path, overrides: list[str], hidden: int) -> None:
    config = resolve(compose_config(["task=toy", f"hydra.searchpath=[file://{folder}]", *overrides]))
    assert config.model.options == {"hidden": hidden}


def _with_model(toys: Toys, model: str) -> list[str]:
    return [item if not item.startswith("model=") else f"model={model}" for item in toys.overrides]


def test_every_run_of_a_sweep_has_its_own_case(folder: Path, toys: Toys, command: Command) -> None:
    settings = ["trainer.steps=1", "launcher=serial", *_with_model(toys, "own")]
    for axes in (["scale=paper,smoke"], ["scale=smoke", "model.options.hidden=8,9"]):
        code, _, error = command(main, "-m", "--config-dir", str(folder), *settings, *axes)
        assert code == 0, error
    written = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in toys.results.rglob("config.yaml")]
    found = sorted((config["scale"], config["model"]["options"]["hidden"]) for config in written)
    assert found == [("paper", 8), ("smoke", 4), ("smoke", 8), ("smoke", 9)]


def test_a_mistake_is_told_in_one_line(folder: Path, toys: Toys, command: Command) -> None:
    (folder / "model" / "own.yaml").write_text("{name: toy_mlp, by_scale: {smoke: {options.hidden: 4}}}")
    code, _, error = command(main, "--config-dir", str(folder), *_with_model(toys, "own"))
    assert code == 2 and error.strip() == (
        "error: model/own.yaml: a case sets 'options.hidden', which has no plain value in this file"
    )


def test_the_files_of_the_suite_hold_no_interpolation_in_an_interpolation() -> None:
    for path in CONFIG_DIR.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not [line for line in text.splitlines() if "${" in line.split("${", 1)[-1]], path
        assert "${cases" not in text, path


def test_files_without_blocks_are_read_as_they_are() -> None:
    source = FileConfigSource("main", f"file://{CONFIG_DIR}")
    for group in ("optimizer", "launcher"):
        for name in source.list(group, None):
            content = OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml")
            assert BLOCKS.keys().isdisjoint(content) and source.load_config(f"{group}/{name}").config == content
