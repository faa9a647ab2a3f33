"""Decay coefficients of a chunk's start and writes with one forget gate per input channel, computed by doubling.

With one forget gate per row of W, the coefficient C[t, j] of write j in W_t is a vector over the rows, and the table of
`chunked.decay` would take C x C x I numbers per chunk. It is not needed. Split a span of tokens in two: at token t of
the right half, the coefficient of write j of the left half factors at the boundary between them,

    C[t, j] = keep[t] in_weights[j] + cross[t] in_surprise[j]

and all scores between the halves are a product of (token x channel) tables. The tables of a span follow from those of
its halves, from single tokens up to the chunk. Coefficients are multiplied and added, never divided: gates at exactly 0
and 1 are exact, and nothing overflows.

Shape suffixes: N chunks, G = batch x heads, P spans of one size in a chunk, M tokens of a span, C tokens of a chunk, I
a layer's input channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Spans(NamedTuple):
    """Coefficients of all spans of one size, (N, G, P, M, I), or (N, G, P, M, 1) where all channels are equal."""

    keep: Tensor  # of W before the span, in W_t
    cross: Tensor  # of S before the span, in W_t
    surprise: Tensor  # of S before the span, in S_t; equal for all channels
    in_weights: Tensor  # of write j, in W after the span
    in_surprise: Tensor  # of write j, in S after the span; equal for all channels


class Boundary(NamedTuple):
    """Coefficients between the halves of all spans of one size, shaped as in `Spans`, with M tokens per half."""

    keep: Tensor  # of W at the boundary, in W_t of the right half
    cross: Tensor  # of S at the boundary, in W_t of the right half
    in_weights: Tensor  # of write j of the left half, in W at the boundary
    in_surprise: Tensor  # of write j of the left half, in S at the boundary; equal for all channels


class ChannelCoefficients(NamedTuple):
    """Coefficients of one layer, whose inputs are the channels."""

    chunk: Spans  # the chunk as one span, without P: (N, G, C, I)
    boundaries: list[Boundary]  # from pairs of tokens up; the chunk is padded to a power of two


def channel_coefficients(
    momentum: Tensor, forget: Tensor, valid: Tensor | None, sizes: list[int]
) -> list[ChannelCoefficients]:
    """Coefficients of every layer, from momentum (N, G, C) and forget (N, G, C, I), I = sum of the layers' `sizes`.

    Where `valid` (N, G, C) is False (padding), the token leaves W and S unchanged.
    """
    spans, boundaries = _single_tokens(momentum, forget, valid), []
    while spans.keep.shape[2] > 1:
        boundary, spans = _join(spans)
        boundaries.append(boundary)
    chunk = [x.squeeze(2)[..., : momentum.shape[-1], :] for x in spans]
    by_layer = zip(*(_split(tables, sizes) for tables in (chunk, *boundaries)), strict=True)
    return [ChannelCoefficients(Spans(*whole), [Boundary(*part) for part in parts]) for whole, *parts in by_layer]


def _single_tokens(momentum: Tensor, forget: Tensor, valid: Tensor | None) -> Spans:
    """Coefficients of single tokens, S_t = momentum S + u, W_t = keep W + momentum S + u; padded to a power of two."""
    keep, cross = 1 - forget, momentum
    if valid is not None:
        keep, cross = keep.masked_fill(~valid.unsqueeze(-1), 1), momentum.masked_fill(~valid, 0)
        momentum = momentum.masked_fill(~valid, 1)
    length = momentum.shape[-1]
    missing = (1 << (length - 1).bit_length()) - length
    momentum, cross = (_pad(x.unsqueeze(-1), missing, v) for x, v in ((momentum, 1), (cross, 0)))
    keep, momentum, cross = (x.unsqueeze(-2) for x in (_pad(keep, missing, 1), momentum, cross))
    # Padding tokens write zero, so their coefficients do not matter.
    return Spans(keep, cross.expand_as(keep), momentum, torch.ones_like(keep), torch.ones_like(momentum))


def _pad(rows: Tensor, missing: int, value: float) -> Tensor:
    """Append `missing` rows of `value` to (..., C, I)."""
    return F.pad(rows, (0, 0, 0, missing), value=value) if missing else rows


def _join(spans: Spans) -> tuple[Boundary, Spans]:
    """Join neighbouring spans in pairs: the boundary between them, and spans of twice the size."""
    left, right = (Spans(*halves) for halves in zip(*(x.unflatten(2, (-1, 2)).unbind(3) for x in spans), strict=True))
    keep_l, cross_l, surprise_l = (x[..., -1:, :] for x in left[:3])
    keep_r, cross_r, surprise_r = (x[..., -1:, :] for x in right[:3])
    joined = Spans(
        torch.cat([left.keep, right.keep * keep_l], dim=-2),
        torch.cat([left.cross, torch.addcmul(right.keep * cross_l, right.cross, surprise_l)], dim=-2),
        torch.cat([left.surprise, right.surprise * surprise_l], dim=-2),
        torch.cat([torch.addcmul(left.in_weights * keep_r, left.in_surprise, cross_r), right.in_weights], dim=-2),
        torch.cat([left.in_surprise * surprise_r, right.in_surprise], dim=-2),
    )
    return Boundary(right.keep, right.cross, left.in_weights, left.in_surprise), joined


def _split(tables: Sequence[Tensor], sizes: list[int]) -> list[tuple[Tensor, ...]]:
    """Split tables by layer; tables with equal channels are the same for every layer."""
    total = sum(sizes)
    parts = [x.split(sizes, dim=-1) if x.shape[-1] == total else [x] * len(sizes) for x in tables]
    return list(zip(*parts, strict=True))


def causal_scores(h_NGCI: Tensor, x_NGCI: Tensor, coefficients: ChannelCoefficients, before: bool = False) -> Tensor:
    """Scores of write j in W_t for h_t, sum_i h_t[i] C[t, j, i] x_j[i]: (N, G, C, C), zero above the diagonal.

    With `before`, scores in W_{t-1}, which are zero on the diagonal too.
    """
    length = h_NGCI.shape[-2]
    missing = (1 << len(coefficients.boundaries)) - length
    h, x = (_pad(rows, missing, 0) for rows in (h_NGCI, x_NGCI))
    own = (h * x).sum(-1)  # W_t contains all of write t
    scores = (torch.zeros_like(own) if before else own)[..., None, None]  # (N, G, P, M, M)
    for boundary in coefficients.boundaries:
        keep, cross = (shift_down(boundary.keep, 1), shift_down(boundary.cross, 0)) if before else boundary[:2]
        halves = (2, keep.shape[-2])
        _, h_right = h.unflatten(2, (-1, *halves)).unbind(3)
        x_left, _ = x.unflatten(2, (-1, *halves)).unbind(3)
        through_weights = (h_right * keep) @ (x_left * boundary.in_weights).mT
        through_surprise = (h_right * cross) @ x_left.mT
        across = torch.addcmul(through_weights, through_surprise, boundary.in_surprise.mT)
        left, right = scores.unflatten(2, (-1, 2)).unbind(3)
        above = torch.cat([left, torch.zeros_like(across)], dim=-1)
        scores = torch.cat([above, torch.cat([across, right], dim=-1)], dim=-2)
    return scores.squeeze(2)[..., :length, :length]


def shift_down(table: Tensor, first: float) -> Tensor:
    """Shift coefficients (..., M, I) in W_t to those in W_{t-1}; before the first token they are `first`."""
    return F.pad(table[..., :-1, :], (0, 0, 1, 0), value=first)
