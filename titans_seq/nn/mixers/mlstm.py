"""The mLSTM of xLSTM (Beck et al., arXiv 2405.04517), in the layer of xLSTM-7B (arXiv 2503.13427)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.mixers.parts import fill_masked, full_precision, split_heads
from titans_seq.nn.mixers.states import MLSTMState
from titans_seq.ops.recurrences import CellState, mlstm

_GATE_CAP = 15.0  # the gates' logits are cap tanh(logit / cap)
_INPUT_BIAS, _FORGET_BIAS = -10.0, (3.0, 6.0)


class MLSTM(nn.Module):
    """mLSTM layer of xLSTM-7B: plain projections, an exponential input gate and a sigmoid forget gate per head.

    The output is normalised per head by LayerNorm and gated by a sigmoid.

    Args:
        dim: features of a token.
        num_heads: heads; must divide key_width and value_width.
        key_width, value_width: features of all heads' keys and values together (xLSTM-7B: dim / 2 and dim).
        chunk_size: tokens that are computed together.
    """

    State = MLSTMState

    def __init__(self, dim: int, num_heads: int, *, key_width: int, value_width: int, chunk_size: int = 64) -> None:
        super().__init__()
        self.num_heads, self.chunk_size = num_heads, chunk_size
        self.widths = [key_width, key_width, value_width]
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.gates = nn.Linear(dim, 2 * num_heads)  # input gates, then forget gates
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias[:num_heads].fill_(_INPUT_BIAS)
            self.gates.bias[num_heads:].copy_(torch.linspace(*_FORGET_BIAS, num_heads))
        self.norm = nn.LayerNorm(value_width // num_heads, bias=False)
        self.out_gate = nn.Linear(dim, value_width, bias=False)
        self.out = nn.Linear(value_width, dim, bias=False)

    def forward(
        self, x: Tensor, state: MLSTMState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, MLSTMState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).split(self.widths, dim=-1))
        logits = _GATE_CAP * torch.tanh(full_precision(self.gates(x)) / _GATE_CAP)
        log_input, forget = logits.chunk(2, dim=-1)
        y, cell = mlstm(
            q * q.shape[-1] ** -0.5,
            k,
            v,
            fill_masked(F.logsigmoid(forget), mask),
            fill_masked(log_input, mask, -torch.inf),
            None if state is None else CellState(*state),
            chunk_size=self.chunk_size,
        )
        y = self.norm(y).flatten(2) * self.out_gate(x).sigmoid()
        return self.out(y), MLSTMState(*cell)
