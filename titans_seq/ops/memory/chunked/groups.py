"""Forward and backward pass of a group of chunks: decay coefficients, the scan that writes, the parallel reads.

A group is as many chunks as the processor's cache holds of the widest tensors, so that the many passes over them find
them there. Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.chunk_rule import ChunkRule
from titans_seq.ops.memory.chunked.online_rule import OnlineRule
from titans_seq.ops.memory.chunked.parallel import read_chunks, read_chunks_backward
from titans_seq.ops.memory.chunked.recurrent import (
    ReadCoefficients,
    UpdateCoefficients,
    WriteRule,
    scan_chunks,
    scan_chunks_backward,
)
from titans_seq.ops.memory.chunked.stacking import halves
from titans_seq.ops.memory.chunked.stats import group_stats
from titans_seq.ops.memory.network import ACTIVATIONS, Normalised, normalise, vjp
from titans_seq.ops.memory.state import MemoryStats


class DecayTables(NamedTuple):
    """The decay tables of W and of S, (C, N, G, 2 + C); see `decay`."""

    weights: Tensor
    surprise: Tensor

    def part(self, chunks: slice) -> "DecayTables":
        """Of some chunks."""
        return DecayTables(*(table[:, chunks] for table in self))


class Group(NamedTuple):
    """What the forward pass over a group leaves for its backward pass."""

    tables: DecayTables
    update_shares: UpdateCoefficients
    read_shares: ReadCoefficients
    rule: WriteRule
    reads: list[Tensor]  # what the layers but the last read; the outputs would keep themselves alive through the graph
    normalised: Normalised | None  # the residual memory's last read


class GroupGradient(NamedTuple):
    """Gradients of what `forward_group` took, but for the states and the table of W, which have room of their own."""

    tokens: Tokens  # of momentum and forget nothing: they follow from `tables`
    last_surprise: Tensor  # of the table of S, of which the last row is all that is used, (N, G, 2 + C)
    reference: list[Tensor] | None
    anchor: list[Tensor]


def forward_group(
    tokens: Tokens,
    tables: DecayTables,
    states: list[Tensor],
    side_by_side: list[bool],
    reference: list[Tensor] | None,
    anchor: list[Tensor] | None,
    options: Options,
) -> tuple[Group, Tensor]:
    """The outputs (N, G, C, O); `states` (N + 1, G, ...) hold M at the first chunk's start, take every end."""
    act = ACTIVATIONS[options.activation]
    in_weights = tables.weights.movedim(0, -2)
    last_weights, last_surprise = tables.weights[-1], tables.surprise[-1]
    ends = torch.stack([last_weights[..., 2:], last_surprise[..., 2:]], dim=-1)
    update_shares = UpdateCoefficients(
        torch.stack([last_weights[..., 0], last_weights[..., 1], last_surprise[..., 1]]),
        ends * tokens.lr.unsqueeze(-1),
    )
    read_shares = _read_shares(in_weights, tokens.lr)
    starts = [room[:-1] for room in states]
    second_order = options.outer_gradient == "exact"
    rule: WriteRule
    if options.gradient == "online":
        past = _read_shares(_one_row_down(in_weights), tokens.lr)
        rule = OnlineRule(tokens.k, tokens.v, starts, past, anchor, second_order)
    else:
        sizes = [halves(room, w)[0].shape[-1] for room, w in zip(states, side_by_side, strict=True)]
        rule = ChunkRule(
            tokens.k, tokens.v, starts, sizes, side_by_side, reference, act, options.residual, second_order
        )
    scan_chunks(rule, update_shares, states, anchor)
    y, reads = read_chunks(tokens.q, rule.writes, read_shares, anchor, act)
    normalised = normalise(y) if options.residual else None
    group = Group(tables, update_shares, read_shares, rule, reads, normalised)
    return group, y if normalised is None else tokens.q + normalised.value


def _read_shares(in_weights: Tensor, lr: Tensor) -> ReadCoefficients:
    """Out of the decay table of W, (N, G, C, 2 + C)."""
    return ReadCoefficients(in_weights[..., :2].contiguous(), in_weights[..., 2:] * lr.unsqueeze(-2))


def _one_row_down(table: Tensor) -> Tensor:
    """The shares of W_{t-1} out of those of W_t; before the first token W is the chunk's start."""
    first = torch.zeros_like(table[..., :1, :])
    first[..., 0] = 1
    return torch.cat([first, table[..., :-1, :]], dim=-2)


def stats_of_group(group: Group, lr: Tensor, anchor: list[Tensor] | None) -> MemoryStats:
    """Stats (N, G, C)."""
    of_surprise = _read_shares(group.tables.surprise.movedim(0, -2), lr)
    return group_stats(group.rule.writes, group.read_shares, of_surprise, anchor)


def backward_group(
    group: Group,
    tokens: Tokens,
    d_y: Tensor,
    d_states: list[Tensor],
    d_table: Tensor,
    anchor: list[Tensor] | None,
    options: Options,
) -> GroupGradient:
    """Back through `forward_group`.

    `d_states` (N + 1, G, ...) by layer holds the gradient of the end's M in its last place and takes those of all
    chunks' starts; that of the table of W goes to `d_table` (N, G, C, 2 + C).
    """
    rule, act = group.rule, ACTIVATIONS[options.activation]
    d_read = d_y if group.normalised is None else vjp(d_y, group.normalised)
    d_starts = [room[:-1] for room in d_states]
    of_reads = read_chunks_backward(
        d_read, tokens.q, group.reads, rule.writes, group.read_shares, anchor, act, d_starts
    )
    of_walk = scan_chunks_backward(rule, group.update_shares, d_states, of_reads.writes, anchor)
    of_rule = of_walk.rule
    d_lr, d_last_surprise = _shares_backward(
        tokens.lr, group.tables, of_reads.shares, of_walk.shares, of_rule.past, d_table
    )
    d_anchors = [part for part in (of_reads.anchor, of_walk.anchor, of_rule.anchor) if part is not None]
    d_anchor = [torch.stack(parts).sum(0) for parts in zip(*d_anchors, strict=True)]
    d_q = of_reads.q_NGCI + d_y if options.residual else of_reads.q_NGCI
    nothing = d_lr.new_empty(0)
    d_tokens = Tokens(d_q, of_rule.k_NGCI, of_rule.v_NGCO, d_lr, nothing, nothing)
    return GroupGradient(d_tokens, d_last_surprise, of_rule.reference, d_anchor)


def _shares_backward(
    lr: Tensor,
    tables: DecayTables,
    d_read: ReadCoefficients,
    d_update: UpdateCoefficients,
    d_past: ReadCoefficients | None,
    d_table: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of lr (N, G, C) and of the last row of the table of S (N, G, 2 + C).

    That of the table of W goes to `d_table` (N, G, C, 2 + C).
    """
    in_weights = tables.weights.movedim(0, -2)
    last_writes = torch.stack([table[-1][..., 2:] for table in tables], dim=-1)
    d_lr = (d_read.writes_NGCC * in_weights[..., 2:]).sum(-2) + (d_update.writes_NGC2 * last_writes).sum(-1)
    d_table[..., :2] = d_read.start_NGC2
    torch.mul(d_read.writes_NGCC, lr.unsqueeze(-2), out=d_table[..., 2:])
    if d_past is not None:
        # Row t of the past is row t - 1 of the table; its first row is constant and holds no writes.
        d_table[..., :-1, :2] += d_past.start_NGC2[..., 1:, :]
        d_table[..., :-1, 2:].addcmul_(d_past.writes_NGCC[..., 1:, :], lr.unsqueeze(-2))
        d_lr += (d_past.writes_NGCC[..., 1:, :] * in_weights[..., :-1, 2:]).sum(-2)
    d_last_writes = d_update.writes_NGC2 * lr.unsqueeze(-1)
    d_a, d_b, d_e = d_update.start_3NG.unbind(0)
    d_table[..., -1, :] += torch.cat([d_a.unsqueeze(-1), d_b.unsqueeze(-1), d_last_writes[..., 0]], dim=-1)
    d_last_surprise = torch.cat([torch.zeros_like(d_e).unsqueeze(-1), d_e.unsqueeze(-1), d_last_writes[..., 1]], dim=-1)
    return d_lr, d_last_surprise
