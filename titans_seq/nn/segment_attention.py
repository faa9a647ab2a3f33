"""Attention within a segment, over its tokens and their memory reads (Titans, arXiv 2501.00663, section 4.1).

Dimensions: B batch, T tokens, H heads, D features of a head, P persistent tokens, C tokens of a full segment.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.rotary import apply_rotary, rotary_angles


class SegmentCache(NamedTuple):
    """Key-value cache of a partial segment, constant in size; slots without a token yet are zero."""

    keys: Tensor  # (B, 2, C, H, D), rotated: of the memory reads, then of the tokens
    values: Tensor  # (B, 2, C, H, D)


class SegmentAttention(nn.Module):
    """Causal attention over [persistent | read | segment] (eqs 22 and 23).

    Token i of a segment sees the persistent tokens, the reads of tokens 1 to i and tokens 1 to i. Under the plain
    causal mask of the paper's figure, every token would see the reads of all tokens, and through them its own future. A
    token and its read have the same rotary position, counted from the segment's start. Persistent tokens are key-value
    pairs on the features that are not rotated, as in `SlidingWindowAttention`.

    Args:
        dim: features of a token; num_heads must divide it.
        num_heads: heads.
        segment_length: C.
        num_persistent: P.
        rotary_share: fraction of a head's features that is rotated; the number of rotated features must be even.

    Raises ValueError for sizes that do not fit together.
    """

    def __init__(
        self, dim: int, num_heads: int, *, segment_length: int, num_persistent: int = 0, rotary_share: float = 0.5
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim; got {num_heads} and {dim}")
        if segment_length < 1 or num_persistent < 0:
            raise ValueError(
                f"segment_length must be at least 1, num_persistent 0; got {segment_length} and {num_persistent}"
            )
        head_dim = dim // num_heads
        rotated = round(rotary_share * head_dim)
        if not 0 <= rotary_share <= 1 or rotated % 2 or (num_persistent and rotated == head_dim):
            raise ValueError(
                "rotary_share of head_dim must be even, and leave features for persistent tokens; "
                f"got {rotary_share} of {head_dim}"
            )
        self.num_heads = num_heads
        self.segment_length = segment_length
        self.num_persistent = num_persistent
        self.rotated = rotated
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        if num_persistent:
            self.persistent_keys = nn.Parameter(torch.empty(num_persistent, num_heads, head_dim - rotated))
            self.persistent_values = nn.Parameter(torch.empty(num_persistent, num_heads, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the persistent tokens anew; the projections have their own `reset_parameters`."""
        if self.num_persistent:
            nn.init.normal_(self.persistent_keys, std=0.02)
            nn.init.normal_(self.persistent_values, std=0.02)

    def empty_cache(self, x: Tensor) -> SegmentCache:
        """Return the cache of a segment without tokens, for x (B, ..., dim)."""
        zeros = x.new_zeros(x.shape[0], 2, self.segment_length, self.num_heads, x.shape[-1] // self.num_heads)
        return SegmentCache(zeros, zeros)

    def forward(
        self, x: Tensor, read: Tensor, cache: SegmentCache, first: int, valid: Tensor | None = None
    ) -> tuple[Tensor, SegmentCache]:
        """Attend with tokens of one segment, from slot `first` on.

        Args:
            x: tokens (B, T, dim), first + T <= C.
            read: each token's memory read, (B, T, dim).
            cache: keys and values in the slots before `first`; with `valid`, also in slots that are not valid.
            first: slot of the first token.
            valid: (B, T) bool, False where there is no token; the cache is unchanged there.

        Returns:
            (B, T, dim), and the cache including these tokens.
        """
        last = first + x.shape[1]
        q, k, v = torch.unflatten(self.qkv(x), -1, (3, self.num_heads, -1)).unbind(2)  # (B, T, H, D)
        _, to_keys, to_values = self.qkv.weight.chunk(3)
        of_read = (torch.unflatten(F.linear(read, w), -1, (self.num_heads, -1)) for w in (to_keys, to_values))
        new = [torch.stack(pair, dim=1) for pair in zip(of_read, (k, v), strict=True)]  # (B, 2, T, H, D)
        if self.rotated:
            cos, sin = (angles[first:last] for angles in rotary_angles(self.rotated, last, x))
            q, new[0] = apply_rotary(q, cos, sin), apply_rotary(new[0], cos, sin)
        if valid is not None:
            where = valid[:, None, :, None, None]
            new = [torch.where(where, fresh, old[:, :, first:last]) for fresh, old in zip(new, cache, strict=True)]
        cache = SegmentCache(
            *(
                torch.cat([old[:, :, :first], fresh.to(old.dtype), old[:, :, last:]], dim=2)
                for fresh, old in zip(new, cache, strict=True)
            )
        )
        slot = torch.arange(last, device=x.device)
        visible = (slot <= slot[first:, None]).repeat(1, 2)  # (T, 2 last): reads, then tokens
        keys, values = (part[:, :, :last].flatten(1, 2) for part in cache)  # (B, 2 last, H, D)
        if self.num_persistent:
            visible = F.pad(visible, (self.num_persistent, 0), value=True)
            always = F.pad(self.persistent_keys, (self.rotated, 0)), self.persistent_values
            keys, values = (
                torch.cat([pairs.to(part.dtype).expand(len(x), -1, -1, -1), part], dim=1)
                for pairs, part in zip(always, (keys, values), strict=True)
            )
        q, keys, values = (part.transpose(1, 2) for part in (q, keys.to(q.dtype), values.to(q.dtype)))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=visible)
        return self.out(y.transpose(1, 2).flatten(2)), cache
