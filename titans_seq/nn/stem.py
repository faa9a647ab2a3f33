"""From bases to the tokens of a backbone.

Shapes: B sequences, T bases, U tokens (T / stride, rounded up), V kinds of base, D features.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pool = Literal["none", "max"]


def without_padding(mask: Tensor) -> Tensor | None:
    """None for a mask (B, T) that hides nothing: reading on from a state, skipping takes as long again as reading."""
    return None if bool(mask.all()) else mask


class BaseStem(nn.Module):
    """An embedding of bases, a convolution over it, and a token for every `stride` bases.

    Args:
        vocabulary: V.
        dim: D.
        width: bases that the convolution sees, around its own; 1 is a plain embedding.
        stride: bases between tokens.
        pool: "none" computes the convolution at every stride-th base alone. "max" computes it at every base and keeps
            each feature's largest value among `stride` bases, then GELU: a pattern is found wherever it begins.
    """

    def __init__(self, vocabulary: int, dim: int, width: int = 1, stride: int = 1, pool: Pool = "none") -> None:
        super().__init__()
        self.width = width
        self.stride = stride
        self.pool: Pool = pool
        self.embed = nn.Embedding(vocabulary, dim)
        self.conv = nn.Conv1d(dim, dim, width) if width > 1 else None

    @property
    def before(self) -> int:
        """Bases that a token sees before its first one, at u * stride."""
        return (self.width - 1) // 2

    @property
    def after(self) -> int:
        """Bases that a token sees after its first one."""
        return self.width // 2 + (self.stride - 1 if self.pool == "max" else 0)

    def forward(self, bases: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """bases (B, T), int, with mask (B, T), False where there is none, to tokens (B, U, D) with mask (B, U).

        What is no base counts as zero, as do the places beyond both ends. A token is live if its first base is. Without
        a mask all are bases, and all tokens live.
        """
        token_mask = None if mask is None else mask[:, :: self.stride]
        x = self._convolve(bases, mask)
        if self.pool == "max":
            if mask is not None:
                x = x.masked_fill(~mask.unsqueeze(1), -torch.inf)
            x = F.max_pool1d(x, self.stride, ceil_mode=True)
            if token_mask is not None:
                x = x.masked_fill(~token_mask.unsqueeze(1), 0)
            x = F.gelu(x)
        # Blocks add to what they are given: all of them would walk a transposed array.
        return x.transpose(1, 2).contiguous(), token_mask

    def _convolve(self, bases: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, T), or (B, D, U) without pooling."""
        stride = 1 if self.pool == "max" else self.stride
        if self.conv is None:
            x: Tensor = self.embed(bases)
            if mask is not None:
                x = x.masked_fill(~mask.unsqueeze(-1), 0)
            return x.transpose(1, 2)[..., ::stride]
        # Of V kinds of base, each has its own product with every tap: multiplying embedding and taps first leaves a
        # convolution of V channels instead of D.
        weight = torch.einsum("vd,odw->ovw", self.embed.weight, self.conv.weight)
        kinds = torch.arange(self.embed.num_embeddings, device=bases.device)
        is_kind = bases.unsqueeze(1) == kinds.view(-1, 1)
        one_hot = (is_kind if mask is None else is_kind & mask.unsqueeze(1)).to(weight.dtype)
        y: Tensor = F.conv1d(F.pad(one_hot, (self.before, self.width // 2)), weight, self.conv.bias, stride)
        return y
