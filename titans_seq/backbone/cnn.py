"""A convolutional network in the same blocks, without memory or attention: the usual peer of models of DNA."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.backbone.parts import build_ffn
from titans_seq.nn.dense_conv import DenseCausalConv
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import BackboneOptions


class CNNState(NamedTuple):
    """The last inputs of a block's convolution, (B, kernel_size - 1, dim)."""

    recent: Tensor

    def detach(self) -> "CNNState":
        """The same state, cut from the graph that made it."""
        return CNNState(self.recent.detach())

    def named_tensors(self) -> dict[str, Tensor]:
        """A contiguous copy under its name, as `safetensors.torch.save_file` takes it."""
        return {"recent": self.recent.detach().clone(memory_format=torch.contiguous_format)}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "CNNState":
        """The state that `named_tensors` wrote down; raises ValueError when a name is missing or unknown."""
        if set(named) != {"recent"}:
            raise ValueError(f"these are not a convolution's tensors: {', '.join(sorted(named)) or 'none'}")
        return cls(named["recent"])


class CNNBlock(nn.Module):
    """x + GELU(Conv(x)), then x + FFN(x): the convolution sees the last `kernel_size` tokens, all features of them."""

    State = CNNState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.conv_norm = RMSNorm(options.dim)
        self.conv = DenseCausalConv(options.dim, options.kernel_size)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor, state: CNNState | None, mask: Tensor | None) -> tuple[Tensor, CNNState]:
        """x (B, T, dim) to (B, T, dim) and the state."""
        seen, recent = self.conv(self.conv_norm(x), state and state.recent, mask)
        x = x + self.dropout(F.gelu(seen))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), CNNState(recent)
