"""Versions, processor, memory and allocator of the machine and of this process."""

import contextlib
import ctypes
import datetime
import functools
import importlib.metadata
import math
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bptt.backend import Backend
from bptt.errors import InputError

PACKAGES = ("bptt", "numpy", "array-api-compat", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, by name."""
    return {"python": platform.python_version(), **installed_versions(*PACKAGES)}


def installed_versions(*names: str) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    installed = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def machine() -> dict[str, Any]:
    """Return the operating system, the processor and the number of cores."""
    return {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()}


def processor() -> str:
    """Return the processor's name from Linux, or what Python knows."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas() -> dict[str, str]:
    """Return the name and version of the BLAS library that NumPy uses, and its number of threads."""
    with contextlib.suppress(Exception):  # the form of this has changed before
        build: Any = np.show_config(mode="dicts")
        library = build["Build Dependencies"]["blas"]
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        threads = next((f"{os.environ[name]} by {name}" for name in names if os.environ.get(name)), f"up to {os.cpu_count()}")
        return {"name": str(library["name"]), "version": str(library["version"]), "threads": threads}
    return {}


def run_environment(backend: Backend) -> dict[str, Any]:
    """Return the entry of env.json for a session that starts."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "versions": versions(),
        "machine": machine(),
        "blas": blas(),
        "backend": str(backend),
    }


@functools.cache
def physical_memory() -> float:
    """Bytes of memory that the machine or its container has; infinite if unknown."""
    limits = [math.inf]
    with contextlib.suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    if sys.platform == "win32":
        status = MemoryStatus(ctypes.sizeof(MemoryStatus))
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            limits.append(float(status.total))
    for path in cgroup_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(float(int(path.read_text())))
    return min(limits)


class MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )


def cgroup_limits(membership: Path, root: Path) -> Iterator[Path]:
    """Yield the files that may limit the memory of this process: of its cgroup and of those around it, in both versions.

    A job of SLURM has a cgroup of its own below that of the machine; in a container, the root is that of the container.
    """
    yield from (root / "memory.max", root / "memory" / "memory.limit_in_bytes")
    lines = membership.read_text().splitlines() if membership.exists() else []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        version_2 = number == "0" and not controllers
        if version_2 or "memory" in controllers.split(","):
            top, name = (root, "memory.max") if version_2 else (root / "memory", "memory.limit_in_bytes")
            group = top / place.lstrip("/")
            yield from (folder / name for folder in (group, *group.parents) if folder != top and folder.is_relative_to(top))


def resident_memory() -> float:
    """Bytes of memory that this process holds; 0 if unknown."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0.0


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, if its C library is glibc; does nothing on other systems.

    Otherwise glibc returns the arrays of each update to the system and gets them back page by page, which can take a third of
    an update's time. The setting holds for the whole process until it ends, so a library must not change it on import or
    inside a function of the maths. `bptt.train` and the command line call this; a program that calls the functions of
    `bptt.nn` on NumPy arrays itself should call it once, before its training loop.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the most that it takes
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def cache_folder() -> Path:
    r"""The folder of what is computed once: $BPTT_CACHE, or bptt in the user's cache folder, such as ~/.cache."""
    if chosen := os.environ.get("BPTT_CACHE"):
        return Path(chosen)
    variable, usual = ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_CACHE_HOME", ".cache")
    base = Path(os.environ.get(variable, ""))
    try:
        return (base if base.is_absolute() else Path.home() / usual) / "bptt"
    except RuntimeError:
        raise InputError("there is no home folder for the cache: set BPTT_CACHE to a folder") from None
