"""Configuration files that are called after one thing and choose another are refused."""

from pathlib import Path

import pytest

import benchmarks.commands.train as cli
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.build import load_components
from benchmarks.utils.paths import CONFIG_DIR, config_files
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


def test_no_file_of_the_suite_is_called_after_another_thing(toys: Toys) -> None:
    for family in ("graphs", "language", "recommenders", "view_synthesis"):
        load_components(toys.config(f"task.family={family}"))
    for group, registry in (("rule", RULES), ("model", MODELS), ("task", TASKS)):
        for stem, file in config_files(group).items():
            content = read_yaml(file, file.name)
            name = content.get(group, content).get("name", stem)
            assert file.is_relative_to(CONFIG_DIR) and (name == stem or stem not in registry), file
