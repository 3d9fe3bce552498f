"""The language of the kernels: Python functions that write machine code, which LLVM optimises.

A function under `@compiled` is called once, with values that stand for its arguments, and each operation on them adds an
instruction. Python's own `for` and `if` run then and there: they unroll and choose. `for i in steps(...)` and `with when(...)`
are loops and conditions of the machine code. The annotations of the arguments are their types.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llvmlite import ir

from bptt.kernels.cpu.values import DOUBLE, FLAG, INT, Array, Flag, Int, Numbers, Value

BYTE = ir.IntType(8)
OBJECT_HEAD = object.__basicsize__  # bytes before the fields of an object of Python


class Library:
    """Functions for numbers of one type, which are compiled together.

    `number` is the type, and `vector` that of as many of them as a register of `register` bytes holds.
    """

    def __init__(self, name: str, number: Any, register: int) -> None:
        self.module, self.number = ir.Module(name), number
        self.bytes = 8 if number == DOUBLE else 4
        self.vector = ir.VectorType(number, register // self.bytes)
        self.wide = register == 64
        self._written: dict[Function, Any] = {}  # the function of the module

    def function(self, function: "Function") -> Any:
        """The function in this library; it is written when it is first asked for, with those that it calls."""
        if function not in self._written:
            kinds = [kind.of(self) for kind in function.kinds]
            made = ir.Function(self.module, ir.FunctionType(FLAG, kinds), f"{function.name}.{len(self._written)}")
            made.linkage = "internal"
            made.attributes.add("noinline")
            self._written[function] = made
            code = Code(self, made)
            function.write(code, made.args)
            code.finish()
        return self._written[function]

    def export(self, function: "Function") -> str:
        """Let a function be called from outside, by the name that is returned.

        Outside, an array is the address of a NumPy array, whose first field is the address of its elements (`PyArray_DATA`).
        """
        inner = self.function(function)
        kinds = [INT if issubclass(kind, Array) else kind.of(self) for kind in function.kinds]
        exported = ir.Function(self.module, ir.FunctionType(FLAG, kinds), f"bptt.{function.name}")
        b = ir.IRBuilder(exported.append_basic_block())
        passed = []
        for kind, one in zip(function.kinds, exported.args):
            if issubclass(kind, Array):
                field = b.inttoptr(b.add(one, INT(OBJECT_HEAD)), kind.of(self).as_pointer())
                one = b.load(field)
            passed.append(one)
        b.ret(b.call(inner, passed))
        return str(exported.name)

    def outside(self, name: str, result: Any, *arguments: Any) -> Any:
        """Declare a function that LLVM or the program has."""
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, arguments), name)


class Code:
    """A function while it is written. It returns whether there was no memory left."""

    def __init__(self, library: Library, function: Any) -> None:
        self.library = library
        self._entry = function.append_basic_block("entry")
        self._first = function.append_basic_block("begin")
        self.b = ir.IRBuilder(self._first)

    def place(self, kind: Any) -> Any:
        """The address of a variable."""
        with self.b.goto_block(self._entry):
            return self.b.alloca(kind)

    def return_if(self, failed: Any) -> None:
        """Return at once where there was no memory."""
        with self.b.if_then(failed, likely=False):
            self.b.ret(FLAG(1))

    def finish(self) -> None:
        """Close the function."""
        self.b.ret(FLAG(0))
        with self.b.goto_block(self._entry):
            self.b.branch(self._first)


class Function:
    """A function in the machine code: called with values, it adds a call. A named tuple of values stands for these."""

    def __init__(self, python: Callable[..., None], name: str) -> None:
        self._python, self.name = python, name
        self._parameters: list[Any] = [one.annotation for one in inspect.signature(python).parameters.values()]
        self.kinds: list[type[Value]] = [kind for one in self._parameters for kind in _kinds(one)]

    def write(self, code: "Code", arguments: Iterable[Any]) -> None:
        """Let Python write the function."""
        values, passed = (kind(code, one) for kind, one in zip(self.kinds, arguments, strict=True)), []
        for one in self._parameters:
            parts = [next(values) for _ in _kinds(one)]
            passed.append(parts[0] if issubclass(one, Value) else one(*parts))
        self._python(*passed)

    def __call__(self, *arguments: Any) -> None:
        """Call the function; constants take the types of its arguments."""
        flat = [part for one in arguments for part in (one if isinstance(one, tuple) else (one,))]
        code = next(one.code for one in flat if isinstance(one, Value))
        function = code.library.function(self)
        values = [
            one.ir if isinstance(one, Value) else ir.Constant(kind, one)
            for one, kind in zip(flat, function.function_type.args, strict=True)
        ]
        code.return_if(code.b.call(function, values))


def _kinds(parameter: Any) -> list[type[Value]]:
    """The types of the values that a parameter stands for."""
    return [parameter] if issubclass(parameter, Value) else list(parameter.__annotations__.values())


def compiled(python: Callable[..., None]) -> Function:
    """Let a Python function write a function of the machine code."""
    return Function(python, python.__name__)


def steps(start: Any, stop: Int, step: Any = 1) -> Iterator[Int]:
    """A loop over the numbers from `start` to before `stop`."""
    code, b = stop.code, stop.code.b
    begin, by = (one.ir if isinstance(one, Value) else INT(one) for one in (start, step))
    before, head, body, after = b.block, *(b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(INT)
    index.add_incoming(begin, before)
    b.cbranch(b.icmp_signed("<", index, stop.ir), body, after)
    b.position_at_end(body)
    yield Int(code, index)
    index.add_incoming(b.add(index, by), b.block)
    b.branch(head)
    b.position_at_end(after)


@contextlib.contextmanager
def when(condition: Flag) -> Iterator[None]:
    """What is written inside happens if a condition is true."""
    with condition.code.b.if_then(condition.ir):
        yield


def select(condition: Flag, yes: Any, no: Any) -> Any:
    """One of two values; the first, or else the second, says the type of both."""
    first = yes if isinstance(yes, Value) else no
    both = (first._same(one) for one in (yes, no))
    return type(first)(first.code, first.code.b.select(condition.ir, *both))


def minimum(a: Int, b: Any) -> Int:
    """The smaller number."""
    made: Int = select(a < b, a, b)
    return made


class Variable:
    """A value that changes, as the sum in a loop."""

    def __init__(self, start: Value) -> None:
        self._kind, self._code, self._place = type(start), start.code, start.code.place(start.ir.type)
        self.set(start)

    def set(self, value: Any) -> None:
        """Change the value."""
        self._code.b.store(value.ir, self._place)

    def get(self) -> Any:
        """The value now."""
        return self._kind(self._code, self._code.b.load(self._place))


def allocate(size: Int) -> Numbers:
    """Memory for some numbers; the function, and all that called it, return if there is none."""
    code, b = size.code, size.code.b
    address = b.call(code.library.outside("bptt_allocate", BYTE.as_pointer(), INT), [(size * code.library.bytes).ir])
    code.return_if(b.icmp_unsigned("==", address, ir.Constant(address.type, None)))
    return Numbers(code, b.bitcast(address, Numbers.of(code.library)))


def free(*arrays: Numbers) -> None:
    """Give memory back."""
    for one in arrays:
        b = one.code.b
        b.call(one.code.library.outside("bptt_free", ir.VoidType(), BYTE.as_pointer()), [b.bitcast(one.ir, BYTE.as_pointer())])
