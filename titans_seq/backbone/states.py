"""Recurrent states of blocks, and their flat tensor names for files."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from torch import Tensor

from titans_seq.nn import AttentionState, NeuralMemoryState


class BlockState(Protocol):
    """Interface of a block's state, which is constant in size for any sequence length."""

    def detach(self) -> Self:
        """Return the state detached from the autograd graph."""

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names."""

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> Self:
        """Rebuild the state from `named_tensors`."""


class HybridState(NamedTuple):
    """State of a block with a memory and sliding-window attention."""

    memory: NeuralMemoryState
    attention: AttentionState

    def detach(self) -> "HybridState":
        """Return the state detached from the autograd graph."""
        return HybridState(self.memory.detach(), self.attention.detach())

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, ready for `safetensors.torch.save_file`."""
        return add_prefixes({"memory": self.memory.named_tensors(), "attention": self.attention.named_tensors()})

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "HybridState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        parts = split_prefixes(named, ("memory", "attention"))
        return cls(
            NeuralMemoryState.from_named_tensors(parts["memory"]), AttentionState.from_named_tensors(parts["attention"])
        )


def add_prefixes(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Merge the tensors of several parts into one dictionary, each name prefixed with its part's: part.name."""
    return {f"{name}.{inner}": x for name, tensors in parts.items() for inner, x in tensors.items()}


def split_prefixes(named: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Undo `add_prefixes`; raises ValueError when a prefix is not one of `names`."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for full, x in named.items():
        name, _, inner = full.partition(".")
        if name not in parts:
            raise ValueError(
                f"unknown tensor {full} in the state; expected a name that starts with one of {', '.join(names)}"
            )
        parts[name][inner] = x
    return parts
