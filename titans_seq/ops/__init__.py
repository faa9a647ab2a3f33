"""Mathematics on tensors; needs nothing but torch."""

from titans_seq.ops.memory import MemoryState, titans_memory

__all__ = ["MemoryState", "titans_memory"]
