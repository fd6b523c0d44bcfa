"""Video of a finished run: the scene along a camera path, a circle around it or a spiral in front of it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from torch import Tensor

from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.families.view_synthesis.figures import restore_views
from benchmarks.families.view_synthesis.render.image import as_bytes
from benchmarks.run.config_names import check_family
from benchmarks.utils.files import atomic_path
from benchmarks.utils.progress import with_bar
from benchmarks.utils.values import check_known

FRAMES_PER_SECOND = 20


def make_video(target: Path, overrides: Sequence[str]) -> int:
    """Render the camera path of a run's scene and write it to `target`.

    Returns:
        The number of frames.

    Raises:
        ConfigError: `target` is neither a GIF nor an MP4, or an MP4 cannot be written here; a model of another family.
        ResultsError: the run has not finished.
    """
    check_known("format", target.suffix, (".gif", ".mp4"), f"{target.name}: ")
    if target.suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise ConfigError("an .mp4 needs the package imageio-ffmpeg; install it or write a .gif")
    config = resolve(compose_config(list(overrides)))
    check_family(config)
    task, model = restore_views(config)

    def frame(pose: Tensor) -> np.ndarray:
        pictures = task.render(model, pose)
        return as_bytes(pictures["fine" if "fine" in pictures else "coarse"].colors)

    frames = with_bar(frame, list(task.scene.path_poses), "rendering", config.run.progress)
    with atomic_path(target) as temporary:
        _write(temporary, target.suffix, np.stack(frames))
    return len(frames)


def _write(path: Path, suffix: str, frames: np.ndarray) -> None:
    if suffix == ".gif":
        imageio.imwrite(path, frames, extension=".gif", duration=1000 / FRAMES_PER_SECOND, loop=0)
    else:
        imageio.imwrite(path, frames, extension=".mp4", fps=FRAMES_PER_SECOND)
