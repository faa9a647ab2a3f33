"""Triton kernels of the memory, and their launches. Imports nothing: Triton loads when its kernels are wanted."""
