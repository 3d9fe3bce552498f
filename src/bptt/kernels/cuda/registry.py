"""All kernels for CuPy arrays: to import this module registers them."""

import cupy

from bptt.kernels.cuda import elementwise, gemm, recurrence  # noqa: F401  # each registers its kernels

NAME = "nvrtc " + ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
ARRAY = cupy.ndarray
