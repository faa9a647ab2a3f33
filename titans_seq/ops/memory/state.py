"""State that the memory carries from one call to the next, and its statistics."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class MemoryState(NamedTuple):
    """Memory after the last token seen; passing it to the next call continues the sequence exactly.

    Its size does not depend on the number of tokens seen. All tensors are (B, H, d_in, d_out), one per layer of the
    memory, and belong to the autograd graph of the call that returned them; `detach` them for truncated
    backpropagation through time.
    """

    weights: list[Tensor]  # W after the last token
    surprise: list[Tensor]  # S after the last token (eq 14)
    chunk_start: list[Tensor]  # W at the start of the current chunk, where its gradients are taken (eq 16)
    position: int | Tensor  # tokens seen of the current chunk; (B,) on the CPU where batch elements differ

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, as expected by `safetensors.torch.save_file`."""
        named = {"position": torch.as_tensor(self.position)}
        for group in ("weights", "surprise", "chunk_start"):
            for layer, x in enumerate(getattr(self, group)):
                named[f"{group}.{layer}"] = x.detach().clone(memory_format=torch.contiguous_format)
        return named

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MemoryState":
        """Restore a state from its `named_tensors`; raises ValueError for missing or unknown names."""
        depth = sum(name.startswith("weights.") for name in named)
        expected = {"position", *(f"{g}.{i}" for g in ("weights", "surprise", "chunk_start") for i in range(depth))}
        if depth == 0 or set(named) != expected:
            raise ValueError(f"expected the tensors of a MemoryState; got {', '.join(sorted(named)) or 'none'}")
        weights, surprise, chunk_start = (
            [named[f"{group}.{i}"] for i in range(depth)] for group in ("weights", "surprise", "chunk_start")
        )
        position = named["position"]
        return cls(weights, surprise, chunk_start, position if position.ndim else int(position))

    def detach(self) -> "MemoryState":
        """Return the state detached from the autograd graph."""
        return self._map(Tensor.detach)

    def to(self, dtype: torch.dtype) -> "MemoryState":
        """Return the state in another floating type."""
        return self._map(lambda x: x.to(dtype))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "MemoryState":
        weights, surprise, chunk_start = ([function(x) for x in group] for group in self[:3])
        return MemoryState(weights, surprise, chunk_start, self.position)


class MemoryStats(NamedTuple):
    """Norms over all of a memory's layers together (Frobenius), each (B, T, H)."""

    surprise: Tensor  # ||grad l||: the momentary surprise, the inner gradient's norm
    update: Tensor  # ||S_t||: the update added to the weights at t, momentum included
    memory: Tensor  # ||W_t||

    def means(self) -> dict[str, float]:
        """Return the means over batch, tokens and heads, for logging."""
        return {name: float(values.mean()) for name, values in self._asdict().items()}
