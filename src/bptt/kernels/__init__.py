"""Optional faster implementations of accelerated functions: `cpu` for NumPy arrays, `cuda` for CuPy arrays.

Only `acceleration` imports them, when they are asked for: each needs a library that may be missing.
"""
