"""Forward and backward pass of a group of chunks: decay coefficients, the scan that writes, the parallel reads.

A group is as many chunks as fit the processor's cache with their widest tensors, so that the many passes over them
read from the cache. Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
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
    """Decay tables of W and of S, (C, N, G, 2 + C); see `decay`."""

    weights: Tensor
    surprise: Tensor

    def part(self, chunks: slice) -> "DecayTables":
        """Select some chunks."""
        return DecayTables(*(table[:, chunks] for table in self))


class Group(NamedTuple):
    """Values of a group's forward pass that its backward pass needs."""

    tables: DecayTables
    update_coefficients: UpdateCoefficients
    read_coefficients: ReadCoefficients
    rule: WriteRule
    reads: list[Tensor]  # reads of all layers but the last; keeping the outputs here would be a reference cycle
    normalised: Normalised | None  # the residual memory's last read


class GroupGradient(NamedTuple):
    """Gradients of `forward_group`'s inputs, except the states and the table of W, which are written to buffers."""

    tokens: Tokens  # momentum and forget are empty: their gradients follow from the tables'
    last_surprise: Tensor  # gradient of the table of S, only of its last row, (N, G, 2 + C)
    reference: list[Tensor] | None
    decay_target: list[Tensor]


def forward_group(
    tokens: Tokens,
    tables: DecayTables,
    states: list[Tensor],
    side_by_side: list[bool],
    reference: list[Tensor] | None,
    decay_target: list[Tensor] | None,
    options: Options,
) -> tuple[Group, Tensor]:
    """Return the values for the backward pass and the outputs (N, G, C, O).

    `states` (N + 1, G, ...) hold M at the first chunk's start, and receive M at every chunk's end.
    """
    act = ACTIVATIONS[options.activation]
    in_weights = tables.weights.movedim(0, -2)
    last_weights, last_surprise = tables.weights[-1], tables.surprise[-1]
    ends = torch.stack([last_weights[..., 2:], last_surprise[..., 2:]], dim=-1)
    update_coefficients = UpdateCoefficients(
        torch.stack([last_weights[..., 0], last_weights[..., 1], last_surprise[..., 1]]),
        ends * tokens.lr.unsqueeze(-1),
    )
    read_coefficients = _read_coefficients(in_weights, tokens.lr)
    starts = [buffer[:-1] for buffer in states]
    second_order = options.outer_gradient == "exact"
    rule: WriteRule
    if options.gradient == "online":
        past = _read_coefficients(_shift_down(in_weights), tokens.lr)
        rule = OnlineRule(tokens.k, tokens.v, starts, past, decay_target, second_order)
    else:
        sizes = [halves(buffer, w)[0].shape[-1] for buffer, w in zip(states, side_by_side, strict=True)]
        rule = ChunkRule(
            tokens.k, tokens.v, starts, sizes, side_by_side, reference, act, options.residual, second_order
        )
    scan_chunks(rule, update_coefficients, states, decay_target)
    y, reads = read_chunks(tokens.q, rule.writes, read_coefficients, decay_target, act)
    normalised = normalise(y) if options.residual else None
    group = Group(tables, update_coefficients, read_coefficients, rule, reads, normalised)
    return group, y if normalised is None else tokens.q + normalised.value


def _read_coefficients(in_weights: Tensor, lr: Tensor) -> ReadCoefficients:
    """Read coefficients from the decay table of W, (N, G, C, 2 + C)."""
    return ReadCoefficients(in_weights[..., :2].contiguous(), in_weights[..., 2:] * lr.unsqueeze(-2))


def _shift_down(table: Tensor) -> Tensor:
    """Shift the coefficients of W_t to those of W_{t-1}; before the first token W is the chunk's start."""
    first = torch.zeros_like(table[..., :1, :])
    first[..., 0] = 1
    return torch.cat([first, table[..., :-1, :]], dim=-2)


def stats_of_group(group: Group, lr: Tensor, decay_target: list[Tensor] | None) -> MemoryStats:
    """Stats of a group's tokens, each (N, G, C)."""
    of_surprise = _read_coefficients(group.tables.surprise.movedim(0, -2), lr)
    return group_stats(group.rule.writes, group.read_coefficients, of_surprise, decay_target)


def backward_group(
    group: Group,
    tokens: Tokens,
    d_y: Tensor,
    d_states: list[Tensor],
    d_table: Tensor,
    decay_target: list[Tensor] | None,
    options: Options,
) -> GroupGradient:
    """Gradients of `forward_group`.

    `d_states` (N + 1, G, ...) by layer holds the gradient of the end's M in its last entry and receives those of all
    chunks' starts; that of the table of W is written to `d_table` (N, G, C, 2 + C).
    """
    rule, act = group.rule, ACTIVATIONS[options.activation]
    d_read = d_y if group.normalised is None else vjp(d_y, group.normalised)
    d_starts = [buffer[:-1] for buffer in d_states]
    of_reads = read_chunks_backward(
        d_read, tokens.q, group.reads, rule.writes, group.read_coefficients, decay_target, act, d_starts
    )
    of_scan = scan_chunks_backward(rule, group.update_coefficients, d_states, of_reads.writes, decay_target)
    of_rule = of_scan.rule
    d_lr, d_last_surprise = _coefficients_backward(
        tokens.lr, group.tables, of_reads.coefficients, of_scan.coefficients, of_rule.past, d_table
    )
    d_decay_targets = [
        part for part in (of_reads.decay_target, of_scan.decay_target, of_rule.decay_target) if part is not None
    ]
    d_decay_target = [torch.stack(parts).sum(0) for parts in zip(*d_decay_targets, strict=True)]
    d_q = of_reads.q_NGCI + d_y if options.residual else of_reads.q_NGCI
    empty = d_lr.new_empty(0)
    d_tokens = Tokens(d_q, of_rule.k_NGCI, of_rule.v_NGCO, d_lr, empty, empty)
    return GroupGradient(d_tokens, d_last_surprise, of_rule.reference, d_decay_target)


def _coefficients_backward(
    lr: Tensor,
    tables: DecayTables,
    d_read: ReadCoefficients,
    d_update: UpdateCoefficients,
    d_past: ReadCoefficients | None,
    d_table: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of lr (N, G, C) and of the last row of the table of S (N, G, 2 + C).

    The gradient of the table of W is written to `d_table` (N, G, C, 2 + C).
    """
    in_weights = tables.weights.movedim(0, -2)
    last_writes = torch.stack([table[-1][..., 2:] for table in tables], dim=-1)
    d_lr = (d_read.writes_NGCC * in_weights[..., 2:]).sum(-2) + (d_update.writes_NGC2 * last_writes).sum(-1)
    d_table[..., :2] = d_read.start_NGC2
    torch.mul(d_read.writes_NGCC, lr.unsqueeze(-2), out=d_table[..., 2:])
    if d_past is not None:
        # Row t of `past` is row t - 1 of the table; its first row is constant and contains no writes.
        d_table[..., :-1, :2] += d_past.start_NGC2[..., 1:, :]
        d_table[..., :-1, 2:].addcmul_(d_past.writes_NGCC[..., 1:, :], lr.unsqueeze(-2))
        d_lr += (d_past.writes_NGCC[..., 1:, :] * in_weights[..., :-1, 2:]).sum(-2)
    d_last_writes = d_update.writes_NGC2 * lr.unsqueeze(-1)
    d_a, d_b, d_e = d_update.start_3NG.unbind(0)
    d_table[..., -1, :] += torch.cat([d_a.unsqueeze(-1), d_b.unsqueeze(-1), d_last_writes[..., 0]], dim=-1)
    d_last_surprise = torch.cat([torch.zeros_like(d_e).unsqueeze(-1), d_e.unsqueeze(-1), d_last_writes[..., 1]], dim=-1)
    return d_lr, d_last_surprise
