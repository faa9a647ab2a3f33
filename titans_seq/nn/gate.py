"""How a block joins what it attended to with what it remembers."""

from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.norm import RMSNorm


class NormalisedGate(nn.Module):
    """attended (x) remembered of Titans, eqs 25 and 28: both normalised with learned weights, one gating the other.

    The paper says that the outputs are normalised "using learnable vector-valued weights, followed by a non-linearity",
    and leaves open which of them goes through it. Here the memory's does, SiLU: it decides what of the attention's
    output passes, and how much, sign included.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attended_norm = RMSNorm(dim)
        self.remembered_norm = RMSNorm(dim)

    def forward(self, attended: Tensor, remembered: Tensor) -> Tensor:
        """Both (B, T, dim)."""
        gated: Tensor = self.attended_norm(attended) * F.silu(self.remembered_norm(remembered))
        return gated
