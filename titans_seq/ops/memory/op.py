"""Public op `titans_memory`: one signature, several backends that agree up to rounding."""

from typing import Literal, get_args, overload

from torch import Tensor

from titans_seq.ops.masking import check_flags
from titans_seq.ops.memory.arguments import (
    ForgetTo,
    Gradient,
    Options,
    OuterGradient,
    Tokens,
    check_choice,
    check_options,
    check_shapes,
    check_state,
    check_tensors,
)
from titans_seq.ops.memory.backends import Backend
from titans_seq.ops.memory.custom_op import needs_operator, run_as_operator
from titans_seq.ops.memory.dispatch import BackendResult, run_backend
from titans_seq.ops.memory.network import Activation
from titans_seq.ops.memory.state import MemoryState, MemoryStats


@overload
def titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    momentum: Tensor,
    forget: Tensor,
    weights: list[Tensor],
    state: MemoryState | None = ...,
    *,
    chunk_size: int = ...,
    gradient: Gradient = ...,
    activation: Activation = ...,
    forget_to: ForgetTo = ...,
    residual: bool = ...,
    outer_gradient: OuterGradient = ...,
    checkpoint_every: int | None = ...,
    mask: Tensor | None = ...,
    reset: Tensor | None = ...,
    backend: Backend = ...,
    return_stats: Literal[False] = ...,
) -> tuple[Tensor, MemoryState]: ...


@overload
def titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    momentum: Tensor,
    forget: Tensor,
    weights: list[Tensor],
    state: MemoryState | None = ...,
    *,
    chunk_size: int = ...,
    gradient: Gradient = ...,
    activation: Activation = ...,
    forget_to: ForgetTo = ...,
    residual: bool = ...,
    outer_gradient: OuterGradient = ...,
    checkpoint_every: int | None = ...,
    mask: Tensor | None = ...,
    reset: Tensor | None = ...,
    backend: Backend = ...,
    return_stats: Literal[True],
) -> tuple[Tensor, MemoryState, MemoryStats]: ...


@overload
def titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    momentum: Tensor,
    forget: Tensor,
    weights: list[Tensor],
    state: MemoryState | None = ...,
    *,
    chunk_size: int = ...,
    gradient: Gradient = ...,
    activation: Activation = ...,
    forget_to: ForgetTo = ...,
    residual: bool = ...,
    outer_gradient: OuterGradient = ...,
    checkpoint_every: int | None = ...,
    mask: Tensor | None = ...,
    reset: Tensor | None = ...,
    backend: Backend = ...,
    return_stats: bool,
) -> tuple[Tensor, MemoryState] | tuple[Tensor, MemoryState, MemoryStats]: ...


def titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    momentum: Tensor,
    forget: Tensor,
    weights: list[Tensor],
    state: MemoryState | None = None,
    *,
    chunk_size: int = 16,
    gradient: Gradient = "chunk",
    activation: Activation = "silu",
    forget_to: ForgetTo = "zero",
    residual: bool = False,
    outer_gradient: OuterGradient = "exact",
    checkpoint_every: int | None = None,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    backend: Backend = "auto",
    return_stats: bool = False,
) -> tuple[Tensor, MemoryState] | tuple[Tensor, MemoryState, MemoryStats]:
    """Write every token into a neural memory and read it back (Titans, arXiv 2501.00663, eqs 12 to 16).

    Per head, with the inner loss l(W; k, v) = ||M_W(k) - v||^2 and the gradient taken at the weights before the chunk:

        S_t = momentum_t S_{t-1} - lr_t grad l(W_chunk_start; k_t, v_t)
        W_t = (1 - forget_t) W_{t-1} + S_t          (+ forget_t W_initial with forget_to="initial")
        y_t = M_{W_t}(q_t)

    Args:
        q, k: queries and keys, (B, T, H, D_k). Keys of unit norm keep the inner step stable.
        v: values, (B, T, H, D_v).
        lr, momentum, forget: the gates theta, eta, alpha of the paper, in [0, 1], (B, T, H). forget may also be
            (B, T, H, I), one gate per input channel (camera-ready, NeurIPS 2025): row i of a layer's W is multiplied by
            1 - forget_i. Every layer has its own channels; I is the sum of the layers' d_in, first layer first.
        weights: the initial memory, L tensors (H, d_in, d_out) that map D_k to D_v.
        state: the state returned by an earlier call with the same chunk_size; the sequence continues exactly, wherever
            it was split.
        chunk_size: tokens whose gradients are taken at the same weights; smaller is closer to eq 14, and slower.
        gradient: "chunk" takes gradients at the chunk's start (eq 16), for any depth; "online" at every token's own
            weights (eq 14), for a matrix memory, where chunk_size only affects speed.
        activation: activation between the memory's layers.
        forget_to: what forgetting decays to, zero (the paper) or the initial weights.
        residual: the memory is M(x) = x + LayerNorm(MLP(x)) (camera-ready) instead of the MLP alone; D_v = D_k.
        outer_gradient: "exact" differentiates through the weights at which inner gradients are taken; "first_order"
            treats those weights as constants.
        checkpoint_every: chunks between the states kept for the backward pass; None: chosen by the states' size.
        mask: (B, T) bool; tokens where it is False are skipped: they leave weights, surprise and the position in the
            chunk unchanged, and their outputs are zero. Masked padding changes no result.
        reset: (B, T) bool; where it is True a new sequence starts, with the initial weights and zero surprise. It is
            ignored at masked tokens.
        backend: "auto" chooses "triton" (kernels for CUDA devices) where `backends.why_not_triton` returns None and a
            self-test, run once per device and kind of memory, agrees with "chunked"; otherwise it chooses "chunked".
            "reference" is the token loop that the others are tested against.
        return_stats: also return the norms of surprise, update and memory at every token, outside the graph.

    Returns:
        Outputs (B, T, H, D_v) in q's dtype, the state after the last token, and with `return_stats` the `MemoryStats`.
        Everything is computed in the widest type among the arguments, at least float32; "triton" rounds the operands of
        products to q's type, but not the state. Gradients flow to every tensor argument, including the state, and
        through the inner updates. Second derivatives and `torch.func` transforms require backend="reference".

    Under torch.compile and torch.export the call is one node, the operator `titans_seq::memory`, whose backward pass
    repeats the forward pass; in an exported program with backend="chunked" it is torch's own operators instead, without
    gradients and without a state. On the CPU a token that is not finite changes no output before it; on a GPU it may
    change earlier outputs of its chunk.

    Raises:
        ValueError: a shape, an option or the state is invalid.
    """
    options = Options(
        chunk_size=chunk_size,
        gradient=gradient,
        activation=activation,
        forget_to=forget_to,
        residual=residual,
        outer_gradient=outer_gradient,
        checkpoint_every=checkpoint_every,
        return_stats=return_stats,
    )
    tokens = Tokens(q, k, v, lr, momentum, forget)
    y, state, stats = run_memory(tokens, weights, state, options, mask, reset, backend)
    return (y, state) if stats is None else (y, state, stats)


def run_memory(
    tokens: Tokens,
    weights: list[Tensor],
    state: MemoryState | None,
    options: Options,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    backend: Backend = "auto",
) -> BackendResult:
    """`titans_memory` with its tokens and its options gathered; the stats are None without `options.return_stats`."""
    check_choice("backend", backend, get_args(Backend))
    check_tensors(tokens, weights)
    check_options(options, depth=len(weights))
    check_shapes(tokens, weights, options.residual)
    q = tokens.q
    check_flags(mask, reset, q.shape[:2])
    if state is not None:
        check_state(state, weights, batch=q.shape[0], options=options)
    flagged = mask is not None or reset is not None
    run = run_as_operator if needs_operator(tokens, state, flagged, backend) else run_backend
    return run(tokens, weights, state, options, mask, reset, backend)
