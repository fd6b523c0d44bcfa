"""Machine, package versions and git commit for run records; peak memory and allocator settings of this process."""

import contextlib
import ctypes
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from benchmarks.utils.paths import REPOSITORY

_PACKAGES = ("torch-geometric", "numpy", "hydra-core", "scikit-learn", "tokenizers")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES = 1 << 30


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    # PyTorch tells more of itself than its package does: which CUDA it is built for.
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def device_name(device: torch.device) -> str:
    """Return the name of a device, e.g. "cuda: NVIDIA H100" or "cpu: Intel Xeon, 2 cores"."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {_cpu_model()}, {psutil.cpu_count() or 1} cores"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


@cache
def commit() -> tuple[str, bool]:
    """Return the short git commit and whether the code differs from it; ("unknown", True) outside a checkout."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--", "dfa", "benchmarks", "configs"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return head, dirty


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return result.stdout.strip()


class PeakMemory:
    """Peak memory since construction, in MB (10⁶ bytes): resident memory on a CPU, allocated memory on a GPU.

    Args:
        device: which memory to measure. On a CPU the peak is that of the whole process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark

    def megabytes(self) -> float:
        """Return the peak so far in MB; where the system keeps no peak, the present resident memory."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        try:
            status = Path("/proc/self/status").read_text().splitlines()
            kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
            return kibibytes * 1024 / 1e6
        except (OSError, StopIteration):
            return psutil.Process().memory_info().rss / 1e6


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB instead of returning them to the system after every training step.

    PyTorch has no such setting for its CPU allocator; without it a Transformer's step takes a fifth longer.

    Returns:
        Whether it took effect; other C libraries have no `mallopt`.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _KEPT_BYTES)) and bool(set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def release_freed_memory() -> None:
    """Return what glibc has kept of freed memory to the system, so that a long run does not hold ever more of it.

    Blocks of many sizes, as of training and evaluation by turns, leave gaps that `keep_freed_memory` would keep for
    good.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: Exception) -> bool:
    """Return whether the error means that memory ran out; on a CPU PyTorch raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
