"""The mLSTM cell of xLSTM (Beck et al., NeurIPS 2024, arXiv 2405.04517, eqs 19 to 27), with its stabiliser.

    S_t = f_t S_{t-1} + i_t k_t v_t^T,    n_t = f_t n_{t-1} + i_t k_t,    y_t = S_t^T q_t / max(|n_t . q_t|, 1)

The input gate i_t is an exponential, so S and n are kept divided by exp(m_t), m_t = max(log f_t + m_{t-1}, log i_t).
The outputs do not depend on m, which therefore needs no gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.recurrences.chunks import (
    RecurrenceBackend,
    Result,
    from_chunks,
    later_to_zero,
    run_recurrence,
    to_chunks,
)


class CellState(NamedTuple):
    """State of the mLSTM cell after the last token."""

    memory: Tensor  # S / exp(m), (B, H, K, V)
    normaliser: Tensor  # n / exp(m), (B, H, K)
    log_scale: Tensor  # m, (B, H)


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_forget: Tensor,
    log_input: Tensor,
    state: CellState | None = None,
    *,
    chunk_size: int = 64,
    backend: RecurrenceBackend = "chunked",
) -> tuple[Tensor, CellState]:
    """Run the mLSTM cell.

    Args:
        q, k: (B, T, H, K).
        v: (B, T, H, V).
        log_forget: (B, T, H), the logarithm of f_t, at most 0.
        log_input: (B, T, H), the logarithm of i_t, of any size; -inf with log_forget 0 leaves the state as it is.
        state: returned by an earlier call; continues its sequence exactly.
        chunk_size: tokens of a chunk; changes the speed, not the result.
        backend: "reference" is the token loop.

    Returns:
        y (B, T, H, V), and the state after the last token.

    Raises ValueError when an option is invalid or the state does not fit.
    """
    heads = (q.shape[0], q.shape[2])
    shapes = [(*heads, q.shape[-1], v.shape[-1]), (*heads, q.shape[-1]), heads]
    tokens = (q, k, v, log_forget, log_input)
    y, after = run_recurrence((_loop, _chunked), tokens, state, shapes, chunk_size, backend)
    return y, CellState(*after)


def _loop(tokens: list[Tensor], state: tuple[Tensor, ...]) -> Result:
    """Compute the equations above, token by token."""
    (s, n, m), outputs = state, []
    for q, k, v, log_forget, log_input in zip(*(x.unbind(1) for x in tokens), strict=True):
        new = torch.maximum(log_forget + m, log_input).detach()
        forget, write, m = (log_forget + m - new).exp(), (log_input - new).exp(), new
        s = forget[..., None, None] * s + torch.einsum("bh,bhk,bhv->bhkv", write, k, v)
        n = forget.unsqueeze(-1) * n + write.unsqueeze(-1) * k
        norm = torch.maximum((n * q).sum(-1).abs(), (-m).exp())
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q) / norm.unsqueeze(-1))
    return torch.stack(outputs, dim=1), (s, n, m)


def _chunked(tokens: list[Tensor], state: tuple[Tensor, ...], chunk_size: int) -> Result:
    """Attention with decays within chunks, and the recurrence between them; every token has its own m_t."""
    q, k, v, log_forget, log_input = (to_chunks(x, chunk_size) for x in tokens)
    filling = to_chunks(torch.ones_like(tokens[4]), chunk_size) == 0
    log_input = log_input.masked_fill(filling, -torch.inf)  # the tokens that fill the last chunk write nothing
    total = log_forget.cumsum(-1)
    reach = later_to_zero(total.unsqueeze(-1) - total.unsqueeze(-2) + log_input.unsqueeze(-2), -torch.inf)
    largest = reach.amax(-1).detach()  # (N, B, H, C)
    products = q @ k.mT
    (s, n, m), outputs = state, []
    for i in range(len(q)):
        new = torch.maximum(total[i] + m.unsqueeze(-1), largest[i]).detach()  # m_t
        weights = products[i] * (reach[i] - new.unsqueeze(-1)).exp()
        queries = q[i] * (total[i] + m.unsqueeze(-1) - new).exp().unsqueeze(-1)
        norm = torch.maximum(((queries @ n.unsqueeze(-1)).squeeze(-1) + weights.sum(-1)).abs(), (-new).exp())
        outputs.append((queries @ s + weights @ v[i]) / norm.unsqueeze(-1))
        forget = (total[i, ..., -1] + m - new[..., -1]).exp()
        keys = k[i] * (reach[i, ..., -1, :] - new[..., -1:]).exp().unsqueeze(-1)
        s = forget[..., None, None] * s + keys.mT @ v[i]
        n = forget.unsqueeze(-1) * n + keys.sum(-2)
        m = new[..., -1]
    return from_chunks(outputs, tokens[0].shape[1]), (s, n, m)
