"""Tensor operations; the only dependency is torch."""

from titans_seq.ops.memory import MemoryState, MemoryStats, titans_memory

__all__ = ["MemoryState", "MemoryStats", "titans_memory"]
