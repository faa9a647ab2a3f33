"""Writes, recurrence and reads with one forget gate per input channel, using the coefficients of `decay`.

Counterpart of `chunked.recurrent` and `chunked.parallel`. Plain differentiable functions of one segment.

Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O a layer's input and output features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.channelwise.decay import ChannelCoefficients, causal_scores, shift_down
from titans_seq.ops.memory.network import ACTIVATIONS, ActivationFunction, residual_error
from titans_seq.ops.memory.state import MemoryStats

# Maps a chunk's index and W and S at its start, by layer, to the inputs and the errors of every layer.
ChannelWriteRule = Callable[[int, list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


class LayerWrites(NamedTuple):
    """Writes of every chunk to a layer, with the chunks' starts; write j is -lr_j inputs_j (outer) errors_j."""

    inputs_NGCI: Tensor  # the layer's inputs for the keys
    errors_NGCO: Tensor  # the errors that reach its outputs
    weights_NGIO: Tensor  # W at each chunk's start
    surprise_NGIO: Tensor  # S at each chunk's start


class _Vjp(torch.autograd.Function):
    """Differentiable `ActivationFunction.vjp`: its backward pass uses the second derivative."""

    @staticmethod
    def forward(ctx: Any, act: ActivationFunction, g: Tensor, z: Tensor) -> Tensor:
        ctx.act = act
        ctx.save_for_backward(g, z)
        return act.vjp(g, z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[None, Tensor, Tensor]:
        g, z = ctx.saved_tensors
        return None, ctx.act.vjp(d, z), d * g * ctx.act.second_derivative(z)


def chunk_rule(tokens: Tokens, reference: list[Tensor] | None, options: Options) -> ChannelWriteRule:
    """Write rule with gradients at the chunk's start (eq 16), or at `reference` for the first chunk."""
    act = ACTIVATIONS[options.activation]
    keys, values = tokens.k.unbind(), tokens.v.unbind()

    def write(n: int, weights: list[Tensor], surprise: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        at = reference if n == 0 and reference is not None else weights
        if options.outer_gradient == "first_order":
            at = [w.detach() for w in at]
        inputs, hidden = [keys[n]], []
        for w in at[:-1]:
            hidden.append(inputs[-1] @ w)
            inputs.append(act.value(hidden[-1]))
        if options.residual:
            errors = [residual_error(keys[n], inputs[-1] @ at[-1], values[n])]
        else:
            errors = [2 * torch.baddbmm(values[n], inputs[-1], at[-1], beta=-1)]
        for w, z in zip(reversed(at[1:]), reversed(hidden), strict=True):
            errors.append(_Vjp.apply(act, errors[-1] @ w.mT, z))  # type: ignore[no-untyped-call]
        return inputs, errors[::-1]

    return write


def online_rule(
    tokens: Tokens, coefficients: ChannelCoefficients, decay_target: list[Tensor] | None, options: Options
) -> ChannelWriteRule:
    """Write rule with gradients at each token's own W_{t-1}, for a matrix memory: one triangular solve per chunk.

    With the scores A of W_{t-1}, error_t = 2 (k_t W_{t-1} - v_t) gives (I + 2 A lr) error = 2 (k start - v).
    """
    first_order = options.outer_gradient == "first_order"

    def maybe_detach(x: Tensor) -> Tensor:
        """Detach a term of W_{t-1} for first-order gradients, which treat it as a constant."""
        return x.detach() if first_order else x

    chunk = coefficients.chunk
    boundaries = [type(boundary)(*map(maybe_detach, boundary)) for boundary in coefficients.boundaries]
    past = ChannelCoefficients(chunk, boundaries)
    scores = causal_scores(tokens.k, maybe_detach(tokens.k), past, before=True) * maybe_detach(tokens.lr).unsqueeze(-2)
    unit = torch.eye(scores.shape[-1], dtype=scores.dtype, device=scores.device)
    inverses = torch.linalg.solve_triangular(unit + 2 * maybe_detach(scores), 2 * unit, upper=False, unitriangular=True)
    of_weights = tokens.k * maybe_detach(shift_down(chunk.keep, 1))
    of_surprise = tokens.k * maybe_detach(shift_down(chunk.cross, 0))
    target = tokens.v
    if decay_target is not None:
        target = target - torch.einsum("ngci,gio->ngco", tokens.k - of_weights, maybe_detach(decay_target[0]))
    keys = tokens.k.unbind()
    steps = [x.unbind() for x in (of_weights, of_surprise, target, inverses, scores)]

    def write(n: int, weights: list[Tensor], surprise: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        from_w, from_s, target_n, inverse, score = (x[n] for x in steps)
        right = torch.baddbmm(
            torch.baddbmm(target_n, from_s, maybe_detach(surprise[0]), beta=-1), from_w, maybe_detach(weights[0])
        )
        error = inverse @ right
        if first_order:  # the same values, with W_{t-1} as a constant
            error = 2 * (right - score @ error.detach())
        return [keys[n]], [error]

    return write


def scan_channel_chunks(
    rule: ChannelWriteRule,
    coefficients: list[ChannelCoefficients],
    lr: Tensor,
    weights: list[Tensor],
    surprise: list[Tensor],
    decay_target: list[Tensor] | None,
) -> tuple[list[LayerWrites], list[Tensor], list[Tensor]]:
    """Run the recurrence over chunks from W and S (G, I, O); return the writes by layer and W and S at the end."""
    ends = [_end_coefficients(layer, lr) for layer in coefficients]
    trace: list[list[LayerWrites]] = [[] for _ in coefficients]
    for n in range(len(lr)):
        inputs, errors = rule(n, weights, surprise)
        chunk = [LayerWrites(*parts) for parts in zip(inputs, errors, weights, surprise, strict=True)]
        weights, surprise = [], []
        for layer, (x, delta, w, s) in enumerate(chunk):
            trace[layer].append(chunk[layer])
            keep, cross, kept_surprise, in_weights, in_surprise = (rows[n] for rows in ends[layer])
            left = torch.addcmul(keep * w, cross, s)
            if decay_target is not None:
                left = torch.addcmul(left, 1 - keep, decay_target[layer])
            weights.append(torch.baddbmm(left, (x * in_weights).mT, delta, alpha=-1))
            surprise.append(torch.baddbmm(kept_surprise * s, (x * in_surprise).mT, delta, alpha=-1))
    writes = [LayerWrites(*map(torch.stack, zip(*chunks, strict=True))) for chunks in trace]
    return writes, weights, surprise


def _end_coefficients(coefficients: ChannelCoefficients, lr: Tensor) -> list[tuple[Tensor, ...]]:
    """Coefficients of the ends of all chunks, by chunk, in the order of `Spans`: last token, and writes times lr."""
    of_start = [x[..., -1, :].unsqueeze(-1) for x in coefficients.chunk[:3]]
    of_writes = [x * lr.unsqueeze(-1) for x in coefficients.chunk[3:]]
    # Unbound once: the gradient of a single slice would be as large as the whole tensor.
    return [x.unbind() for x in (*of_start, *of_writes)]


def read_layer(
    h_NGCI: Tensor, coefficients: ChannelCoefficients, writes: LayerWrites, lr: Tensor, decay_target_GIO: Tensor | None
) -> Tensor:
    """Read h_t W_t for every token, (N, G, C, O)."""
    kept = h_NGCI * coefficients.chunk.keep
    read = kept @ writes.weights_NGIO + (h_NGCI * coefficients.chunk.cross) @ writes.surprise_NGIO
    if decay_target_GIO is not None:
        read = read + torch.einsum("ngci,gio->ngco", h_NGCI - kept, decay_target_GIO)
    scores = causal_scores(h_NGCI, writes.inputs_NGCI, coefficients) * lr.unsqueeze(-2)
    return read - scores @ writes.errors_NGCO


def token_stats(
    tokens: Tokens, valid: Tensor | None, writes: list[LayerWrites], decay_target: list[Tensor] | None
) -> MemoryStats:
    """Stats of a segment, each (N, G, C), token by token, for all chunks at once."""
    valid = torch.ones_like(tokens.lr, dtype=torch.bool) if valid is None else valid
    forgets = tokens.forget.split([layer.inputs_NGCI.shape[-1] for layer in writes], dim=-1)
    squares = []  # by layer, (3, N, G, C)
    for layer, (inputs, errors, weights, surprise) in enumerate(writes):
        w, s, of_layer = weights, surprise, []
        by_token = (x.unbind(2) for x in (inputs, errors, tokens.lr, tokens.momentum, forgets[layer], valid))
        for x, delta, lr, momentum, forget, valid_t in zip(*by_token, strict=True):
            gradient = x.unsqueeze(-1) * delta.unsqueeze(-2)
            next_s = momentum[..., None, None] * s - lr[..., None, None] * gradient
            next_w = (1 - forget).unsqueeze(-1) * w + next_s
            if decay_target is not None:
                next_w = next_w + forget.unsqueeze(-1) * decay_target[layer]
            w, s = (torch.where(valid_t[..., None, None], *pair) for pair in ((next_w, w), (next_s, s)))
            of_layer.append(torch.stack([m.square().sum((-2, -1)) for m in (gradient, s, w)]))
        squares.append(torch.stack(of_layer, dim=-1))
    return MemoryStats(*torch.stack(squares).sum(0).sqrt())
