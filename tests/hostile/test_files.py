"""Configuration files of a user's own that are damaged or hostile, before the commands that read them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.commands import reproduce, search, status, train
from benchmarks.run.build import load_components
from benchmarks.tables.chosen import read_chosen
from benchmarks.tuning.spaces import read_space
from tests.conftest import TOY, Command, Toys
from tests.hostile.cases import assert_refused, carried_out

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n" for before, after in zip("abcdefg", "bcdefgh", strict=True)
)
CONTENTS: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "latin-1": "title: Übersicht".encode("latin-1"),
    "utf-16": "title: x".encode("utf-16"),
    "zeros": bytes(100),
    "no YAML": b"a: [1, 2\nb: }",
    "tabs": b"\tq: 1",
    "deep": b"[" * 5000,
    "deep mapping": b"{a: " * 5000,
    "bomb": _BOMB.encode(),
    "a list": b"[1, 2]",
    "a word": b"word",
    "a number": b"3",
    "code": b"!!python/object/apply:os.system ['touch /tmp/never']",
    "two documents": b"a: 1\n---\nb: 2",
    "a wrong date": b"a: 2001-99-99",
}
GROUPS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "table": (reproduce.main, ["hostile", "--dry"]),
    "figure": (status.main, ["hostile"]),
    "task": (train.main, ["task=hostile"]),
    "search": (search.main, ["hostile", "task=toy", "model=toy_mlp", f"plugins=[{TOY}]"]),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("group", GROUPS)
def test_a_file_of_a_users_own_folder(tmp_path: Path, command: Command, group: str, content: str) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "hostile.yaml").write_bytes(CONTENTS[content])
    main, words = GROUPS[group]
    if group in ("task", "search"):
        words = [*words, f"run.results_dir={tmp_path / 'results'}"]
    outcome = carried_out(command, main, [*words, "--config-dir", str(tmp_path)], tmp_path)
    assert_refused(outcome, "hostile")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("content", CONTENTS)
def test_the_plugins_of_a_users_own_folder(tmp_path: Path, toys: Toys, command: Command, content: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "plugins.yaml").write_bytes(CONTENTS[content])
    words = [*toys.overrides, "--config-dir", str(tmp_path / "own")]
    assert_refused(carried_out(command, train.main, words, tmp_path), "plugins.yaml|plugin")


SPACES: dict[str, str] = {
    "optimizer.lr: {low: 0.1, high: .inf}": "high must be a finite number, not inf",
    "optimizer.lr: {low: -.inf, high: 1.0}": "low must be a finite number",
    "optimizer.lr: {low: .nan, high: 1.0}": "low must be a finite number, not nan",
    "optimizer.lr: {low: 1, high: 1" + "0" * 400 + "}": "high must be a finite number",
    "optimizer.lr: {low: a, high: b}": "low must be a finite number, not 'a'",
    "optimizer.lr: {low: true, high: 2}": "low must be a finite number, not True",
    'optimizer.lr: {low: 0.1, high: 1.0, log: "no"}': "log must be true or false, not 'no'",
    "optimizer.lr: {low: 0.1, high: 1.0, log: 3}": "log must be true or false, not 3",
    "optimizer.lr: {low: 0.1, high: 1.0, step: .inf}": "step must be a finite number",
    "optimizer.lr: {low: 0.1, high: 1.0, step: x}": "step must be a finite number, not 'x'",
    "optimizer.lr: {low: 1.0, high: 0.1}": "optimizer.lr: ",
    "optimizer.lr: {low: 0.0, high: 1.0, log: true}": "optimizer.lr: ",
    "optimizer.lr: {low: 0.1}": "must be a list, or have low, high",
    "optimizer.lr: {low: 0.1, high: 1.0, width: 3}": "must be a list, or have low, high",
    "optimizer.lr: 0.1": "must be a list, or have low, high",
    "optimizer.lr: null": "must be a list, or have low, high",
    "optimizer.lr: fast": "must be a list, or have low, high",
    "optimizer.lr: []": "optimizer.lr: ",
    "optimizer.lr: [[1, 2], [3]]": r"\[1, 2\] is not a value to choose",
    "optimizer.lr: [{a: 1}]": "is not a value to choose",
    "1: {low: 0.1, high: 1.0}": "1 is not a key of the configuration",
    "true: [1, 2]": "True is not a key of the configuration",
    "null: [1, 2]": "None is not a key of the configuration",
    "optimizer: {low: 0.1, high: 1.0}": "optimizer is a group of values; name one of them",
    "model.options: [1, 2]": "model.options is a group of values",
    "nowhere.at.all: [1, 2]": r"unknown key 'nowhere\.at\.all'",
    "trainer.epochs.deeper: [1, 2]": "none of its keys|trainer.epochs",
    "'': [1, 2]": "none of its keys|is a group",
    "'a[': [1, 2]": r"unknown key 'a\['",
    "{}": "names no keys",
    "": "names no keys",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("space", SPACES)
def test_a_search_space_that_is_none(tmp_path: Path, toys: Toys, command: Command, space: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(space)
    outcome = carried_out(command, search.main, [str(file), *toys.overrides, "--trials", "1"], tmp_path)
    assert_refused(outcome, SPACES[space])


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_read_forever(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "space.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(Exception, match=r"^search space .* cannot be read: it is"):
        read_space(str(path))
    (tmp_path / "chosen").mkdir()
    path.rename(tmp_path / "chosen" / "table_3.yaml")
    with pytest.raises(Exception, match=r"^table_3\.yaml of chosen settings cannot be read: it is"):
        read_chosen("table_3", tmp_path, [])


CHOSEN = [
    "[1]",
    "mini: [1]",
    "mini: {gcn/dfa: 3}",
    "mini: {gcn/dfa: [1]}",
    "mini: {nowhere: [a=1]}",
    "\x00",
    "a: [",
    "7",
]


@pytest.mark.parametrize("content", CHOSEN)
def test_chosen_settings_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "table_3.yaml").write_text(content)
    with pytest.raises(Exception, match=r"^table_3\.yaml of chosen settings") as error:
        read_chosen("table_3", tmp_path, ["gcn/dfa"])
    assert type(error.value).__name__ == "ConfigError" and "\n" not in str(error.value)


PLUGINS: dict[str, str] = {
    "import sys; sys.exit(0)": "SystemExit: 0",
    "import sys; sys.exit('bye')": "SystemExit: bye",
    "raise SystemExit": "SystemExit",
    "exit()": "SystemExit|NameError",
    "raise ValueError('one\\ntwo')": "ValueError: one two",
    "raise Exception": "Exception",
    "1 / 0": "ZeroDivisionError",
    "def (": "SyntaxError",
    "import no_such_module": "no_such_module",
    "def f(): f()\nf()": "RecursionError",
    "from dfa import RULES\n@RULES.register('bp')\nclass A: 0": "bp",
    "\ufeff\x00": "SyntaxError|null|cannot be imported",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("code", PLUGINS)
def test_a_plugin_that_ends_badly(tmp_path: Path, toys: Toys, command: Command, code: str) -> None:
    (tmp_path / "own.py").write_text(code)
    words = [*toys.overrides, f"plugins=[{TOY},{tmp_path}/own.py]"]
    outcome = carried_out(command, train.main, words, toys.results)
    assert_refused(outcome, f"own.py' cannot be imported: .*({PLUGINS[code]})")


def test_the_suites_own_plugin_still_loads(toys: Toys) -> None:
    load_components(toys.config())
