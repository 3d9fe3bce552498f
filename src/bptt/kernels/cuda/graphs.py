"""What a function asks of a CUDA device, recorded once as a CUDA graph and asked for again with a single call.

A graph works on the same memory each time: the function is to read and to write arrays that stay where they are.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import cupy

from bptt.errors import CaptureError

Action = Callable[[], None]


def graph_recorder() -> Callable[[Action], Action]:
    """What makes of a function, called once before, one that repeats it. All of them work in the same memory, one by one.

    What the function holds is held on to: its arrays must not make room for others.

    It raises CaptureError for what cannot be repeated: a transfer from the host, say, or a matrix product of CuPy's own.
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
