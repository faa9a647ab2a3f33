"""State that the memory carries from one call to the next, and its statistics."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_GROUPS = ("weights", "surprise", "chunk_start")


class MemoryState(NamedTuple):
    """Memory after the last token seen; passing it to the next call continues the sequence exactly.

    Its size does not depend on the number of tokens seen. All tensors but the position are (B, H, d_in, d_out), one per
    layer of the memory, and belong to the autograd graph of the call that returned them; `detach` them for truncated
    backpropagation through time.
    """

    weights: list[Tensor]  # W after the last token
    surprise: list[Tensor]  # S after the last token (eq 14)
    chunk_start: list[Tensor]  # W at the start of the current chunk, where its gradients are taken (eq 16)
    # Tokens seen of the current chunk, int64 on the CPU: (), or (B,) where batch elements may differ. A tensor, so that
    # an exported decode step takes it as an input; an int is accepted too.
    position: int | Tensor
    # Chunk size of the call that returned the state, 1 with online gradients; None: not known, and not checked.
    chunk_size: int | None = None

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, as expected by `safetensors.torch.save_file`."""
        named = {"position": torch.as_tensor(self.position).clone()}
        if self.chunk_size is not None:
            named["chunk_size"] = torch.tensor(self.chunk_size)
        for group in _GROUPS:
            for layer, x in enumerate(getattr(self, group)):
                named[f"{group}.{layer}"] = x.detach().clone(memory_format=torch.contiguous_format)
        return named

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MemoryState":
        """Restore a state from its `named_tensors`; raises ValueError for missing or unknown names.

        Files of version 0.1 have no `chunk_size`.
        """
        depth = sum(name.startswith("weights.") for name in named)
        expected = {"position", *(f"{group}.{layer}" for group in _GROUPS for layer in range(depth))}
        if depth == 0 or set(named) - {"chunk_size"} != expected:
            raise ValueError(f"expected the tensors of a MemoryState; got {', '.join(sorted(named)) or 'none'}")
        weights, surprise, chunk_start = ([named[f"{group}.{layer}"] for layer in range(depth)] for group in _GROUPS)
        chunk_size = int(named["chunk_size"]) if "chunk_size" in named else None
        return cls(weights, surprise, chunk_start, named["position"], chunk_size)

    def detach(self) -> "MemoryState":
        """Return the state detached from the autograd graph."""
        return self._map(Tensor.detach)

    def to(
        self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> "MemoryState":
        """Return the state on another device, in another floating type, or both; the position stays on the CPU."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        return self._map(lambda x: x.to(device=device, dtype=dtype))

    def select(self, index: int) -> "MemoryState":
        """Return the state of one batch element, as a batch of one."""
        return self.index_select([index])

    def index_select(self, index: Sequence[int] | Tensor) -> "MemoryState":
        """Return the states of the batch elements `index` (N,), in this order and with repetitions, as a batch of N."""
        rows = torch.as_tensor(index)
        state = self._map(lambda x: x.index_select(0, rows.to(x.device)))
        position = torch.as_tensor(self.position)
        return state._replace(position=position if position.ndim == 0 else position.index_select(0, rows.cpu()))

    def expand(self, batch: int) -> "MemoryState":
        """Repeat the state of a batch of one for a batch of `batch` elements, without copying it."""
        position = torch.as_tensor(self.position)
        state = self._map(lambda x: x.expand(batch, *x.shape[1:]))
        return state._replace(position=position if position.ndim == 0 else position.expand(batch))

    @classmethod
    def cat(cls, states: Sequence["MemoryState"]) -> "MemoryState":
        """Join the batches of several states of one memory; raises ValueError if their chunk sizes differ."""
        chunk_sizes = {state.chunk_size for state in states}
        if len(chunk_sizes) != 1:
            raise ValueError(f"the states to join must have one chunk_size; got {[s.chunk_size for s in states]}")
        weights, surprise, chunk_start = (
            [torch.cat(layers) for layers in zip(*(getattr(state, group) for state in states), strict=True)]
            for group in _GROUPS
        )
        positions = [torch.as_tensor(state.position) for state in states]
        if all(p.ndim == 0 and torch.equal(p, positions[0]) for p in positions):
            position = positions[0]
        else:
            counts = [len(state.weights[0]) for state in states]
            position = torch.cat([p.expand(count) for p, count in zip(positions, counts, strict=True)])
        return cls(weights, surprise, chunk_start, position, *chunk_sizes)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "MemoryState":
        weights, surprise, chunk_start = ([function(x) for x in group] for group in self[:3])
        return self._replace(weights=weights, surprise=surprise, chunk_start=chunk_start)


# Needed to save an exported program that takes or returns a state.
pytree._register_namedtuple(MemoryState, serialized_type_name="titans_seq.ops.MemoryState")


class MemoryStats(NamedTuple):
    """Norms over all of a memory's layers together (Frobenius), each (B, T, H)."""

    surprise: Tensor  # ||grad l||: the momentary surprise, the inner gradient's norm
    update: Tensor  # ||S_t||: the update added to the weights at t, momentum included
    memory: Tensor  # ||W_t||

    def means(self) -> dict[str, float]:
        """Return the means over batch, tokens and heads, for logging."""
        return {name: float(values.mean()) for name, values in self._asdict().items()}
