"""Layers: plain torch modules from (B, T, dim) to (B, T, dim)."""

from titans_seq.nn.conv import CausalConv
from titans_seq.nn.memory import NeuralMemory, NeuralMemoryState
from titans_seq.nn.norm import InstanceStatistics, ReversibleInstanceNorm

__all__ = ["CausalConv", "InstanceStatistics", "NeuralMemory", "NeuralMemoryState", "ReversibleInstanceNorm"]
