"""The command `bptt check`."""

import json as json_
from pathlib import Path

from bptt import gradcheck
from bptt.acceleration import SWITCH
from bptt.cli.console import complain, print_line
from bptt.cli.parser import BackendFlag, RequireFlag
from bptt.config.user_cells import resolve
from bptt.display import table
from bptt.gradcheck import Check
from bptt.nn.cells import CELLS, CellName

NAME = 8  # columns of the name of a cell, which may be longer
WIDTH = 112  # of a line of these, with such names
COLUMNS = "{:8} {:{name}} {:8} {:8} {:20} {:16} {:>13} {:>8} {}"


def check(  # noqa: D417  # BackendFlag and the like bring their help
    *,
    cell: CellName | Path | None = None,
    backend: BackendFlag = "auto",
    require_backend: RequireFlag = False,
    json: bool = False,
) -> int:
    """Check the gradients of every cell, or of one, on this machine: by finite differences and against NumPy.

    The exit code is 0 if all errors are small enough, else 1. Kernels are checked too, if they are used.

    Parameters
    ----------
    cell
        A built-in cell, or the Python file of a user-defined cell, which is executed. Default: all built-in cells.
    json
        Print one line of JSON for each check.
    """
    results: list[Check] = []
    heads = ("backend", "cell", "checked", "type", "compared with", "functions", "largest error", "allowed")
    columns = table.columns()
    for one in gradcheck.run_checks(backend, require=require_backend, cell=None if cell is None else resolve("--cell", cell)):
        if json:
            print_line(json_.dumps({**one._asdict(), "passed": one.passed}))
        else:
            numbers = f"{one.error:.1e}", f"{one.allowed:.0e}", "" if one.passed else "WRONG"
            row = one.backend, one.cell, one.what, one.dtype, one.against, one.compiled or "pure", *numbers
            name = max(NAME, table.cells(one.cell))  # the same in all rows: a long one is of a user-defined cell, checked alone
            if columns >= WIDTH + name - NAME:
                if not results:
                    print_line(COLUMNS.format(*heads, "", name=name).rstrip())
                print_line(COLUMNS.format(*row, name=name).rstrip())
            else:
                print_line("\n".join(table.lay_out((*heads, "verdict"), [row], "l" * len(row), columns)))
        results.append(one)
    wrong = [one for one in results if not one.passed]
    if wrong:
        cells = ", ".join(sorted({one.cell for one in wrong}))
        return complain(f"{len(wrong)} of {len(results)} checks failed: gradients of {cells} differ: {_advice(wrong)}", 1)
    if not json:
        verdict = f"All gradients agree: {len(results)} of {len(results)} checks passed."
        print_line("\n".join(table.wrap(verdict, columns, indent="")))
    return 0


def _advice(wrong: list[Check]) -> str:
    """What to do about gradients that differ."""
    if not {one.cell for one in wrong} <= CELLS.keys():
        return "compare the lines of its backward pass with those of its forward pass"
    if all(one.compiled for one in wrong):
        return f"train without compiled functions, which alone are wrong: set {SWITCH}=0"
    return "do not train here: choose another --backend or update the libraries that bptt info lists, then check again"
