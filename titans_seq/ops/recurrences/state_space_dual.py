"""State space dual, SSD: linear attention with a decay per head (Dao & Gu, Mamba-2, ICML 2024, arXiv 2405.21060).

    S_t = a_t S_{t-1} + k_t v_t^T,    y_t = S_t^T q_t

In Mamba-2's terms q is C, k is B, v is the step size times x, and a_t is exp(step size times A). With a constant a it
is the retention of RetNet (Sun et al., 2023, arXiv 2307.08621).
"""

import torch
from torch import Tensor

from titans_seq.ops.recurrences.chunks import (
    RecurrenceBackend,
    Result,
    decay_between,
    from_chunks,
    run_matrix_recurrence,
    to_chunks,
)


def state_space_dual(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    *,
    chunk_size: int = 64,
    backend: RecurrenceBackend = "chunked",
) -> tuple[Tensor, Tensor]:
    """Run the state space dual.

    Args:
        q, k: (B, T, H, K); the key of a token that is to leave the state as it is must be 0, and its log_decay too.
        v: (B, T, H, V).
        log_decay: (B, T, H), the logarithm of a_t, at most 0.
        state: S (B, H, K, V), returned by an earlier call; continues its sequence exactly.
        chunk_size: tokens of a chunk; changes the speed, not the result.
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
        s = s * log_decay.exp()[..., None, None] + torch.einsum("bhk,bhv->bhkv", k, v)
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q))
    return torch.stack(outputs, dim=1), (s,)


def _chunked(tokens: list[Tensor], state: tuple[Tensor, ...], chunk_size: int) -> Result:
    """Attention with decays within chunks, and the recurrence between them."""
    q, k, v, log_decay = (to_chunks(x, chunk_size) for x in tokens)
    total = log_decay.cumsum(-1)
    since, until = total.exp().unsqueeze(-1), (total[..., -1:] - total).exp().unsqueeze(-1)
    within = ((q @ k.mT) * decay_between(total)) @ v
    queries, writes = q * since, (k * until).mT @ v
    (s,), outputs = state, []
    for n in range(len(q)):
        outputs.append(queries[n] @ s + within[n])
        s = since[n, :, :, -1:] * s + writes[n]
    return from_chunks(outputs, tokens[0].shape[1]), (s,)
