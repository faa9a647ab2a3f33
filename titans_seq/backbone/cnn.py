"""Convolutional baseline: the same blocks without memory or attention, the usual comparison for DNA models."""

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
    """State of a `CNNBlock`: its convolution's last inputs."""

    recent: Tensor  # (B, kernel_size - 1, dim)

    def detach(self) -> "CNNState":
        """Return the state detached from the autograd graph."""
        return CNNState(self.recent.detach())

    def named_tensors(self) -> dict[str, Tensor]:
        """Return a contiguous copy under its name, ready for `safetensors.torch.save_file`."""
        return {"recent": self.recent.detach().clone(memory_format=torch.contiguous_format)}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "CNNState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        if set(named) != {"recent"}:
            raise ValueError(
                f"a CNNState must have the tensor recent; got tensors {', '.join(sorted(named)) or 'none'}"
            )
        return cls(named["recent"])


class CNNBlock(nn.Module):
    """CNN block: x + GELU(Conv(x)), then x + FFN(x), with a dense convolution over the last `kernel_size` tokens."""

    State = CNNState

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.conv_norm = RMSNorm(options.dim)
        self.conv = DenseCausalConv(options.dim, options.kernel_size)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    def forward(self, x: Tensor, state: CNNState | None, mask: Tensor | None) -> tuple[Tensor, CNNState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        conv_out, recent = self.conv(self.conv_norm(x), state and state.recent, mask)
        x = x + self.dropout(F.gelu(conv_out))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), CNNState(recent)
