"""Every command on forged runs, with checksums that fit: they are refused in a line, or they work, and nothing else changes."""

import collections
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("forged_commands.py")
REPEAT = f"python {SCRIPT.name} CASE CASE+1 FOLDER repeats a case"
MOST_ENDINGS = 20  # of processes, after which no further case is run
MEGABYTES = 100  # of a case, at most; so a bomb that is refused after it has been unpacked is noticed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and limits as Linux has them")


def run_cases(first: int, end: int, place: Path) -> list[dict[str, Any]]:
    """The reports of cases; of one in which the process ended, what it left."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BPTT_KERNELS": "0", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    reports: list[dict[str, Any]] = []
    while (begin := first + len(reports)) < end and sum(report["code"] < 0 for report in reports) < MOST_ENDINGS:
        command = [sys.executable, str(SCRIPT), str(begin), str(end), str(place / str(begin))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        reports += [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
        if (last := first + len(reports)) < end:
            ending = f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
            reports.append({"case": last, "code": -1, "seconds": 0.0, "megabytes": 0.0, "message": "", "problems": [ending]})
    return reports


def kind(message: str) -> str:
    """A message without what differs from case to case."""
    return re.sub(r"(lines|stream|model|new|bare|bptt)[\w./-]*(?=:)|'[^']*'|-?\d[\d.,e+-]*", "*", message)[:70]


def describe(reports: list[dict[str, Any]]) -> list[str]:
    """The worst seconds and megabytes, and how many cases ended in which way."""
    codes = collections.Counter(report["code"] for report in reports)
    kinds = collections.Counter(kind(report["message"]) for report in reports if report["code"])
    lines = [f"{len(reports)} cases, by exit code: {', '.join(f'{code}: {count}' for code, count in sorted(codes.items()))}"]
    for unit in ("seconds", "megabytes"):
        worst = max(reports, key=lambda report: report[unit])
        lines.append(f"most {unit}: {worst[unit]} in case {worst['case']}, {worst.get('command')}")
    return [*lines, *(f"{count:6} {words}" for words, count in kinds.most_common(40))]


def check_cases(count: int, place: Path, workers: int) -> list[str]:
    """Run so many cases, fail if one has a problem, and describe them."""
    borders = [count * worker // workers for worker in range(workers + 1)]
    with ThreadPoolExecutor(workers) as executor:
        parts = executor.map(run_cases, borders[:-1], borders[1:], [place / str(worker) for worker in range(workers)])
        reports = [report for part in parts for report in part]
    wrong = [report for report in reports if report["problems"] or report["megabytes"] > MEGABYTES]
    assert not wrong, f"{len(wrong)} of {count} cases; {REPEAT}:\n" + "\n".join(json.dumps(report) for report in wrong[:20])
    assert [report["case"] for report in reports] == list(range(count))
    return describe(reports)


def test_a_few_forged_runs_are_refused_or_work(tmp_path):
    lines = check_cases(12, tmp_path, 1)
    assert lines[0].startswith("12 cases, by exit code: ")


@pytest.mark.endurance
def test_many_forged_runs_are_refused_or_work(tmp_path, record_property):
    """5,000 or $BPTT_FUZZ of them."""
    count = int(os.environ.get("BPTT_FUZZ", "5000"))
    lines = check_cases(count, tmp_path, os.cpu_count() or 1)
    assert re.search(r"\b0: \d+, 2: \d+", lines[0])  # some work, and some are refused
    record_property("summary", "\n".join(lines))
