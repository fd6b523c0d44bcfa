"""Results folders of someone else: no code of theirs is run, and what does not fit is reported in one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.commands import sample
from benchmarks.config import compose_config, resolve
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from tests.conftest import Command
from tests.hostile.cases import assert_refused, carried_out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a language model."""
    results = tmp_path_factory.mktemp("theirs")
    words = ["task=wikitext2", "model=transformer_macro", "rule=bp", "scale=smoke", "task.source=stand_in"]
    config = resolve(compose_config([*words, f"run.results_dir={results}", "run.wandb=disabled", "trainer.steps=1"]))
    assert execute(config)["status"] == "done"
    return RunFolder.of(config).path


def _with(**changes: object) -> Callable[[Path], object]:
    """Change the configuration that lies in the folder."""

    def change(folder: Path) -> None:
        content = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(content | changes))

    return change


def _content(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _pipe(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a plug-in": (_with(plugins=["theirs.py"]), r"made with plug-ins; .* trust them: --plugin theirs\.py"),
    "two plug-ins": (_with(plugins=["/x/a.py", "b"]), r"--plugin a\.py --plugin b"),
    "plug-ins of a word": (_with(plugins="theirs.py"), "no readable configuration"),
    "no configuration": (lambda folder: (folder / "config.yaml").unlink(), "cannot be read: No such file"),
    "an empty configuration": (_content("config.yaml", b""), "no readable configuration"),
    "a binary configuration": (_content("config.yaml", bytes(range(256))), "configuration of .* cannot be read"),
    "a deep configuration": (_content("config.yaml", b"[" * 5000), "is nested too deeply"),
    "code for a configuration": (
        _content("config.yaml", b"!!python/object/apply:os.system ['touch theirs']"),
        "is not valid YAML: could not determine a constructor",
    ),
    "a list for a configuration": (_content("config.yaml", b"[1, 2]"), "no readable configuration"),
    "another key": (_with(nonsense=1), "no readable configuration: .*nonsense"),
    "a task of a word": (_with(task="wikitext2"), "no readable configuration"),
    "a family that leads out": (
        _with(task={"name": "wikitext2", "family": "../../x"}),
        "config.yaml is not the config",
    ),
    "a configuration of another run": (_with(seed=9), "config.yaml is not the configuration that its record names"),
    "a variable": (_with(seed="${oc.env:NO_SUCH_VARIABLE}"), "no readable configuration|NO_SUCH_VARIABLE"),
    "a pipe for a configuration": (_pipe("config.yaml"), "cannot be read: it is not a file"),
    "no record": (lambda folder: (folder / "result.json").unlink(), "holds no finished run"),
    "half a record": (_content("result.json", b'{"status": "do'), "damaged, its record"),
    "a record of another run": (
        lambda folder: (folder / "result.json").write_text(
            json.dumps(json.loads((folder / "result.json").read_text()) | {"seed": 9})
        ),
        r"is of another run \(seed 9",
    ),
    "a pipe for a record": (_pipe("result.json"), "damaged, its record .* it is not a file"),
    "weights of a word": (_content("best.safetensors", b"weights"), "do not fit the run's model"),
    "empty weights": (_content("best.safetensors", b""), "do not fit the run's model"),
    "weights with a huge header": (_content("best.safetensors", b"\xff" * 64), "do not fit the run's model"),
    "no weights": (lambda folder: (folder / "best.safetensors").unlink(), "no finished run"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES)
def test_a_folder_from_someone_else(
    finished: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(finished, tmp_path / finished.name))
    (tmp_path / "theirs.py").write_text("import pathlib; pathlib.Path('ran').touch()\n")
    damage, message = CASES[case]
    damage(folder)
    outcome = carried_out(command, sample.main, [str(folder), "--tokens", "2"], tmp_path)
    assert_refused(outcome, message)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "theirs").exists()


def test_a_plugin_that_is_named_is_loaded(
    finished: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(finished, tmp_path / finished.name))
    _with(plugins=["/elsewhere/theirs.py"])(folder)
    (tmp_path / "theirs.py").write_text("import pathlib; pathlib.Path('ran').touch()\n")
    code, out, err = command(sample.main, str(folder), "--tokens", "2", "--plugin", "theirs.py")
    assert (code, err) == (0, "") and out and (tmp_path / "ran").exists()
