"""States of the sequence mixers, constant in size for any sequence length."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor


class _Named(Protocol):
    """A named tuple of tensors."""

    _fields: tuple[str, ...]

    def _asdict(self) -> dict[str, Tensor]: ...

    @classmethod
    def _make(cls, iterable: list[Tensor]) -> Self: ...


_State = TypeVar("_State", bound=_Named)


class MatrixState(NamedTuple):
    """State of a mixer that is a matrix per head."""

    memory: Tensor  # (B, H, K, V)

    def detach(self) -> "MatrixState":
        """Return the state detached from the autograd graph."""
        return _detach(self)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under their names, ready for `safetensors.torch.save_file`."""
        return _name(self)

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MatrixState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        return _restore(cls, named)


class ConvMatrixState(NamedTuple):
    """State of a mixer with a matrix per head behind a short convolution."""

    memory: Tensor  # (B, H, K, V)
    conv: Tensor  # (B, conv_width - 1, channels), the convolution's last inputs

    def detach(self) -> "ConvMatrixState":
        """Return the state detached from the autograd graph."""
        return _detach(self)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under their names, ready for `safetensors.torch.save_file`."""
        return _name(self)

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "ConvMatrixState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        return _restore(cls, named)


class MLSTMState(NamedTuple):
    """State of an mLSTM, see `titans_seq.ops.recurrences.CellState`."""

    memory: Tensor  # (B, H, K, V)
    normaliser: Tensor  # (B, H, K)
    log_scale: Tensor  # (B, H)

    def detach(self) -> "MLSTMState":
        """Return the state detached from the autograd graph."""
        return _detach(self)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under their names, ready for `safetensors.torch.save_file`."""
        return _name(self)

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "MLSTMState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        return _restore(cls, named)


def _detach(state: _State) -> _State:
    return state._make([x.detach() for x in state._asdict().values()])


def _name(state: _Named) -> dict[str, Tensor]:
    named = state._asdict().items()
    return {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in named}


def _restore(kind: type[_State], named: Mapping[str, Tensor]) -> _State:
    if set(named) != set(kind._fields):
        expected, found = ", ".join(kind._fields), ", ".join(sorted(named)) or "none"
        raise ValueError(f"a {kind.__name__} must have the tensors {expected}; got tensors {found}")
    return kind._make([named[name] for name in kind._fields])
