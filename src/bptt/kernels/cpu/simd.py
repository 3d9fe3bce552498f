"""The numbers of a vector register as one value, so that a pass over units is a loop of equations.

`load` and `store` take an array, the place of a number counted from its beginning, and how many numbers there are from there
on: of a row's last ones, fewer than fit a register, no others are touched.
"""

import math
from typing import Any

from llvmlite import ir

from bptt.kernels.cpu.llvm import Library
from bptt.kernels.cpu.values import DOUBLE, INT, Array, Double, Int, Number, Numbers, Real, Value

LANE = ir.IntType(32)


class Lanes(Real):
    """As many numbers of the library as a vector register has; a single number beside it stands for that many."""

    @classmethod
    def of(cls, library: Library) -> Any:
        """The type in a library."""
        return library.vector

    def _same(self, other: Any) -> Any:
        if isinstance(other, Number):
            return everywhere(other).ir
        return other.ir if isinstance(other, Value) else _constant(self.ir.type, other)


def _constant(vector: Any, value: float) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def width(value: Value) -> int:
    """How many numbers a vector register has."""
    return int(value.code.library.vector.count)


def zeros(value: Value) -> Lanes:
    """Zero in each lane."""
    return Lanes(value.code, _constant(value.code.library.vector, 0.0))


def _spread(b: Any, value: Any, vector: Any) -> Any:
    """A number in each lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    one = b.insert_element(undefined, value, LANE(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(LANE, vector.count), [0] * vector.count))


def everywhere(number: Number) -> Lanes:
    """A number in each lane."""
    return Lanes(number.code, _spread(number.code.b, number.ir, number.code.library.vector))


def _suffix(kind: Any) -> str:
    """How LLVM names a type in the names of its functions."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{kind.element.intrinsic_name}"
    return str(kind.intrinsic_name)


def _call(name: str, first: Real, *others: Any) -> Any:
    """A function that LLVM has for each type, of operands of the same type."""
    kind, operands = first.ir.type, [first.ir, *map(first._same, others)]
    function = first.code.library.outside(f"llvm.{name}.{_suffix(kind)}", kind, *[kind] * len(operands))
    return type(first)(first.code, first.code.b.call(function, operands))


def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once where the processor can."""
    return _call("fmuladd", a, b, c)


def sqrt(x: Any) -> Any:
    """The square root."""
    return _call("sqrt", x)


def _address(array: Numbers, index: Any) -> Any:
    return array.code.b.bitcast((array + index).ir, array.code.library.vector.as_pointer())


def _mask(b: Any, left: Int, count: int) -> Any:
    """The lanes that are left."""
    numbers = ir.VectorType(INT, count)
    return b.icmp_signed("<", ir.Constant(numbers, list(range(count))), _spread(b, left.ir, numbers))


def load(array: Numbers, index: Any, left: Int | None = None, otherwise: float = 0.0) -> Lanes:
    """The numbers of an array from a place on; another number beyond those that are left."""
    code, vector = array.code, array.code.library.vector
    b, address = code.b, _address(array, index)
    if left is None:
        return Lanes(code, b.load(address, align=4))
    rest = _constant(vector, otherwise)
    with b.if_else(b.icmp_signed(">=", left.ir, INT(vector.count)), likely=True) as (full, part):
        with full:
            everything, after_full = b.load(address, align=4), b.block
        with part:
            mask = _mask(b, left, vector.count)
            name = f"llvm.masked.load.{_suffix(vector)}.p0"
            function = code.library.outside(name, vector, address.type, LANE, mask.type, vector)
            masked, after_part = b.call(function, [address, LANE(4), mask, rest]), b.block
    value = b.phi(vector)
    value.add_incoming(everything, after_full)
    value.add_incoming(masked, after_part)
    return Lanes(code, value)


def store(value: Lanes, array: Numbers, index: Any, left: Int | None = None) -> None:
    """Enter the numbers into an array from a place on, as many as are left there."""
    code, vector = array.code, array.code.library.vector
    b, address = code.b, _address(array, index)
    if left is None:
        b.store(value.ir, address, align=4)
        return
    with b.if_else(b.icmp_signed(">=", left.ir, INT(vector.count)), likely=True) as (full, part):
        with full:
            b.store(value.ir, address, align=4)
        with part:
            mask = _mask(b, left, vector.count)
            name = f"llvm.masked.store.{_suffix(vector)}.p0"
            function = code.library.outside(name, ir.VoidType(), vector, address.type, LANE, mask.type)
            b.call(function, [value.ir, address, LANE(4), mask])


def prefetch(array: Array) -> None:
    """Let the memory at an address come near while something else is computed."""
    b, byte = array.code.b, ir.IntType(8).as_pointer()
    function = array.code.library.outside("llvm.prefetch.p0", ir.VoidType(), byte, LANE, LANE, LANE)
    b.call(function, [b.bitcast(array.ir, byte), LANE(0), LANE(3), LANE(1)])  # to read, soon again, data


def lane_sum(value: Lanes) -> Number:
    """The sum of the lanes, half and half."""
    name, kind = f"llvm.vector.reduce.fadd.{_suffix(value.ir.type)}", value.code.library.number
    function = value.code.library.outside(name, kind, kind, value.ir.type)
    return Number(value.code, value.code.b.call(function, [ir.Constant(kind, 0.0), value.ir], fastmath=("reassoc",)))


def lane_max(value: Lanes) -> Number:
    """The largest of the lanes."""
    kind = value.code.library.number
    function = value.code.library.outside(f"llvm.vector.reduce.fmax.{_suffix(value.ir.type)}", kind, value.ir.type)
    return Number(value.code, value.code.b.call(function, [value.ir]))


def maximum(a: Lanes, b: Lanes) -> Lanes:
    """The larger ones of two vectors."""
    made: Lanes = _call("maxnum", a, b)
    return made


def exp(x: Lanes) -> Lanes:
    """e**x for x up to 0: 2**n times the Taylor series of the rest, which is at most ln(2) / 2.

    Below the logarithm of the smallest normal number it stays at that number: 1e-38 in float32, 1e-308 in float64.
    """
    b, vector = x.code.b, x.ir.type
    double = vector.element == DOUBLE
    bits, mantissa, bias, terms, least = (64, 52, 1023, 13, -708.0) if double else (32, 23, 127, 7, -87.0)
    integers = ir.VectorType(ir.IntType(bits), vector.count)
    bound = _constant(vector, least)
    x = Lanes(x.code, b.select(b.fcmp_ordered("<", x.ir, bound), bound, x.ir))  # not a number stays that
    shift = 1.5 * 2**mantissa  # added to a number, it leaves the nearest integer in the lowest bits
    shifted = multiply_add(x, 1 / math.log(2), shift)
    n = Lanes(x.code, b.fsub(shifted.ir, _constant(vector, shift)))
    high = math.ldexp(round(math.ldexp(math.log(2), mantissa // 2)), -(mantissa // 2))  # n times this is exact
    rest = multiply_add(n, high - math.log(2), multiply_add(n, -high, x))
    series = Lanes(x.code, _constant(vector, 1 / math.factorial(terms)))
    for k in reversed(range(terms)):
        series = multiply_add(series, rest, 1 / math.factorial(k))
    exponent = b.shl(b.bitcast(shifted.ir, integers), _constant(integers, mantissa))
    power = b.bitcast(b.add(exponent, _constant(integers, bias << mantissa)), vector)
    return Lanes(x.code, b.fmul(series.ir, power))


def tanh(x: Lanes) -> Lanes:
    """The hyperbolic tangent, (1 - e**-2|x|) / (1 + e**-2|x|) with the sign of x."""
    b = x.code.b
    e = exp(_call("fabs", x) * -2.0).ir
    one = _constant(x.ir.type, 1.0)
    made: Lanes = _call("copysign", Lanes(x.code, b.fdiv(b.fsub(one, e), b.fadd(one, e))), x)
    return made


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e**-x) = tanh(x / 2) / 2 + 1 / 2."""
    made: Lanes = multiply_add(tanh(x * 0.5), 0.5, 0.5)
    return made


def log(x: Double) -> Double:
    """The natural logarithm of a finite number above 1e-300: k ln(2) + 2 artanh((m - 1) / (m + 1)), x = 2**k m, m near 1."""
    b = x.code.b
    offset = 0x3FE6A09E667F3BCD  # the bits of the square root of 1/2
    shifted = b.sub(b.bitcast(x.ir, INT), INT(offset))
    k = b.ashr(shifted, INT(52))
    mantissa = b.add(b.and_(shifted, INT((1 << 52) - 1)), INT(offset))
    m = Double(x.code, b.bitcast(mantissa, DOUBLE))
    s = (m - 1.0) / (m + 1.0)
    square, series = s * s, Double(x.code, DOUBLE(1 / 23))
    for n in range(21, 0, -2):
        series = multiply_add(series, square, 1 / n)
    exponent = Double(x.code, b.sitofp(k, DOUBLE))
    made: Double = exponent * math.log(2) + s * series * 2.0 + (x - x)  # where x is not a number, neither is this
    return made


def as_double(number: Number) -> Double:
    """A number in 64 bits."""
    if number.ir.type == DOUBLE:
        return Double(number.code, number.ir)
    return Double(number.code, number.code.b.fpext(number.ir, DOUBLE))


def as_number(double: Double) -> Number:
    """A number of 64 bits in the type of the library."""
    kind = double.code.library.number
    return Number(double.code, double.ir if kind == DOUBLE else double.code.b.fptrunc(double.ir, kind))
