"""The command `bptt info`."""

import json as json_
from collections.abc import Callable
from typing import Any

from bptt import acceleration, devices, system
from bptt.cli.console import print_line
from bptt.data import token_store
from bptt.display import table

EXTRAS = {
    "cupy": "backend cupy: a GPU",
    "llvmlite": "kernels: faster training with NumPy",
    "matplotlib": "curve.png and bptt report",
    "jinja2": "bptt report",
    "mpi4py": "several processes",
    "torch": "backend torch",
    "jax": "backend jax",
    "array-api-strict": "backend strict",
    "onnx": "bptt export --to onnx",
}


def info(*, json: bool = False) -> int:
    """Print the versions, libraries and devices that bptt runs on.

    Parameters
    ----------
    json
        One line of JSON, for programs and bug reports.
    """
    report = {name: guarded(part) for name, part in PARTS.items()}
    if json:
        print_line(json_.dumps(report))
        return 0
    for name, value in report.items():
        values = value.items() if isinstance(value, dict) else [("", value)]
        for number, (key, each) in enumerate(values):
            first = f"{name if number == 0 else '':<10} "
            print_line("\n".join(table.wrap(f"{key + ' ' if key else ''}{each}", table.columns(), first, " " * 13)))
    return 0


def guarded(part: Callable[[], Any]) -> Any:
    """Return what a part reports, or its error."""
    try:
        return part()
    except Exception as error:
        return f"not known: {type(error).__name__}: {error}"


def cupy() -> dict[str, str]:
    """Report CuPy and its device, or why it cannot be used."""
    reason = devices.cupy_unavailable_reason()
    if reason:
        return {"usable": "no", "why": reason}
    return {"usable": "yes", **devices.cuda_device_info()}


def kernels() -> dict[str, str]:
    """Report the compiled kernels for NumPy, or why they cannot be used."""
    reason = acceleration.unavailable_reason()
    if reason:
        return {"usable": "no", "why": reason}
    stored = ", ".join(f"{name} {dtype}" for name, dtype in acceleration.stored_libraries())
    return {"usable": "yes", "compiled": stored or "nothing yet: the first run takes about a second longer"}


def extras() -> dict[str, str]:
    """List the optional packages with their versions and uses."""
    versions = system.installed_versions(*EXTRAS)
    for wheel in ("cupy-cuda12x", "cupy-cuda13x"):  # one of these brings the package cupy
        versions["cupy"] = system.installed_versions(wheel).get(wheel, versions.get("cupy", "not installed"))
    return {name: f"{versions.get(name, 'not installed')} ({use})" for name, use in EXTRAS.items()}


def cache() -> str:
    """Report the folder of cached token ids and compiled kernels, and their size."""
    size = sum(path.lstat().st_size for path in [*token_store.stored_files(), *acceleration.stored_kernels()])
    return f"{system.cache_folder()} ({size / 1e6:,.1f} MB; bptt cache --clear removes it)"


PARTS: dict[str, Callable[[], Any]] = {
    "versions": system.versions,
    "machine": lambda: {**system.machine(), "memory": f"{system.physical_memory() / 1e9:.1f} GB"},
    "blas": system.blas,
    "cupy": cupy,
    "kernels": kernels,
    "extras": extras,
    "cache": cache,
}
