"""How a recurrence on a CUDA device is dealt out to blocks, and the program for it (recurrence.cu)."""

from importlib import resources
from typing import NamedTuple

UNITS = 4  # of columns that a thread looks after, at most
GATES = (1, 3, 4)  # of vanilla, GRU and LSTM
APART = 32  # counters from one group to the next, so that they share no line of a cache


class Layout(NamedTuple):
    """How a batch and the weights are dealt out to blocks."""

    U: int  # units of a block
    G: int  # blocks of a group
    R: int  # columns of a group
    ROWS: int  # columns in shared memory at a time
    L: int  # lanes of a warp that share outputs
    Q: int  # warps that share them
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
        L = 32 if K > 64 else 16 if K > 32 else 8
        sets = limits.threads // L
        Q = 1 if L < 32 or M > sets // 2 else 2 if M > sets // 4 else 4 if M > sets // 8 else 8
        outputs, fours = -(-M // (sets // Q)), -(-K // (4 * L * Q))  # S and I of the program
        if outputs * fours * 4 * size > 4 * limits.words:
            continue
        G = -(-hidden // U)
        R = -(-batch // min(batch, limits.processors // G))
        results, width = Q * R * M, 4 * L * Q * fours
        ROWS = min(R, (limits.shared // size - results) // width)
        if R * U > UNITS * limits.threads or ROWS < (R if G == 1 else 1):
            continue
        return Layout(U, G, R, ROWS, L, Q, -(-batch // R), (ROWS * width + results) * size)
    return None


def source(cell: int, backward: bool, hidden: int, size: int, how: Layout, threads: int) -> str:
    """The program of one kernel."""
    macros = {
        "CELL": cell,
        "BACKWARD": int(backward),
        "real": {4: "float", 8: "double"}[size],
        "H": hidden,
        **{name: value for name, value in how._asdict().items() if name.isupper()},
        "THREADS": threads,
        "APART": APART,
    }
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    return defined + resources.files("bptt.fused").joinpath("recurrence.cu").read_text("utf-8")
