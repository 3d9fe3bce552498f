"""The numbers of a vector register as one value in compiled code, so that a pass over units is a loop of equations.

`load` and `store` take an array, the place of a number counted from its beginning, and how many numbers there are from there
on: of a row's last ones, fewer than fit a register, no others are touched. Operators take two such values, or one and a number.
"""

import math
import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from bptt.kernels.cpu.microkernel import VECTOR


class Lanes(types.Type):
    """As many numbers of a type as a vector register has."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, lanes: Lanes) -> None:
        number = dmm.lookup(lanes.dtype).get_value_type()
        super().__init__(dmm, lanes, ir.VectorType(number, VECTOR * 8 // lanes.dtype.bitwidth))


class _Operation(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        lanes = next((one for one in arguments if isinstance(one, Lanes)), None)
        if lanes is not None and all(one in (lanes, lanes.dtype) for one in arguments):
            return signature(lanes, *arguments)
        return None


def _everywhere(b: Any, value: Any, vector: Any) -> Any:
    """A number in each lane."""
    one = b.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)


def _operation(name: str) -> None:
    """Let an operator of Python be an instruction on vectors."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(signature.return_type)
        both = [value if value.type == vector else _everywhere(b, value, vector) for value in arguments]
        return getattr(b, f"f{name}")(*both, flags=["contract"])

    for kinds in ((Lanes, Lanes), (Lanes, types.Float), (types.Float, Lanes)):
        lower_builtin(getattr(operator, name), *kinds)(generate)
    infer_global(getattr(operator, name))(_Operation)


for _name in ("add", "sub", "mul"):
    _operation(_name)


def _constant(vector: Any, value: float) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _call(b: Any, name: str, *arguments: Any) -> Any:
    """An instruction that LLVM has by a name for each type, of vectors of the same type."""
    vector = arguments[0].type
    kind = ir.FunctionType(vector, [vector] * len(arguments))
    mangled = f"llvm.{name}.v{vector.count}{vector.element.intrinsic_name}"
    return b.call(cgutils.get_or_insert_function(b.module, kind, mangled), arguments)


def _masked(b: Any, name: str, vector: Any, left: Any, result: Any, *arguments: Any) -> Any:
    """Load or store the first numbers of a vector alone."""
    number, flags = ir.IntType(64), ir.VectorType(ir.IntType(1), vector.count)
    steps = ir.Constant(ir.VectorType(number, vector.count), list(range(vector.count)))
    mask = b.icmp_signed("<", steps, _everywhere(b, left, steps.type))
    align = ir.IntType(32)(4)
    before = arguments[: len(arguments) - (name == "load")]
    kind = ir.FunctionType(result, [*(a.type for a in before), align.type, flags, *(a.type for a in arguments[len(before) :])])
    mangled = f"llvm.masked.{name}.v{vector.count}{vector.element.intrinsic_name}.p0"
    return b.call(cgutils.get_or_insert_function(b.module, kind, mangled), [*before, align, mask, *arguments[len(before) :]])


def _place(context: Any, b: Any, array: Any, value: Any, index: Any, vector: Any) -> Any:
    return b.bitcast(b.gep(context.make_array(array)(context, b, value).data, [index]), vector.as_pointer())


@intrinsic
def load(context: Any, array: Any, index: Any, left: Any) -> Any:
    """The numbers of an array from a place on, zeros beyond those that are left."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(signature.return_type)
        place = _place(context, b, array, arguments[0], arguments[1], vector)
        with b.if_else(b.icmp_signed(">=", arguments[2], ir.IntType(64)(vector.count)), likely=True) as (full, part):
            with full:
                all_of_them, after_full = b.load(place, align=4), b.block
            with part:
                masked = _masked(b, "load", vector, arguments[2], vector, place, _constant(vector, 0.0))
                after_part = b.block
        value = b.phi(vector)
        value.add_incoming(all_of_them, after_full)
        value.add_incoming(masked, after_part)
        return value

    return Lanes(array.dtype)(array, types.intp, types.intp), generate


@intrinsic
def store(context: Any, value: Any, array: Any, index: Any, left: Any) -> Any:
    """Enter the numbers into an array from a place on, as many as are left there."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        value, target, index, left = arguments
        place = _place(context, b, array, target, index, value.type)
        with b.if_else(b.icmp_signed(">=", left, ir.IntType(64)(value.type.count)), likely=True) as (full, part):
            with full:
                b.store(value, place, align=4)
            with part:
                _masked(b, "store", value.type, left, ir.VoidType(), value, place)
        return context.get_dummy_value()

    return types.void(value, array, types.intp, types.intp), generate


def _exp(b: Any, x: Any) -> Any:
    """e**x, 0 < x excepted: 2**n times the Taylor series of the rest, which is at most ln(2) / 2.

    Below the smallest normal number's logarithm it stays at that number.
    """
    double = isinstance(x.type.element, ir.DoubleType)
    bits, mantissa, bias, terms, least = (64, 52, 1023, 13, -708.0) if double else (32, 23, 127, 7, -87.0)
    integers = ir.VectorType(ir.IntType(bits), x.type.count)

    def number(value: float) -> Any:
        return _constant(x.type, value)

    x = b.select(b.fcmp_ordered("<", x, number(least)), number(least), x)  # not a number stays that
    shift = number(1.5 * 2**mantissa)  # added to a number, it leaves the nearest integer in the lowest bits
    shifted = _call(b, "fmuladd", x, number(1 / math.log(2)), shift)
    n = b.fsub(shifted, shift)
    high = math.ldexp(round(math.ldexp(math.log(2), mantissa // 2)), -(mantissa // 2))  # n times this is exact
    r = _call(b, "fmuladd", n, number(-high), x)
    r = _call(b, "fmuladd", n, number(high - math.log(2)), r)
    total = number(1 / math.factorial(terms))
    for k in reversed(range(terms)):
        total = _call(b, "fmuladd", total, r, number(1 / math.factorial(k)))
    power = b.add(b.shl(b.bitcast(shifted, integers), _constant(integers, mantissa)), _constant(integers, bias << mantissa))
    return b.fmul(total, b.bitcast(power, x.type))


@intrinsic
def width(context: Any, array: Any) -> Any:
    """How many numbers of an array a vector register has: a constant, where `array.itemsize` would be read, to divide by it."""
    return types.intp(array), lambda context, b, signature, arguments: ir.IntType(64)(VECTOR * 8 // array.dtype.bitwidth)


@intrinsic
def exp(context: Any, x: Any) -> Any:
    """e**x for x up to 0; never less than 1e-38 in float32, 1e-308 in float64."""
    return x(x), lambda context, b, signature, arguments: _exp(b, arguments[0])


def _tanh(b: Any, x: Any) -> Any:
    """(1 - e**-2|x|) / (1 + e**-2|x|) with the sign of x."""
    one = _constant(x.type, 1.0)
    e = _exp(b, b.fmul(_constant(x.type, -2.0), _call(b, "fabs", x)))
    return _call(b, "copysign", b.fdiv(b.fsub(one, e), b.fadd(one, e)), x)


@intrinsic
def tanh(context: Any, x: Any) -> Any:
    """The hyperbolic tangent."""
    return x(x), lambda context, b, signature, arguments: _tanh(b, arguments[0])


@intrinsic
def sigmoid(context: Any, x: Any) -> Any:
    """1 / (1 + e**-x) = tanh(x / 2) / 2 + 1 / 2."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        half = _constant(arguments[0].type, 0.5)
        return _call(b, "fmuladd", half, _tanh(b, b.fmul(half, arguments[0])), half)

    return x(x), generate
