"""Figure 2: t-SNE of the hidden layer of a graph network after training."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from benchmarks.config import Config
from benchmarks.families.graphs.task import NodeClassification
from benchmarks.registry import FIGURES
from benchmarks.run.build import restore
from benchmarks.run.records import RunFolder


@FIGURES.register("hidden_activations")
def hidden_activations(runs: Mapping[str, Config]) -> Figure:
    """Draw a t-SNE of the hidden activations of every node, coloured by class, one panel per run.

    The settings are those of the paper's Figure 2: 2 components, perplexity 20, learning rate 100, 5,000 iterations.

    Args:
        runs: label → configuration of a finished node-classification run, whose last weights are shown.
    """
    figure = Figure(figsize=(4.2 * len(runs), 4.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(runs)))
    classes = 0
    for panel, (label, config) in zip(panels, runs.items(), strict=True):
        task, model = restore(config, which="last")
        assert isinstance(task, NodeClassification)
        projection = TSNE(
            n_components=2, perplexity=20, learning_rate=100, max_iter=5000, init="random", random_state=config.seed
        )
        with threadpool_limits(1):  # its threads busy-wait for each other: hours on a loaded machine
            embedding = projection.fit_transform(_hidden_layer(model, task).cpu().numpy())
        record = RunFolder.of(config).read()
        accuracy = record["metrics"]["test/accuracy"] if record else float("nan")
        classes = task.num_classes
        _scatter(panel, embedding, task.graph.y, f"{label}\ntest accuracy at the best epoch: {100 * accuracy:.1f} %")
    kind = "" if task.info.kind == "real" else ", generated stand-in data"
    figure.suptitle(f"Hidden layer of a two-layer {config.model.name.upper()} on {task.info.name}{kind} (t-SNE)")
    for number in range(classes):
        panels[0].scatter([], [], color=_color(number), label=f"class {number}")
    figure.legend(loc="outside lower center", ncols=classes, frameon=False, fontsize=9)
    return figure


def _hidden_layer(model: nn.Module, task: NodeClassification) -> Tensor:
    """Return the output of the module `act` in evaluation mode, (nodes, width)."""
    kept: list[Tensor] = []
    hook = model.get_submodule("act").register_forward_hook(lambda module, arguments, output: kept.append(output))
    with torch.no_grad():
        model(task.graph)
    hook.remove()
    return kept[-1]


def _scatter(panel: Axes, embedding: np.ndarray, labels: Tensor, title: str) -> None:
    colors = [_color(int(label)) for label in labels]
    panel.scatter(embedding[:, 0], embedding[:, 1], c=colors, s=5, linewidths=0)
    panel.set_title(title, fontsize=11)
    panel.set(xticks=[], yticks=[])
    for side in panel.spines.values():
        side.set_color("0.85")


def _color(number: int) -> tuple[float, float, float, float]:
    return colormaps["tab10"](number)
