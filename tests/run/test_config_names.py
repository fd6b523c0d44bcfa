"""Configuration files that are called after one thing and choose another are refused."""

from importlib import import_module
from pathlib import Path

import pytest

import benchmarks.commands.train as cli
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
