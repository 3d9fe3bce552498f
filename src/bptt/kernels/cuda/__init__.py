"""Kernels for CuPy arrays: recurrences in one launch (recurrence.py), matrix products and small elementwise kernels."""
