"""LMM: the neural memory alone, without attention (Titans, arXiv 2501.00663, section 4.3)."""

from torch import Tensor, nn

from titans_seq.backbone.parts import build_ffn, build_memory
from titans_seq.nn import NeuralMemoryState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import BackboneOptions


class LMMBlock(nn.Module):
    """LMM block: x + M(x), then x + FFN(x). Persistent tokens are written to the memory before the first token."""

    State = NeuralMemoryState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.memory_norm = RMSNorm(options.dim)
        self.memory = build_memory(options)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(
        self, x: Tensor, state: NeuralMemoryState | None, mask: Tensor | None
    ) -> tuple[Tensor, NeuralMemoryState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        memory_out, state = self.memory(self.memory_norm(x), state, mask=mask)
        x = x + self.dropout(memory_out)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), state
