"""How a recurrence on a CUDA device is divided among thread blocks, and the source of its program (recurrence.cu)."""

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
    """How a batch and the recurrent weights are divided among thread blocks; the program has most fields as macros."""

    units_per_block: int
    blocks_per_group: int
    columns_per_group: int
    rows_in_shared: int  # columns in shared memory at a time
    lanes: int  # of a warp that share outputs
    warps: int  # that share outputs
    cluster: int  # 1: each group is a cluster
    groups: int
    memory: int  # bytes of shared memory


MACROS = ("units_per_block", "blocks_per_group", "columns_per_group", "rows_in_shared", "lanes", "warps", "cluster")


class Limits(NamedTuple):
    """What a device and the program allow."""

    processors: int
    shared: int  # bytes of shared memory of a block
    clusters: tuple[int, ...] = ()  # of 2, 3 and so on blocks each, as many as run at the same time
    threads: int = 512  # of a block
    words: int = 80  # of 128 registers of a thread, those that hold weights


def choose_tiling(cell: int, backward: bool, hidden: int, batch: int, size: int, limits: Limits) -> Tiling | None:
    """The fewest blocks that hold the weights, in numbers of `size` bytes, and as many groups as run at once; or None."""
    for blocks in range(1, min(limits.processors, hidden) + 1):
        U = -(-hidden // blocks)
        M, K = (U, GATES[cell] * hidden) if backward else (GATES[cell] * U, hidden)
        G = -(-hidden // U)
        side_by_side = limits.clusters[G - 2] if 1 < G < len(limits.clusters) + 2 else 0
        for cluster in (1, 0) if side_by_side else (0,):
            room = side_by_side if cluster else limits.processors // G
            R = -(-batch // min(batch, room))
            if tilings := _tilings(M, K, Tiling(U, G, R, 0, 0, 0, cluster, -(-batch // R), 0), size, limits):
                return min(tilings)[1]
    return None


def _tilings(M: int, K: int, how: Tiling, size: int, limits: Limits) -> list[tuple[float, Tiling]]:
    """The tilings of M outputs of K inputs over lanes and warps that fit, with the estimated cycles for a column."""
    tilings = []
    for L, Q in itertools.product(LANES, WARPS):
        sets = limits.threads // (L * Q)
        outputs, fours = -(-M // max(1, sets)), -(-K // (4 * L * Q))  # S and I of the program
        too_much = (
            outputs > OUTPUTS
            or outputs * fours * size > limits.words
            or how.columns_per_group * how.units_per_block > UNITS * limits.threads
        )
        results, width, copies = Q * how.columns_per_group * M, 4 * L * Q * fours, 1 + how.cluster
        rows = min(how.columns_per_group, ((limits.shared - ARRIVALS) // size - results) // (width * copies))
        if sets and not too_much and rows >= (how.columns_per_group if how.blocks_per_group == 1 or how.cluster else 1):
            memory = ARRIVALS + (copies * rows * width + results) * size
            tilings.append(
                (
                    _estimate_cycles(L, Q, M, outputs, fours, size, limits),
                    how._replace(rows_in_shared=rows, lanes=L, warps=Q, memory=memory),
                )
            )
    return tilings


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
        macros |= {name.upper(): getattr(how, name) for name in MACROS} | {"ARRIVALS": ARRIVALS}
        files[1:] = "sync", "recurrence", "backward" if backward else "forward"
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    folder = resources.files("bptt.kernels.cuda")
    return "\n".join([defined, *(folder.joinpath(f"{file}.cu").read_text("utf-8") for file in files)])
