"""LMM: the neural memory alone, without attention (Titans, arXiv 2501.00663, section 4.4)."""

from dataclasses import asdict

from torch import Tensor, nn

from titans_seq.nn.feedforward import FeedForward
from titans_seq.nn.memory import NeuralMemory, NeuralMemoryState
from titans_seq.schema import MemoryOptions


class LMM(nn.Module):
    """A stack of pre-norm residual blocks, each a neural memory and a feed-forward layer.

    The output is the residual stream itself. A norm after it would take away how large a token is, which a forecast
    needs and a classifier does not: heads that want one bring it.

    Args:
        dim: features of a token.
        num_layers: blocks.
        memory: options of the blocks' memories.
        ffn_expansion: hidden width of the feed-forward layers, in dims.
        dropout: on both residual branches and inside the feed-forward layers.
    """

    def __init__(
        self, dim: int, num_layers: int, memory: MemoryOptions, *, ffn_expansion: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, memory, ffn_expansion, dropout) for _ in range(num_layers))

    def forward(
        self, x: Tensor, state: list[NeuralMemoryState] | None = None
    ) -> tuple[Tensor, list[NeuralMemoryState]]:
        """x (B, T, dim) to (B, T, dim) and one state per block."""
        states = []
        for index, block in enumerate(self.blocks):
            x, block_state = block(x, None if state is None else state[index])
            states.append(block_state)
        return x, states


class _Block(nn.Module):
    def __init__(self, dim: int, memory: MemoryOptions, ffn_expansion: int, dropout: float) -> None:
        super().__init__()
        self.memory_norm = nn.RMSNorm(dim, eps=1e-6)
        self.memory = NeuralMemory(dim, **asdict(memory))
        self.ffn_norm = nn.RMSNorm(dim, eps=1e-6)
        self.ffn = FeedForward(dim, ffn_expansion, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: NeuralMemoryState | None) -> tuple[Tensor, NeuralMemoryState]:
        read, state = self.memory(self.memory_norm(x), state)
        x = x + self.dropout(read)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), state
