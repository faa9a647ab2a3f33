"""Layers: plain torch modules that map (B, T, dim) to (B, T, dim)."""

from titans_seq.nn.attention import AttentionState, SlidingWindowAttention
from titans_seq.nn.conv import CausalConv
from titans_seq.nn.memory import LayerStats, NeuralMemory, NeuralMemoryState
from titans_seq.nn.norm import InstanceStatistics, ReversibleInstanceNorm

__all__ = [
    "AttentionState",
    "CausalConv",
    "InstanceStatistics",
    "LayerStats",
    "NeuralMemory",
    "NeuralMemoryState",
    "ReversibleInstanceNorm",
    "SlidingWindowAttention",
]
