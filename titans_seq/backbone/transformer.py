"""Attention-only baseline: the same blocks without memory."""

from torch import Tensor, nn

from titans_seq.backbone.parts import build_attention, build_ffn
from titans_seq.nn import AttentionState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import BackboneOptions


class TransformerBlock(nn.Module):
    """Transformer block: x + Attn(x), then x + FFN(x), which is MAL's and MAG's block without the memory."""

    State = AttentionState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(options.dim)
        self.attention = build_attention(options)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor, state: AttentionState | None, mask: Tensor | None) -> tuple[Tensor, AttentionState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        attention_out, state = self.attention(self.attention_norm(x), state, mask=mask)
        x = x + self.dropout(attention_out)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), state
