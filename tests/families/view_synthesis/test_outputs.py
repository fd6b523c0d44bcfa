"""Figures and videos of finished runs."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from benchmarks.commands import video as video_command
from benchmarks.config import Config, compose_config, resolve
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.families.view_synthesis import figures, video
from benchmarks.families.view_synthesis.figures import restore_views
from benchmarks.families.view_synthesis.render.image import as_bytes, psnr
from benchmarks.registry import FIGURES
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.tables.figure import load_figure
from benchmarks.utils.pictures import Illustrated
from tests.conftest import Command


def overrides(place: Path, rule: str, task: str = "blender_lego") -> list[str]:
    chosen = [f"task={task}", "model=nerf_release", f"rule={rule}", "scale=smoke", "task.source=stand_in"]
    return [*chosen, f"run.results_dir={place}", "run.wandb=disabled", "run.progress=false"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Config]:
    place = tmp_path_factory.mktemp("results")
    found = {}
    for scene, task in (("lego", "blender_lego"), ("fern", "llff_fern")):
        for rule in ("bp", "dfa"):
            config = resolve(compose_config(overrides(place, rule, task)))
            execute(config)
            found[f"{scene}: {rule}"] = config
    return found


def test_a_restored_run_gives_the_numbers_of_its_record(runs: dict[str, Config]) -> None:
    config = runs["lego: dfa"]
    task, model = restore_views(config)
    record = RunFolder.of(config).read()
    assert record is not None
    with torch.no_grad():
        assert task.evaluate(model, "test")["psnr"] == pytest.approx(record["metrics"]["test/psnr"])


def test_every_panel_says_its_psnr(runs: dict[str, Config]) -> None:
    """Two bands of truth, two renders and their errors; the numbers are computed here from the shown pictures."""
    drawn = FIGURES["renders"](runs)
    assert isinstance(drawn, Illustrated)
    figure = drawn.figure
    assert len(figure.subfigs) == 2
    for band, scene in zip(figure.subfigs, figures.collect(runs), strict=True):
        panels = [panel for panel in band.axes if panel.get_title()]
        assert [panel.get_title().split("\n")[0] for panel in panels] == ["ground truth", "bp", "dfa"]
        truth = np.asarray(panels[0].images[0].get_array())
        assert np.array_equal(truth, as_bytes(scene.truth))
        for panel in panels[1:]:
            shown = torch.from_numpy(np.asarray(panel.images[0].get_array())) / 255
            told = float(panel.get_title().split("\n")[1].removesuffix(" dB"))
            assert told == pytest.approx(psnr(shown, scene.truth), abs=0.05)
        errors = [panel for panel in band.axes if panel.images and not panel.get_title()]
        expected = 2 * (scene.renders["bp"] - scene.truth).abs().mean(dim=-1)
        assert np.allclose(np.asarray(errors[0].images[0].get_array()), expected.clamp(0, 1), atol=1e-6)
        assert "stand-in" in scene.title and band.get_suptitle().startswith(f"{scene.title}, with the PSNR")
        pictures = [picture for picture in drawn.pictures if picture.group == scene.title]
        assert ["\n".join(filter(None, (p.label, p.note))) for p in pictures] == [p.get_title() for p in panels]
        for picture, panel in zip(pictures, panels, strict=True):
            assert np.array_equal(picture.pixels, np.asarray(panel.images[0].get_array()))


def test_dual_renders_stand_beside_the_others(runs: dict[str, Config]) -> None:
    (scene,) = figures.collect({"nerf, DFA": runs["lego: dfa"]}, dual=True)
    assert list(scene.renders) == ["nerf, DFA", "nerf, DFA, NeRF-Dual"]


def test_coarse_renders_are_the_coarse_networks(runs: dict[str, Config]) -> None:
    config = runs["lego: dfa"]
    (scene,) = figures.collect({"dfa": config}, coarse=True)
    record = RunFolder.of(config).read()
    assert record is not None and record["metrics"]["test/psnr_coarse"] != record["metrics"]["test/psnr"]
    assert psnr(scene.renders["dfa"], scene.truth) == pytest.approx(record["metrics"]["test/psnr_coarse"])
    drawn = FIGURES["coarse_renders"]({"dfa": config})
    assert isinstance(drawn, Illustrated) and np.array_equal(drawn.pictures[1].pixels, as_bytes(scene.renders["dfa"]))


def test_runs_tested_on_some_pixels_show_those(runs: dict[str, Config], monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = figures.collect({"dfa": runs["lego: dfa"]})
    task, model = restore_views(runs["lego: dfa"])
    task.pixel_step = 3
    monkeypatch.setattr(figures, "restore_views", lambda config: (task, model))
    (part,) = figures.collect({"dfa": runs["lego: dfa"]})
    assert part.title.endswith(", one pixel of 3 × 3)") and "one pixel" not in whole.title
    assert torch.equal(part.truth, whole.truth[1::3, 1::3])
    assert torch.allclose(part.renders["dfa"], whole.renders["dfa"][1::3, 1::3], atol=1e-5)


def test_learning_curves_are_those_of_the_history(runs: dict[str, Config]) -> None:
    figure = FIGURES["psnr_curves"](runs)
    assert isinstance(figure, Figure)
    left, right = figure.axes[:2]
    line = next(line for line in left.lines if line.get_label() == "dfa")
    history = RunFolder.of(runs["lego: dfa"]).history()
    assert np.asarray(line.get_xdata()).tolist() == [row["step"] for row in history]
    assert np.asarray(line.get_ydata()).tolist() == [row["valid/psnr"] for row in history]
    record = RunFolder.of(runs["lego: dfa"]).read()
    hours = np.asarray(next(line for line in right.lines if line.get_label() == "dfa").get_xdata())
    assert record is not None and hours[-1] == pytest.approx(record["seconds"] / 3600)


def test_panels_can_be_cells_of_a_table() -> None:
    spec = load_figure("figure_1_reduced")
    cell = next(cell for cell in spec.cells if cell.row == "lego: nerf, DFA")
    assert "task=blender_lego" in cell.overrides and "trainer.steps=1800" in cell.overrides
    assert cell.runs_at("paper") == () and len(cell.runs_at("mini")) == 1


def test_a_video_has_a_frame_for_every_camera(runs: dict[str, Config], tmp_path: Path, command: Command) -> None:
    config = runs["lego: dfa"]
    target = tmp_path / "lego.gif"
    arguments = overrides(Path(config.run.results_dir), "dfa")
    code, out, err = command(video_command.main, str(target), *arguments)
    task, model = restore_views(config)
    assert (code, err) == (0, "") and out.startswith(f"written: {target} ({len(task.scene.path_poses)} frames)")
    frames = imageio.imread(target)
    assert frames.shape == (len(task.scene.path_poses), 12, 12, 3)
    first = as_bytes(task.render(model, task.scene.path_poses[0])["fine"].colors)
    assert np.abs(frames[0].astype(int) - first).mean() < 8, "but for the palette of a GIF"


def test_what_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    arguments = overrides(tmp_path, "shallow")
    with pytest.raises(ResultsError, match=r"no finished run in .*shallow/seed0-\w+'; train it first"):
        video.make_video(tmp_path / "lego.gif", arguments)
    with pytest.raises(ConfigError, match="model 'gcn' is for tasks of graphs"):
        video.make_video(tmp_path / "lego.gif", ["task=blender_lego", "rule=shallow"])
    with pytest.raises(ConfigError, match=r"lego\.avi: unknown format '\.avi'; known: \.gif, \.mp4"):
        video.make_video(tmp_path / "lego.avi", arguments)
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package imageio-ffmpeg"):
        video.make_video(tmp_path / "lego.mp4", arguments)
    assert not list(tmp_path.glob("lego*"))
    code, _, err = command(video_command.main)
    assert code == 2 and err.startswith("error: the following arguments are required: file") and err.count("\n") == 1
    code, _, err = command(video_command.main, *arguments)
    assert code == 2 and "the first argument is the file to write, got 'task=" in err and err.count("\n") == 1
