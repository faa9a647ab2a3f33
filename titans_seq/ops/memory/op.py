"""The public op: one signature, several backends that agree to rounding."""

from typing import Literal, get_args

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked import chunked_memory
from titans_seq.ops.memory.mlp import ACTIVATIONS, Activation
from titans_seq.ops.memory.options import ForgetTo, Gradient, Options, OuterGradient
from titans_seq.ops.memory.reference import reference_memory
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.tokens import Tokens

Backend = Literal["auto", "reference", "chunked", "triton"]

_BACKENDS = {"auto": chunked_memory, "chunked": chunked_memory, "reference": reference_memory}


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
    backend: Backend = "auto",
) -> tuple[Tensor, MemoryState]:
    """Write every token into a neural memory and read it back (Titans, arXiv 2501.00663, eqs 12 to 16).

    Per head, with the inner loss l(W; k, v) = ||M_W(k) - v||^2 and the gradient taken at the weights before the chunk::

        S_t = momentum_t S_{t-1} - lr_t grad l(W_chunk_start; k_t, v_t)
        W_t = (1 - forget_t) W_{t-1} + S_t          (+ forget_t W_initial with forget_to="initial")
        y_t = M_{W_t}(q_t)

    Args:
        q, k: queries and keys, (B, T, H, D_k). Keys of unit norm keep the inner step stable.
        v: values, (B, T, H, D_v).
        lr, momentum, forget: the gates theta, eta, alpha of the paper, in [0, 1], (B, T, H).
        weights: the initial memory, L tensors (H, d_in, d_out) that lead from D_k to D_v.
        state: the state that an earlier call returned; the sequence goes on exactly, wherever it was cut.
        chunk_size: tokens whose gradients are taken at the same weights; smaller is closer to eq 14, and slower.
        gradient: "chunk" takes gradients at the chunk's start (eq 16), for any depth; "online" at every token's own
            weights (eq 14), for a matrix memory, where chunk_size is a matter of speed alone.
        activation: between the memory's layers.
        forget_to: what forgetting decays to, zero (the paper) or the initial weights.
        residual: the memory is M(x) = x + LayerNorm(MLP(x)) (camera-ready) instead of the MLP alone; D_v = D_k.
        outer_gradient: "exact" differentiates through the weights at which inner gradients are taken; "first_order"
            takes those weights for constants.
        checkpoint_every: chunks between the states that are kept for the backward pass; None chooses.
        backend: "auto" takes the fastest there is; "reference" is the token loop that judges the others.

    Returns:
        Outputs (B, T, H, D_v) in q's dtype, and the state after the last token. Inputs below float32 are computed in
        float32. Gradients flow to every tensor argument, the state included, through the inner updates too.

    Raises:
        ValueError: a shape, an option or the state does not fit.
    """
    if backend == "triton":
        raise ValueError(f'backend="triton" is not available yet; available: {", ".join(sorted(_BACKENDS))}')
    _check_choice("gradient", gradient, get_args(Gradient))
    _check_choice("activation", activation, tuple(ACTIVATIONS))
    _check_choice("forget_to", forget_to, get_args(ForgetTo))
    _check_choice("outer_gradient", outer_gradient, get_args(OuterGradient))
    _check_choice("backend", backend, tuple(_BACKENDS))
    _check_shapes(q, k, v, lr, momentum, forget, weights)
    if gradient == "online" and len(weights) > 1:
        raise ValueError(f'gradient="online" is for a matrix memory (depth 1); got weights of depth {len(weights)}')
    if gradient == "online" and residual:
        raise ValueError('gradient="online" is for a plain matrix memory; it does not go with residual=True')
    if residual and q.shape[-1] != v.shape[-1]:
        raise ValueError(f"residual=True needs D_k = D_v; got {q.shape[-1]} and {v.shape[-1]}")
    for name, value in (("chunk_size", chunk_size), ("checkpoint_every", checkpoint_every)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    options = Options(chunk_size, gradient, activation, forget_to, residual, outer_gradient, checkpoint_every)

    dtype = torch.promote_types(q.dtype, torch.float32)
    tensors = [x.to(dtype) for x in (q, k, v, lr, momentum, forget)]
    initial = [w.to(dtype) for w in weights]
    if state is None:
        state = _initial_state(initial, batch=q.shape[0])
    else:
        _check_state(state, initial, batch=q.shape[0], chunk_size=chunk_size)
    # Autocast would round the carried state to half precision inside the loop.
    with torch.autocast(q.device.type, enabled=False):
        y, state = _BACKENDS[backend](Tokens(*tensors), initial, state, options)
    return y.to(q.dtype), state


def _initial_state(initial: list[Tensor], batch: int) -> MemoryState:
    weights = [w.expand(batch, *w.shape) for w in initial]
    return MemoryState(weights, [torch.zeros_like(w) for w in weights], weights, position=0)


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(accepted)}")


def _check_shapes(
    q: Tensor, k: Tensor, v: Tensor, lr: Tensor, momentum: Tensor, forget: Tensor, weights: list[Tensor]
) -> None:
    if q.ndim != 4 or k.shape != q.shape or v.shape[:3] != q.shape[:3] or v.ndim != 4:
        raise ValueError(
            "q, k and v must be (B, T, H, D_k), (B, T, H, D_k) and (B, T, H, D_v); "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    for name, gate in (("lr", lr), ("momentum", momentum), ("forget", forget)):
        if gate.shape != q.shape[:3]:
            raise ValueError(f"{name} must be (B, T, H) = {tuple(q.shape[:3])}; got {tuple(gate.shape)}")
    width = q.shape[3]
    if not weights:
        raise ValueError("weights must hold at least one layer")
    for layer, weight in enumerate(weights):
        if weight.ndim != 3 or weight.shape[:2] != (q.shape[2], width):
            raise ValueError(
                f"weights[{layer}] must be (H, d_in, d_out) = ({q.shape[2]}, {width}, d_out); got {tuple(weight.shape)}"
            )
        width = weight.shape[2]
    if width != v.shape[3]:
        raise ValueError(f"the last layer of weights must give D_v = {v.shape[3]} features; it gives {width}")


def _check_state(state: MemoryState, initial: list[Tensor], batch: int, chunk_size: int) -> None:
    expected = [(batch, *w.shape) for w in initial]
    found = [tuple(w.shape) for w in state.weights]
    if found != expected:
        raise ValueError(f"state.weights must have shapes {expected}; got {found}")
    if not 0 <= state.position < chunk_size:
        raise ValueError(
            f"state.position = {state.position} does not lie in a chunk of {chunk_size}; "
            "continue with the chunk_size that the state was made with"
        )
