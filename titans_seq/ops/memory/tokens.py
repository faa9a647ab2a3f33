"""What the memory is given for every token."""

from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """The per-token arguments of `titans_memory`, all of one floating type."""

    q: Tensor  # (B, T, H, D_k)
    k: Tensor  # (B, T, H, D_k)
    v: Tensor  # (B, T, H, D_v)
    lr: Tensor  # (B, T, H)
    momentum: Tensor  # (B, T, H)
    forget: Tensor  # (B, T, H), or (B, T, H, I): per input channel, the layers' d_in on end
