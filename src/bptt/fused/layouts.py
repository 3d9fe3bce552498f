"""How a recurrence on a CUDA device is dealt out to blocks, and the program for it (recurrence.cu)."""

from importlib import resources
from typing import NamedTuple

UNITS = 4  # of columns that a thread looks after, at most
CELLS = ("vanilla", "gru", "lstm")
GATES = (1, 3, 4)
APART = 32  # counters from one group to the next, so that they share no line of a cache


class Layout(NamedTuple):
    """How a batch and the weights are dealt out to blocks."""

    U: int  # units of a block
    G: int  # blocks of a group
    R: int  # columns of a group
    ROWS: int  # columns in shared memory at a time
    groups: int
    memory: int  # bytes of shared memory


class Limits(NamedTuple):
    """What a layout has to keep to."""

    processors: int
    shared: int  # bytes of shared memory of a block
    threads: int = 512  # of a block
    words: int = 80  # of 128 registers of a thread, those that hold weights


def layout(cell: int, backward: bool, hidden: int, batch: int, size: int, limits: Limits) -> Layout | None:
    """As few blocks as hold the weights, of numbers of so many bytes; as many groups as there is room for. None: no room."""
    for blocks in range(1, min(limits.processors, hidden) + 1):
        U = -(-hidden // blocks)
        M, K = (U, GATES[cell] * hidden) if backward else (GATES[cell] * U, hidden)
        weights, width, warps = _tile(M, K, limits.threads)
        if weights * size > 4 * limits.words:
            continue
        G = -(-hidden // U)
        R = -(-batch // min(batch, limits.processors // G))
        left = limits.shared // size - warps * R * M
        ROWS = min(R, left // width)
        if UNITS * limits.threads < R * U or (R if G == 1 else 1) > ROWS:
            continue
        return Layout(U, G, R, ROWS, -(-batch // R), (ROWS * width + warps * R * M) * size)
    return None


def _tile(M: int, K: int, threads: int) -> tuple[int, int, int]:
    """Weights of a thread, inputs with their padding, and warps that share an output: S * I * 4, WIDTH and Q of the source."""
    lanes = 32 if K > 64 else 16 if K > 32 else 8
    sets = threads // lanes
    warps = 1 if lanes < 32 or sets // 2 < M else 2 if sets // 4 < M else 4 if sets // 8 < M else 8
    outputs = -(-M // (sets // warps))
    fours = -(-K // (4 * lanes * warps))
    return outputs * fours * 4, 4 * lanes * warps * fours, warps


def source(cell: int, backward: bool, hidden: int, size: int, how: Layout, threads: int) -> str:
    """The program of one kernel."""
    macros = {
        "CELL": cell,
        "BACKWARD": int(backward),
        "real": {4: "float", 8: "double"}[size],
        "H": hidden,
        "U": how.U,
        "G": how.G,
        "R": how.R,
        "ROWS": how.ROWS,
        "THREADS": threads,
    }
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    return defined + resources.files("bptt.fused").joinpath("recurrence.cu").read_text("utf-8")
