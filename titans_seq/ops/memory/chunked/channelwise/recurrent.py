"""Writing and reading with the shares of `channel_shares`; what `writes` and `reads` are to one gate for all channels.

Plain differentiable functions of one segment. Shape suffixes: N chunks, G = batch x heads, C tokens of a chunk, I and O
a layer's input and output features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.channelwise.decay import ChannelShares, causal_scores, one_row_down
from titans_seq.ops.memory.network import ACTIVATIONS, ActivationFunction, residual_error
from titans_seq.ops.memory.state import MemoryStats

# A chunk's number and W and S at its start, by layer, to the inputs and the errors of every layer.
WriteRule = Callable[[int, list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


class LayerWrites(NamedTuple):
    """What every chunk wrote into a layer, and onto what. Token j's write is -lr_j inputs_j (outer) errors_j."""

    inputs_NGCI: Tensor  # the layer's inputs for the keys
    errors_NGCO: Tensor  # the errors that reach its outputs
    weights_NGIO: Tensor  # W at each chunk's start
    surprise_NGIO: Tensor  # S at each chunk's start


class _Vjp(torch.autograd.Function):
    """`ActivationFunction.vjp` with its derivative, which the second_derivative gives."""

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


def chunk_rule(tokens: Tokens, reference: list[Tensor] | None, options: Options) -> WriteRule:
    """Gradients at the chunk's start (eq 16), or at `reference` for the first chunk."""
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


def online_rule(tokens: Tokens, shares: ChannelShares, anchor: list[Tensor] | None, options: Options) -> WriteRule:
    """Gradients at every token's own weights W_{t-1}, for a matrix memory: one unit-triangular system per chunk.

    With the scores A of W_{t-1}, error_t = 2 (k_t W_{t-1} - v_t) gives (I + 2 A lr) error = 2 (k start - v).
    """
    first_order = options.outer_gradient == "first_order"

    def fixed(x: Tensor) -> Tensor:
        """What W_{t-1} is made of, which the first order takes for constant."""
        return x.detach() if first_order else x

    chunk, borders = shares.chunk, [type(border)(*map(fixed, border)) for border in shares.borders]
    past = ChannelShares(chunk, borders)
    scores = causal_scores(tokens.k, fixed(tokens.k), past, before=True) * fixed(tokens.lr).unsqueeze(-2)
    unit = torch.eye(scores.shape[-1], dtype=scores.dtype, device=scores.device)
    inverses = torch.linalg.solve_triangular(unit + 2 * fixed(scores), 2 * unit, upper=False, unitriangular=True)
    of_weights = tokens.k * fixed(one_row_down(chunk.keep, 1))
    of_surprise = tokens.k * fixed(one_row_down(chunk.cross, 0))
    target = tokens.v
    if anchor is not None:
        target = target - torch.einsum("ngci,gio->ngco", tokens.k - of_weights, fixed(anchor[0]))
    keys = tokens.k.unbind()
    steps = [x.unbind() for x in (of_weights, of_surprise, target, inverses, scores)]

    def write(n: int, weights: list[Tensor], surprise: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        from_w, from_s, goal, inverse, score = (x[n] for x in steps)
        right = torch.baddbmm(torch.baddbmm(goal, from_s, fixed(surprise[0]), beta=-1), from_w, fixed(weights[0]))
        error = inverse @ right
        if first_order:  # the same values, read from a W_{t-1} that holds them as constants
            error = 2 * (right - score @ error.detach())
        return [keys[n]], [error]

    return write


def walk(
    rule: WriteRule,
    shares: list[ChannelShares],
    lr: Tensor,
    weights: list[Tensor],
    surprise: list[Tensor],
    anchor: list[Tensor] | None,
) -> tuple[list[LayerWrites], list[Tensor], list[Tensor]]:
    """Let `rule` write chunk after chunk, from W and S (G, I, O); the writes by layer, and W and S after the last."""
    ends = [_end_shares(layer, lr) for layer in shares]
    trace: list[list[LayerWrites]] = [[] for _ in shares]
    for n in range(len(lr)):
        inputs, errors = rule(n, weights, surprise)
        chunk = [LayerWrites(*parts) for parts in zip(inputs, errors, weights, surprise, strict=True)]
        weights, surprise = [], []
        for layer, (x, delta, w, s) in enumerate(chunk):
            trace[layer].append(chunk[layer])
            keep, cross, kept_surprise, in_weights, in_surprise = (rows[n] for rows in ends[layer])
            left = torch.addcmul(keep * w, cross, s)
            if anchor is not None:
                left = torch.addcmul(left, 1 - keep, anchor[layer])
            weights.append(torch.baddbmm(left, (x * in_weights).mT, delta, alpha=-1))
            surprise.append(torch.baddbmm(kept_surprise * s, (x * in_surprise).mT, delta, alpha=-1))
    writes = [LayerWrites(*map(torch.stack, zip(*chunks, strict=True))) for chunks in trace]
    return writes, weights, surprise


def _end_shares(shares: ChannelShares, lr: Tensor) -> list[tuple[Tensor, ...]]:
    """What the ends of all chunks are made of, by chunk: as `Spans`, for the last token and for writes times lr."""
    of_start = [x[..., -1, :].unsqueeze(-1) for x in shares.chunk[:3]]
    of_writes = [x * lr.unsqueeze(-1) for x in shares.chunk[3:]]
    return [x.unbind() for x in (*of_start, *of_writes)]  # split once: a slice's gradient is as long as the whole


def read_layer(
    h_NGCI: Tensor, shares: ChannelShares, writes: LayerWrites, lr: Tensor, anchor_GIO: Tensor | None
) -> Tensor:
    """h_t W_t of every token, (N, G, C, O)."""
    kept = h_NGCI * shares.chunk.keep
    read = kept @ writes.weights_NGIO + (h_NGCI * shares.chunk.cross) @ writes.surprise_NGIO
    if anchor_GIO is not None:
        read = read + torch.einsum("ngci,gio->ngco", h_NGCI - kept, anchor_GIO)
    scores = causal_scores(h_NGCI, writes.inputs_NGCI, shares) * lr.unsqueeze(-2)
    return read - scores @ writes.errors_NGCO


def token_stats(
    tokens: Tokens, live: Tensor | None, writes: list[LayerWrites], anchor: list[Tensor] | None
) -> MemoryStats:
    """Stats of a segment, each (N, G, C): every chunk's tokens one by one, all chunks together."""
    live = torch.ones_like(tokens.lr, dtype=torch.bool) if live is None else live
    forgets = tokens.forget.split([layer.inputs_NGCI.shape[-1] for layer in writes], dim=-1)
    squares = []  # by layer, (3, N, G, C)
    for layer, (inputs, errors, weights, surprise) in enumerate(writes):
        w, s, of_layer = weights, surprise, []
        by_token = (x.unbind(2) for x in (inputs, errors, tokens.lr, tokens.momentum, forgets[layer], live))
        for x, delta, lr, momentum, forget, goes_on in zip(*by_token, strict=True):
            gradient = x.unsqueeze(-1) * delta.unsqueeze(-2)
            next_s = momentum[..., None, None] * s - lr[..., None, None] * gradient
            next_w = (1 - forget).unsqueeze(-1) * w + next_s
            if anchor is not None:
                next_w = next_w + forget.unsqueeze(-1) * anchor[layer]
            w, s = (torch.where(goes_on[..., None, None], *pair) for pair in ((next_w, w), (next_s, s)))
            of_layer.append(torch.stack([m.square().sum((-2, -1)) for m in (gradient, s, w)]))
        squares.append(torch.stack(of_layer, dim=-1))
    return MemoryStats(*torch.stack(squares).sum(0).sqrt())
