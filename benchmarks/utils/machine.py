"""What a record says of machine, versions and code; and how this process keeps its memory."""

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

_PACKAGES = ("torch", "torch-geometric", "numpy", "hydra-core", "scikit-learn", "tokenizers")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES = 1 << 30


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def device_name(device: torch.device) -> str:
    """E.g. "cuda: NVIDIA H100" or "cpu: Intel Xeon, 2 cores"."""
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
    """Short git commit of the code, and whether the code differs from it; ("unknown", True) outside a checkout."""
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
    """Peak memory from its making on, in MB: of the process on a CPU, of the allocator on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark

    def megabytes(self) -> float:
        """The peak so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        try:
            status = Path("/proc/self/status").read_text().splitlines()
            kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
            return kibibytes * 1024 / 1e6
        except (OSError, StopIteration):
            return psutil.Process().memory_info().rss / 1e6


def keep_freed_memory() -> bool:
    """Have the C library keep blocks of up to 1 GiB for reuse, instead of fetching them anew at every training step.

    A Transformer's step on a CPU is a fifth faster. Whether it worked; only glibc can do it.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _KEPT_BYTES)) and bool(set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: of the process, of a GPU, or on a CPU, for which PyTorch has no error of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
