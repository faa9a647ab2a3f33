"""Neural memory of Titans as a function of tensors."""

from titans_seq.ops.memory.op import titans_memory
from titans_seq.ops.memory.state import MemoryState, MemoryStats

__all__ = ["MemoryState", "MemoryStats", "titans_memory"]
