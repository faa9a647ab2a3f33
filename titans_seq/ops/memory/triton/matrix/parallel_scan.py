"""Parallel scan of the matrix memory over splits of the sequence, for few heads that would not fill a GPU.

A split is a number of whole chunks. It maps its start to its end by an affine map, the same for every value column:

    [W; S] at its end = A [W; S] at its start + offset          A (2 D, 2 D)

The offset is the end of a scan from zero. A is the end of a scan whose values are zero and which starts from the
columns of the identity. All splits are scanned at once, as batch elements; their A and offsets give the start of each
split in turn, and a third scan from these starts gives the outputs. The backward pass is analogous: gradients of the
start are A^T times those of the end, plus those from the outputs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_seq.ops.differentiation import first_derivative_only
from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.triton.configs import CHUNK, Tiles
from titans_seq.ops.memory.triton.matrix.launch import MatrixState, scan_backward, scan_forward, states_backward
from titans_seq.ops.memory.triton.plan import LaunchPlan

# Programs of a scan kernel that run on a multiprocessor at once; that many are launched.
_PROGRAMS = 4
# The scan for A is 2 D columns wide, and there is one for the offset: about four times the work must pay off.
_MIN_SPLITS = 8
_MIN_TILES_PER_SPLIT = 8


class Cut(NamedTuple):
    """Range of tokens, and the number of splits in which it is scanned in parallel."""

    first: int
    stop: int
    splits: int


def cut_for_parallel_scan(tokens: Tokens, options: Options, tiles: Tiles, chunk_size: int, position: int) -> list[Cut]:
    """Cut tokens into the rest of a partial chunk, the splits, and the remainder; or into one range."""
    length = tokens.q.shape[1]
    head = min(-position % chunk_size, length)
    chunks = (length - head) // chunk_size
    splits = 1
    if options.outer_gradient == "exact":  # A^T is the adjoint for exact gradients only
        splits = count_splits(tokens, tiles, chunks * -(-chunk_size // CHUNK))
    size = chunks // splits * chunk_size
    if splits == 1 or size == 0:
        return [Cut(0, length, 1)]
    body = head + splits * size
    cuts = [Cut(0, head, 1), Cut(head, body, splits), Cut(body, length, 1)]
    return [cut for cut in cuts if cut.stop > cut.first]


def count_splits(tokens: Tokens, tiles: Tiles, length: int) -> int:
    """Return how many splits of a sequence of `length` tiles fill the GPU, or 1 where splitting does not pay off."""
    if not tokens.q.is_cuda:
        return 1
    batch, _, heads, _ = tokens.q.shape
    programs = batch * heads * tiles.blocks
    capacity = _PROGRAMS * torch.cuda.get_device_properties(tokens.q.device).multi_processor_count
    splits = min(capacity // programs, length // _MIN_TILES_PER_SPLIT)
    return splits if splits >= _MIN_SPLITS else 1


class ParallelMatrixMemory(torch.autograd.Function):
    """Map tokens of whole splits and W, S (G, D, V) to outputs (B, T, H, V) and W, S at the end.

    The plan is that of one split. The kernels see N splits as batch elements (B N, ...).
    """

    @staticmethod
    def forward(ctx: Any, plan: LaunchPlan, splits: int, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Two scans for A and the offsets, one for the outputs."""
        *inputs, weights, surprise = (x.contiguous() for x in arguments)
        batch, heads = inputs[0].shape[0], inputs[0].shape[2]
        tokens = Tokens(*(_splits_to_batch(x, splits) for x in inputs))
        zero = weights.new_zeros(batch * splits * heads, *weights.shape[1:])
        _, offsets, _ = scan_forward(plan, tokens, (zero, zero), zero)
        order = (batch, splits, heads)
        affine = _transitions(plan, tokens).unflatten(0, order)
        starts = _scan(affine.unbind(1), _join(offsets).unflatten(0, order).unbind(1), _join((weights, surprise)))
        state = _split(torch.stack(starts[:-1], dim=1).flatten(0, 2))
        y, ends, kept = scan_forward(plan, tokens, state, state[0])
        ctx.plan, ctx.kept, ctx.order = plan, kept, order
        ctx.save_for_backward(*tokens, affine)
        last = (w.unflatten(0, order)[:, -1].flatten(0, 1).contiguous() for w in ends)
        return y.unflatten(0, (batch, splits)).flatten(1, 2), *last

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, d_y: Tensor, d_weights: Tensor, d_surprise: Tensor) -> tuple[Any, ...]:
        """One reverse scan for the outputs' gradients of the starts, one for the other gradients."""
        *inputs, affine = ctx.saved_tensors
        tokens, plan, order = Tokens(*inputs), ctx.plan, ctx.order
        d_y = _splits_to_batch(d_y, order[1])
        zero = d_weights.new_zeros(len(tokens.q) * order[2], *d_weights.shape[1:])
        offsets = _join(states_backward(plan, tokens, d_y, (zero, zero))).unflatten(0, order)
        d_ends = _scan(
            affine.mT.unbind(1)[::-1], offsets.unbind(1)[::-1], _join((d_weights.contiguous(), d_surprise.contiguous()))
        )
        d_state = _split(torch.stack(d_ends[:-1][::-1], dim=1).flatten(0, 2))
        d_tokens, d_starts = scan_backward(plan, tokens, ctx.kept, d_y, d_state, torch.zeros_like(zero))
        first = (w.unflatten(0, order)[:, 0].flatten(0, 1) for w in d_starts)
        return None, None, *(x.unflatten(0, order[:2]).flatten(1, 2) for x in d_tokens), *first


def _splits_to_batch(x: Tensor, splits: int) -> Tensor:
    """Rearrange (B, T, ...) to (B N, T / N, ...)."""
    return torch.unflatten(x.contiguous(), 1, (splits, -1)).flatten(0, 1)


def _join(state: MatrixState) -> Tensor:
    """Concatenate W and S along rows, (G, 2 D, V)."""
    return torch.cat(state, dim=-2)


def _split(joined: Tensor) -> MatrixState:
    weights, surprise = joined.chunk(2, dim=-2)
    return weights.contiguous(), surprise.contiguous()


def _transitions(plan: LaunchPlan, tokens: Tokens) -> Tensor:
    """Compute A of every split, (B N H, 2 D, 2 D)."""
    count, length, heads, dim = tokens.q.shape
    tokens = tokens._replace(v=tokens.v.new_zeros(count, length, heads, 2 * dim))
    plan = plan._replace(tiles=plan.tiles._replace(value_dim=2 * dim))
    unit = torch.eye(2 * dim, dtype=torch.float32, device=tokens.q.device)
    start = _split(unit.expand(count * heads, -1, -1))
    _, ends, _ = scan_forward(plan, tokens, start, start[0])
    return _join(ends)


def _scan(affine: tuple[Tensor, ...], offsets: tuple[Tensor, ...], start: Tensor) -> list[Tensor]:
    """Starts of all splits, (B, H, 2 D, V) each, and the end of the last; in float64, which is cheap for few splits."""
    states = [start.unflatten(0, offsets[0].shape[:2])]
    state = states[0].double()
    for a, offset in zip(affine, offsets, strict=True):
        state = a.double() @ state + offset.double()
        states.append(state.to(start.dtype))
    return states
