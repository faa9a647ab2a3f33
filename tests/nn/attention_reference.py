"""Reference attention as a loop over queries, to test the layers against."""

from math import sqrt

import torch
from torch import Tensor

from titans_seq.nn.attention import SlidingWindowAttention


def rotate(x_HD: Tensor, position: int, rotated: int, base: float) -> Tensor:
    """Rotate x pair by pair, at an absolute position."""
    half = rotated // 2
    angle = position / base ** (torch.arange(half, dtype=x_HD.dtype) / max(half, 1))
    a, b = x_HD[:, :half], x_HD[:, half:rotated]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), x_HD[:, rotated:]], dim=-1)


def naive_attention(layer: SlidingWindowAttention, x_TC: Tensor, first_position: int = 1000) -> Tensor:
    """Attend within one sequence, one query at a time: absolute positions, a softmax over the visible keys."""
    if len(x_TC) == 0:
        return x_TC
    heads, window = layer.num_heads, layer.window or len(x_TC)
    q_THD, k_THD, v_THD = (layer.qkv.weight @ x_TC.T).T.unflatten(-1, (3, heads, -1)).unbind(1)
    q_THD, k_THD = (
        torch.stack([rotate(x, first_position + t, layer.rotated, layer.rotary_base) for t, x in enumerate(rows)])
        for rows in (q_THD, k_THD)
    )
    persistent_k, persistent_v = k_THD[:0], v_THD[:0]
    if layer.num_persistent:
        unrotated = torch.zeros(heads, layer.num_persistent, layer.rotated, dtype=x_TC.dtype)
        persistent_k = torch.cat([unrotated, layer.persistent_keys], dim=-1).transpose(0, 1)
        persistent_v = layer.persistent_values.transpose(0, 1)
    outputs = []
    for t, q_HD in enumerate(q_THD):
        window_of_t = slice(max(0, t - window + 1), t + 1 if layer.causal else t + window)
        keys, values = torch.cat([persistent_k, k_THD[window_of_t]]), torch.cat([persistent_v, v_THD[window_of_t]])
        weights_KH = torch.exp((q_HD * keys).sum(-1) / sqrt(q_HD.shape[-1]))
        outputs.append((weights_KH[..., None] * values / weights_KH.sum(0)[:, None]).sum(0).flatten())
    return torch.stack(outputs) @ layer.out.weight.T
