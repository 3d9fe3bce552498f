"""Kernels: enabling them, compiling them in advance, and capturing work of a GPU in CUDA graphs.

Kernels exist for NumPy arrays, where llvmlite is installed (kernels/cpu), and for CuPy arrays (kernels/cuda). None is needed:
without them the pure functions run.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bptt import devices, dispatch, errors, system
from bptt.backend import BACKENDS, Array, Backend, namespace
from bptt.dispatch import Action
from bptt.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from bptt.errors import CaptureError, KernelWarning
from bptt.nn import gradient, model, optimizers, tree

SWITCH = "BPTT_KERNELS"  # environment variable; 0 leaves the kernels out
ROCM = "CuPy computes with ROCm, and the kernels are for CUDA: the pure functions run, which is slower"

_given_up: dict[str, str] = {}  # why, by the library


def enable(library: str = "numpy") -> str:
    """Enable the kernels for arrays of a library, if they can be used.

    Returns what compiled the kernels that are enabled now, in words; empty for none.
    """
    dispatch.disable()
    if not unavailable_reason(library):
        dispatch.enable(_kernel_module(library).ARRAY)
    return compiled_by()


def enable_for(backend: Backend) -> None:
    """Enable what makes training faster on a backend: kernels, and with NumPy an allocator that keeps freed memory."""
    enable(backend.name)
    if backend.is_gpu and devices.cupy_is_rocm():
        errors.warn(ROCM, KernelWarning)
    if backend.is_host:
        system.keep_freed_memory()


def give_up(library: str, why: str) -> None:
    """Disable the kernels for arrays of a library in this process for good."""
    dispatch.disable()
    _given_up[library] = why


def compiled_by(backend: Backend | None = None) -> str:
    """Return the compiler of the enabled kernels with its version; empty if there are none, or not for the backend."""
    if backend is not None and not backend.kernel_compiler:
        return ""
    return "".join(_kernel_module(array_type.__module__.partition(".")[0]).NAME for array_type in dispatch.enabled())


def unavailable_reason(library: str = "numpy") -> str:
    """Why there are no kernels for arrays of a library, and the remedy; empty if there are."""
    if os.environ.get(SWITCH, "1") in ("0", ""):
        return f"{SWITCH}=0 switches them off"
    if library in _given_up:
        return f"the kernels failed on this machine: {_given_up[library]}"
    if not BACKENDS[library].kernel_compiler:
        return f"there are none for {library}"
    return ROCM if BACKENDS[library].is_gpu and devices.cupy_is_rocm() else _unavailable_reason(library)


@functools.cache
def _unavailable_reason(library: str) -> str:
    compiler = BACKENDS[library].kernel_compiler
    try:
        _kernel_module(library)
    except ImportError as error:
        if error.name == "llvmlite":
            return "llvmlite is not installed (remedy: pip install llvmlite)"
        return f"{compiler} cannot be imported: {error} (remedy: upgrade it)"
    except Exception as error:  # a library that this was not written for, or half of one
        return f"{compiler} cannot be used: {type(error).__name__}: {error} (remedy: another version of it)"
    return ""


def _kernel_module(library: str) -> Any:
    """Import the module that registers all kernels for arrays of a library."""
    if BACKENDS[library].is_gpu:
        from bptt.kernels.cuda import registry

        return registry
    from bptt.kernels import cpu

    return cpu


@contextlib.contextmanager
def gpu_kernels(backend: Backend) -> Iterator[None]:
    """Enable kernels inside the block if the backend is a GPU, where CuPy's own functions would mostly wait for the host."""
    with dispatch.restored():
        if backend.is_gpu:
            enable(backend.name)
        yield


@contextlib.contextmanager
def sampling_kernels(backend: Backend) -> Iterator[None]:
    """Enable kernels inside the block on a GPU only: on a CPU they would pack the weights anew for each character."""
    with gpu_kernels(backend):
        if backend.is_host:
            dispatch.disable()
        yield


@contextlib.contextmanager
def gradient_kernels(config: model.Config, backend: Backend) -> Iterator[None]:
    """Enable inside the block the kernels that training uses, compiled, so that gradients are as fast as there."""
    with dispatch.restored():
        enable(backend.name)
        warm_up(config, backend)
        yield


def single_launch(cell: str, hidden: int, batch: int, size: int) -> bool:
    """Whether one kernel runs all time steps of a layer, with numbers of `size` bytes; else a kernel runs each step."""
    if not compiled_by().startswith("nvrtc"):
        return True
    from bptt.kernels.cuda import recurrence, tiling

    if cell not in tiling.CELLS:  # its loops have no kernel
        return True
    return bool(recurrence.single_launch(cell, hidden, batch, size))


def cache_is_empty() -> bool:
    """Whether the enabled CPU kernels are not on disk yet, so that their first calls compile them."""
    return compiled_by().startswith("llvmlite") and not stored_libraries()


def stored_libraries() -> list[tuple[str, str]]:
    """List the compiled CPU kernels: the cell, or what else they compute, and the type; none where these cannot be used."""
    if _unavailable_reason("numpy"):
        return []
    from bptt.kernels.cpu import jit

    libraries: list[tuple[str, str]] = jit.stored_libraries()
    return libraries


def stored_kernels() -> list[Path]:
    """List the files with compiled CPU kernels; none where these cannot be used."""
    if _unavailable_reason("numpy"):
        return []
    from bptt.kernels.cpu import jit

    return jit.stored_files()


def warm_up(config: model.Config, backend: Backend, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Compile the kernels of a training run, or load them from disk; if that fails, warn and disable them.

    If it fails in one of several processes, which all call this, none uses kernels: the others would round differently.
    """
    if not compiled_by(backend):
        return
    small = model.Config(config.cell, 1, 1, user_cell=config.user_cell)
    params = tree.tree_map(backend.put, model.init(small, np.random.default_rng(0)))
    ids, mask = backend.put(np.zeros((1, 1), np.int64)), backend.put(np.ones((1, 1)))
    problem = ""
    try:
        model.forward(small, params, ids)
        params_vector = tree.ravel(params)
        _, grad, _ = gradient.loss_and_grad(params_vector, small, ids, ids, mask, None, (), None)
        grad, _ = optimizers.clip_by_norm(grad, 1.0)
        for optimizer in optimizers.OPTIMIZERS.values():
            optimizer.update(params_vector, grad, optimizer.init(params_vector), 0.1)
        optimizers.average_update(params_vector, params_vector, 0.5)
    except Exception as error:  # a compiler that this was not written for, say
        problem = f"{type(error).__name__}: {error!s:.200}"
    if problem := next(filter(None, group.all_gather(problem)), ""):
        give_up(backend.name, problem)
        errors.warn(f"the compiled kernels failed on this machine: {problem}: continuing without them", KernelWarning)


def warn_if_changed(record: dict[str, Any], backend: Backend) -> None:
    """Warn if a resumed run used kernels before and does not now, or the reverse."""
    before, ran = bool(record.get("compiled")), record.get("backend")
    on_host = backend.is_host and isinstance(ran, dict) and ran.get("ran") == backend.name
    if on_host and before != bool(compiled_by(backend)):
        was, now = ("with", "without") if before else ("without", "with")
        changed = f"the run was {was} compiled kernels before and is resumed {now} them"
        errors.warn(f"{changed}: its numbers will be equal up to rounding, not bit for bit", KernelWarning)


# CUDA graphs


def graph_recorder() -> Callable[[Action], Action] | None:
    """Return a function that captures an action in a CUDA graph; None if the enabled kernels cannot be captured.

    The function takes an action that has been called once before, and returns one that repeats it on the same memory.
    """
    if not compiled_by().startswith("nvrtc"):
        return None
    from bptt.kernels.cuda import graphs

    recorder: Callable[[Action], Action] = graphs.graph_recorder()
    return recorder


class GraphCache:
    """Actions by key: each is called once, which warms it up, then captured in a CUDA graph and replayed.

    An action reads and writes arrays that stay in place. One that cannot be captured is called each time.
    """

    def __init__(self, record: Callable[[Action], Action]) -> None:
        self._record = record  # a `graph_recorder`
        self._actions: dict[Any, Action] = {}
        self._warm: set[Any] = set()  # called once, and not captured yet

    def run(self, key: Any, make: Callable[[], Action]) -> None:
        """Run the action of a key, which `make` creates the first time."""
        if key not in self._actions:
            self._actions[key] = make()
            self._warm.add(key)
        elif key in self._warm:
            self._warm.remove(key)
            with contextlib.suppress(CaptureError):  # a pure function called a matrix product of CuPy
                self._actions[key] = self._record(self._actions[key])
        self._actions[key]()


def graphed(function: Callable[..., Any], record: Callable[[Action], Action]) -> Callable[..., Any]:
    """Wrap a function of trees of arrays so that a CUDA graph replays it for each combination of shapes.

    `record` is a `graph_recorder`.
    """
    graphs = GraphCache(record)
    buffers: dict[Any, tuple[Any, Any]] = {}  # by the shapes: what the action reads and writes

    def call(*trees: Any) -> Any:
        shapes = tuple(array.shape for array in tree.leaves(trees))
        if shapes not in buffers:
            result = function(*trees)
            buffers[shapes] = _copy(trees), _copy(result)
            return result
        inputs, outputs = buffers[shapes]
        _fill(inputs, trees)
        graphs.run(shapes, lambda: lambda: _fill(outputs, function(*inputs)))
        return _copy(outputs)

    return call


def _copy(arrays: Any) -> Any:
    return tree.tree_map(lambda array: namespace(array).asarray(array, copy=True), arrays)


def _fill(targets: Any, sources: Any) -> None:
    """Copy the arrays of one tree into those of another."""
    target: Array
    for target, source in zip(tree.leaves(targets), tree.leaves(sources)):
        target[...] = source
