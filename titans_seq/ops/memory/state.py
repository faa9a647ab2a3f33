"""What the memory carries from one call to the next."""

from typing import NamedTuple

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

    def detach(self) -> "MemoryState":
        """The same state, cut from the graph that made it."""
        return self._replace(
            weights=[w.detach() for w in self.weights],
            surprise=[s.detach() for s in self.surprise],
            chunk_start=[w.detach() for w in self.chunk_start],
        )
