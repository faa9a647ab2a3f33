"""Kernels of the memory of depth 2."""
