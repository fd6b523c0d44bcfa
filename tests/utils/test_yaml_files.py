"""YAML files are read as Hydra reads its own, and refused in one line."""

from pathlib import Path

import pytest

from benchmarks.errors import ConfigError
from benchmarks.utils.paths import CONFIG_DIR
from benchmarks.utils.yaml_files import read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def test_numbers_without_a_point_are_numbers(file: Path) -> None:
    file.write_text("lr: 1e-3\nwords: ['1e-3', one]\n")
    assert read_yaml(file, "") == {"lr": 1e-3, "words": ["1e-3", "one"]}


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\na: 2\n", 2), ("a: 1\n'a': 2\n", 2), ("b:\n  c: 1\n  d: 2\n  c: 1\n", 4), ("[{a: 1, a: 1}]", 1)],
)
def test_a_key_that_is_given_twice_is_refused(file: Path, text: str, line: int) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"^mine is not valid YAML: key '\w' is given twice, line {line}$"):
        read_yaml(file, "mine")


def test_keys_that_only_look_alike_and_merged_mappings_are_not(file: Path) -> None:
    file.write_text("1: one\n'1': word\nbase: &base {a: 1, b: 2}\nown: {<<: *base, a: 3}\n")
    assert read_yaml(file, "") == {1: "one", "1": "word", "base": {"a": 1, "b": 2}, "own": {"a": 3, "b": 2}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "is not valid YAML: .*line 1"),
        ("[" * 5000, "is nested too deeply"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            "values",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^mine .*{reason}"):
        read_yaml(file, "mine")


def test_no_file_of_the_suite_gives_a_key_twice() -> None:
    files = sorted(CONFIG_DIR.rglob("*.yaml"))
    assert len(files) > 100 and all(read_yaml(path, path.name) is not Ellipsis for path in files)
