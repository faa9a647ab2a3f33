"""Autograd function over many chunks with one forget gate per input channel.

Counterpart of `chunked.autograd`, which has one forget gate per token (camera-ready of Titans, NeurIPS 2025, as opposed
to arXiv 2501.00663 v1). The state at each segment's start is kept; the backward pass recomputes a segment and
differentiates it with autograd. Memory is needed for the graph of one segment and for the starts of all.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
"""

from math import ceil, sqrt
from typing import Any

import torch
from torch import Tensor

from titans_seq.ops.differentiation import first_derivative_only
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.autograd import SegmentPlan
from titans_seq.ops.memory.chunked.channelwise.decay import channel_coefficients
from titans_seq.ops.memory.chunked.channelwise.recurrent import (
    LayerWrites,
    chunk_rule,
    online_rule,
    read_layer,
    scan_channel_chunks,
    token_stats,
)
from titans_seq.ops.memory.network import ACTIVATIONS, layer_norm

# Approximate size of a (token x channel) table of a segment, whose graph holds dozens: larger ones exceed the caches.
_TABLE_BYTES = 2**19


class ChannelChunks(torch.autograd.Function):
    """`chunked.autograd.Chunks` for tokens whose forget is (N, G, C, sum of the layers' I)."""

    @staticmethod
    def forward(ctx: Any, plan: SegmentPlan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Run the segments in order; `arguments` are the tokens, then the tensors that `SegmentPlan.group` splits."""
        tokens, (state, reference, decay_target) = Tokens(*arguments[:6]), plan.group(arguments[6:])
        chunks = len(tokens.q)
        per_segment = _chunks_per_segment(tokens.forget, plan.options)
        outputs, starts, stats = [], [], []
        for first in range(0, chunks, per_segment):
            part = slice(first, first + per_segment)
            starts.append(state)
            piece, at = Tokens(*(x[part] for x in tokens)), reference if first == 0 else None
            valid = None if plan.valid is None else plan.valid[part]
            y, state, writes = _run_segment(piece, valid, state, at, decay_target, plan.options)
            outputs.append(y)
            if plan.stats is not None:
                stats.append(token_stats(piece, valid, writes, decay_target))
        if plan.stats is not None:
            plan.stats.append(stats)
        ctx.plan, ctx.starts, ctx.per_segment = plan, starts, per_segment
        ctx.save_for_backward(*arguments)
        return torch.cat(outputs), *state

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_y: Tensor, *d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Run the segments in reverse order, recomputing each."""
        plan, arguments = ctx.plan, ctx.saved_tensors
        _, reference, decay_target = plan.group(arguments[6:])
        d_tokens: list[Tokens] = []  # by segment, the last one first
        d_state, d_reference = list(d_end), [torch.zeros_like(w) for w in reference or []]
        d_decay_target = [torch.zeros_like(w) for w in decay_target or []]
        for index in reversed(range(len(ctx.starts))):
            part = slice(index * ctx.per_segment, (index + 1) * ctx.per_segment)
            first = plan._replace(at_chunk_start=plan.at_chunk_start or index > 0)
            inputs = [*(x[part] for x in arguments[:6]), *ctx.starts[index]]
            if not first.at_chunk_start:
                inputs.extend(reference)
            inputs.extend(decay_target or [])
            valid = None if plan.valid is None else plan.valid[part]
            gradient = _segment_gradient(first, inputs, valid, [d_y[part], *d_state])
            d_tokens.append(Tokens(*gradient[:6]))
            d_state, of_reference, of_decay_target = first.group(gradient[6:])
            d_reference = of_reference or d_reference
            for total, piece in zip(d_decay_target, of_decay_target or [], strict=True):
                total.add_(piece)
        joined = map(torch.cat, zip(*reversed(d_tokens), strict=True))
        return None, *joined, *d_state, *d_reference, *d_decay_target


def _chunks_per_segment(forget: Tensor, options: Options) -> int:
    """Return as many chunks as fit the caches, at least the root of their number, which balances starts and graph."""
    if options.checkpoint_every is not None:
        return options.checkpoint_every
    chunks = len(forget)
    table_bytes = forget.numel() * forget.element_size() // chunks
    return max(_TABLE_BYTES // max(table_bytes, 1), ceil(sqrt(chunks)))


def _run_segment(
    tokens: Tokens,
    valid: Tensor | None,
    state: list[Tensor],
    reference: list[Tensor] | None,
    decay_target: list[Tensor] | None,
    options: Options,
) -> tuple[Tensor, list[Tensor], list[LayerWrites]]:
    """Return the outputs (N, G, C, O), the end state (W and S along rows), and the writes by layer."""
    weights, surprise = ([m.chunk(2, dim=-2)[half] for m in state] for half in range(2))
    coefficients = channel_coefficients(tokens.momentum, tokens.forget, valid, [w.shape[-2] for w in weights])
    if options.gradient == "online":
        rule = online_rule(tokens, coefficients[0], decay_target, options)
    else:
        rule = chunk_rule(tokens, reference, options)
    writes, weights, surprise = scan_channel_chunks(rule, coefficients, tokens.lr, weights, surprise, decay_target)
    h, act = tokens.q, ACTIVATIONS[options.activation]
    for layer, of_layer in enumerate(writes):
        h = act.value(h) if layer else h
        h = read_layer(
            h, coefficients[layer], of_layer, tokens.lr, None if decay_target is None else decay_target[layer]
        )
    y = tokens.q + layer_norm(h) if options.residual else h
    return y, [torch.cat(pair, dim=-2) for pair in zip(weights, surprise, strict=True)], writes


def _segment_gradient(
    plan: SegmentPlan, inputs: list[Tensor], valid: Tensor | None, d_results: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of a segment's inputs, in the order of `ChannelChunks`' arguments, from those of y and the end."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad(), torch.autocast(d_results[0].device.type, enabled=False):
        y, state, _ = _run_segment(Tokens(*leaves[:6]), valid, *plan.group(tuple(leaves[6:])), plan.options)
        return torch.autograd.grad([y, *state], leaves, d_results, materialize_grads=True)
