"""Figures 1 and A1 to A3: renders of finished runs beside the true pictures, and learning curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor, nn

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.families.view_synthesis.render.image import as_bytes, psnr, subsample
from benchmarks.families.view_synthesis.task import ViewSynthesis
from benchmarks.registry import FIGURES
from benchmarks.run.build import restore
from benchmarks.run.records import RunFolder
from benchmarks.utils.pictures import Illustrated, Picture

PANEL_INCHES = 2.3
"""Width of a panel in inches."""
DUAL = "NeRF-Dual"
TRUTH = "ground truth"
SEPARATOR = ": "
"""Between scene and method in the label of a run; a label without it is a method, and there is one scene."""
STYLES = {"bp": "-", "dfa": "--", "shallow": ":"}
"""Line style of a rule in learning curves; other rules are dash-dotted."""


@dataclass
class Scene:
    """Test view of a scene with its renders.

    Attributes:
        title: heading of the scene's panels.
        truth: the true picture, (height, width, 3) in [0, 1].
        renders: method → render of the same shape.
    """

    title: str
    truth: Tensor
    renders: dict[str, Tensor] = field(default_factory=dict)


@FIGURES.register("renders")
def renders(runs: Mapping[str, Config]) -> Illustrated:
    """Draw the first test view of each scene, each run's render of it with its PSNR, and the absolute errors below.

    Runs that were evaluated on a part of the pixels show that part.

    Args:
        runs: label ("scene: method") → configuration of a finished run.
    """
    return _illustrated(collect(runs))


@FIGURES.register("coarse_renders")
def coarse_renders(runs: Mapping[str, Config]) -> Illustrated:
    """Draw `renders` with each run's coarse network instead of its fine one."""
    return _illustrated(collect(runs, coarse=True))


@FIGURES.register("renders_and_dual")
def renders_and_dual(runs: Mapping[str, Config]) -> Illustrated:
    """Draw `renders` with NeRF-Dual, the mean of coarse and fine network, beside each run's own render."""
    return _illustrated(collect(runs, dual=True))


@FIGURES.register("psnr_curves")
def psnr_curves(runs: Mapping[str, Config]) -> Figure:
    """Draw the validation PSNR of runs over iterations and over hours of training, one row per scene.

    Args:
        runs: label ("scene: method") → configuration of a run.
    """
    scenes: dict[str, dict[str, Config]] = {}
    for label, config in runs.items():
        heading, _, method = label.rpartition(SEPARATOR)
        scenes.setdefault(heading or config.task.name, {})[method] = config
    figure = Figure(figsize=(11, 3.4 * len(scenes)), layout="constrained")
    panels = figure.subplots(len(scenes), 2, squeeze=False, sharey="row")
    for row, (heading, methods) in zip(panels, scenes.items(), strict=True):
        colors = {
            model: f"C{index}" for index, model in enumerate(dict.fromkeys(c.model.name for c in methods.values()))
        }
        for method, config in methods.items():
            steps, hours, values = _curve(config)
            look = {
                "color": colors[config.model.name],
                "linestyle": STYLES.get(config.rule.name, "-."),
                "label": method,
            }
            row[0].plot(steps, values, **look)
            row[1].plot(hours, values, **look)
        row[0].set(ylabel="validation PSNR (dB)", xlabel="iterations")
        row[0].set_title(heading, fontsize=10)
        row[1].set(xlabel="hours of training, at each run's mean speed")
        row[1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        for panel in row:
            panel.grid(alpha=0.3)
    return figure


def restore_views(config: Config) -> tuple[ViewSynthesis, nn.Module]:
    """Return task and trained model of a run, see `restore`.

    Raises:
        ResultsError: the run has not finished, or its task is of another family.
    """
    task, model = restore(config)
    if not isinstance(task, ViewSynthesis):
        raise ResultsError(f"task '{config.task.name}' has no views to render")
    return task, model


def collect(runs: Mapping[str, Config], dual: bool = False, coarse: bool = False) -> list[Scene]:
    """Render the first test view of every run, grouped by scene.

    Args:
        runs: label → configuration.
        dual: whether to add NeRF-Dual's render of each run.
        coarse: whether to render the coarse network instead of the fine one.
    """
    scenes: dict[str, Scene] = {}
    for label, config in runs.items():
        task, model = restore_views(config)
        if coarse:
            task.settings = replace(task.settings, fine_samples=0)
        view = task.chosen["test"][0]
        heading, _, method = label.rpartition(SEPARATOR)
        if heading not in scenes:
            source = task.info.kind if task.info.kind != "real" else "real pictures"
            facts = f"{source}, {task.scene.width} × {task.scene.height}"
            facts += f", one pixel of {step} × {step}" if (step := task.pixel_step) > 1 else ""
            truth = subsample(task.truth("test", view), step)
            scenes[heading] = Scene(f"{heading or task.info.name} ({facts})", truth)
        both = dual and task.settings.fine_samples > 0
        pictures = task.render(model, task.poses["test"][view], both, task.pixel_step)
        shown = scenes[heading].renders
        shown[method] = pictures["fine" if "fine" in pictures else "coarse"].colors.cpu()
        if "dual" in pictures:
            shown[f"{method}, {DUAL}"] = pictures["dual"].colors.cpu()
    return list(scenes.values())


def draw_scenes(scenes: list[Scene]) -> Figure:
    """Draw two rows of panels per scene: pictures, and their absolute errors."""
    columns = 1 + max(len(scene.renders) for scene in scenes)
    heights = [PANEL_INCHES * scene.truth.shape[0] / scene.truth.shape[1] for scene in scenes]
    figure = Figure(figsize=(PANEL_INCHES * columns, sum(2 * height + 1.0 for height in heights)), layout="constrained")
    bands = figure.subfigures(len(scenes), 1, height_ratios=[2 * height + 1.0 for height in heights], squeeze=False)
    for band, scene in zip(bands[:, 0], scenes, strict=True):
        _draw_scene(band, scene, columns)
    return figure


def _illustrated(scenes: list[Scene]) -> Illustrated:
    pictures = []
    for scene in scenes:
        pictures.append(Picture(scene.title, TRUTH, "", as_bytes(scene.truth)))
        for method, render in scene.renders.items():
            pictures.append(Picture(scene.title, method, _decibels(render, scene.truth), as_bytes(render)))
    return Illustrated(draw_scenes(scenes), pictures)


def _decibels(render: Tensor, truth: Tensor) -> str:
    return f"{psnr(render, truth):.2f} dB"


def _draw_scene(band: SubFigure, scene: Scene, columns: int) -> None:
    band.suptitle(f"{scene.title}, with the PSNR of this test view", fontsize=10)
    panels = band.subplots(2, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    _show(panels[0, 0], scene.truth, TRUTH)
    panels[1, 0].text(
        0.5,
        0.5,
        "absolute error,\nmean of the colours\n(black 0, white ½ or more)",
        ha="center",
        va="center",
        fontsize=8,
    )
    for index, (method, render) in enumerate(scene.renders.items(), start=1):
        _show(panels[0, index], render, f"{method}\n{_decibels(render, scene.truth)}")
        error = (2 * (render - scene.truth).abs().mean(dim=-1)).clamp(0, 1)
        panels[1, index].imshow(error.numpy(), cmap="magma", vmin=0, vmax=1, interpolation="nearest")


def _show(panel: Axes, picture: Tensor, title: str) -> None:
    """Show a picture in a frame, without which an empty scene would look like a panel that is missing."""
    panel.imshow(as_bytes(picture), interpolation="nearest")
    panel.set_axis_on()
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_color("0.8")
    panel.set_title(title, fontsize=9)


def _curve(config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return iterations, hours (at the run's mean speed) and PSNR (dB) of a run's evaluations."""
    folder = RunFolder.of(config)
    curve, record = folder.curve("valid/psnr"), folder.read()
    steps, values = np.array(list(curve), dtype=float), np.array(list(curve.values()), dtype=float)
    speed = float(record["steps_per_second"]) if record else float("nan")
    return steps, steps / speed / 3600, values
