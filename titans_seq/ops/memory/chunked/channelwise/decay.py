"""What is left of a chunk's start and writes where every input channel forgets at a rate of its own: by doubling.

With one forget gate per row of W, the share C[t, j] of write j in W_t is a vector over the rows, and the table of
`decay` would take C x C x I numbers a chunk. It is not needed. Cut a span of tokens in two: whatever token t of the
right half finds of write j of the left half went through the border, so that its share factors there,

    C[t, j] = keep[t] in_weights[j] + cross[t] in_surprise[j]

and all scores between the halves are a product of (token x channel) tables. Those of a span follow from those of its
halves, from single tokens up to the chunk. Shares are multiplied and added, never divided: gates at exactly 0 and 1 are
exact, and nothing overflows.

Shape suffixes: N chunks, G = batch x heads, P spans of one size in a chunk, M tokens of a span, C tokens of a chunk, I
a layer's input channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Spans(NamedTuple):
    """All spans of one size, (N, G, P, M, I), or (N, G, P, M, 1) where channels are alike."""

    keep: Tensor  # of W before the span, in W_t
    cross: Tensor  # of S before the span, in W_t
    surprise: Tensor  # of S before the span, in S_t; channels alike
    in_weights: Tensor  # of write j, in W after the span
    in_surprise: Tensor  # of write j, in S after the span; channels alike


class Border(NamedTuple):
    """What the halves of all spans of one size need of each other, shaped as in `Spans`, M tokens of a half."""

    keep: Tensor  # of W at the border, in W_t of the right half
    cross: Tensor  # of S at the border, in W_t of the right half
    in_weights: Tensor  # of write j of the left half, in W at the border
    in_surprise: Tensor  # of write j of the left half, in S at the border; channels alike


class ChannelShares(NamedTuple):
    """Of one layer, whose inputs are the channels."""

    chunk: Spans  # the chunk as one span, without P: (N, G, C, I)
    borders: list[Border]  # from pairs of tokens up; the chunk is filled up to a power of two


def channel_shares(momentum: Tensor, forget: Tensor, live: Tensor | None, sizes: list[int]) -> list[ChannelShares]:
    """Of every layer, from momentum (N, G, C) and forget (N, G, C, I), I the layers' inputs (`sizes`) on end.

    Where `live` (N, G, C) is False, W and S pass the token unchanged.
    """
    spans, borders = _single_tokens(momentum, forget, live), []
    while spans.keep.shape[2] > 1:
        border, spans = _join(spans)
        borders.append(border)
    chunk = [x.squeeze(2)[..., : momentum.shape[-1], :] for x in spans]
    by_layer = zip(*(_split(tables, sizes) for tables in (chunk, *borders)), strict=True)
    return [ChannelShares(Spans(*whole), [Border(*part) for part in parts]) for whole, *parts in by_layer]


def _single_tokens(momentum: Tensor, forget: Tensor, live: Tensor | None) -> Spans:
    """S_t = momentum S + u and W_t = keep W + momentum S + u, filled up with tokens that change neither."""
    keep, cross = 1 - forget, momentum
    if live is not None:
        keep, cross = keep.masked_fill(~live.unsqueeze(-1), 1), momentum.masked_fill(~live, 0)
        momentum = momentum.masked_fill(~live, 1)
    length = momentum.shape[-1]
    missing = (1 << (length - 1).bit_length()) - length
    momentum, cross = (_fill_up(x.unsqueeze(-1), missing, v) for x, v in ((momentum, 1), (cross, 0)))
    keep, momentum, cross = (x.unsqueeze(-2) for x in (_fill_up(keep, missing, 1), momentum, cross))
    # What a token that changes nothing writes is zero, whatever its share.
    return Spans(keep, cross.expand_as(keep), momentum, torch.ones_like(keep), torch.ones_like(momentum))


def _fill_up(rows: Tensor, missing: int, value: float) -> Tensor:
    """As many more rows of (..., C, I)."""
    return F.pad(rows, (0, 0, 0, missing), value=value) if missing else rows


def _join(spans: Spans) -> tuple[Border, Spans]:
    """Neighbours in pairs: the borders between them, and spans of twice the size."""
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
    return Border(right.keep, right.cross, left.in_weights, left.in_surprise), joined


def _split(tables: Sequence[Tensor], sizes: list[int]) -> list[tuple[Tensor, ...]]:
    """By layer; where channels are alike, so are layers."""
    total = sum(sizes)
    parts = [x.split(sizes, dim=-1) if x.shape[-1] == total else [x] * len(sizes) for x in tables]
    return list(zip(*parts, strict=True))


def causal_scores(h_NGCI: Tensor, x_NGCI: Tensor, shares: ChannelShares, before: bool = False) -> Tensor:
    """What h_t reads of write j in W_t, sum_i h_t[i] C[t, j, i] x_j[i]: (N, G, C, C), zero above the diagonal.

    With `before`, in W_{t-1}: zero on the diagonal too.
    """
    length = h_NGCI.shape[-2]
    missing = (1 << len(shares.borders)) - length
    h, x = (_fill_up(rows, missing, 0) for rows in (h_NGCI, x_NGCI))
    own = (h * x).sum(-1)  # a token's weights hold all of its own write
    scores = (torch.zeros_like(own) if before else own)[..., None, None]  # (N, G, P, M, M)
    for border in shares.borders:
        keep, cross = (one_row_down(border.keep, 1), one_row_down(border.cross, 0)) if before else border[:2]
        halves = (2, keep.shape[-2])
        _, h_right = h.unflatten(2, (-1, *halves)).unbind(3)
        x_left, _ = x.unflatten(2, (-1, *halves)).unbind(3)
        second_order = (h_right * keep) @ (x_left * border.in_weights).mT
        through_surprise = (h_right * cross) @ x_left.mT
        across = torch.addcmul(second_order, through_surprise, border.in_surprise.mT)
        left, right = scores.unflatten(2, (-1, 2)).unbind(3)
        above = torch.cat([left, torch.zeros_like(across)], dim=-1)
        scores = torch.cat([above, torch.cat([across, right], dim=-1)], dim=-2)
    return scores.squeeze(2)[..., :length, :length]


def one_row_down(table: Tensor, first: float) -> Tensor:
    """The shares (..., M, I) in W_{t-1} from those in W_t; before the first token they are `first`."""
    return F.pad(table[..., :-1, :], (0, 0, 1, 0), value=first)
