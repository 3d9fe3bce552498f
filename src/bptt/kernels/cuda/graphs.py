"""Capture the CUDA work of a function in a CUDA graph, and replay it with a single call.

A graph uses the same memory at each replay, so the function must read and write arrays that stay at their addresses.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import cupy

from bptt.errors import CaptureError

Action = Callable[[], None]


def graph_recorder() -> Callable[[Action], Action]:
    """Return a function that captures an action in a CUDA graph and returns its replay.

    Call an action once before its capture. All graphs of a recorder share a memory pool, so replay them one at a time. A replay
    keeps its action alive, lest the memory of its arrays is reused.

    The recorder raises CaptureError for what cannot be captured, such as a transfer from the host or a matrix product of CuPy.
    """
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()

    def record(action: Action) -> Action:
        with cupy.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()  # in CuPy's relaxed mode, in which memory may be asked for
            try:
                action()
                graph = stream.end_capture()
            except BaseException as error:
                with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):  # what was begun is of no use, nor is its end
                    stream.end_capture()
                if isinstance(error, RuntimeError | MemoryError):  # of CuPy; the function itself has been called before
                    raise CaptureError(str(error)) from error
                raise
            return functools.partial(_launch_graph, graph, (pool, action))

    return record


def _launch_graph(graph: Any, held: Any) -> None:
    """Launch a graph, whose memory is held."""
    graph.launch()
