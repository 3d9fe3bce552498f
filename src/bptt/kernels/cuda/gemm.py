"""Matrix products on a CUDA device by a cuBLAS handle of our own: CuPy refuses its own while a CUDA graph is recorded.

They are in true float32, unless CUPY_TF32=1 asks for factors of 10 bits.
"""

import ctypes
import functools
import os
from typing import Any

import cupy

from bptt.backend import Array
from bptt.dispatch import kernel_for
from bptt.nn import linear, ops

WORKSPACE = 32 << 20  # bytes, as NVIDIA advises on Hopper; without one cuBLAS would allocate in the midst of a recording
TF32 = 3  # CUBLAS_TF32_TENSOR_OP_MATH
NO_MEMORY = 3  # CUBLAS_STATUS_ALLOC_FAILED
GEMM: dict[str, tuple[str, Any]] = {"f": ("cublasSgemm_v2", ctypes.c_float), "d": ("cublasDgemm_v2", ctypes.c_double)}


@functools.cache
def _library() -> Any:
    """The cuBLAS that CuPy has loaded; None where it cannot be found by its name."""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    cupy.cuda.device.get_cublas_handle()  # loads it
    try:
        return ctypes.CDLL(f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}")
    except OSError:
        return None


@functools.cache
def _handle(number: int) -> tuple[ctypes.c_void_p, Array]:
    """The handle of a device, and the memory for it to work in."""
    handle = ctypes.c_void_p()
    _checked("cublasCreate_v2", ctypes.byref(handle))
    if os.environ.get("CUPY_TF32") == "1":
        _checked("cublasSetMathMode", handle, TF32)
    return handle, cupy.cuda.alloc(WORKSPACE)


def _checked(name: str, *arguments: Any) -> None:
    """Call a function of cuBLAS."""
    if status := getattr(_library(), name)(*arguments):
        raise (MemoryError if status == NO_MEMORY else RuntimeError)(f"{name} of cuBLAS gave status {status}")


def product(a: Array, b: Array) -> Array:
    """The matrix a b (M, N) of a (M, K) and b (K, N), each of them laid out by rows or by columns."""
    if _library() is None or max(*a.shape, *b.shape) >= 2**31:
        return cupy.matmul(a, b)
    # cuBLAS works by columns, so that what it sees is the transpose of everything: (a b)^T = b^T a^T
    (a, a_turned, a_step), (b, b_turned, b_step) = map(_laid_out, (a, b))
    (M, K), N = a.shape, b.shape[1]
    result = cupy.empty((M, N), a.dtype)
    gemm, kind = GEMM[a.dtype.char]
    handle, memory = _handle(a.device.id)
    _checked("cublasSetStream_v2", handle, ctypes.c_void_p(cupy.cuda.get_current_stream().ptr))  # takes the memory away
    _checked("cublasSetWorkspace_v2", handle, ctypes.c_void_p(memory.ptr), ctypes.c_size_t(WORKSPACE))
    left, right = (ctypes.c_void_p(b.data.ptr), b_step), (ctypes.c_void_p(a.data.ptr), a_step)
    one, zero = ctypes.byref(kind(1)), ctypes.byref(kind(0))
    _checked(gemm, handle, b_turned, a_turned, N, M, K, one, *left, *right, zero, ctypes.c_void_p(result.data.ptr), N)
    return result


def _laid_out(x: Array) -> tuple[Array, bool, int]:
    """A matrix, whether it is laid out by columns, and the numbers from the beginning of one row or column to the next."""
    if x.flags.c_contiguous:
        return x, False, x.shape[1]
    if x.flags.f_contiguous:
        return x, True, x.shape[0]
    rows, columns = (step // x.itemsize for step in x.strides)
    if columns == 1 and x.shape[1] <= rows < 2**31:  # some columns of a wider matrix
        return x, False, rows
    return cupy.ascontiguousarray(x), False, x.shape[1]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


@kernel_for(ops.outer_sum, cupy.ndarray)
def outer_sum(d: Array, x: Array) -> Array:
    """`ops.outer_sum`."""
    return product(_rows(d).T, _rows(x))


@kernel_for(linear.affine, cupy.ndarray)
def affine(W: Array, x: Array, b: Array) -> Array:
    """`linear.affine`."""
    z = product(_rows(x), W.T)
    z += b
    return z.reshape(*x.shape[:2], W.shape[0])


@kernel_for(linear.affine_backward, cupy.ndarray)
def affine_backward(W: Array, x: Array, dz: Array) -> tuple[Array, Array, Array]:
    """`linear.affine_backward`."""
    return product(_rows(dz), W).reshape(x.shape), outer_sum(dz, x), bias_grad(dz)


@kernel_for(ops.bias_grad, cupy.ndarray)
def bias_grad(x: Array) -> Array:
    """`ops.bias_grad`: a product is several times as fast as a sum over rows."""
    x = _rows(x)
    return product(cupy.ones((1, x.shape[0]), x.dtype), x)[0]
