"""A language model of DNA: what base comes next, or stood at a hidden place.

Shapes: B sequences, T bases of a window, L of them to be read, U tokens (L / stride), D features.
"""

from torch import Tensor, nn

from titans_seq.backbone.states import BlockState
from titans_seq.batch import NUM_TOKENS
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.nn.stem import BaseStem, Pool, mask_or_none

NUM_BASES = 4  # A, C, G and T: nobody is asked to guess N


class SequenceLanguageModel(nn.Module):
    """The classifier's stem and backbone under a head that scores four bases for each of a token's `stride` places.

    Args:
        backbone: from (B, U, dim), a state and a mask to (B, U, dim) and a state.
        dim: D.
        stem_width, stride, stem_pool: see `titans_seq.nn.stem.BaseStem`.
        dropout: on the head's input.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        stem_width: int = 1,
        stride: int = 1,
        stem_pool: Pool = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = BaseStem(NUM_TOKENS, dim, stem_width, stride, stem_pool)
        self.backbone = backbone
        self.norm = RMSNorm(dim)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(dim, stride * NUM_BASES)

    def forward(
        self, bases: Tensor, mask: Tensor, state: list[BlockState] | None = None, *, left: int = 0, length: int
    ) -> tuple[Tensor, list[BlockState]]:
        """Scores (B, L, 4), and the state that continues the stretch.

        Args:
            bases: (B, T) int, a window.
            mask: (B, T) bool, False where the window lies beyond the stretch.
            state: of the stretch's earlier segments.
            left: bases of the window before those that are read, a multiple of the stride: the stem sees them, the
                backbone has had their tokens.
            length: L, bases that are read, a multiple of the stride.
        """
        stride = self.stem.stride
        tokens, live = self.stem(bases, mask)
        assert live is not None
        read = slice(left // stride, (left + length) // stride)
        y, state = self.backbone(tokens[:, read], state, mask=mask_or_none(live[:, read]))
        scores: Tensor = self.head(self.dropout(self.norm(y)))
        return scores.unflatten(2, (stride, NUM_BASES)).flatten(1, 2), state
