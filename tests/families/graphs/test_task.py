"""The tasks: losses and metrics by hand, splits, determinism; learning on the stand-in and on Cora."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

import benchmarks.families.graphs.models  # noqa: F401  (registers the models)
from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.task import LinkPrediction, NodeClassification, stratified_folds
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.execute import execute
from tests.families.graphs.test_data import DATA_DIR, needs_data


def build(name: str, **options: Any) -> Any:
    defaults = {"seed": 0, "source": "stand_in", "data_dir": Path("nowhere"), "nodes": 300}
    return TASKS.build(name, **{**defaults, **options})


class Constant(nn.Module):
    """A model that returns the same matrix whatever the graph."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, graph: Graph) -> Tensor:
        return self.out


def train(task: Any, model: nn.Module, epochs: int, lr: float, weight_decay: float = 0.0) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    for epoch in range(1, epochs + 1):
        for batch in task.train_batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_not_taken_for_log_probabilities(dtype: torch.dtype) -> None:
    task = build("cora", outputs="log_probabilities")
    (batch,) = task.train_batches(1)
    scores = (30 * torch.randn(task.graph.num_nodes, task.num_classes)).to(dtype)
    fine = (scores, 1e-3 * scores, torch.full_like(scores, float("nan")))
    assert all(task.loss(Constant(out.log_softmax(1)), batch).dtype == dtype for out in fine)
    for out in (scores, torch.zeros_like(scores), scores.softmax(1), (scores / 100).log_softmax(1) - 0.2):
        with pytest.raises(ConfigError, match=r"set model\.options\.log_softmax=true"):
            task.loss(Constant(out), batch)


def test_a_run_whose_model_returns_scores_is_refused_and_not_recorded(tmp_path: Path) -> None:
    common = ["task=cora", "model=dna", "rule=dfa", "scale=smoke", "task.source=stand_in", "run.wandb=disabled"]
    where = [f"run.results_dir={tmp_path}", "task.options.outputs=log_probabilities"]
    with pytest.raises(ConfigError, match="the model returns scores"):
        execute(resolve(compose_config([*common, *where])))
    assert not list(tmp_path.rglob("result.json"))
    assert execute(resolve(compose_config([*common, *where, "model.options.log_softmax=true"])))["status"] == "done"


@pytest.mark.parametrize("name", ["cora", "citeseer", "pubmed"])
def test_all_tasks_are_registered_and_describe_themselves(name: str) -> None:
    task, links = build(name), build(f"{name}_links")
    assert isinstance(task, NodeClassification) and isinstance(links, LinkPrediction)
    assert task.info.kind == links.info.kind == "stand-in"
    assert (task.info.name, links.info.name) == (name, f"{name}_links")
    assert 0.5 < float(task.info.notes["bayes_accuracy"]) < 1.0
    assert set(links.model_options()) == {"in_channels"}
    assert (task.metric, links.metric) == ("accuracy", "auc")


def test_loss_and_accuracy_by_hand() -> None:
    task = build("cora")
    nodes, classes = task.graph.num_nodes, task.num_classes
    uniform = Constant(torch.zeros(nodes, classes))
    (batch,) = task.train_batches(1)
    assert task.loss(uniform, batch).item() == pytest.approx(math.log(classes))
    assert task.alignment_loss(uniform).item() == pytest.approx(math.log(classes))
    scores = F.one_hot(task.graph.y, classes).float()
    half = task.splits["valid"][::2]
    scores[half] = scores[half].roll(1, dims=1)
    expected = 1 - len(half) / len(task.splits["valid"])
    with torch.no_grad():
        assert task.evaluate(Constant(scores), "valid")["accuracy"] == pytest.approx(expected)
        assert task.evaluate(Constant(scores), "test")["accuracy"] == 1.0


def test_error_at_the_output_depends_on_what_the_output_is() -> None:
    """Softmax minus label for logits, minus label for log-probabilities; zero outside the training nodes."""
    task, release = build("cora"), build("cora", outputs="log_probabilities")
    nodes, classes = task.graph.num_nodes, task.num_classes
    (batch,) = task.train_batches(1)
    label = F.one_hot(task.graph.y, classes).float()
    out = torch.randn(nodes, classes).log_softmax(1)
    for instance, wanted in ((task, out.exp() - label), (release, -label)):
        model = Constant(out.clone())
        instance.loss(model, batch).backward()
        expected = torch.zeros(nodes, classes)
        expected[batch] = wanted[batch] / len(batch)
        assert model.out.grad is not None
        torch.testing.assert_close(model.out.grad, expected)


def test_alignment_loss_covers_all_nodes() -> None:
    task = build("cora")
    model = Constant(torch.randn(task.graph.num_nodes, task.num_classes))
    task.alignment_loss(model).backward()
    assert model.out.grad is not None
    assert (model.out.grad.abs().sum(1) > 0).all()


def test_random_split_takes_three_folds_for_training() -> None:
    labels = torch.arange(100) % 4
    folds = stratified_folds(labels, seed=3, shares=(3, 1, 1))
    assert {name: len(index) for name, index in folds.items()} == {"train": 60, "valid": 20, "test": 20}
    assert torch.cat(list(folds.values())).sort().values.tolist() == list(range(100))


def test_folds_are_stratified_and_disjoint() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    folds = stratified_folds(labels, seed=3)
    assert torch.cat(list(folds.values())).sort().values.tolist() == list(range(100))
    counts = {name: torch.bincount(labels[index]).tolist() for name, index in folds.items()}
    assert counts == {"train": [10, 6, 4], "valid": [10, 6, 4], "test": [30, 18, 12]}
    assert not torch.equal(folds["train"], stratified_folds(labels, seed=4)["train"])


def test_features_are_normalised_or_raw() -> None:
    rows = build("cora").graph.x.to_dense().sum(1)
    assert ((rows - 1).abs() < 1e-5).logical_or(rows == 0).all()
    assert build("cora", features="raw").graph.x.values.unique().tolist() == [1.0]


def test_link_batches_are_a_function_of_seed_and_epoch() -> None:
    task, again, other = (build("cora_links", seed=seed) for seed in (0, 0, 1))
    torch.rand(3)  # the global generator has no say
    first, same = task.train_batches(5)[0], again.train_batches(5)[0]
    assert torch.equal(first, same)
    assert not torch.equal(first, task.train_batches(6)[0])
    assert not torch.equal(first, other.train_batches(5)[0])
    assert first.shape == task.links.train.shape
    assert list(task.train_batches(5, skip=1)) == []


def test_link_loss_and_metrics_by_hand() -> None:
    task = build("cora_links")
    z = torch.randn(task.graph.num_nodes, 4)
    model = Constant(z)
    (negative,) = task.train_batches(1)

    def product(edges: Tensor) -> Tensor:
        return torch.stack([z[a] @ z[b] for a, b in edges.t().tolist()])

    expected = F.softplus(-product(task.links.train)).mean() + F.softplus(product(negative)).mean()
    assert task.loss(model, negative).item() == pytest.approx(expected.item(), rel=1e-5)
    scores = torch.cat([product(task.links.positive["test"]), product(task.links.negative["test"])])
    truth = [1] * task.links.positive["test"].size(1) + [0] * task.links.negative["test"].size(1)
    with torch.no_grad():
        found = task.evaluate(model, "test")
    assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["ap"] == pytest.approx(average_precision_score(truth, scores))


def test_encoder_never_sees_held_out_edges() -> None:
    task = build("cora_links")
    seen = {tuple(edge) for edge in task.graph.edge_index.t().tolist()}
    for split in ("valid", "test"):
        for a, b in task.links.positive[split].t().tolist():
            assert (a, b) not in seen and (b, a) not in seen


@pytest.mark.parametrize("option", [{"features": "scaled"}, {"split": "halves"}, {"outputs": "odds"}, {"nodes": 10}])
def test_unknown_options_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        build("cora", **option)


def test_encoder_on_a_classification_task_is_refused() -> None:
    task = build("cora")
    with pytest.raises(ConfigError, match="_links"):
        task.loss(MODELS.build("gae", in_channels=task.graph.x.shape[1]), task.splits["train"])


def test_learning_on_the_stand_in_stays_below_the_bayes_accuracy() -> None:
    task = build("pubmed", nodes=0)
    torch.manual_seed(0)
    model = MODELS.build("gcn", **task.model_options())
    train(task, model, epochs=80, lr=0.01, weight_decay=5e-4)
    model.eval()
    with torch.no_grad():
        accuracy = task.evaluate(model, "test")["accuracy"]
    best = float(task.info.notes["bayes_accuracy"])
    deviation = math.sqrt(best * (1 - best) / len(task.splits["test"]))
    assert 0.7 < accuracy < best + 3 * deviation


@needs_data
def test_gcn_on_cora_reaches_the_published_accuracy() -> None:
    """Kipf and Welling (2017) report 81.5 %."""
    task = build("cora", source="real", data_dir=DATA_DIR, nodes=0)
    torch.manual_seed(0)
    model = MODELS.build("gcn", **task.model_options())
    train(task, model, epochs=100, lr=0.01, weight_decay=5e-4)
    model.eval()
    with torch.no_grad():
        assert task.evaluate(model, "test")["accuracy"] == pytest.approx(0.815, abs=0.02)
    assert task.info.kind == "real" and len(task.info.checksums) == 8


@needs_data
def test_autoencoder_on_cora_predicts_links() -> None:
    task = build("cora_links", source="real", data_dir=DATA_DIR, nodes=0)
    torch.manual_seed(0)
    model = MODELS.build("gae", **task.model_options())
    train(task, model, epochs=50, lr=0.01)
    model.eval()
    with torch.no_grad():
        assert task.evaluate(model, "test")["auc"] > 0.8
