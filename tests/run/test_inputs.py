"""A record is shown only for the data and plug-ins it was made with; other ones are another run."""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore

from benchmarks.commands import train
from benchmarks.errors import ConfigError
from benchmarks.families.view_synthesis.data import data_files as view_synthesis_files
from benchmarks.launchers import launch
from benchmarks.registry import DATA_FILES
from benchmarks.run.inputs import Inputs, _plugins, inputs_of
from benchmarks.run.optim import OPTIMIZERS
from benchmarks.run.plugins import LOADED_FROM, plugin_module
from benchmarks.run.records import RunFolder
from benchmarks.tables.plan import make_plan
from benchmarks.utils.download import sha256_of
from dfa import RULES, PointError
from tests.conftest import TOY, Command, Toys
from tests.tables.test_plan import Target

_ROW = "1\t" + "\t".join(["3"] * 13) + "\t" + "\t".join(f"{n:08x}" for n in range(26))


def _criteo(folder: Path, rows: int) -> Path:
    place = folder / "criteo" / "train.txt"
    place.parent.mkdir(parents=True)
    lines = [_ROW.replace("1", str(row % 2), 1).replace("3", str(row % 7), 4) for row in range(rows)]
    place.write_text("\n".join(lines) + "\n")
    return folder


def test_the_same_command_with_other_data_is_another_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    arguments = [
        "task=criteo",
        "task.source=real",
        "model=fm",
        "rule=bp",
        "scale=smoke",
        f"run.results_dir={tmp_path / 'results'}",
    ]
    arguments += ["run.wandb=disabled", "run.progress=false", "launcher=serial"]
    few, many, none = _criteo(tmp_path / "few", 200), _criteo(tmp_path / "many", 400), tmp_path / "none"
    none.mkdir()
    outputs = {}
    for name, folder in (("few", few), ("many", many), ("none", none), ("many again", many)):
        code, out, err = command(train.main, *arguments, f"run.data_dir={folder}")
        assert code == 0, err
        outputs[name] = out
    assert "run again" in outputs["many"] and "run again" not in outputs["many again"]
    checksums = {
        name: sha256_of(folder / "criteo" / "train.txt")[:8] for name, folder in (("few", few), ("many", many))
    }
    assert checksums["few"] in outputs["few"] and checksums["many"] in outputs["many"]
    # Without data the record says what it was made with.
    assert "recorded 20" in outputs["none"] and checksums["many"] in outputs["none"]
    assert len(list((tmp_path / "results").rglob("result.json"))) == 2  # the earlier run is kept


_RULE = """
from dfa import RULES, Backpropagation

@RULES.register("own_rule")
class Own(Backpropagation):
    name = "own_rule"
"""


@pytest.fixture
def own_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in that defines a rule, and a place for others beside it."""
    ConfigStore.instance().store(group="rule", name="own_rule", node={"name": "own_rule", "options": {}})
    monkeypatch.setattr(RULES, "_factories", dict(RULES._factories))
    plugin = tmp_path / "own.py"
    plugin.write_text(_RULE)
    return plugin


def test_a_changed_plug_in_is_another_run_and_a_broken_one_is_told(
    toys: Toys, command: Command, tmp_path: Path, own_rule: Path
) -> None:
    def train_with(*plugins: Path) -> tuple[int, str, str]:
        named = f"plugins=[{','.join(map(str, (TOY, *plugins)))}]"
        shared = [override for override in toys.overrides if not override.startswith("plugins=")]
        return command(train.main, *shared, "rule=own_rule", named, "trainer.epochs=1", "launcher=serial")

    assert train_with(own_rule)[0] == 0
    assert "run again" not in train_with(own_rule)[1]
    own_rule.write_text(own_rule.read_text() + "# changed\n")
    assert "has changed since it was loaded" in train_with(own_rule)[2]
    # As in a new process: the change is a comment, so that the module need not be made anew.
    vars(sys.modules[plugin_module(str(own_rule))])[LOADED_FROM] = sha256_of(own_rule)
    code, out, err = train_with(own_rule)
    assert code == 0 and "other code of plug-ins: run again" in out, err
    assert "run again" not in train_with(own_rule)[1]
    # A plug-in that has no part in the run makes no difference, as when rows of another rule are added to a table.
    bystander = tmp_path / "bystander.py"
    bystander.write_text("")
    assert "run again" not in train_with(own_rule, bystander)[1]
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('broken')\n")
    code, out, err = train_with(own_rule, broken)
    assert code == 2 and "broken" in err and err.count("\n") == 1
    assert "done" not in out  # the earlier run is not shown for one that cannot be begun


def test_code_as_it_was_finds_its_run_again_and_code_that_cannot_run_takes_none_away(
    toys: Toys, command: Command, tmp_path: Path, own_rule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [override for override in toys.overrides if not override.startswith("plugins=")]
    named = f"plugins=[{TOY},{own_rule}]"
    first = own_rule.read_text()

    def train_with(code: str) -> tuple[int, str, str]:
        own_rule.write_text(code)
        if (module := sys.modules.get(plugin_module(str(own_rule)))) is not None:
            vars(module)[LOADED_FROM] = sha256_of(own_rule)  # as in a new process
        return command(train.main, *shared, "rule=own_rule", named, "trainer.epochs=1", "launcher=serial")

    def records() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in toys.results.rglob("result.json")}

    assert train_with(first)[0] == 0
    ((result, earlier),) = records().items()
    own = sys.modules[plugin_module(str(own_rule))].Own
    with monkeypatch.context() as broken:
        broken.setattr(own, "__init__", lambda *_, **__: (_ for _ in ()).throw(PointError("broken")))
        assert train_with(first + "# changed\n")[0] == 2
    assert records() == {result: earlier}
    assert "run again" in train_with(first + "# changed\n")[1]
    changed = records()
    assert len(changed) == 2 and changed[result] != earlier
    assert "is back from" in train_with(first)[1]
    assert len(records()) == 2 and records()[result] == earlier
    assert "is back from" in train_with(first + "# changed\n")[1]
    assert records() == changed


def test_an_optimizer_of_a_plug_in_is_among_what_a_run_depends_on(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPTIMIZERS, "_factories", dict(OPTIMIZERS._factories))
    plugin = tmp_path / "own_optimizer.py"
    lines = ["import torch", "from benchmarks.run.optim import OPTIMIZERS"]
    lines.append("OPTIMIZERS.register('own')(type('Own', (torch.optim.SGD,), {'__module__': __name__}))")
    plugin.write_text("\n".join(lines))
    used, unused = (
        inputs_of(toys.config(f"optimizer.name={name}", f"plugins=[{TOY},{plugin}]")) for name in ("own", "sgd")
    )
    assert set(used.plugins) == {TOY.name, plugin.name} and set(unused.plugins) == {TOY.name}


def test_a_checkpoint_of_other_data_is_not_resumed(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, _ = toys.elsewhere("undisturbed").run("trainer.epochs=3")
    monkeypatch.setenv("TOY_FAULT", "leave@8")
    with pytest.raises(BaseException, match=""):
        toys.run("trainer.epochs=3", "run.checkpoint_seconds=0")
    monkeypatch.delenv("TOY_FAULT")
    folder = RunFolder.of(toys.config("trainer.epochs=3", "run.checkpoint_seconds=0"))
    state = folder.load_checkpoint()
    assert state is not None and state["position"]["step"] > 0
    folder.save_checkpoint({**state, "inputs": {"data": {}, "plugins": {TOY.name: "0" * 64}}})
    said = io.StringIO()
    with redirect_stdout(said):
        record, _ = toys.run("trainer.epochs=3", "run.checkpoint_seconds=0")
    assert "starts over" in said.getvalue()
    assert record["metrics"] == undisturbed["metrics"] and len(folder.history()) == 3


def test_caches_beside_pictures_are_no_data(tmp_path: Path) -> None:
    scene = tmp_path / "nerf_synthetic" / "lego"
    frames = [{"file_path": "./train/r_0", "transform_matrix": torch.eye(4).tolist()}]
    cameras = {"camera_angle_x": 0.7, "frames": frames}
    for name in ("transforms_train.json", "transforms_val.json", "transforms_test.json", "train/r_0.png"):
        (scene / name).parent.mkdir(parents=True, exist_ok=True)
        (scene / name).write_text(json.dumps(cameras))
    before = view_synthesis_files("blender_lego", tmp_path, {})
    (scene / "cache").mkdir()
    (scene / "cache" / "train-50.npy").write_text("decoded")
    assert view_synthesis_files("blender_lego", tmp_path, {}) == before and len(before) == 4


def test_records_tell_what_differs(toys: Toys) -> None:
    record, _ = toys.run()
    now = inputs_of(toys.config())
    assert record["inputs"] == now.as_record() == {"data": {}, "plugins": {TOY.name: sha256_of(TOY)}}
    assert now.differs_from(record) == ""
    assert Inputs({}, {TOY.name: "0" * 64}).differs_from(record) == "other code of plug-ins"
    with_data = {**record, "inputs": {"data": {"a.txt": "1"}, "plugins": {}}}
    assert Inputs({"a.txt": "2"}).differs_from(with_data) == "other data"
    assert Inputs({"a.txt": "1"}).differs_from(with_data) == Inputs({}).differs_from(with_data) == ""
    assert Inputs({"a.txt": "2"}).differs_from({}) == ""  # a record from before checksums were kept


def test_plans_count_a_record_of_other_code_as_to_do(toys: Toys) -> None:
    target = Target()
    planned = make_plan(target, "paper", 1, toys.overrides[3:], 1)
    launch([run.config for run in planned.to_do], {"name": "serial"})
    assert not make_plan(target, "paper", 1, toys.overrides[3:], 1).to_do
    folder = RunFolder.of(planned.runs[0].config)
    record = folder.read()
    assert record is not None
    folder.finish({**record, "inputs": {"data": {}, "plugins": {TOY.name: "0" * 64}}})
    again = make_plan(target, "paper", 1, toys.overrides[3:], 1)
    assert [RunFolder.of(run.config).path for run in again.to_do] == [folder.path]


def test_plug_ins_of_one_file_name_all_count(tmp_path: Path) -> None:
    files = [tmp_path / folder / "same" / "parts.py" for folder in ("one", "other")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        file.write_text(f"NUMBER = {number}")
    checksums = _plugins([*map(str, files), str(TOY)])
    assert checksums == {"parts.py": " ".join(sorted(map(sha256_of, files))), TOY.name: sha256_of(TOY)}
    assert _plugins([str(TOY), *map(str, reversed(files))]) == checksums


def test_plug_ins_whose_names_differ_in_signs_alone_are_two_modules(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("m-1.py", "m_1.py", "m.1.py")]
    assert len({plugin_module(str(file)) for file in files}) == 3
    assert plugin_module(str(tmp_path / "a" / ".." / "m-1.py")) == plugin_module(str(files[0]))
    assert plugin_module("package.module") == "package.module"


def test_a_plug_in_that_changes_once_it_is_loaded_is_refused(toys: Toys, tmp_path: Path) -> None:
    plugin = tmp_path / "changing.py"
    plugin.write_text("NUMBER = 1")
    config = toys.config(f"plugins=[{TOY},{plugin}]")
    inputs_of(config)
    inputs_of(config)
    plugin.write_text("NUMBER = 2")
    with pytest.raises(ConfigError, match="has changed since it was loaded"):
        inputs_of(config)


def test_the_same_data_in_another_folder_are_no_other_data() -> None:
    inside, outside = {"criteo/train.txt": "a", "criteo/valid.txt": "b"}, {"train.txt": "a", "valid.txt": "b"}
    assert Inputs(inside).differs_from({"inputs": {"data": outside, "plugins": {}}}) == ""
    assert Inputs(outside).differs_from({"inputs": {"data": inside, "plugins": {}}}) == ""
    swapped = {"train.txt": "b", "valid.txt": "a"}
    assert Inputs(inside).differs_from({"inputs": {"data": swapped, "plugins": {}}}) == "other data"
    assert Inputs(inside).differs_from({"inputs": {"data": {"train.txt": "a"}, "plugins": {}}}) == "other data"


def test_files_of_one_name_outside_of_the_data_folder_all_count(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name / "part.csv" for name in ("a", "b")]
    monkeypatch.setitem(DATA_FILES._factories, "toy", lambda folder, options: files)
    for file in files:
        file.parent.mkdir()
        file.write_text(file.parent.name)
    config = toys.config("task.source=real", f"run.data_dir={tmp_path / 'data'}")
    sums = inputs_of(config).data
    assert sums == {"part.csv": " ".join(sorted(map(sha256_of, files)))}
    files[0].write_text("changed")
    assert inputs_of(config).data != sums


def test_a_plug_in_counts_by_its_content_wherever_it_lies() -> None:
    record = {"inputs": {"data": {}, "plugins": {"own.py": "a", "other.py": "b"}}}
    assert Inputs(plugins={"package.other": "b", "my own.py": "a"}).differs_from(record) == ""
    for changed in ({"own.py": "a", "other.py": "c"}, {"own.py": "a"}):
        assert Inputs(plugins=changed).differs_from(record) == "other code of plug-ins"
