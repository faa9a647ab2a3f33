"""MAG, memory as a gate: memory and attention in parallel (Titans, arXiv 2501.00663, section 4.2)."""

from torch import Tensor, nn

from titans_seq.backbone.parts import build_attention, build_ffn, build_memory
from titans_seq.backbone.states import HybridState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.gate import NormalisedGate
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import BackboneOptions


class MAGBlock(nn.Module):
    """MAG block: sliding-window attention gated by the memory of the same tokens, then a feed-forward layer.

    x~ = [p | x], y = SW-Attn*(x~), o = y (x) M(x~) (eqs 26 to 28), added to the residual stream. Each branch has
    its own persistent tokens, as in MAL.
    """

    State = HybridState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.norm = RMSNorm(options.dim)
        self.memory = build_memory(options)
        self.attention = build_attention(options)
        self.gate = NormalisedGate(options.dim)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor, state: HybridState | None, mask: Tensor | None) -> tuple[Tensor, HybridState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        tokens = self.norm(x)
        attention_out, attention = self.attention(tokens, state and state.attention, mask=mask)
        memory_out, memory = self.memory(tokens, state and state.memory, mask=mask)
        x = x + self.dropout(self.gate(attention_out, memory_out))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), HybridState(memory, attention)
