"""Triton kernels of the memory and their launches. Imports nothing, so that Triton is loaded only when used."""
