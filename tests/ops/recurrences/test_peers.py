"""The recurrences against code by other authors, which knows nothing of ours.

The naive code of flash-linear-attention computes in float32; the mLSTM, which it does not have, is compared with the
parallel form that its paper gives beside the recurrence.
"""

import pytest
import torch
from fla.ops.gated_delta_product.naive import naive_recurrent_gated_delta_product
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.retention.naive import naive_retention
from fla.ops.simple_gla.naive import naive_recurrent_simple_gla
from torch import Tensor

from tests.ops.recurrences.cases import BATCH, DIM_K, DIM_V, HEADS, STEPS, make_tokens
from titans_seq.ops.recurrences import (
    delta_product,
    gated_delta_rule,
    gated_linear_attention,
    mlstm,
    state_space_dual,
)

LENGTH = 50


def tokens_and_state(name: str) -> tuple[list[Tensor], Tensor]:
    """Tokens and a state that are exact in float32."""
    state = torch.randn(BATCH, HEADS, DIM_K, DIM_V, generator=torch.Generator().manual_seed(2))
    return [x.detach().float() for x in make_tokens(name, LENGTH)], state


def assert_agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.double(), rtol=2e-5, atol=2e-5)


def doubles(*tensors: Tensor) -> list[Tensor]:
    return [x.double() for x in tensors]


def test_gated_delta_rule() -> None:
    (q, k, v, log_decay, beta), state = tokens_and_state("gated_delta_rule")
    expected = naive_recurrent_gated_delta_rule(
        q, k, v, beta, log_decay, scale=1.0, initial_state=state, output_final_state=True
    )
    assert_agree(gated_delta_rule(*doubles(q, k, v, log_decay, beta, state)), expected)


def test_delta_product() -> None:
    (q, k, v, log_decay, beta), state = tokens_and_state("delta_product")
    steps = [x.flatten(1, 2) for x in (k, v, beta)]
    expected = naive_recurrent_gated_delta_product(
        q, *steps[:2], log_decay, steps[2], 1.0, initial_state=state, output_final_state=True, num_householder=STEPS
    )
    assert_agree(delta_product(*doubles(q, k, v, log_decay, beta, state)), expected)


def test_state_space_dual() -> None:
    (q, k, v, log_decay), state = tokens_and_state("state_space_dual")
    expected = naive_recurrent_simple_gla(q, k, v, log_decay, scale=1.0, initial_state=state)
    assert_agree(state_space_dual(*doubles(q, k, v, log_decay, state)), expected)


def test_gated_linear_attention() -> None:
    (q, k, v, log_decay), state = tokens_and_state("gated_linear_attention")
    expected = naive_recurrent_gla(
        q * DIM_K**0.5, k, v, log_decay, initial_state=state, output_final_state=True
    )  # it divides q by the root
    assert_agree(gated_linear_attention(*doubles(q, k, v, log_decay, state)), expected)


def test_retention() -> None:
    """With RetNet's constant decays, 1 - 2^-5 of the first head and so on."""
    (q, k, v, _), _ = tokens_and_state("state_space_dual")
    decays = (1 - 2.0 ** (-5 - torch.arange(HEADS, dtype=torch.float64))).log().expand(BATCH, LENGTH, HEADS)
    expected = naive_retention(*(x.transpose(1, 2) for x in (q * DIM_K**0.5, k, v))).transpose(1, 2)
    found, _ = state_space_dual(*doubles(q, k, v), decays)
    torch.testing.assert_close(found, expected.double(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_mlstm(backend: str) -> None:
    """The parallel form (arXiv 2405.04517, appendix A.3): S~ = Q K^T exp(D), H = S~ V / max(|sum S~|, exp(-m))."""
    q, k, v, log_forget, log_input = (x.detach() for x in make_tokens("mlstm", LENGTH))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    forget, write = (x.transpose(1, 2) for x in (log_forget, log_input))
    outputs = []
    for t in range(LENGTH):
        d = torch.stack([forget[..., j + 1 : t + 1].sum(-1) + write[..., j] for j in range(t + 1)], dim=-1)  # (B, H, J)
        weights = (q[:, :, t, None] * k[:, :, : t + 1]).sum(-1) * d.exp()  # float64 needs no stabiliser here
        norm = weights.sum(-1, keepdim=True).abs().clamp_min(1)
        outputs.append((weights.unsqueeze(-1) * v[:, :, : t + 1]).sum(-2) / norm)
    found, _ = mlstm(*(x.detach() for x in make_tokens("mlstm", LENGTH)), backend=backend)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.stack(outputs, dim=1), rtol=1e-10, atol=1e-10)
