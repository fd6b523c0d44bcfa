"""The value of a group is a name: anything else is refused, whichever command takes it."""

from pathlib import Path

import pytest

from benchmarks.config import compose_config
from benchmarks.errors import ConfigError
from benchmarks.utils.config_words import check_groups


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rule=1", r"^unknown rule '1'; known: bp, .*dfa, .*shallow, "),
        ("rule=true", r"^unknown rule 'true'; known: bp, "),
        ("+rule=1.5", r"^unknown rule '1.5'; known: bp, "),
        ("rule=bp,1", r"^unknown rule '1'; known: bp, "),
        ("rule=range(1,3)", r"^unknown rule 'range\(1,3\)'; known: bp, "),
        ("model=null", r"^unknown model 'null'; known: afn, "),
        ("task=on,False", r"^unknown task 'false'; known: blender_chair, "),
        ("launcher=1", r"^unknown launcher '1'; known: local, ray, serial, slurm$"),
        ("hydra/launcher=1", r"^unknown hydra/launcher '1'; known: .*suite"),
        ("rule=[bp,dfa]", r"^'rule=\[bp,dfa\]': one rule at a time; several with -m and commas, as in rule=a,b$"),
        ("rule=[bp],dfa", r"^'rule=\[bp\],dfa': one rule at a time"),
        ("rule={name: bp}", r"^'rule=\{name: bp\}': one rule at a time"),
    ],
)
def test_what_is_no_name_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_config([override])


def test_names_sweeps_over_names_and_values_of_keys_pass() -> None:
    check_groups(
        ["rule=dfa", "rule='1'", "rule=bp,dfa", "rule='bp','dfa'", "model=glob(g*)", "~schedule", "+rule@other=bp"]
    )
    check_groups(["seed=1", "plugins=[a.py]", "run={retry: true}", "optimizer.lr=1", "optimizer.options.betas=[1,2]"])


def test_a_file_whose_name_reads_as_a_number_is_chosen_in_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rule").mkdir()
    (tmp_path / "rule" / "1.yaml").write_text("name: bp\noptions: {}\n")
    monkeypatch.setenv("DFA_CONFIG_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^'rule=1': 1 is no name as it stands; write rule=\"'1'\"$"):
        compose_config(["rule=1"])
    assert compose_config(["rule='1'"]).rule.name == "bp"
