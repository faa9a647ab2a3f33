"""How much of each write is left at each later token of a chunk.

Inside a chunk the recurrences S_t = momentum_t S_{t-1} + u_t and W_t = (1 - forget_t) W_{t-1} + S_t are linear in the
writes u, so W_t and S_t are weighted sums of the chunk's start and of the writes up to t. Those weights follow the same
two recurrences. They are run as such, over all chunks at once, rather than by differences of cumulative logarithms:
gates at exactly 0 and 1 are then exact, and nothing loses digits or overflows.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Decay(NamedTuple):
    """With chunk start (W, S) and writes u: W_t = start_W W + start_S S + sum_j writes[t, j] u_j, and S at the end."""

    start_weights: Tensor  # (..., c): a[t], the share of the start's weights in W_t; 1 - a is what was forgotten
    start_surprise: Tensor  # (..., c): b[t], the share of the start's surprise in W_t
    writes: Tensor  # (..., c, c): C[t, j], the share of write j in W_t; 0 for j > t
    last_surprise: Tensor  # (...): e, the share of the start's surprise in the last token's surprise
    last_writes: Tensor  # (..., c): the last row of D, the share of write j in the last token's surprise


def chunk_decay(momentum: Tensor, forget: Tensor) -> Decay:
    """Decay weights of chunks of c tokens; momentum and forget (..., c)."""
    length = momentum.shape[-1]
    keep = 1 - forget
    # Column 0 stands for the start's surprise, column 1 + j for write j: one recurrence serves both.
    entry = torch.eye(length + 1, dtype=momentum.dtype, device=momentum.device)
    in_surprise = entry[0].expand(*momentum.shape[:-1], length + 1)
    in_weights = torch.zeros_like(in_surprise)
    rows = []
    for t, (momentum_t, keep_t) in enumerate(zip(momentum.unbind(-1), keep.unbind(-1), strict=True), start=1):
        in_surprise = torch.addcmul(entry[t], momentum_t.unsqueeze(-1), in_surprise)
        in_weights = torch.addcmul(in_surprise, keep_t.unsqueeze(-1), in_weights)
        rows.append(in_weights)
    table = torch.stack(rows, dim=-2)
    return Decay(
        start_weights=keep.cumprod(-1),
        start_surprise=table[..., 0],
        writes=table[..., 1:],
        last_surprise=in_surprise[..., 0],
        last_writes=in_surprise[..., 1:],
    )
