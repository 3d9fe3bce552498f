"""Values of the machine code: numbers, addresses and what is true, whose operators add instructions.

Each has the `llvm.Code` of the function that it is part of.
"""

from typing import Any, ClassVar, Self

from llvmlite import ir

INT, FLAG = ir.IntType(64), ir.IntType(1)
DOUBLE = ir.DoubleType()
CONTRACT = ("contract",)  # a * b + c may be rounded once


class Value:
    """Something that is known when the machine code runs."""

    word: ClassVar[str]  # the kind, in words, of an argument

    def __init__(self, code: Any, value: Any) -> None:
        self.code, self.ir = code, value

    @classmethod
    def of(cls, library: Any) -> Any:
        """The type in a library."""
        raise NotImplementedError(cls.__name__)  # each kind of value says it

    def _same(self, other: Any) -> Any:
        """Another operand, or a constant, in the type of this one."""
        return other.ir if isinstance(other, Value) else ir.Constant(self.ir.type, other)


class Flag(Value):
    """True or false."""

    word = "flag"

    @classmethod
    def of(cls, library: Any) -> Any:
        """The type in a library."""
        return FLAG

    def __or__(self, other: "Flag") -> "Flag":
        return Flag(self.code, self.code.b.or_(self.ir, other.ir))


class Int(Value):
    """A whole number of 64 bits."""

    word = "int"

    @classmethod
    def of(cls, library: Any) -> Any:
        """The type in a library."""
        return INT

    def _operation(self, name: str, other: Any) -> "Int":
        return Int(self.code, getattr(self.code.b, name)(self.ir, self._same(other)))

    def __add__(self, other: Any) -> "Int":
        return self._operation("add", other)

    def __sub__(self, other: Any) -> "Int":
        return self._operation("sub", other)

    def __mul__(self, other: Any) -> "Int":
        return self._operation("mul", other)

    def __floordiv__(self, other: Any) -> "Int":  # of what is not negative
        return self._operation("udiv", other)

    def __rfloordiv__(self, other: int) -> "Int":
        return Int(self.code, self.code.b.udiv(self._same(other), self.ir))

    def __mod__(self, other: Any) -> "Int":
        return self._operation("urem", other)

    def _compare(self, sign: str, other: Any) -> Flag:
        return Flag(self.code, self.code.b.icmp_signed(sign, self.ir, self._same(other)))

    def __lt__(self, other: Any) -> Flag:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Flag:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Flag:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Flag:
        return self._compare(">=", other)

    def is_(self, other: Any) -> Flag:
        """Whether both are equal."""
        return self._compare("==", other)


class Real(Value):
    """A value with the arithmetic of real numbers."""

    def _operation(self, name: str, other: Any, *, reverse: bool = False) -> Self:
        operands = [self.ir, self._same(other)]
        made = getattr(self.code.b, name)(*(reversed(operands) if reverse else operands), flags=CONTRACT)
        return type(self)(self.code, made)

    def __add__(self, other: Any) -> Self:
        return self._operation("fadd", other)

    def __sub__(self, other: Any) -> Self:
        return self._operation("fsub", other)

    def __rsub__(self, other: Any) -> Self:
        return self._operation("fsub", other, reverse=True)

    def __mul__(self, other: Any) -> Self:
        return self._operation("fmul", other)

    def __truediv__(self, other: Any) -> Self:
        return self._operation("fdiv", other)

    def __lt__(self, other: Any) -> Flag:
        return Flag(self.code, self.code.b.fcmp_ordered("<", self.ir, self._same(other)))


class Number(Real):
    """One number of the type of the library."""

    word = "number"

    @classmethod
    def of(cls, library: Any) -> Any:
        """The type in a library."""
        return library.number


class Double(Real):
    """A number of 64 bits, for sums over many numbers."""

    word = "double"

    @classmethod
    def of(cls, library: Any) -> Any:
        """The type in a library."""
        return DOUBLE


class Array(Value):
    """The address of elements in memory; the sum of an address and a number is that of a later element."""

    element: ClassVar[type[Value]]

    @classmethod
    def of(cls, library: Any) -> Any:
        """The type in a library."""
        return cls.element.of(library).as_pointer()

    def __add__(self, index: Any) -> Self:
        index = index.ir if isinstance(index, Value) else INT(index)
        return type(self)(self.code, self.code.b.gep(self.ir, [index]))

    def __sub__(self, index: Int) -> Self:
        return self + Int(self.code, self.code.b.neg(index.ir))

    def __getitem__(self, index: Any) -> Any:
        return self.element(self.code, self.code.b.load((self + index).ir))

    def __setitem__(self, index: Any, value: Any) -> None:
        value = value.ir if isinstance(value, Value) else ir.Constant(self.element.of(self.code.library), value)
        self.code.b.store(value, (self + index).ir)


class Numbers(Array):
    """Numbers of the type of the library."""

    word = "numbers"
    element = Number


class Doubles(Array):
    """Numbers of 64 bits."""

    word = "doubles"
    element = Double


class Ints(Array):
    """Whole numbers."""

    word = "ints"
    element = Int
