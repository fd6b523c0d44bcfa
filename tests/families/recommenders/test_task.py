"""The click-prediction task and its data sources."""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

import benchmarks.families.recommenders.models  # noqa: F401  (registers the models)
import dfa
from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError, DataError
from benchmarks.families.recommenders.criteo import load as sources
from benchmarks.families.recommenders.published import missing_data
from benchmarks.families.recommenders.stand_in import ClickModel, write_text_log
from benchmarks.families.recommenders.task import ClickTask, click_metrics
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.build import build_model, build_rule

NAMES = ("criteo", "movielens_1m", "movielens_100k", "click_log")


def build(name: str = "click_log", **options: object) -> ClickTask:
    settings = {"seed": 0, "source": "stand_in", "data_dir": Path(), "stand_in_rows": 1000, "batch_size": 64}
    return TASKS.build(name, **{**settings, "stand_in_vocabulary": 100, **options})


@pytest.fixture(scope="module")
def task() -> ClickTask:
    return build()


class FirstField(nn.Module):
    """A model whose logit is the first field's id."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[:, 0].float() - 3


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_stand_in(name: str) -> None:
    built = build(name)
    assert built.info.name == name and built.info.kind == "stand-in"
    assert {"bayes_auc", "bayes_log_loss"} <= set(built.info.notes)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((f"movielens_{size}", option) for size in ("1m", "100k") for option in ("min_count", "hugging_face")),
        *((name, "max_malformed") for name in ("movielens_1m", "click_log")),
        ("click_log", "hugging_face"),
    ],
)
def test_an_option_of_another_source_is_refused(name: str, option: str) -> None:
    with pytest.raises(dfa.registry.OptionError, match=f"task '{name}' has no option '{option}'; known: batch_size, "):
        build(name, **{option: 1})


def test_metrics_equal_scikit_learns(task: ClickTask) -> None:
    values = task.evaluate(FirstField(), "test")
    ids, labels = task.log.take(task.split.test)
    logits = FirstField()(ids)
    assert math.isclose(values["auc"], roc_auc_score(labels, logits), rel_tol=1e-12)
    assert math.isclose(values["log_loss"], log_loss(labels, torch.sigmoid(logits.double())), rel_tol=1e-9)
    assert values != task.evaluate(FirstField(), "valid")


def test_metrics_of_a_diverged_model_are_not_numbers() -> None:
    values = click_metrics(torch.tensor([0.0, float("nan")]), torch.tensor([0.0, 1.0]))
    assert all(math.isnan(value) for value in values.values())
    assert math.isnan(click_metrics(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))["auc"])


def test_an_epoch_shows_every_training_row_once(task: ClickTask) -> None:
    batches = list(task.train_batches(1))
    assert len(batches) == task.steps_per_epoch() == 13
    rows = torch.cat([torch.cat([ids, labels[:, None].int()], 1) for ids, labels in batches])
    ids, labels = task.log.take(task.split.train)
    expected = torch.cat([ids, labels[:, None].int()], 1)
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_batches_depend_on_seed_and_epoch_only(task: ClickTask) -> None:
    one, again = list(task.train_batches(2)), list(build().train_batches(2))
    assert all(
        torch.equal(a, b) for left, right in zip(one, again, strict=True) for a, b in zip(left, right, strict=True)
    )
    assert torch.equal(next(iter(task.train_batches(2, skip=5)))[0], one[5][0])
    assert not torch.equal(next(iter(task.train_batches(3)))[0], one[0][0])
    fixed = build(shuffle=False)
    assert torch.equal(next(iter(fixed.train_batches(1)))[0], next(iter(fixed.train_batches(9)))[0])
    assert torch.equal(next(iter(fixed.train_batches(1)))[0], fixed.log.take(fixed.split.train[:64])[0])


def test_a_last_batch_of_one_row_is_left_out() -> None:
    small = build(batch_size=799)
    assert small.steps_per_epoch() == len(list(small.train_batches(1))) == 1


def test_alignment_uses_a_fixed_batch_of_512_training_rows(task: ClickTask) -> None:
    model = FirstField()
    assert task.alignment_loss(model) == task.alignment_loss(model) == build().alignment_loss(model)
    assert len(task._alignment[1]) == 512
    assert not torch.equal(task._alignment[0], build(seed=1)._alignment[0])


def test_options_out_of_range_are_refused() -> None:
    for options in ({"batch_size": 1}, {"stand_in_rows": 0}, {"stand_in_vocabulary": 2}):
        with pytest.raises(ConfigError):
            build("click_log", **options)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"put train\.txt or train\.txt\.gz"):
        build("criteo", source="real", data_dir=tmp_path)
    assert "python -m benchmarks fetch movielens_100k" in missing_data("movielens_100k", tmp_path)
    (tmp_path / "criteo").mkdir()
    (tmp_path / "criteo" / "train_8000.txt").touch()
    assert "only the sample" in missing_data("criteo", tmp_path)
    (tmp_path / "criteo" / "train.txt.gz").touch()
    assert missing_data("criteo", tmp_path) == ""


def test_a_part_of_criteo_does_not_pass_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table shows the paper's numbers only beside data whose name is the paper's."""
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "criteo").mkdir()
    path = tmp_path / "criteo" / "train.txt"
    write_text_log(ClickModel(0, 100), 500, path)
    part = build("criteo", source="real", data_dir=tmp_path).info
    assert (part.kind, part.name) == ("real", "criteo (500 of 45840617 rows)")
    monkeypatch.setattr(sources, "CRITEO_ROWS", 500)
    whole = build("criteo", source="real", data_dir=tmp_path).info
    assert whole.name == "criteo"
    assert whole.checksums == {"train.txt": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert not (tmp_path / "criteo" / "cache").exists()
    monkeypatch.delenv("DFA_CACHE_DIR")
    build("criteo", source="real", data_dir=tmp_path)
    assert (tmp_path / "criteo" / "cache").is_dir()


@pytest.mark.parametrize("model_name", ["fm", "deepfm", "dcn", "autoint", "afn"])
@pytest.mark.parametrize("rule_name", ["bp", "dfa", "shallow"])
def test_every_model_takes_steps_with_every_rule_on_real_rows(
    model_name: str, rule_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path))
    folder = Path(os.environ.get("DFA_DATA_DIR", ""))
    real = (folder / "criteo" / "train_8000.txt").is_file()
    if model_name == "fm" and rule_name != "bp":
        pytest.skip("nothing to send feedback to")
    overrides = ["task=criteo", f"model={model_name}", f"rule={rule_name}", "scale=smoke", "run.results_dir=unused"]
    config = resolve(compose_config(overrides))
    options = {**config.task.options, "batch_size": 256, "stand_in_rows": 5000}
    built = TASKS.build(
        "criteo", seed=0, source="real" if real else "stand_in", data_dir=folder, download=False, **options
    )
    torch.manual_seed(0)
    model = MODELS.build(model_name, **built.model_options(), **config.model.options)
    where = {"points": config.model.points, "error_at": config.model.error_at, "silent": config.model.silent}
    rule = dfa.RULES.build(rule_name, model, **where)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _, batch in zip(range(12), built.train_batches(1), strict=False):
        optimizer.zero_grad()
        loss = built.loss(model, batch)
        rule.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert sum(losses[-3:]) < sum(losses[:3])  # of other rows, so that one batch says little
    frozen = rule_name == "shallow" and model_name in ("dcn", "autoint", "afn")
    gradient = model.embedding.table.weight.grad
    assert gradient is None or not frozen
    if not frozen:
        assert gradient is not None and gradient.abs().sum() > 0


def test_the_published_settings_are_those_of_the_protocol() -> None:
    expected = {  # learning rate and dropout for bp, dfa, shallow; epochs, patience and batch for dfa
        "deepfm": ((3e-4, 0.5), (5e-5, 0.5), (1e-4, 0.1), (30, 5, 2048), None),
        "dcn": ((2e-4, 0.0), (5e-5, 0.0), (1e-3, 0.0), (15, 3, 512), 100.0),
        "autoint": ((1e-4, 0.0), (5e-5, 0.0), (4e-4, 0.5), (15, 3, 2048), None),
        "afn": ((4e-4, 0.3), (3e-4, 0.0), (4e-4, 0.0), (15, 3, 2048), None),
    }
    for model, (*pairs, trainer, clip) in expected.items():
        for rule, (lr, dropout) in zip(("bp", "dfa", "shallow"), pairs, strict=True):
            config = resolve(
                compose_config([f"model={model}", "task=criteo", f"rule={rule}", "run.results_dir=unused"])
            )
            assert (config.optimizer.lr, config.model.options["dropout"]) == (lr, dropout)
            assert config.trainer.clip_norm == clip and config.optimizer.weight_decay == 0
            found = (config.trainer.epochs, config.trainer.patience, config.task.options["batch_size"])
            assert found == ((30, 5, 2048) if rule == "shallow" else trainer)


@pytest.mark.parametrize(
    ("overrides", "learns"),
    [([], True), (["model.points=[logarithmic,mlp.blocks.*]", "model.silent=[embedding]"], False)],
    ids=["protocol", "release"],
)
def test_afns_embeddings_learn_by_dfa_unless_the_releases_cut_is_asked_for(
    task: ClickTask, overrides: list[str], learns: bool
) -> None:
    chosen = ["task=click_log", "model=afn", "rule=dfa", "scale=smoke", "run.results_dir=unused", *overrides]
    config = resolve(compose_config(chosen))
    model = build_model(config, task)
    rule = build_rule(config, model)
    rule.backward(task.loss(model, next(iter(task.train_batches(1)))))
    gradient = model.get_parameter("embedding.table.weight").grad
    assert (gradient is not None and bool(gradient.any())) is learns
    for name in ("first_order.weights.table.weight", "logarithmic.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None and gradient.any()
