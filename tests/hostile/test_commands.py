"""Options of every command that cannot be meant: one line, exit code 2, nothing written."""

import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.hostile.cases import Row, assert_refused, carried_out

CASES: list[Row] = [
    ("chaos --kills -1", "--kills: must be from 1 to"),
    ("chaos --kills 0", "--kills: must be from 1 to"),
    ("chaos --kills many", "--kills: invalid int value: 'many'"),
    ("chaos --kills nan", "--kills: invalid int value: 'nan'"),
    ("chaos --seeds 0", "--seeds: must be from 1 to"),
    ("chaos --seeds -5", "--seeds: must be from 1 to"),
    ("chaos --pauses nan 1", "--pauses: must be finite and not negative"),
    ("chaos --pauses -1 1", "--pauses: (must be finite and not negative|expected 2 arguments)"),
    ("chaos --pauses 1 inf", "--pauses: must be finite"),
    ("chaos --pauses 5 1", "--pauses: 5 is more than 1"),
    ("chaos --pauses 1", "--pauses: expected 2 arguments"),
    ("chaos --nonsense", "unrecognized arguments: --nonsense"),
    ("tune table_6 --jobs 0", "--jobs: must be from 1 to"),
    ("tune table_6 --jobs -2 --dry", "--jobs: must be from 1 to"),
    ("tune table_6 --jobs two", "--jobs: invalid int value"),
    ("tune table_6 --scale huge", "unknown scale 'huge'"),
    ("tune table_6 --scale mini --set rule=bp", "sets 'rule' itself"),
    ("tune table_6 --scale mini --set optimizer.lr=1", "optimizer.lr"),
    ("tune table_3", "names no `rates`"),
    ("tune table_99", "unknown table 'table_99'"),
    ("tune", "required: table"),
    ("reproduce", "required: target"),
    ("reproduce table_99", "unknown table or figure 'table_99'"),
    ("reproduce ../table_3", "unknown table or figure"),
    ("reproduce ''", "unknown table or figure ''"),
    ("reproduce table_3 --scale huge", "unknown scale 'huge'"),
    ("reproduce table_3 --scale ''", "unknown scale ''"),
    ("reproduce table_3 --seeds 0", "--seeds: must be from 1 to"),
    ("reproduce table_3 --seeds -1", "--seeds: must be from 1 to"),
    ("reproduce table_3 --seeds 99999999999", "--seeds: must be from 1 to"),
    ("reproduce table_3 --seeds 1.5", "--seeds: invalid int value"),
    ("reproduce table_3 --jobs 0", "--jobs: must be from 1 to"),
    ("reproduce table_3 --jobs -3", "--jobs: must be from 1 to"),
    ("reproduce table_3 --launcher nowhere", "nowhere"),
    ("reproduce table_3 --launcher ''  --set launcher.name=nowhere", "unknown launcher 'nowhere'"),
    ("reproduce table_3 --set model=gat", "Table 3 sets 'model' itself: 'model=gat' would change what its cells mean"),
    ("reproduce table_3 --set rule=bp", "Table 3 sets 'rule' itself"),
    ("reproduce table_3 --set scale=mini", "Table 3 sets 'scale' itself"),
    ("reproduce table_3 --set seed=3", "Table 3 sets 'seed' itself"),
    ("reproduce table_3 --set task=cora", "Table 3 sets 'task' itself"),
    ("reproduce table_3 --set rule.name=bp", "Table 3 sets 'rule.name' itself"),
    ("reproduce table_3 --set model.name=gat", "Table 3 sets 'model.name' itself"),
    ("reproduce table_3 --set ++model=gat", "Table 3 sets 'model' itself"),
    ("reproduce table_3 --set +rule=bp", "Table 3 sets 'rule' itself"),
    ("reproduce table_3 --set ~rule", "Table 3 sets 'rule' itself"),
    ("reproduce table_3 --set rule@_global_=bp", "Table 3 sets 'rule' itself"),
    ("reproduce table_3 --set run.device=cuda:77", "device 'cuda:77' is not usable here"),
    ("reproduce table_3 table_4 figure_2 --set run.device=cuda:77", "device 'cuda:77' is not usable here"),
    ("reproduce table_3 --set run.device=meta", "device 'meta' is not usable here"),
    ("reproduce figure_2 --set run.device=gpu", "device 'gpu' is not usable here"),
    ("reproduce table_3 --config-dir /nowhere", "there is no folder '/nowhere'"),
    ("reproduce table_3 --config-dir ''", "there is no folder ''"),
    ("reproduce table_3 --set", "expected one argument"),
    ("reproduce table_3 --nonsense", "unrecognized arguments: --nonsense"),
    ("status table_99", "unknown table or figure 'table_99'"),
    ("status table_3 --scale huge", "unknown scale 'huge'"),
    ("status table_3 --seeds 0", "--seeds: must be from 1 to"),
    ("status table_3 --set rule=bp", "Table 3 sets 'rule' itself"),
    ("status --nonsense", "unrecognized arguments"),
    ("fetch", "required: task"),
    ("fetch nowhere", "unknown task 'nowhere'"),
    ("fetch ../cora", "unknown task"),
    ("fetch ''", "unknown task ''"),
    ("rank task=cora model=gcn rule=dfa", "no run of task=cora model=gcn rule=dfa at scale paper is recorded"),
    ("rank task=cora model=gcn rule=dfa --top 0", "--top must be at least 1, got 0"),
    ("rank task=cora model=gcn rule=dfa --top -1", "--top must be at least 1, got -1"),
    ("rank task=cora model=gcn rule=dfa --top x", "--top: invalid int value"),
    ("rank task=nowhere", "unknown task 'nowhere'"),
    ("rank run.results_dir=", "run.results_dir must name a folder"),
    ("rank", "required: choice"),
    ("search nowhere task=cora", "unknown search space 'nowhere'"),
    ("search ../graphs task=cora", "unknown search space"),
    ("search graphs task=cora --trials 0", "--trials must be at least 1, got 0"),
    ("search graphs task=cora --trials -1", "--trials must be at least 1, got -1"),
    ("search graphs task=cora --trials x", "--trials: invalid int value"),
    ("search graphs task=cora --seeds 0", "--seeds must be at least 1"),
    ("search graphs task=cora --at-once 0", "--at-once must be at least 1"),
    ("search graphs task=cora --jobs 0", "--jobs: must be from 1 to"),
    ("search graphs task=cora --sampler-seed -1", "--sampler-seed must be from 0 to"),
    ("search graphs task=cora --sampler-seed 4294967296", "--sampler-seed must be from 0 to"),
    ("search graphs task=cora --name ../../x", r"--name must be a name of letters.* got '\.\./\.\./x'"),
    ("search graphs task=cora --name /tmp/x", "--name must be a name"),
    ("search graphs task=cora --name ..", "--name must be a name"),
    ("search graphs task=cora --name a/b", "--name must be a name"),
    ("search graphs task=cora --name 'a b'", "--name must be a name"),
    ("search graphs task=nowhere", "unknown task 'nowhere'"),
    ("bench nonsense", "unrecognized arguments: nonsense"),
    ("bench models --parts nonsense", "nonsense"),
    ("bench models --models nonsense", "nonsense"),
    ("bench models --modes nonsense", "nonsense"),
    ("bench models --rules nonsense", "nonsense"),
    ("bench models --threads 0", "--threads and --rounds must be at least 1"),
    ("bench models --rounds -1", "must be at least 1"),
    ("bench models --device meta", "meta"),
    ("bench models --device cuda:77", "cuda:77"),
    ("bench language --precision float8", "invalid choice"),
    ("bench nerf --model nonsense", "invalid choice"),
    ("sample", "required: run"),
    ("sample /nowhere/at/all", "'/nowhere/at/all' holds no finished run"),
    ("sample . --tokens 0", "--tokens must be at least 1, got 0"),
    ("sample . --tokens -1", "--tokens must be at least 1"),
    ("sample . --temperature 0", "--temperature must be positive and finite"),
    ("sample . --temperature nan", "--temperature must be positive and finite, got nan"),
    ("sample . --temperature inf", "--temperature must be positive and finite"),
    ("sample . --seed -1", "--seed must be from 0 to"),
    ("records", "required: action"),
    ("records nonsense", "invalid choice"),
    ("records export", "name the tables"),
    ("records export table_99", "unknown table or figure 'table_99'"),
    ("records verify table_99", "no records of 'table_99' are committed"),
    ("records verify ../table_4", "no records of"),
    ("records import table_3 --set rule=bp", "sets 'rule' itself"),
    *(
        (f"records {action} table_4 {option}", f"records {action} takes no {option.split()[0]}")
        for action in ("verify", "render")
        for option in ("--scale mini", "--seeds 2", "--rules fa", "--results x", "--set run.device=cuda")
    ),
    ("records verify --force", "records verify takes no --force"),
    ("records import table_4 --force", "records import takes no --force"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("line", "message"), CASES, ids=[line for line, _ in CASES])
def test_an_option_that_cannot_be_meant_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFA_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("DFA_OFFLINE", "1")
    name, *words = shlex.split(line)
    main = import_module(f"benchmarks.commands.{name}").main
    assert_refused(carried_out(command, main, words, tmp_path), message)
