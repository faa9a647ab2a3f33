"""Decay tables: how much of a chunk's start and of each of its writes remains at each of its tokens.

Inside a chunk the recurrences S_t = momentum_t S_{t-1} + u_t and W_t = (1 - forget_t) W_{t-1} + S_t are linear, so W_t
and S_t are weighted sums of the chunk's start and of the writes up to t. Those decay coefficients follow the same two
recurrences. They are computed by running the recurrences, over all chunks at once, rather than by differences of
cumulative logarithms: gates at exactly 0 and 1 are then exact, and nothing loses precision or overflows.

The tables have one row per token and 2 + C columns: the coefficients of the start's W, the start's S, and each write.
"""

import torch
from torch import Tensor


def decay_tables(momentum: Tensor, forget: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the coefficients in W_t and in S_t, two tables (C, ..., 2 + C), from momentum and forget (..., C).

    Where `valid` (..., C) is False (padding), the token leaves W and S unchanged; no value of the gates does that,
    since S_t is always added to W_t.
    """
    length = momentum.shape[-1]
    momentum, keep, adds = _rows(momentum, forget, valid)
    in_weights = momentum.new_empty(*momentum.shape[:-1], length + 2)
    in_surprise = torch.empty_like(in_weights)
    unit = torch.eye(length + 2, dtype=momentum.dtype, device=momentum.device).unbind(0)
    weights, surprise = unit[0], unit[1]  # before the first token: W and S of the start
    # Rows are unbound once: indexing them one by one costs as much as computing them.
    rows = zip(in_weights.unbind(0), in_surprise.unbind(0), momentum.unbind(0), keep.unbind(0), unit[2:], strict=True)
    for t, (weights_row, surprise_row, momentum_t, keep_t, write) in enumerate(rows):
        surprise = torch.addcmul(write, momentum_t, surprise, out=surprise_row)
        added = surprise if adds is None else surprise * adds[t]
        weights = torch.addcmul(added, keep_t, weights, out=weights_row)
    return in_weights, in_surprise


def _rows(momentum: Tensor, forget: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return momentum, 1 - forget, and the factor of S_t in W_t (None: 1), tokens first, (C, ..., 1)."""
    keep, adds = 1 - forget, None
    if valid is not None:
        momentum, keep = momentum.masked_fill(~valid, 1), keep.masked_fill(~valid, 1)
        adds = valid.to(keep.dtype).movedim(-1, 0).unsqueeze(-1)
    return momentum.movedim(-1, 0).unsqueeze(-1), keep.movedim(-1, 0).unsqueeze(-1), adds


def decay_tables_backward(
    momentum: Tensor,
    forget: Tensor,
    valid: Tensor | None,
    tables: tuple[Tensor, Tensor],
    d_weights: Tensor,
    d_last_surprise: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of momentum and forget, both (..., C).

    Takes the gradient of the whole first table, (C, ..., 2 + C), which is overwritten, and of the second table's last
    row, (..., 2 + C), the only row of it that is used.
    """
    in_weights, in_surprise = tables
    length = momentum.shape[-1]
    momentum, keep, adds = _rows(momentum, forget, valid)
    d_keep, d_momentum = (torch.empty_like(momentum.squeeze(-1)) for _ in range(2))
    momentum_rows, keep_rows, d_weights_rows = momentum.unbind(0), keep.unbind(0), d_weights.unbind(0)
    weights_rows, surprise_rows = in_weights.unbind(0), in_surprise.unbind(0)
    d_surprise = d_last_surprise.clone()
    for t in reversed(range(length)):
        d_row = d_weights_rows[t]
        if t < length - 1:
            d_row.addcmul_(keep_rows[t + 1], d_weights_rows[t + 1])
            d_surprise.mul_(momentum_rows[t + 1])
        d_surprise.add_(d_row if adds is None else d_row * adds[t])
        # Before the first token the tables are unit rows: W and S of the start.
        d_keep[t] = (d_row * weights_rows[t - 1]).sum(-1) if t else d_row[..., 0]
        d_momentum[t] = (d_surprise * surprise_rows[t - 1]).sum(-1) if t else d_surprise[..., 1]
    d_momentum, d_forget = d_momentum.movedim(0, -1), -d_keep.movedim(0, -1)
    if valid is not None:
        d_momentum, d_forget = d_momentum.masked_fill(~valid, 0), d_forget.masked_fill(~valid, 0)
    return d_momentum, d_forget
