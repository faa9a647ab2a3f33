"""Position-wise feed-forward layer."""

from torch import Tensor, nn

from titans_seq.nn.dropout import Dropout


class FeedForward(nn.Module):
    """Two linear layers with GELU and dropout between them."""

    def __init__(self, dim: int, expansion: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, expansion * dim), nn.GELU(), Dropout(dropout), nn.Linear(expansion * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., dim) to (..., dim)."""
        y: Tensor = self.layers(x)
        return y
