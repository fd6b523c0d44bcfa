"""Commands in the documentation and in configuration headers are ones that exist; its Python compiles and runs."""

import argparse
import hashlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmarks.__main__ import COMMANDS
from benchmarks.commands.records import make_parser as make_records_parser
from benchmarks.commands.released import make_parser as make_released_parser
from benchmarks.commands.reproduce import make_parser
from benchmarks.commands.sample import make_parser as make_sample_parser
from benchmarks.commands.search import make_parser as make_search_parser
from benchmarks.commands.site import make_parser as make_site_parser
from benchmarks.commands.status import make_parser as make_status_parser
from benchmarks.commands.tune import make_parser as make_tuning_parser
from benchmarks.commands.video import make_parser as make_video_parser
from benchmarks.config import compose_config, resolve
from benchmarks.errors import DataError
from benchmarks.launchers import settings_among
from benchmarks.registry import DATA_FILES, FIGURES, MODELS, TASKS
from benchmarks.run.execute import execute
from benchmarks.run.fetch import known_tasks
from benchmarks.run.inputs import inputs_of
from benchmarks.run.plugins import plugin_module
from benchmarks.tables.figure import load_figure
from benchmarks.tables.plan import make_plan
from benchmarks.tables.spec import load_spec
from benchmarks.tables.targets import target_names
from benchmarks.tuning.spaces import read_space
from benchmarks.tuning.trials import rates_of
from benchmarks.utils.paths import CONFIG_DIR, OWN_CONFIGS, REPOSITORY
from dfa import RULES
from dfa.registry import Registry

_DOCUMENTS = [
    *REPOSITORY.glob("*.md"),
    *REPOSITORY.glob("docs/**/*.md"),
    *REPOSITORY.glob("benchmarks/**/README.md"),
    *REPOSITORY.glob("examples/**/README.md"),
    REPOSITORY / "tests" / "README.md",
]
_EXTENDING = REPOSITORY / "docs" / "extending.md"
_HEADERS = sorted(CONFIG_DIR.rglob("*.yaml"))
_NUMBER = r"\d+\.\d+(?: ± \d+\.\d+)?"
_OTHER_PROGRAMS = {"git", "cd", "source", "pip", "wandb", "export", "ls", "cat", "cp"}
_RUNNERS = {"python", "python3", ".venv/bin/python"}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[object]:
    for document in _DOCUMENTS:
        if document.exists():
            for block in _blocks(document.read_text(encoding="utf-8"), "bash"):
                for line in block.replace("\\\n", " ").splitlines():
                    if line.split("#")[0].strip():
                        yield pytest.param(line, id=f"{document.relative_to(REPOSITORY)}: {line.split('#')[0].strip()}")
    for file in _HEADERS:
        for line in file.read_text(encoding="utf-8").splitlines():
            found = re.match(r"#.*?((python |make ).*)", line)
            if found:
                yield pytest.param(found[1], id=f"{file.relative_to(REPOSITORY)}: {found[1]}")


@pytest.fixture(autouse=True)
def _choices_that_readers_are_told_to_add() -> None:
    """A rule that a page registers gets the YAML to copy; a task or model, the YAML that `extending.md` prints."""
    for text in _python_blocks():
        for name in re.findall(r'@(?:dfa\.)?RULES\.register\("(\w+)"\)', text):
            node = yaml.safe_load((CONFIG_DIR / "rule" / "dfa.yaml").read_text()) | {"name": name}
            ConfigStore.instance().store(group="rule", name=name, node=node)
    for text in _blocks(_EXTENDING.read_text(encoding="utf-8"), "yaml"):
        placed = re.search(r"# configs/(\w+)/(\w+)\.yaml", text)
        assert placed, f"no file name in the block {text}"
        package = "_global_" if "@package _global_" in text else None
        ConfigStore.instance().store(group=placed[1], name=placed[2], node=yaml.safe_load(text), package=package)


@pytest.mark.parametrize("line", _commands())
def test_every_command_exists(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv(OWN_CONFIGS, "")  # which --config-dir adds to
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, arguments = words[0], words[1:]
    if program == "torchrun":
        program, arguments = "python", list(itertools.dropwhile(lambda word: not word.endswith(".py"), arguments))
    if program in _RUNNERS and arguments[:2] == ["-m", "benchmarks"]:
        program, arguments = arguments[2], arguments[3:]
        assert program in COMMANDS, f"no command {program}"
    elif program in _RUNNERS and arguments[0] == "-m":
        assert find_spec(arguments[1]), f"no module {arguments[1]}"
    elif program in _RUNNERS:
        assert (REPOSITORY / arguments[0]).exists(), f"no script {arguments[0]}"
        program, arguments = Path(arguments[0]).stem, arguments[1:]
    if program == "make":
        _check_make(arguments)
    elif program in ("train", "rank"):
        _check_overrides(arguments)
    elif program == "reproduce":
        target_names(_parsed(make_parser(), arguments).target)
    elif program == "search":
        options = _parsed(make_search_parser(), arguments)
        read_space(options.space)
        _check_overrides(options.choice)
    elif program == "tune":
        assert rates_of(load_spec(_parsed(make_tuning_parser(), arguments).table)).factors
    elif program == "records":
        target_names(_parsed(make_records_parser(), arguments).target or ["all"])
    elif program == "status":
        target_names(_parsed(make_status_parser(), arguments).target or ["all"])
    elif program == "site":
        _parsed(make_site_parser(), arguments)
    elif program == "sample":
        _parsed(make_sample_parser(), arguments)
    elif program in ("video", "released"):
        parser = make_video_parser() if program == "video" else make_released_parser()
        _check_overrides(_parsed(parser, arguments).overrides)
    elif program in ("fetch", "fetch_data"):
        assert set(arguments) - {"--data-dir"} <= set(known_tasks())
    else:
        assert program in _OTHER_PROGRAMS | _RUNNERS | {"bench", "chaos"}, f"unknown program {program}"


def _check_make(arguments: Sequence[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    rules = [name for line in re.findall(r"^([\w%. -]+):(?!=)", makefile, flags=re.MULTILINE) for name in line.split()]
    for argument in arguments:
        if "=" in argument:
            assert f"$({argument.split('=')[0]})" in makefile, f"the Makefile knows no {argument.split('=')[0]}"
            value = argument.split("=", 1)[1].split()
            if argument.startswith("TASK="):
                assert set(value) <= set(known_tasks())
            if argument.startswith("TABLE="):
                target_names(value)
            if argument.startswith("SET="):
                chosen = [f"launcher={other.split('=')[1]}" for other in arguments if other.startswith("LAUNCHER=")]
                settings_among([*chosen, *value])
            continue
        assert any(re.fullmatch(rule.replace("%", r"[\w-]+"), argument) for rule in rules), f"no target {argument}"
        if argument.startswith("reproduce-"):
            target_names([argument.removeprefix("reproduce-").replace("-", "_")])


def _check_overrides(arguments: Sequence[str]) -> None:
    if "--config-dir" in arguments:
        place = arguments.index("--config-dir")
        folder = REPOSITORY / arguments[place + 1]
        arguments = [*arguments[:place], *arguments[place + 2 :], f"hydra.searchpath=[file://{folder}]"]
    parsed = OverridesParser.create().parse_overrides([word for word in arguments if word not in ("-m", "--multirun")])
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in parsed
    ]
    assert "-m" in arguments or all(len(choice) == 1 for choice in choices), "a sweep without -m"
    for overrides in itertools.islice(itertools.product(*choices), 40):
        resolve(compose_config(overrides))


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    parser.exit_on_error = False
    try:
        options = parser.parse_args(arguments)
    except (argparse.ArgumentError, SystemExit) as error:
        pytest.fail(f"{parser.prog} does not take {arguments}: {error}")
    assert getattr(options, "scale", "auto") in ("auto", "paper", "mini", "smoke")
    return options


def _python_blocks() -> list[str]:
    """Those of one process; test_distributed.py runs the others, and tests/examples what integrations.md quotes."""
    documents = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md")]
    documents.remove(REPOSITORY / "docs" / "integrations.md")
    blocks = [block for file in documents if file.exists() for block in _blocks(file.read_text("utf-8"), "python")]
    return [block for block in blocks if "init_process_group" not in block]


def test_python_in_the_readme_runs_and_the_library_example_learns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = _python_blocks()
    if not blocks:
        pytest.skip("no README")
    _forget_registrations(monkeypatch)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    losses = {words[0]: float(words[1]) for words in printed if len(words) == 2 and words[0] in RULES}
    # Two classes of equal size: guessing costs log 2 = 0.693.
    assert losses.keys() == {"bp", "dfa", "shallow"}
    assert max(losses["bp"], losses["dfa"]) < 0.1 < 0.3 < losses["shallow"] < 0.69


def _forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test registers is gone after it."""
    registries: tuple[Registry[Any], ...] = (RULES, TASKS, MODELS, FIGURES, DATA_FILES)
    for registry in registries:
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def test_the_task_and_the_model_of_the_documentation_need_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_registrations(monkeypatch)
    plugin = tmp_path / "spirals.py"
    plugin.write_text(_blocks(_EXTENDING.read_text(encoding="utf-8"), "python")[0])
    settings = ["task=spirals", "model=spirals_mlp", f"plugins=[{plugin}]", f"run.results_dir={tmp_path}"]
    accuracy = {}
    for rule in ("dfa", "shallow"):
        record = execute(resolve(compose_config([*settings, f"rule={rule}", "run.wandb=disabled"])))
        accuracy[rule] = record["metrics"]["test/accuracy"]
    assert accuracy["dfa"] > 0.9 and accuracy["shallow"] < 0.75


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("listed", [True, False])
def test_the_task_of_the_documentation_that_reads_a_file(
    listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed file is seen, also where only the run itself has said that it read it."""
    _forget_registrations(monkeypatch)
    spirals, measured = _blocks(_EXTENDING.read_text(encoding="utf-8"), "python")[:2]
    (tmp_path / "spirals.py").write_text(spirals)
    (tmp_path / "measured.py").write_text(measured)
    plugins = f"plugins=[{tmp_path / 'measured.py'},{tmp_path / 'spirals.py'}]"
    settings = ["task=measured", "model=spirals_mlp", "rule=dfa", plugins, "trainer.epochs=5", "run.wandb=disabled"]
    places = [f"run.data_dir={tmp_path}", f"run.results_dir={tmp_path / 'results'}"]
    config = resolve(compose_config([*settings, *places]))
    file = tmp_path / "measured.csv"
    with pytest.raises(DataError, match=r"measured\.csv cannot be used"):
        execute(config)
    if not listed:
        DATA_FILES._factories.pop("measured")
        monkeypatch.setattr(sys.modules[plugin_module(str(tmp_path / "measured.py"))], "sha256_of", md5_of)
    rows = [f"{x},{1 - x},{int(x > 0.5)}" for x in (number / 100 for number in range(100))]
    file.write_text("\n".join(["a,b,class", *rows]))
    record = execute(config)
    assert record["status"] == "done" and record["metrics"]["test/accuracy"] > 0.9, record["metrics"]
    assert execute(config)["seconds"] == record["seconds"]
    file.write_text("\n".join(["a,b,class", *rows[:-1]]))
    assert inputs_of(config, record).differs_from(record) == "other data"
    changed = execute(config)
    assert changed["data"]["checksums"] != record["data"]["checksums"]
    file.write_text("\n".join(["a,b,class", *rows]))
    assert execute(config)["seconds"] == record["seconds"], "the earlier run comes back"


def test_the_table_and_the_figure_of_the_documentation_can_be_planned(tmp_path: Path) -> None:
    table, figure = _blocks((REPOSITORY / "docs" / "tables.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "table_rules.yaml").write_text(table)
    (tmp_path / "figure_errors.yaml").write_text(figure)
    spec, drawn = load_spec("table_rules", folder=tmp_path), load_figure("figure_errors", tmp_path)
    assert [len(make_plan(target, "smoke", None, [], 1).runs) for target in (spec, drawn)] == [6, 2]
    assert len(make_plan(spec, "mini", None, [], 1).runs) == 18


def test_relative_links_lead_somewhere() -> None:
    for document in _DOCUMENTS:
        if document.exists():
            for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8")):
                assert (document.parent / link).exists(), f"{document.name} links to {link}"


@pytest.mark.parametrize("kind", ["task", "model"])
def test_every_choice_says_how_to_run_it(kind: str) -> None:
    for file in (CONFIG_DIR / kind).glob("*.yaml"):
        header = [line for line in file.read_text().splitlines() if line.startswith("#")]
        assert any(f"{kind}={file.stem}" in line for line in header), (
            f"{file.name} has no command with {kind}={file.stem}"
        )


def test_results_that_documents_quote_stand_in_the_tables() -> None:
    reported = set().union(*map(_numbers, (REPOSITORY / "results" / "tables").glob("*.md")))
    for document in _DOCUMENTS:
        for quoted in _numbers(document):
            assert "±" not in quoted or quoted in reported, f"{document.name} quotes {quoted}, which no table reports"


def test_results_in_the_readme_stand_in_the_table_beside_them() -> None:
    rows = re.findall(
        r"^\|(.*)\|[^|]*\((results/tables/\w+\.md)\)", (REPOSITORY / "README.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 5
    for cells, table in rows:
        reported = _numbers(REPOSITORY / table)
        for number in re.findall(_NUMBER, cells):
            assert number in reported, f"{table} does not report {number}"


def _numbers(document: Path) -> set[str]:
    """Return the numbers with decimals of a document, with their spread where there is one."""
    return set(re.findall(_NUMBER, document.read_text(encoding="utf-8")))
