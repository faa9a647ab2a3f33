"""The gated delta rule (Yang, Kautz & Hatamizadeh, "Gated Delta Networks", ICLR 2025, arXiv 2412.06464, eq 10).

S_t = a_t S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T, here with S transposed, (K, V):

    S_t = a_t S_{t-1} + beta_t k_t (v_t - a_t S_{t-1}^T k_t)^T,    y_t = S_t^T q_t

The error is taken after the decay. The online rule of `titans_memory` takes it before, so that the two agree only where
nothing is forgotten (a_t = 1).
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


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    chunk_size: int = 64,
    backend: RecurrenceBackend = "chunked",
) -> tuple[Tensor, Tensor]:
    """Run the gated delta rule.

    Args:
        q, k: (B, T, H, K); keys of unit norm keep the rule stable for beta up to 2.
        v: (B, T, H, V).
        log_decay: (B, T, H), the logarithm of a_t, at most 0.
        beta: (B, T, H), between 0 and 2; 0 with log_decay 0 leaves the state as it is.
        state: S (B, H, K, V), returned by an earlier call; continues its sequence exactly.
        chunk_size: tokens of a chunk; changes the speed, not the result.
        backend: "reference" is the token loop.

    Returns:
        y (B, T, H, V), and S after the last token.

    Raises ValueError when an option is invalid or the state does not fit.
    """
    return run_matrix_recurrence((_loop, _chunked), (q, k, v, log_decay, beta), state, chunk_size, backend)


def _loop(tokens: list[Tensor], state: tuple[Tensor, ...]) -> Result:
    """Compute the two equations above, token by token."""
    (s,), outputs = state, []
    for q, k, v, log_decay, beta in zip(*(x.unbind(1) for x in tokens), strict=True):
        s = s * log_decay.exp()[..., None, None]
        error = v - torch.einsum("bhkv,bhk->bhv", s, k)
        s = s + torch.einsum("bh,bhk,bhv->bhkv", beta, k, error)
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q))
    return torch.stack(outputs, dim=1), (s,)


def _chunked(tokens: list[Tensor], state: tuple[Tensor, ...], chunk_size: int) -> Result:
    """Solve for all writes of a chunk at once.

    With A_t = a_1 ... a_t within the chunk, S_t = A_t S_0 + sum_{j<=t} A_t/A_j k_j u_j^T, and the writes solve
    u_t + beta_t sum_{j<t} A_t/A_j (k_t . k_j) u_j = beta_t (v_t - A_t S_0^T k_t), which is triangular.
    """
    q, k, v, log_decay, beta = (to_chunks(x, chunk_size) for x in tokens)
    total, beta = log_decay.cumsum(-1), beta.unsqueeze(-1)
    between, since = decay_between(total), total.exp().unsqueeze(-1)
    until = (total[..., -1:] - total).exp().unsqueeze(-1)
    system = (beta * (k @ k.mT) * between).tril(-1)  # the ones on the diagonal are implied
    right = torch.cat([beta * v, beta * since * k], dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    from_values, from_state = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    scores, queries, keys = (q @ k.mT) * between, q * since, (k * until).mT
    (s,), outputs = state, []
    for n in range(len(q)):
        writes = from_values[n] - from_state[n] @ s
        outputs.append(queries[n] @ s + scores[n] @ writes)
        s = since[n, :, :, -1:] * s + keys[n] @ writes
    return from_chunks(outputs, tokens[0].shape[1]), (s,)
