"""What a result was measured on: the last line of every benchmark."""

import importlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from bptt import acceleration


def report(rows: list[dict[str, Any]], *packages: str) -> str:
    """One JSON object: machine, Python, the versions of packages (by their import names), the commit, and the rows."""
    compiler = () if acceleration.unavailable_reason() else ("llvmlite",)
    versions = {"python": platform.python_version()}
    versions |= {package: importlib.import_module(package).__version__ for package in ("bptt", "numpy", *compiler, *packages)}
    return json.dumps({"machine": processor(), "versions": versions, "commit": commit(), "rows": rows})


def processor() -> str:
    """The processor's name where Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """The commit of the checkout, with + where files have changed since; empty outside of one."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()

    head = git("rev-parse", "--short", "HEAD")
    return head + "+" if head and git("status", "--porcelain", "--untracked-files=no") else head
