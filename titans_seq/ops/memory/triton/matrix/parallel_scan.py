"""The matrix memory in parallel over stretches of the sequence, for a few heads that would not fill a GPU.

A stretch is some whole chunks. What it does to its start is affine, and the same for every column of the values:

    [W; S] at its end = A [W; S] at its start + offset          A (2 D, 2 D)

The offset is the end of a walk from zero. A is the end of a walk whose values are zero and whose start are the columns
of the identity. All stretches walk at once, as batch elements; from their A and offsets the start of each follows in
turn, and from their starts they walk once more, for the outputs. Backwards the same: gradients of the start are A^T
times those of the end, plus those that the outputs give.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.triton.configs import CHUNK, Tiles
from titans_seq.ops.memory.triton.matrix.launch import MatrixState, scan_backward, scan_forward, states_backward
from titans_seq.ops.memory.triton.plan import LaunchPlan

# Programs of a walk that a multiprocessor holds at once; so many are wanted.
_PROGRAMS = 4
# The walk for A is as wide as 2 D, and there is one for the offset: some four times the work has to pay.
_FEWEST_STRETCHES = 8
_FEWEST_TILES = 8  # of a stretch


class Cut(NamedTuple):
    """Tokens in a row, and in how many stretches they are walked."""

    first: int
    stop: int
    stretches: int


def cut_stretches(tokens: Tokens, options: Options, tiles: Tiles, chunk_size: int, position: int) -> list[Cut]:
    """The rest of an open chunk, the stretches, and what is left over; or all as one."""
    length = tokens.q.shape[1]
    head = min(-position % chunk_size, length)
    chunks = (length - head) // chunk_size
    stretches = 1
    if options.outer_gradient == "exact":  # A^T is that of exact gradients
        stretches = count_stretches(tokens, tiles, chunks * -(-chunk_size // CHUNK))
    size = chunks // stretches * chunk_size
    if stretches == 1 or size == 0:
        return [Cut(0, length, 1)]
    body = head + stretches * size
    cuts = [Cut(0, head, 1), Cut(head, body, stretches), Cut(body, length, 1)]
    return [cut for cut in cuts if cut.stop > cut.first]


def count_stretches(tokens: Tokens, tiles: Tiles, length: int) -> int:
    """How many stretches of a length in tiles fill the GPU, or 1 where they do not pay."""
    if not tokens.q.is_cuda:
        return 1
    batch, _, heads, _ = tokens.q.shape
    programs = batch * heads * tiles.blocks
    room = _PROGRAMS * torch.cuda.get_device_properties(tokens.q.device).multi_processor_count
    stretches = min(room // programs, length // _FEWEST_TILES)
    return stretches if stretches >= _FEWEST_STRETCHES else 1


class ParallelMatrixMemory(torch.autograd.Function):
    """Tokens of whole stretches, and W, S (G, D, V), to outputs (B, T, H, V) and W, S at the end.

    The plan is one stretch's. N stretches are batch elements (B N, ...) to the kernels.
    """

    @staticmethod
    def forward(ctx: Any, plan: LaunchPlan, stretches: int, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Two walks for A and offsets, one for the outputs."""
        *inputs, weights, surprise = (x.contiguous() for x in arguments)
        batch, heads = inputs[0].shape[0], inputs[0].shape[2]
        tokens = Tokens(*(_in_stretches(x, stretches) for x in inputs))
        zero = weights.new_zeros(batch * stretches * heads, *weights.shape[1:])
        _, offsets, _ = scan_forward(plan, tokens, (zero, zero), zero)
        order = (batch, stretches, heads)
        affine = _transitions(plan, tokens).unflatten(0, order)
        starts = _scan(affine.unbind(1), _join(offsets).unflatten(0, order).unbind(1), _join((weights, surprise)))
        state = _split(torch.stack(starts[:-1], dim=1).flatten(0, 2))
        y, ends, kept = scan_forward(plan, tokens, state, state[0])
        ctx.plan, ctx.kept, ctx.order = plan, kept, order
        ctx.save_for_backward(*tokens, affine)
        last = (w.unflatten(0, order)[:, -1].flatten(0, 1).contiguous() for w in ends)
        return y.unflatten(0, (batch, stretches)).flatten(1, 2), *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_weights: Tensor, d_surprise: Tensor) -> tuple[Any, ...]:
        """One walk for what the outputs give to the starts, one for the rest."""
        *inputs, affine = ctx.saved_tensors
        tokens, plan, order = Tokens(*inputs), ctx.plan, ctx.order
        d_y = _in_stretches(d_y, order[1])
        zero = d_weights.new_zeros(len(tokens.q) * order[2], *d_weights.shape[1:])
        offsets = _join(states_backward(plan, tokens, d_y, (zero, zero))).unflatten(0, order)
        d_ends = _scan(
            affine.mT.unbind(1)[::-1], offsets.unbind(1)[::-1], _join((d_weights.contiguous(), d_surprise.contiguous()))
        )
        d_state = _split(torch.stack(d_ends[:-1][::-1], dim=1).flatten(0, 2))
        d_tokens, d_starts = scan_backward(plan, tokens, ctx.kept, d_y, d_state, torch.zeros_like(zero))
        first = (w.unflatten(0, order)[:, 0].flatten(0, 1) for w in d_starts)
        return None, None, *(x.unflatten(0, order[:2]).flatten(1, 2) for x in d_tokens), *first


def _in_stretches(x: Tensor, stretches: int) -> Tensor:
    """(B, T, ...) to (B N, T / N, ...)."""
    return torch.unflatten(x.contiguous(), 1, (stretches, -1)).flatten(0, 1)


def _join(state: MatrixState) -> Tensor:
    """W on top of S, (G, 2 D, V)."""
    return torch.cat(state, dim=-2)


def _split(joined: Tensor) -> MatrixState:
    weights, surprise = joined.chunk(2, dim=-2)
    return weights.contiguous(), surprise.contiguous()


def _transitions(plan: LaunchPlan, tokens: Tokens) -> Tensor:
    """Every stretch's A, (B N H, 2 D, 2 D)."""
    count, length, heads, dim = tokens.q.shape
    tokens = tokens._replace(v=tokens.v.new_zeros(count, length, heads, 2 * dim))
    plan = plan._replace(cut=plan.cut._replace(value_dim=2 * dim))
    unit = torch.eye(2 * dim, dtype=torch.float32, device=tokens.q.device)
    start = _split(unit.expand(count * heads, -1, -1))
    _, ends, _ = scan_forward(plan, tokens, start, start[0])
    return _join(ends)


def _scan(affine: tuple[Tensor, ...], offsets: tuple[Tensor, ...], start: Tensor) -> list[Tensor]:
    """What stretch after stretch starts from, (B, H, 2 D, V) each, and the end of the last; in float64, being short."""
    states = [start.unflatten(0, offsets[0].shape[:2])]
    state = states[0].double()
    for a, offset in zip(affine, offsets, strict=True):
        state = a.double() @ state + offset.double()
        states.append(state.to(start.dtype))
    return states
