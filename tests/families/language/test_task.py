"""The task: perplexities against other computations, accumulation, and learning."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.config import Config, compose_config, resolve
from benchmarks.errors import ConfigError, DataError
from benchmarks.families.language.data import Window
from benchmarks.families.language.models import Transformer
from benchmarks.families.language.stand_in.grammar import Grammar, Recipe
from benchmarks.families.language.stand_in.markov import MarkovSource
from benchmarks.families.language.task import LanguageModelling
from benchmarks.run.build import build_rule
from benchmarks.run.execute import execute
from benchmarks.run.optim import make_optimizer
from benchmarks.run.records import RunFolder
from tests.families.language.test_data import DATA_DIR, needs_data


def _build(name: str = "wikitext103", /, **options: Any) -> LanguageModelling:
    defaults: dict[str, Any] = {"seed": 0, "source": "stand_in", "data_dir": Path(), "columns": 4, "window": 16}
    return LanguageModelling(name, **(defaults | {"stand_in_tokens": 6000} | options))


class Table(nn.Module):
    """Scores of the next token that depend on the token alone."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.scores[tokens]


class Oracle(nn.Module):
    """Optimal predictor of the synthetic language from the tokens of a window."""

    def __init__(self, source: MarkovSource) -> None:
        super().__init__()
        self.source = source

    def forward(self, tokens: Tensor) -> Tensor:
        source = self.source
        scores = torch.empty(*tokens.shape, source.vocabulary)
        for row, window in enumerate(tokens.tolist()):
            belief = source.stationary
            for position, word in enumerate(window):
                weights = belief * source.probabilities[:, word]
                belief = np.bincount(source.next_state[:, word], weights, minlength=len(weights)) / weights.sum()
                scores[row, position] = torch.from_numpy(np.log(belief @ source.probabilities + 1e-300))
        return scores


def _evaluate(task: LanguageModelling, model: nn.Module, split: str = "valid") -> dict[str, float]:
    with torch.no_grad():
        return task.evaluate(model.eval(), split)


def test_a_uniform_model_scores_the_size_of_the_vocabulary(text_folder: Path) -> None:
    generated = _build()
    text = _build("wikitext2", source="real", data_dir=text_folder, vocabulary=300, cache_dir=str(text_folder))
    for task in (generated, text):
        size = task.model_options()["vocabulary"]
        model = Table(torch.zeros(size, size))
        for split in ("valid", "test"):
            found = _evaluate(task, model, split)
            assert found["perplexity"] == pytest.approx(size, rel=1e-5)
            tokens, words = len(task.corpus.ids[split]) - 1, task.corpus.words[split] - 1
            assert found["word_perplexity"] == pytest.approx(size ** (tokens / words), rel=1e-4)
        batch = next(task.train_batches(1))
        assert task.loss(model, batch).item() == pytest.approx(math.log(size), rel=1e-5)
    assert _evaluate(generated, Table(torch.zeros(464, 464)))["word_perplexity"] == pytest.approx(464, rel=1e-5)


def test_perplexity_is_that_of_a_plain_computation() -> None:
    task = _build(window=7)
    size = task.model_options()["vocabulary"]
    scores = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    table = scores.double().numpy()
    logs = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    ids = task.corpus.ids["test"].tolist()
    expected = math.exp(-sum(logs[a, b] for a, b in itertools.pairwise(ids)) / (len(ids) - 1))
    assert _evaluate(task, Table(scores), "test")["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_evaluation_sees_windows_and_nothing_before_them() -> None:
    """A Transformer's perplexity, window by window and token by token."""
    task = _build(window=8, stand_in_tokens=2000)
    torch.manual_seed(0)
    model = Transformer(**task.model_options(), width=16, blocks=2, heads=2, hidden=16, dropout=0.1).eval()
    ids = task.corpus.ids["valid"].tolist()
    total = 0.0
    with torch.no_grad():
        for position in range(1, len(ids)):
            start = (position - 1) // 8 * 8
            scores = model(torch.tensor([ids[start:position]]))[0, -1].double()
            total -= (scores[ids[position]] - scores.logsumexp(0)).item()
    assert _evaluate(task, model)["perplexity"] == pytest.approx(math.exp(total / (len(ids) - 1)), rel=1e-5)


def test_the_oracle_reaches_the_best_perplexity_in_the_notes() -> None:
    # 16,001 training tokens leave 800 for validation: 49 whole windows of 16 and a shorter one, not in the notes' mean.
    task = _build(stand_in_tokens=16_020)
    found = _evaluate(task, Oracle(MarkovSource(Grammar(Recipe()))))
    best = float(task.info.notes["best_perplexity"])
    assert found["perplexity"] == pytest.approx(best, rel=0.01)
    assert found["perplexity"] == found["word_perplexity"]


def test_an_overwhelming_loss_is_infinite_perplexity() -> None:
    task = _build()
    size = task.model_options()["vocabulary"]
    scores = torch.zeros(size, size)
    scores[:, 0] = 1e6
    assert _evaluate(task, Table(scores))["perplexity"] == math.inf


def test_alignment_is_measured_on_a_fixed_batch() -> None:
    task = _build()
    size = task.model_options()["vocabulary"]
    model = Table(torch.randn(size, size))
    ids = torch.from_numpy(task.corpus.ids["valid"][:65].astype(np.int64))
    expected = nn.functional.cross_entropy(model(ids[:-1]), ids[1:])
    torch.testing.assert_close(task.alignment_loss(model), expected)


def _config(tmp_path: Path, *overrides: str) -> Config:
    chosen = ["task=wikitext103", "model=transformer_micro", "rule=dfa", "schedule=noam", "scale=smoke"]
    settings = [f"run.results_dir={tmp_path}", "run.wandb=disabled", "run.progress=false"]
    return resolve(compose_config([*chosen, *settings, *overrides]))


@pytest.mark.parametrize("rule", ["bp", "dfa", "shallow"])
def test_groups_of_columns_give_the_same_result(rule: str, tmp_path: Path) -> None:
    # Adam would blow up the rounding errors of gradients that are zero in truth, those of the keys' biases.
    same = ("model.options.dropout=0", "optimizer.options.eps=1.0", "optimizer.lr=100")
    weights = []
    for groups in (1, 4):
        config = _config(tmp_path, f"rule={rule}", f"trainer.accumulate={groups}", *same)
        assert config.task.options["groups"] == groups
        record = execute(config)
        assert (record["status"], record["steps"]) == ("done", 6)
        weights.append(load_file(RunFolder.of(config).weights("last")))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.equal(weights[0]["decoder.bias"], torch.zeros_like(weights[0]["decoder.bias"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=radam"],
        ["trainer.precision=bfloat16"],
        ["model.options.attention=fixed", "model.options.normalisation=pre"],
        ["model.options.attention=dense_synthesizer", "model.options.normalisation=none"],
        ["model.options.attention=random_synthesizer", "model.options.tied=true"],
        ["model.points=[embedding,blocks.*,last]", "model.error_at=['']", "schedule=plateau"],
    ],
    ids=str,
)
def test_every_option_trains(overrides: list[str], tmp_path: Path) -> None:
    record = execute(_config(tmp_path, *overrides))
    assert record["status"] == "done", record.get("reason")
    assert math.isfinite(record["metrics"]["valid/perplexity"]) and "alignment/mean" in record["metrics"]


def test_windows_do_not_depend_on_seed_or_epoch() -> None:
    first, other = _build(seed=0), _build(seed=1)
    batches: list[list[Window]] = [list(first.train_batches(1)), list(other.train_batches(5))]
    assert len(batches[0]) == first.steps_per_epoch() == -(-(6000 // 4 - 1) // 16)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"columns": 0}, "columns must be at least 1"), ({"groups": 3}, "4 columns cannot be divided into 3 groups")],
)
def test_impossible_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _build(**options)


def test_a_missing_text_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path))
    with pytest.raises(DataError, match="wikitext-103 is not complete in"):
        _build(source="real", data_dir=tmp_path)


def test_rules_learn_in_the_papers_order() -> None:
    """150 steps of a small model: bp < macro < micro < shallow, and only shallow near what words' frequencies give."""
    task = _build(columns=16, window=32, stand_in_tokens=80_000)
    settings = {
        "bp": ("macro", "bp"),
        "macro": ("macro", "dfa"),
        "micro": ("micro", "dfa"),
        "shallow": ("macro", "shallow"),
    }
    found = {}
    for name, (points, rule_name) in settings.items():
        config = resolve(compose_config(["task=wikitext103", f"model=transformer_{points}", f"rule={rule_name}"]))
        torch.manual_seed(0)
        model = Transformer(**task.model_options(), width=32, blocks=2, heads=2, hidden=64, dropout=0.0)
        rule = build_rule(config, model)
        config.optimizer.lr = 5e-3
        optimizer = make_optimizer(config.optimizer, model)
        for batch in task.train_batches(1):
            rule.backward(task.loss(model, batch))
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        found[name] = _evaluate(task, model)["perplexity"]
    unigram = float(task.info.notes["unigram_perplexity"])
    assert found["bp"] < found["macro"] < found["micro"] < found["shallow"] < unigram
    assert found["micro"] < 0.6 * unigram


@needs_data
def test_real_text_has_its_words_and_a_uniform_model_scores_the_vocabulary(tmp_path: Path) -> None:
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for split in ("train", "valid", "test"):  # the training split would take long
        (folder / f"wiki.{split}.tokens").symlink_to(DATA_DIR / "wikitext-2" / "wiki.valid.tokens")
    options = {"source": "real", "data_dir": tmp_path, "vocabulary": 500, "cache_dir": str(tmp_path)}
    task = _build("wikitext2", columns=16, window=128, **options)
    assert task.corpus.words["valid"] == 217_646
    found = _evaluate(task, Table(torch.zeros(500, 500)))
    assert found["perplexity"] == pytest.approx(500, rel=1e-5)
    pieces = (len(task.corpus.ids["valid"]) - 1) / 217_645
    assert found["word_perplexity"] == pytest.approx(500**pieces, rel=1e-3)


class Turning(nn.Module):
    """Predicts one token everywhere, and in all calls after the first few perhaps another."""

    def __init__(self, vocabulary: int, first: int, then: int, calls: int) -> None:
        super().__init__()
        self.vocabulary, self.tokens = vocabulary, itertools.chain([first] * calls, itertools.repeat(then))

    def forward(self, tokens: Tensor) -> Tensor:
        scores = torch.zeros(*tokens.shape, self.vocabulary)
        scores[..., next(self.tokens)] = 1
        return scores


@pytest.mark.parametrize(("then", "constant"), [(1, 1.0), (2, 0.0)])
def test_predictions_are_constant_only_if_they_are_in_all_windows(then: int, constant: float) -> None:
    task = _build()
    network = Turning(task.corpus.vocabulary, 1, then, calls=2)
    assert task.evaluate(network, "valid")["constant_predictions"] == constant


@pytest.mark.parametrize(
    ("split", "text", "message"),
    [
        ("test", "", "the test split of plain_text has no text"),
        ("valid", "\n", "the valid text is too short: 1 tokens, 1 words"),
    ],
)
def test_a_split_in_which_nothing_can_be_predicted_is_told_before_training(
    tmp_path: Path, split: str, text: str, message: str
) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text(text if name == split else "one two three four\n" * 40)
    with pytest.raises(DataError, match=message):
        _build("plain_text", source="real", data_dir=tmp_path, vocabulary=300, cache_dir=str(tmp_path / "cache"))
