"""Random arguments for every recurrence, in float64."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.ops import recurrences

BATCH, HEADS, DIM_K, DIM_V, STEPS = 2, 2, 4, 6, 3


class Case(NamedTuple):
    """A recurrence, its random tokens and a function that flattens its state."""

    op: Callable[..., Any]
    tokens: Callable[[int, torch.Generator], list[Tensor]]
    flatten: Callable[[Any], list[Tensor]] = lambda state: [state]
    restore: Callable[[Sequence[Tensor]], Any] = lambda tensors: tensors[0]


def _randn(generator: torch.Generator, length: int, *shape: int) -> Tensor:
    return torch.randn(BATCH, length, *shape, dtype=torch.float64, generator=generator)


def _attention(length: int, generator: torch.Generator) -> list[Tensor]:
    return [_randn(generator, length, HEADS, width) for width in (DIM_K, DIM_K, DIM_V)]


def _decays(length: int, generator: torch.Generator, *shape: int) -> Tensor:
    return F.logsigmoid(_randn(generator, length, HEADS, *shape) + 1)


def _delta_rule(length: int, generator: torch.Generator) -> list[Tensor]:
    q, k, v = _attention(length, generator)
    beta = 2 * torch.sigmoid(_randn(generator, length, HEADS))
    return [q, F.normalize(k, dim=-1), v, _decays(length, generator), beta]


def _product(length: int, generator: torch.Generator) -> list[Tensor]:
    q = _randn(generator, length, HEADS, DIM_K)
    k = F.normalize(_randn(generator, length, STEPS, HEADS, DIM_K), dim=-1)
    v = _randn(generator, length, STEPS, HEADS, DIM_V)
    return [q, k, v, _decays(length, generator), 2 * torch.sigmoid(_randn(generator, length, STEPS, HEADS))]


def _dual(length: int, generator: torch.Generator) -> list[Tensor]:
    return [*_attention(length, generator), _decays(length, generator)]


def _gated(length: int, generator: torch.Generator) -> list[Tensor]:
    return [*_attention(length, generator), _decays(length, generator, DIM_K)]


def _cell(length: int, generator: torch.Generator) -> list[Tensor]:
    return [*_attention(length, generator), _decays(length, generator), 3 * _randn(generator, length, HEADS)]


CASES = {
    "gated_delta_rule": Case(recurrences.gated_delta_rule, _delta_rule),
    "delta_product": Case(recurrences.delta_product, _product),
    "state_space_dual": Case(recurrences.state_space_dual, _dual),
    "gated_linear_attention": Case(recurrences.gated_linear_attention, _gated),
    "mlstm": Case(recurrences.mlstm, _cell, list, lambda tensors: recurrences.CellState(*tensors)),
}


def make_tokens(name: str, length: int, seed: int = 0) -> list[Tensor]:
    """Tokens of a case as leaves of the graph."""
    return [x.requires_grad_() for x in CASES[name].tokens(length, torch.Generator().manual_seed(seed))]
