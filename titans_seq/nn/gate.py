"""Gate that combines the outputs of attention and memory."""

from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.norm import RMSNorm


class NormalisedGate(nn.Module):
    """Normalised gate: RMSNorm(attention_out) * SiLU(RMSNorm(memory_out)), the (x) of Titans' eqs 25 and 28.

    The paper normalises both outputs "using learnable vector-valued weights, followed by a non-linearity", and does not
    say which of them goes through the non-linearity. Here the memory's output does, with SiLU: it scales each feature
    of the attention's output and may flip its sign.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attended_norm = RMSNorm(dim)
        self.remembered_norm = RMSNorm(dim)

    def forward(self, attention_out: Tensor, memory_out: Tensor) -> Tensor:
        """Gate attention_out with memory_out, both (B, T, dim): (B, T, dim)."""
        gated: Tensor = self.attended_norm(attention_out) * F.silu(self.remembered_norm(memory_out))
        return gated
