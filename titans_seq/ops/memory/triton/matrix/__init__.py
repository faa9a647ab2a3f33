"""Kernels of the matrix memory (depth 1)."""
