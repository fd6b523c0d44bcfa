"""Configuration files that are called after one thing and choose another are refused."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import benchmarks.commands.train as cli
from benchmarks.config import compose_config
from benchmarks.errors import ConfigError
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.build import load_components
from benchmarks.run.config_names import family_of_model
from benchmarks.utils.paths import CONFIG_DIR, FAMILIES, config_files
from benchmarks.utils.yaml_files import read_yaml
from dfa import RULES
from tests.conftest import TOY, Command, Toys

_PLUGIN = """
from benchmarks.registry import MODELS, TASKS
from dfa import RULES

for kind, registry, original in (("rule", RULES, "bp"), ("model", MODELS, "toy_mlp"), ("task", TASKS, "toy")):
    registry.register(f"named_{kind}")(type("Named", (registry[original],), {}))
"""
_FILES = {
    "rule": ("bp", "name: {name}\noptions: {{}}\n"),
    "model": (
        "toy_mlp",
        "# @package _global_\nmodel: {{name: {name}, points: [blocks.*.act], options: {{hidden: 8}}}}\n",
    ),
    "task": ("toy", "name: {name}\nfamily: null\nsource: stand_in\n"),
}


@pytest.fixture
def place(tmp_path: Path, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> Path:
    load_components(toys.config())  # what stays registered after the test
    for registry in (RULES, MODELS, TASKS):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    (tmp_path / "named.py").write_text(_PLUGIN)
    return tmp_path


@pytest.mark.parametrize("group", _FILES)
def test_a_copied_file_that_still_names_the_original_is_refused(
    group: str, place: Path, toys: Toys, command: Command
) -> None:
    original, content = _FILES[group]
    stem = f"named_{group}"
    file = place / group / f"{stem}.yaml"
    file.parent.mkdir()
    file.write_text(content.format(name=original))
    overrides = [item for item in toys.overrides if not item.startswith((f"{group}=", "plugins="))]
    arguments = ["--config-dir", str(place), *overrides, f"{group}={stem}", f"plugins=[{TOY},{place}/named.py]"]
    code, _, err = command(cli.main, *arguments)
    told = (
        f"'{file}' says `name: {original}`, but there is a {group} '{stem}': write `name: {stem}`, or rename the file"
    )
    assert (code, err) == (2, f"error: {told}\n")
    file.write_text(content.format(name=stem))
    code, _, err = command(cli.main, *arguments)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("group", _FILES)
def test_a_file_that_builds_on_the_original_and_names_nothing_is_refused(
    group: str, place: Path, toys: Toys, command: Command
) -> None:
    original, content = _FILES[group]
    (place / group).mkdir()
    (place / group / "copied.yaml").write_text(content.format(name=original))
    package = "# @package _global_\n" if group == "model" else ""
    file = place / group / f"named_{group}.yaml"
    file.write_text(f"{package}defaults: [copied, _self_]\n")
    overrides = [item for item in toys.overrides if not item.startswith((f"{group}=", "plugins="))]
    chosen = [f"{group}=named_{group}", f"plugins=[{TOY},{place}/named.py]"]
    code, _, err = command(cli.main, "--config-dir", str(place), *overrides, *chosen)
    assert code == 2 and f"'{file}' says `name: {original}`, but there is a {group} 'named_{group}'" in err


@pytest.mark.parametrize("group", _FILES)
def test_a_file_of_ones_own_without_code_is_told(group: str, place: Path, toys: Toys, command: Command) -> None:
    file = place / group / "uncoded.yaml"
    file.parent.mkdir()
    file.write_text(_FILES[group][1].format(name="uncoded"))
    overrides = [item for item in toys.overrides if not item.startswith(f"{group}=")]
    code, _, err = command(cli.main, "--config-dir", str(place), *overrides, f"{group}=uncoded")
    assert code == 2 and err.startswith(f"error: {group} 'uncoded', which '{file}' names, is registered nowhere: ")
    assert not toys.results.exists()


def test_no_file_of_the_suite_is_called_after_another_thing(toys: Toys) -> None:
    for family in ("graphs", "language", "recommenders", "view_synthesis"):
        load_components(toys.config(f"task.family={family}"))
    for group, registry in (("rule", RULES), ("model", MODELS), ("task", TASKS)):
        for stem, file in config_files(group).items():
            content = read_yaml(file, file.name)
            name = content.get(group, content).get("name", stem)
            assert file.is_relative_to(CONFIG_DIR) and (name == stem or stem not in registry), file


def test_the_family_of_every_model_is_known_without_an_import() -> None:
    for folder in FAMILIES.glob("*/models.py"):
        import_module(f"benchmarks.families.{folder.parent.name}.models")
    families = {name: getattr(MODELS[name], "func", MODELS[name]).__module__.split(".") for name in MODELS}
    ours = {name: parts[2] for name, parts in families.items() if parts[:2] == ["benchmarks", "families"]}
    assert len(ours) > 10 and {name: family_of_model(name) for name in ours} == ours
    assert family_of_model("toy_mlp") == family_of_model("nowhere") == ""


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            ["task=cora", "model=deepfm"],
            "model 'deepfm' is for tasks of recommenders, 'cora' is one of graphs: "
            "choose model=cheb|dna|gae|gat|gcn|spline",
        ),
        (
            ["task=wikitext2", "model=gcn"],
            "model 'gcn' is for tasks of graphs, 'wikitext2' is one of language: "
            "choose model=transformer_macro|transformer_micro",
        ),
        (
            ["-m", "task=movielens_1m,blender_lego", "model=fm"],
            "model 'fm' is for tasks of recommenders, 'blender_lego' is one of view synthesis: "
            "choose model=nerf|nerf_release|nerf_xl|tiny_nerf",
        ),
    ],
)
def test_a_model_of_another_family_is_refused_before_any_run(
    command: Command, tmp_path: Path, choice: list[str], message: str
) -> None:
    settings = ["task.source=stand_in", "scale=smoke", f"run.results_dir={tmp_path}/results"]
    assert command(cli.main, *choice, *settings) == (2, "", f"error: {message}\n")
    assert not (tmp_path / "results").exists()


_OTHERS = {
    "model/plain.yaml": "defaults: [gcn, _self_]\n{key}: {{name: {name}}}\n",
    "model/merged.yaml": "defaults: [gcn, /{key}/{name}@{key}, _self_]\n",
    "model/self_first.yaml": "defaults: [_self_, gcn]\n{key}: {{name: {name}}}\n",
    "model/further.yaml": "defaults: [plain, _self_]\ntrainer: {{epochs: 1}}\n",
}


def _own_models(folder: Path, key: str, name: str) -> None:
    (folder / "model").mkdir()
    for file, content in _OTHERS.items():
        (folder / file).write_text("# @package _global_\n" + content.format(key=key, name=name))


_CORA = ["task=cora", "task.source=stand_in", "scale=smoke"]


@pytest.mark.parametrize("model", [Path(file).stem for file in _OTHERS])
@pytest.mark.parametrize(
    ("key", "name", "chosen"),
    [("rule", "fa", "dfa"), ("optimizer", "sgd", "adam"), ("schedule", "noam", "constant"), ("task", "cora", "pubmed")],
)
def test_a_model_that_replaces_the_choice_of_another_group_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, key: str, name: str, chosen: str
) -> None:
    _own_models(tmp_path, key, name)
    monkeypatch.setenv("DFA_CONFIG_DIR", str(tmp_path))
    told = f"{tmp_path}/model/{model}.yaml' sets `{key}.name: {name}` over {key}={chosen}: leave it out and choose "
    with pytest.raises(ConfigError, match=re.escape(told)):
        compose_config(["task=cora", f"model={model}", f"{key}={chosen}"])
    config = compose_config(["task=cora", f"model={model}", f"{key}={chosen}", f"{key}.name={chosen}"])
    assert config[key].name == chosen  # asked for by its key
    assert compose_config(["task=cora", f"model={model}", f"{key}={name}"])[key].name == name


@pytest.mark.parametrize("way", [["model=plain"], ["-m", "model=gcn,plain"]])
def test_training_refuses_a_model_that_replaces_the_rule(command: Command, tmp_path: Path, way: list[str]) -> None:
    _own_models(tmp_path, "rule", "fa")
    results = f"run.results_dir={tmp_path}/results"
    code, out, err = command(cli.main, "--config-dir", str(tmp_path), *way, *_CORA, results)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"error: '{tmp_path}/model/plain.yaml' sets `rule.name: fa` over rule=dfa" in err
    assert not (tmp_path / "results").exists()


def test_a_model_chooses_another_optimizer_by_an_override_and_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    content = "# @package _global_\ndefaults: [gcn, override /optimizer: sgd, _self_]\n"
    (tmp_path / "model" / "own.yaml").write_text(content)
    monkeypatch.setenv("DFA_CONFIG_DIR", str(tmp_path))
    assert compose_config(["model=own"]).optimizer.name == "sgd"
    assert compose_config(["model=own", "optimizer=adamw"]).optimizer.name == "adamw"


def test_a_file_that_is_added_by_hand_may_set_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "best.yaml").write_text("# @package _global_\noptimizer: {name: sgd, lr: 0.5}\n")
    monkeypatch.setenv("DFA_CONFIG_DIR", str(tmp_path))
    assert compose_config(["+chosen=best"]).optimizer.name == "sgd"


def test_a_case_sets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    content = "# @package _global_\ndefaults: [gcn, _self_]\noptimizer: {name: adam}\n"
    (tmp_path / "model" / "own.yaml").write_text(content + "by_rule: {dfa: {optimizer.name: sgd}}\n")
    monkeypatch.setenv("DFA_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"own.yaml: a case sets 'optimizer.name'; what is trained may depend on no"):
        compose_config(["model=own", "rule=bp"])
