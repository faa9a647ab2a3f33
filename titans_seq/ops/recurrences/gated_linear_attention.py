"""Gated linear attention, GLA: a decay per feature of the key (Yang et al., ICML 2024, arXiv 2312.06635, eq 3).

S_t = diag(a_t) S_{t-1} + k_t v_t^T,    y_t = S_t^T q_t
"""

import torch
from torch import Tensor

from titans_seq.ops.recurrences.chunks import RecurrenceBackend, Result, from_chunks, run_matrix_recurrence, to_chunks


def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    *,
    chunk_size: int = 16,
    backend: RecurrenceBackend = "chunked",
) -> tuple[Tensor, Tensor]:
    """Run gated linear attention.

    Args:
        q, k: (B, T, H, K); the key of a token that is to leave the state as it is must be 0, and its log_decay too.
        v: (B, T, H, V).
        log_decay: (B, T, H, K), the logarithm of a_t, at most 0.
        state: S (B, H, K, V), returned by an earlier call; continues its sequence exactly.
        chunk_size: tokens of a chunk; changes speed and memory (T chunk_size K numbers per head), not the result.
        backend: "reference" is the token loop.

    Returns:
        y (B, T, H, V), and S after the last token.

    Raises ValueError when an option is invalid or the state does not fit.
    """
    return run_matrix_recurrence((_loop, _chunked), (q, k, v, log_decay), state, chunk_size, backend)


def _loop(tokens: list[Tensor], state: tuple[Tensor, ...]) -> Result:
    """Compute the two equations above, token by token."""
    (s,), outputs = state, []
    for q, k, v, log_decay in zip(*(x.unbind(1) for x in tokens), strict=True):
        s = s * log_decay.exp().unsqueeze(-1) + torch.einsum("bhk,bhv->bhkv", k, v)
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q))
    return torch.stack(outputs, dim=1), (s,)


def _chunked(tokens: list[Tensor], state: tuple[Tensor, ...], chunk_size: int) -> Result:
    """Attention with decays within chunks, and the recurrence between them.

    The decays from j to t are exponentials of differences, which are at most 1. The usual factors q exp(total_t) and
    k exp(-total_j) are faster, but the second overflows where a gate closes.
    """
    q, k, v, log_decay = (to_chunks(x, chunk_size) for x in tokens)
    total = log_decay.cumsum(-2)
    last = total[..., -1:, :]
    queries, writes = q * total.exp(), (k * (last - total).exp()).mT @ v
    (s,), outputs = state, []
    for n in range(len(q)):
        outputs.append(queries[n] @ s + _scores(q[n], k[n], total[n]) @ v[n])
        s = last[n].exp().mT * s + writes[n]
    return from_chunks(outputs, tokens[0].shape[1]), (s,)


def _scores(q: Tensor, k: Tensor, total: Tensor) -> Tensor:
    """Return sum_i q_ti k_ji exp(total_ti - total_ji) for j <= t, and 0 for j > t: (B, H, C, C)."""
    size = total.shape[-2]
    later = torch.ones(size, size, dtype=torch.bool, device=total.device).triu(1).unsqueeze(-1)
    decays = (total.unsqueeze(-2) - total.unsqueeze(-3)).masked_fill(later, -torch.inf).exp()  # (B, H, C, C, K)
    return torch.einsum("bhtjk,bhtk,bhjk->bhtj", decays, q, k)
