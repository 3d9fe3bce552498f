"""LLVM instructions on vector registers, which Numba cannot express by itself, for float32 and float64."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")  # of the processor that Numba compiles for
WIDE = "+avx512f" in FEATURES  # 32 registers of 64 bytes, or 16 of 32; elsewhere LLVM makes several of one
VECTOR = 64 if WIDE else 32  # bytes
AHEAD = 8  # rows of a panel from where it is read to what is fetched: weights beyond the second cache came a quarter sooner


def _vector(number: Any) -> tuple[Any, int, int]:
    """The vector type of numbers, how many are in it, and the bytes of one."""
    size = 8 if isinstance(number, ir.DoubleType) else 4
    return ir.VectorType(number, VECTOR // size), VECTOR // size, size


def _load(b: Any, pointer: Any, index: Any) -> Any:
    vector, _, size = _vector(pointer.type.pointee)
    return b.load(b.bitcast(b.gep(pointer, [index]), vector.as_pointer()), align=size)


def _store(b: Any, value: Any, pointer: Any, index: Any) -> None:
    size = _vector(pointer.type.pointee)[2]
    b.store(value, b.bitcast(b.gep(pointer, [index]), value.type.as_pointer()), align=size)


@intrinsic
def at(context: Any, array: Any, index: Any) -> Any:
    """A pointer to an element of a contiguous array, counted from its beginning."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, b, arguments[0]).data
        return b.gep(data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.intp), generate


@intrinsic
def copy(context: Any, source: Any, target: Any) -> Any:
    """Copy one vector from a pointer to another."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.IntType(64)(0)
        _store(b, _load(b, arguments[0], zero), arguments[1], zero)
        return context.get_dummy_value()

    return types.void(source, target), generate


@intrinsic
def transpose(context: Any, source: Any, row: Any, target: Any, target_row: Any) -> Any:
    """Transpose a square of as many rows as a vector has numbers, from a pointer to another.

    `row` and `target_row` are the elements from one row to the next. Each round is a perfect shuffle of all elements.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        source, row, target, target_row = arguments
        n = _vector(source.type.pointee)[1]
        order = [place for pair in zip(range(n), range(n, 2 * n)) for place in pair]  # one from each of two vectors in turn
        low, high = (ir.Constant(ir.VectorType(ir.IntType(32), n), half) for half in (order[:n], order[n:]))
        rows = [_load(b, source, b.mul(row, row.type(i))) for i in range(n)]
        for _ in range(n.bit_length() - 1):
            pairs = [(rows[i], rows[i + n // 2]) for i in range(n // 2)]
            rows = [b.shuffle_vector(*pair, half) for pair in pairs for half in (low, high)]
        for i, value in enumerate(rows):
            _store(b, value, target, b.mul(target_row, target_row.type(i)))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), generate


def _prefetch(b: Any, pointer: Any) -> None:
    """Let the memory at a pointer come near while something else is computed."""
    flag = ir.IntType(32)
    arguments = [ir.IntType(8).as_pointer(), flag, flag, flag]
    name = "llvm.prefetch.p0i8"
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), arguments), name)
    b.call(function, [b.bitcast(pointer, arguments[0]), flag(0), flag(3), flag(1)])  # to read, soon again, data


def kernel(rows: int, panels: int) -> Any:
    """Code for a block of a product, C (rows, panels * N) = A (rows, K) W or C += A W, whose sums stay in registers for all K.

    A panel of W is two vectors wide and has K rows. Arguments: K; a pointer to A, the elements from one row of it to the next
    and from one k to the next; a pointer to the first panel, which the others follow; a pointer to C, the elements from one
    row of it to the next; whether to add to C.
    """
    block = [(i, p, v) for i in range(rows) for p in range(panels) for v in range(2)]

    @intrinsic
    def multiply(context: Any, K: Any, A: Any, row: Any, column: Any, W: Any, C: Any, ldc: Any, add: Any) -> Any:
        def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
            K, A, row, column, W, C, ldc, add = arguments
            size = K.type
            vector, n, _ = _vector(A.type.pointee)
            zero, undefined = ir.Constant(vector, [0.0] * n), ir.Constant(vector, ir.Undefined)
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
            name = f"llvm.fmuladd.v{n}{vector.element.intrinsic_name}"
            fma = cgutils.get_or_insert_function(b.module, ir.FunctionType(vector, [vector] * 3), name)
            firsts = [b.gep(A, [b.mul(row, size(i))]) for i in range(rows)]
            streams = [b.gep(W, [b.mul(K, size(p * 2 * n))]) for p in range(panels)]
            outs = [b.add(b.mul(ldc, size(i)), size((2 * p + v) * n)) for i, p, v in block]

            before = b.block
            with b.if_then(add):
                old = [_load(b, C, out) for out in outs]
                adding = b.block
            begin = [b.phi(vector) for _ in block]
            for phi, value in zip(begin, old):
                phi.add_incoming(zero, before)
                phi.add_incoming(value, adding)
            entry, loop, done = b.block, b.append_basic_block("multiply"), b.append_basic_block("store")
            b.branch(loop)

            b.position_at_end(loop)
            k, sums = b.phi(size), [b.phi(vector) for _ in block]
            weights = {
                (p, v): _load(b, streams[p], b.add(b.mul(k, size(2 * n)), size(v * n))) for p in range(panels) for v in range(2)
            }
            for stream in streams:
                for v in range(2):
                    _prefetch(b, b.gep(stream, [b.add(b.mul(b.add(k, size(AHEAD)), size(2 * n)), size(v * n))]))
            states = []
            for first in firsts:
                number = b.load(b.gep(first, [b.mul(k, column)]))
                one = b.insert_element(undefined, number, ir.IntType(32)(0))
                states.append(b.shuffle_vector(one, undefined, everywhere))
            updated = [b.call(fma, [states[i], weights[p, v], total]) for (i, p, v), total in zip(block, sums)]
            following = b.add(k, size(1))
            for phi, first, last in zip([k, *sums], [size(0), *begin], [following, *updated]):
                phi.add_incoming(first, entry)
                phi.add_incoming(last, loop)
            b.cbranch(b.icmp_signed("<", following, K), loop, done)

            b.position_at_end(done)
            for out, total in zip(outs, updated):
                _store(b, total, C, out)
            return context.get_dummy_value()

        arguments = (types.intp, A, types.intp, types.intp, W, C, types.intp, types.boolean)
        return types.void(*arguments), generate

    return multiply
