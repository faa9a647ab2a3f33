"""Chunks whose memory forgets at a rate of its own in every input channel, as one differentiable function.

What `segments` is to one forget gate per token (camera-ready of Titans, NeurIPS 2025, against arXiv 2501.00663 v1). The
state at each segment's start is kept; the backward pass computes a segment again and leaves its derivative to autograd.
Room is needed for the graph of one segment and for the starts of all.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's features.
"""

from math import ceil, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.autograd import SegmentPlan
from titans_seq.ops.memory.chunked.channelwise.decay import channel_shares
from titans_seq.ops.memory.chunked.channelwise.recurrent import (
    LayerWrites,
    chunk_rule,
    online_rule,
    read_layer,
    token_stats,
    walk,
)
from titans_seq.ops.memory.network import ACTIVATIONS, layer_norm

# About the size of a segment's (token x channel) tables, of which its graph holds dozens: larger ones leave the caches.
_TABLE_BYTES = 2**19


class ChannelChunks(torch.autograd.Function):
    """As `segments.Chunks`, for tokens whose forget is (N, G, C, sum of the layers' I)."""

    @staticmethod
    def forward(ctx: Any, plan: SegmentPlan, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Segment after segment; `arguments` are the tokens, then what `SegmentPlan.group` tells apart."""
        tokens, (state, reference, anchor) = Tokens(*arguments[:6]), plan.group(arguments[6:])
        chunks = len(tokens.q)
        per_segment = _chunks_per_segment(tokens.forget, plan.options)
        outputs, starts, stats = [], [], []
        for first in range(0, chunks, per_segment):
            part = slice(first, first + per_segment)
            starts.append(state)
            piece, at = Tokens(*(x[part] for x in tokens)), reference if first == 0 else None
            live = None if plan.live is None else plan.live[part]
            y, state, writes = _run_segment(piece, live, state, at, anchor, plan.options)
            outputs.append(y)
            if plan.stats is not None:
                stats.append(token_stats(piece, live, writes, anchor))
        if plan.stats is not None:
            plan.stats.append(stats)
        ctx.plan, ctx.starts, ctx.per_segment = plan, starts, per_segment
        ctx.save_for_backward(*arguments)
        return torch.cat(outputs), *state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, *d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Segment before segment, each computed again."""
        plan, arguments = ctx.plan, ctx.saved_tensors
        _, reference, anchor = plan.group(arguments[6:])
        d_tokens: list[Tokens] = []  # by segment, the last one first
        d_state, d_reference = list(d_end), [torch.zeros_like(w) for w in reference or []]
        d_anchor = [torch.zeros_like(w) for w in anchor or []]
        for index in reversed(range(len(ctx.starts))):
            part = slice(index * ctx.per_segment, (index + 1) * ctx.per_segment)
            first = plan._replace(own_reference=plan.own_reference or index > 0)
            inputs = [*(x[part] for x in arguments[:6]), *ctx.starts[index]]
            if not first.own_reference:
                inputs.extend(reference)
            inputs.extend(anchor or [])
            live = None if plan.live is None else plan.live[part]
            gradient = _segment_gradient(first, inputs, live, [d_y[part], *d_state])
            d_tokens.append(Tokens(*gradient[:6]))
            d_state, of_reference, of_anchor = first.group(gradient[6:])
            d_reference = of_reference or d_reference
            for total, piece in zip(d_anchor, of_anchor or [], strict=True):
                total.add_(piece)
        joined = map(torch.cat, zip(*reversed(d_tokens), strict=True))
        return None, *joined, *d_state, *d_reference, *d_anchor


def _chunks_per_segment(forget: Tensor, options: Options) -> int:
    """What the caches hold, at least the root of all: there the kept starts and a segment's graph grow alike."""
    if options.checkpoint_every is not None:
        return options.checkpoint_every
    chunks = len(forget)
    table_bytes = forget.numel() * forget.element_size() // chunks
    return max(_TABLE_BYTES // max(table_bytes, 1), ceil(sqrt(chunks)))


def _run_segment(
    tokens: Tokens,
    live: Tensor | None,
    state: list[Tensor],
    reference: list[Tensor] | None,
    anchor: list[Tensor] | None,
    options: Options,
) -> tuple[Tensor, list[Tensor], list[LayerWrites]]:
    """The outputs (N, G, C, O), the end state, W on top of S, and the writes by layer."""
    weights, surprise = ([m.chunk(2, dim=-2)[half] for m in state] for half in range(2))
    shares = channel_shares(tokens.momentum, tokens.forget, live, [w.shape[-2] for w in weights])
    if options.gradient == "online":
        rule = online_rule(tokens, shares[0], anchor, options)
    else:
        rule = chunk_rule(tokens, reference, options)
    writes, weights, surprise = walk(rule, shares, tokens.lr, weights, surprise, anchor)
    h, act = tokens.q, ACTIVATIONS[options.activation]
    for layer, of_layer in enumerate(writes):
        h = act.value(h) if layer else h
        h = read_layer(h, shares[layer], of_layer, tokens.lr, None if anchor is None else anchor[layer])
    y = tokens.q + layer_norm(h) if options.residual else h
    return y, [torch.cat(pair, dim=-2) for pair in zip(weights, surprise, strict=True)], writes


def _segment_gradient(
    plan: SegmentPlan, inputs: list[Tensor], live: Tensor | None, d_results: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of a segment's inputs, laid out as the arguments of `ChannelChunks`, from those of y and the end."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad(), torch.autocast(d_results[0].device.type, enabled=False):
        y, state, _ = _run_segment(Tokens(*leaves[:6]), live, *plan.group(tuple(leaves[6:])), plan.options)
        return torch.autograd.grad([y, *state], leaves, d_results, materialize_grads=True)
