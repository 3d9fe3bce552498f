"""Deliberate mistakes, each of which a named test must catch; one table for each package of bptt."""

import importlib
from pathlib import Path

from mutations.mutation import Mutation

OTHER_MODULES = {"__init__", "__main__", "mutation"}
TABLES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in OTHER_MODULES)


def mutations() -> list[Mutation]:
    """All of them, table by table."""
    return [mutation for table in TABLES for mutation in importlib.import_module(f"mutations.{table}").MUTATIONS]
