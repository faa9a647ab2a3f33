"""What blocks carry from one piece of a sequence to the next, in files as well."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from torch import Tensor

from titans_seq.nn import AttentionState, NeuralMemoryState


class BlockState(Protocol):
    """A block's state: constant in size, whatever the length of the sequence so far."""

    def detach(self) -> Self:
        """Cut from the graph that made it."""

    def named_tensors(self) -> dict[str, Tensor]:
        """Contiguous copies under flat names."""

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> Self:
        """What `named_tensors` wrote down."""


class HybridState(NamedTuple):
    """Of a block with a memory and attention over a sliding window."""

    memory: NeuralMemoryState
    attention: AttentionState

    def detach(self) -> "HybridState":
        """The same state, cut from the graph that made it."""
        return HybridState(self.memory.detach(), self.attention.detach())

    def named_tensors(self) -> dict[str, Tensor]:
        """Contiguous copies under flat names, as `safetensors.torch.save_file` takes them."""
        return join({"memory": self.memory.named_tensors(), "attention": self.attention.named_tensors()})

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "HybridState":
        """The state that `named_tensors` wrote down; raises ValueError when a name is missing or unknown."""
        parts = part(named, ("memory", "attention"))
        return cls(
            NeuralMemoryState.from_named_tensors(parts["memory"]), AttentionState.from_named_tensors(parts["attention"])
        )


def join(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Names of parts with the part's own name before them."""
    return {f"{name}.{inner}": x for name, tensors in parts.items() for inner, x in tensors.items()}


def part(named: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The inverse of `join`; raises ValueError when a name belongs to none of `names`."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for full, x in named.items():
        name, _, inner = full.partition(".")
        if name not in parts:
            raise ValueError(f"{full} is no part of this state, which has {', '.join(names)}")
        parts[name][inner] = x
    return parts
