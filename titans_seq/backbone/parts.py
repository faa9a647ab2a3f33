"""Builders of a block's layers from `BackboneOptions`."""

from dataclasses import asdict

from titans_seq.nn import NeuralMemory, SlidingWindowAttention
from titans_seq.nn.feedforward import FeedForward
from titans_seq.schema import BackboneOptions


def build_memory(options: BackboneOptions, num_persistent: int | None = None) -> NeuralMemory:
    """Build the block's memory, with the options' number of persistent tokens unless given."""
    count = options.num_persistent if num_persistent is None else num_persistent
    return NeuralMemory(options.dim, num_persistent=count, **asdict(options.memory))


def build_attention(options: BackboneOptions) -> SlidingWindowAttention:
    """Build the block's sliding-window attention."""
    return SlidingWindowAttention(options.dim, num_persistent=options.num_persistent, **asdict(options.attention))


def build_ffn(options: BackboneOptions) -> FeedForward:
    """Build the block's feed-forward layer."""
    return FeedForward(options.dim, options.ffn_expansion, options.dropout)
