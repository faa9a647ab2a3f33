"""What the memory carries from one call to the next."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class MemoryState(NamedTuple):
    """The memory after the last token seen; passing it on continues the sequence exactly.

    Its size does not depend on the number of tokens seen. All tensors are (B, H, d_in, d_out), one per layer of the
    memory, and belong to the autograd graph of the call that made them: `detach` cuts truncated backpropagation.
    """

    weights: list[Tensor]  # W after the last token
    surprise: list[Tensor]  # S after the last token (eq 14)
    chunk_start: list[Tensor]  # W at the start of the current chunk, where its gradients are taken (eq 16)
    position: int | Tensor  # tokens seen of the current chunk; (B,) on the CPU where batch elements differ in it

    def named_tensors(self) -> dict[str, Tensor]:
        """Contiguous copies under flat names, as `safetensors.torch.save_file` takes them."""
        named = {"position": torch.as_tensor(self.position)}
        for group in ("weights", "surprise", "chunk_start"):
            for layer, x in enumerate(getattr(self, group)):
                named[f"{group}.{layer}"] = x.detach().clone(memory_format=torch.contiguous_format)
        return named

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MemoryState":
        """The state that `named_tensors` wrote down; raises ValueError when a name is missing or unknown."""
        depth = sum(name.startswith("weights.") for name in named)
        expected = {"position", *(f"{g}.{i}" for g in ("weights", "surprise", "chunk_start") for i in range(depth))}
        if depth == 0 or set(named) != expected:
            raise ValueError(f"these are not a MemoryState's tensors: {', '.join(sorted(named)) or 'none'}")
        weights, surprise, chunk_start = (
            [named[f"{group}.{i}"] for i in range(depth)] for group in ("weights", "surprise", "chunk_start")
        )
        position = named["position"]
        return cls(weights, surprise, chunk_start, position if position.ndim else int(position))

    def detach(self) -> "MemoryState":
        """The same state, cut from the graph that made it."""
        return self._map(Tensor.detach)

    def to(self, dtype: torch.dtype) -> "MemoryState":
        """The same state in another floating type."""
        return self._map(lambda x: x.to(dtype))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "MemoryState":
        weights, surprise, chunk_start = ([function(x) for x in group] for group in self[:3])
        return MemoryState(weights, surprise, chunk_start, self.position)


class MemoryStats(NamedTuple):
    """Norms over all of a memory's layers together (Frobenius), each (B, T, H)."""

    surprise: Tensor  # ||grad l||: the momentary surprise, the inner gradient's norm
    update: Tensor  # ||S_t||: what is added to the weights at t, momentum included
    memory: Tensor  # ||W_t||

    def means(self) -> dict[str, float]:
        """Each averaged over batch, tokens and heads, for a log."""
        return {name: float(values.mean()) for name, values in self._asdict().items()}
