"""The cells by name, and what a module needs to be one.

A cell is a module: vanilla.py, gru.py, lstm.py, or a file of the user. Besides what the protocol asks for it may have:

- `DROPOUT`, the default dropout rate; without it the default depends on the size of the text;
- `RATE_FACTOR`, a factor of all learning rates in the maximal update parametrization; without it 1;
- `MEMORY`, as ((first, each), (first, each)), numbers held per time step and hidden unit, `first + each * layers`, by an
  update and by a forward pass alone; without it an upper bound by the number of gates;
- `gate_activations`, a function (cache) -> (T, B, G*H) of the gates in the order of GATES, for `bptt.inspect` and the report.
"""

from typing import Any, Literal, Protocol

from bptt.backend import Array
from bptt.nn import gru, initializers, lstm, vanilla


class Cell(Protocol):
    """A recurrent cell: T steps forward and backward, for tokens or vectors."""

    @property
    def GATES(self) -> dict[str, str]:
        """The activation function of each gate by its name, in the order of their blocks of H rows in the weights."""

    @property
    def Params(self) -> Any:
        """A NamedTuple of the arrays that are learned."""

    @property
    def State(self) -> Any:
        """A NamedTuple of what a step hands to the next, arrays (B, H); `a` is what leaves the layer."""

    @property
    def Cache(self) -> Any:
        """A NamedTuple of arrays over time, what backward needs; `a` is (T+1, B, H)."""

    def shapes(self, inputs: int, hidden: int) -> Any:
        """The Params with the shape of each array, a list, in its place."""

    def init(self, rng: Any, inputs: int, hidden: int, kind: initializers.Kind = "uniform") -> Any:
        """The Params before training: host arrays in float64 drawn from a `numpy.random.Generator`."""

    def forward(self, params: Any, x: Array, state: Any) -> tuple[Array, Any, Any]:
        """States a_1 .. a_T (T, B, H), the State after T, and the Cache."""

    def backward(self, params: Any, cache: Any, da: Array, dafter: Any = None) -> tuple[Array | None, Any, Any]:
        """Gradients with respect to x (None for tokens), the State before the first step, and the Params."""


CellName = Literal["vanilla", "gru", "lstm"]
CELLS: dict[str, Cell] = {"vanilla": vanilla, "gru": gru, "lstm": lstm}
REQUIRED = ("GATES", "Params", "State", "Cache", "shapes", "init", "forward", "backward")


def memory(cell: Cell) -> tuple[tuple[float, float], tuple[float, float]]:
    """The MEMORY of a cell, or an upper bound by its number of gates."""
    G = len(cell.GATES)
    numbers: tuple[tuple[float, float], tuple[float, float]] = getattr(cell, "MEMORY", ((6.0 * G, 2.0 * G), (3.0 * G, 2.0 * G)))
    return numbers
