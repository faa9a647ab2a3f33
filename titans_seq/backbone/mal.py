"""MAL, memory as a layer: attention over the output of a memory (Titans, arXiv 2501.00663, section 4.3)."""

from torch import Tensor, nn

from titans_seq.backbone.parts import build_attention, build_ffn, build_memory
from titans_seq.backbone.states import HybridState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import BackboneOptions


class MALBlock(nn.Module):
    """MAL block: memory, then sliding-window attention, then a feed-forward layer.

    x~ = [p | x], y = M(x~), o = SW-Attn(y) (eqs 29 to 31). The equations leave out the residual connections that
    section 4.4 requires in all blocks; here each of the three layers adds to the residual stream, so that attention
    sees the tokens plus the memory's output. Memory and attention have their own persistent tokens: the memory's are
    written first, the attention's are visible to every query.
    """

    State = HybridState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.memory_norm = RMSNorm(options.dim)
        self.memory = build_memory(options)
        self.attention_norm = RMSNorm(options.dim)
        self.attention = build_attention(options)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor, state: HybridState | None, mask: Tensor | None) -> tuple[Tensor, HybridState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        memory_out, memory = self.memory(self.memory_norm(x), state and state.memory, mask=mask)
        x = x + self.dropout(memory_out)
        attention_out, attention = self.attention(self.attention_norm(x), state and state.attention, mask=mask)
        x = x + self.dropout(attention_out)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), HybridState(memory, attention)
