"""Stem of the DNA models: embeds bases and turns them into the tokens of a backbone.

Shapes: B sequences, T bases, U tokens (T / stride, rounded up), V vocabulary size, D features.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pool = Literal["none", "max"]


def mask_or_none(mask: Tensor) -> Tensor | None:
    """Return the mask (B, T), or None if it masks nothing: skipping tokens doubles the cost of continuing a state."""
    return None if bool(mask.all()) else mask


class BaseStem(nn.Module):
    """Base embedding and convolution, with one token for every `stride` bases.

    Args:
        vocabulary: V.
        dim: D.
        width: kernel size of the convolution in bases, centred on its own base; 1 is a plain embedding.
        stride: bases per token.
        pool: "none" computes the convolution only at every stride-th base. "max" computes it at every base, takes each
            feature's maximum over `stride` bases, then applies GELU: a motif is detected at any offset.
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
        """Number of bases in a token's receptive field before its first one, which is at u * stride."""
        return (self.width - 1) // 2

    @property
    def after(self) -> int:
        """Number of bases in a token's receptive field after its first one."""
        return self.width // 2 + (self.stride - 1 if self.pool == "max" else 0)

    def forward(self, bases: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map bases (B, T), int, with a mask (B, T), False at padding, to tokens (B, U, D) with a mask (B, U).

        Padding counts as zero, as do the positions beyond both ends. A token is valid if its first base is. Without a
        mask all bases and all tokens are valid.
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
        # Contiguous, because every block adds to its input: otherwise all of them would work on a transposed array.
        return x.transpose(1, 2).contiguous(), token_mask

    def _convolve(self, bases: Tensor, mask: Tensor | None) -> Tensor:
        """Convolve the embedded bases: (B, D, T), or (B, D, U) without pooling."""
        stride = 1 if self.pool == "max" else self.stride
        if self.conv is None:
            x: Tensor = self.embed(bases)
            if mask is not None:
                x = x.masked_fill(~mask.unsqueeze(-1), 0)
            return x.transpose(1, 2)[..., ::stride]
        # Multiplying the embedding table (V rows) with the kernel first leaves a convolution over V one-hot channels
        # instead of D.
        weight = torch.einsum("vd,odw->ovw", self.embed.weight, self.conv.weight)
        kinds = torch.arange(self.embed.num_embeddings, device=bases.device)
        is_kind = bases.unsqueeze(1) == kinds.view(-1, 1)
        one_hot = (is_kind if mask is None else is_kind & mask.unsqueeze(1)).to(weight.dtype)
        y: Tensor = F.conv1d(F.pad(one_hot, (self.before, self.width // 2)), weight, self.conv.bias, stride)
        return y
