"""DeltaProduct: several delta-rule steps per token (Siems et al., NeurIPS 2025, arXiv 2502.10297), with a forget gate.

The transition of a token is the decay times a product of `steps` generalised Householder matrices:

    S <- a_t S_{t-1};    S <- S + beta_ti k_ti (v_ti - S^T k_ti)^T    for i = 1 .. steps;    y_t = S^T q_t
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.ops.recurrences.chunks import RecurrenceBackend, Result, run_matrix_recurrence
from titans_seq.ops.recurrences.gated_delta_rule import gated_delta_rule


def delta_product(
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
    """Run the gated DeltaProduct; with one step it is the gated delta rule.

    Args:
        q: (B, T, H, K).
        k: (B, T, steps, H, K), of unit norm.
        v: (B, T, steps, H, V).
        log_decay: (B, T, H), the logarithm of a_t, at most 0.
        beta: (B, T, steps, H), between 0 and 2.
        state: S (B, H, K, V), returned by an earlier call; continues its sequence exactly.
        chunk_size: steps of a chunk; changes the speed, not the result.
        backend: "reference" is the token loop.

    Returns:
        y (B, T, H, V), and S after the last token.

    Raises ValueError when an option is invalid or the state does not fit.
    """
    return run_matrix_recurrence((_loop, _chunked), (q, k, v, log_decay, beta), state, chunk_size, backend)


def _loop(tokens: list[Tensor], state: tuple[Tensor, ...]) -> Result:
    """Compute the equations above, token by token and step by step."""
    (s,), outputs = state, []
    for q, keys, values, log_decay, betas in zip(*(x.unbind(1) for x in tokens), strict=True):
        s = s * log_decay.exp()[..., None, None]
        for k, v, beta in zip(keys.unbind(1), values.unbind(1), betas.unbind(1), strict=True):
            error = v - torch.einsum("bhkv,bhk->bhv", s, k)
            s = s + torch.einsum("bh,bhk,bhv->bhkv", beta, k, error)
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q))
    return torch.stack(outputs, dim=1), (s,)


def _chunked(tokens: list[Tensor], state: tuple[Tensor, ...], chunk_size: int) -> Result:
    """Run the gated delta rule over all steps: the first of a token decays, the last is read."""
    q, k, v, log_decay, beta = tokens
    steps = k.shape[2]
    decays = F.pad(log_decay.unsqueeze(2), (0, 0, 0, steps - 1))  # (B, T, steps, H), 0 after the first
    queries = q.repeat_interleave(steps, dim=1)
    k, v, decays, beta = (x.flatten(1, 2) for x in (k, v, decays, beta))
    y, after = gated_delta_rule(queries, k, v, decays, beta, state[0], chunk_size=chunk_size)
    return y[:, steps - 1 :: steps], (after,)
