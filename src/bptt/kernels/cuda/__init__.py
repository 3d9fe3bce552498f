"""Kernels for CuPy arrays: recurrences in one launch (recurrence.py), matrix products and small elementwise kernels."""

import cupy

from bptt.kernels.cuda import elementwise, gemm, recurrence  # noqa: F401  # each registers its kernels

NAME = "nvrtc " + ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
ARRAY = cupy.ndarray
