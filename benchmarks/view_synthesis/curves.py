"""Learning curves: PSNR on the validation view over iterations and over training time."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from benchmarks.config import Config
from benchmarks.figures import FIGURES
from benchmarks.records import RunFolder
from benchmarks.view_synthesis.figures import SEPARATOR

STYLES = {"bp": "-", "dfa": "--", "shallow": ":"}
"""How the line of a rule is drawn; others are dash-dotted."""


@FIGURES.register("psnr_curves")
def psnr_curves(runs: Mapping[str, Config]) -> Figure:
    """One row for each scene: its runs over iterations, and over hours at each run's mean speed."""
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


def _curve(config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterations, hours and PSNR of the evaluations of a run."""
    folder = RunFolder.of(config)
    curve, record = folder.curve("valid/psnr"), folder.read()
    steps, values = np.array(list(curve), dtype=float), np.array(list(curve.values()), dtype=float)
    speed = float(record["steps_per_second"]) if record else float("nan")
    return steps, steps / speed / 3600, values
