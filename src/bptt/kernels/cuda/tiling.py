"""How a recurrence on a CUDA device is dealt out to blocks, and the program for it (recurrence.cu)."""

import itertools
from importlib import resources
from typing import NamedTuple

UNITS = 4  # of columns that a thread looks after, at most
CELLS = ("vanilla", "gru", "lstm")  # by their numbers in the program
GATES = (1, 3, 4)  # of these
LANES, WARPS = (4, 8), (1, 2, 4, 8, 16)  # that are tried for L and Q
OUTPUTS = 16  # of a thread, at most
ARRIVALS = 16  # bytes of shared memory for what counts them


class Tiling(NamedTuple):
    """How a batch and the weights are dealt out to blocks."""

    U: int  # units of a block
    G: int  # blocks of a group
    R: int  # columns of a group
    ROWS: int  # columns in shared memory at a time
    L: int  # lanes of a warp that share outputs
    Q: int  # warps that share them
    CLUSTER: int  # 1: each group is a cluster
    groups: int
    memory: int  # bytes of shared memory


class Limits(NamedTuple):
    """What a layout has to keep to."""

    processors: int
    shared: int  # bytes of shared memory of a block
    clusters: tuple[int, ...] = ()  # of 2, 3 and so on blocks each, as many as run at the same time
    threads: int = 512  # of a block
    words: int = 80  # of 128 registers of a thread, those that hold weights


def choose_tiling(cell: int, backward: bool, hidden: int, batch: int, size: int, limits: Limits) -> Tiling | None:
    """As few blocks as hold the weights, of numbers of so many bytes; as many groups as there is room for. None: no room."""
    for blocks in range(1, min(limits.processors, hidden) + 1):
        U = -(-hidden // blocks)
        M, K = (U, GATES[cell] * hidden) if backward else (GATES[cell] * U, hidden)
        G = -(-hidden // U)
        side_by_side = limits.clusters[G - 2] if 1 < G < len(limits.clusters) + 2 else 0
        for cluster in (1, 0) if side_by_side else (0,):
            room = side_by_side if cluster else limits.processors // G
            R = -(-batch // min(batch, room))
            if found := _tilings(M, K, Tiling(U, G, R, 0, 0, 0, cluster, -(-batch // R), 0), size, limits):
                return min(found)[1]
    return None


def _tilings(M: int, K: int, how: Tiling, size: int, limits: Limits) -> list[tuple[float, Tiling]]:
    """The layout with all that M outputs of K inputs can be shared by lanes and warps, and about what a column takes then."""
    found = []
    for L, Q in itertools.product(LANES, WARPS):
        sets = limits.threads // (L * Q)
        outputs, fours = -(-M // max(1, sets)), -(-K // (4 * L * Q))  # S and I of the program
        too_much = outputs > OUTPUTS or outputs * fours * size > limits.words or how.R * how.U > UNITS * limits.threads
        results, width, copies = Q * how.R * M, 4 * L * Q * fours, 1 + how.CLUSTER
        rows = min(how.R, ((limits.shared - ARRIVALS) // size - results) // (width * copies))
        if sets and not too_much and rows >= (how.R if how.G == 1 or how.CLUSTER else 1):
            memory = ARRIVALS + (copies * rows * width + results) * size
            found.append(
                (_estimate_cycles(L, Q, M, outputs, fours, size, limits), how._replace(ROWS=rows, L=L, Q=Q, memory=memory))
            )
    return found


def _estimate_cycles(L: int, Q: int, M: int, outputs: int, fours: int, size: int, limits: Limits) -> float:
    """About how many cycles a multiprocessor takes for a column: reading it, multiplying, shuffling, sums of warps."""
    warps, power = limits.threads / 32, 1 << (outputs - 1).bit_length()  # power: P of the program
    read = fours * max(1.0, 4 * size * L / 128)  # lanes of one warp that want the same are served at once
    halvings = min(L.bit_length() - 1, power.bit_length() - 1)
    shuffles = power - (power >> halvings) + (L.bit_length() - 1 - halvings)
    return warps * (read + outputs * fours * size / 4 + shuffles * size / 4) + M * Q / 16


def source(cell: int, backward: bool, hidden: int, size: int, how: Tiling | None, threads: int) -> str:
    """The program of one kernel; without a layout, of one for a single step."""
    macros: dict[str, object] = {"CELL": cell, "BACKWARD": int(backward), "real": {4: "float", 8: "double"}[size], "H": hidden}
    macros["THREADS"] = threads
    files = ["cells", "stepwise"]
    if how is not None:
        macros |= {name: value for name, value in how._asdict().items() if name.isupper()} | {"ARRIVALS": ARRIVALS}
        files[1:] = "sync", "recurrence", "backward" if backward else "forward"
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    folder = resources.files("bptt.kernels.cuda")
    return "\n".join([defined, *(folder.joinpath(f"{file}.cu").read_text("utf-8") for file in files)])
