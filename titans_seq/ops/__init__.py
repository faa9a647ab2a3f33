"""Mathematics on tensors; needs nothing but torch."""

from titans_seq.ops.memory import MemoryState, MemoryStats, titans_memory

__all__ = ["MemoryState", "MemoryStats", "titans_memory"]
