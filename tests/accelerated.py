"""The accelerated functions of the package with their kernels, and stand-ins for kernels."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt import dispatch
from bptt.data import graph_inputs
from bptt.dispatch import Accelerated
from bptt.nn import model


def _modules() -> Iterator[Any]:
    for path in Path(model.__file__).parent.glob("[!_]*.py"):
        yield importlib.import_module(f"bptt.nn.{path.stem}")
    yield graph_inputs


def functions() -> dict[str, Accelerated[..., Any]]:
    """Every accelerated function by its module and name: `gru.run`."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": function
        for module in _modules()
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if hasattr(function, "kernels") and function.__module__ == module.__name__
    }


def kernels(array_type: type = np.ndarray) -> dict[str, Callable[..., Any]]:
    """The kernels for a type of array by the names of their functions; those that have been imported."""
    return {name: function.kernels[array_type] for name, function in functions().items() if array_type in function.kernels}


def use_only(patch: pytest.MonkeyPatch, stand_ins: dict[Accelerated[..., Any], Callable[..., Any]]) -> None:
    """Let these be the only kernels for NumPy arrays, and enable them; the caller restores what was enabled."""
    for function in functions().values():
        patch.delitem(function.kernels, np.ndarray, raising=False)
    for function, kernel in stand_ins.items():
        patch.setitem(function.kernels, np.ndarray, kernel)
    dispatch.enable(np.ndarray)
