"""States of the sequence mixers, constant in size for any sequence length."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class MixerState(NamedTuple):
    """State of a mixer that is a matrix per head."""

    memory: Tensor  # (B, H, K, V)

    def detach(self) -> "MixerState":
        """Return the state detached from the autograd graph."""
        return MixerState(*(x.detach() for x in self))

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under their names, ready for `safetensors.torch.save_file`."""
        return _copies(self._asdict())

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MixerState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        return cls(*_pick(cls.__name__, cls._fields, named))


class ConvMixerState(NamedTuple):
    """State of a mixer with a matrix per head behind a short convolution."""

    memory: Tensor  # (B, H, K, V)
    conv: Tensor  # (B, conv_width - 1, channels), the convolution's last inputs

    def detach(self) -> "ConvMixerState":
        """Return the state detached from the autograd graph."""
        return ConvMixerState(*(x.detach() for x in self))

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under their names, ready for `safetensors.torch.save_file`."""
        return _copies(self._asdict())

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "ConvMixerState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        return cls(*_pick(cls.__name__, cls._fields, named))


class MLSTMState(NamedTuple):
    """State of an mLSTM, see `titans_seq.ops.recurrences.CellState`."""

    memory: Tensor  # (B, H, K, V)
    normaliser: Tensor  # (B, H, K)
    log_scale: Tensor  # (B, H)

    def detach(self) -> "MLSTMState":
        """Return the state detached from the autograd graph."""
        return MLSTMState(*(x.detach() for x in self))

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under their names, ready for `safetensors.torch.save_file`."""
        return _copies(self._asdict())

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MLSTMState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        return cls(*_pick(cls.__name__, cls._fields, named))


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}


def _pick(kind: str, names: Sequence[str], named: Mapping[str, Tensor]) -> list[Tensor]:
    if set(named) != set(names):
        found = ", ".join(sorted(named)) or "none"
        raise ValueError(f"a {kind} must have the tensors {', '.join(names)}; got tensors {found}")
    return [named[name] for name in names]
