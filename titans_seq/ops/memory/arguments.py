"""Arguments of the memory op: options, tokens, and the checks that raise ValueError for invalid ones."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from titans_seq.ops.memory.network import ACTIVATIONS, Activation
from titans_seq.ops.memory.state import MemoryState

Gradient = Literal["chunk", "online"]
ForgetTo = Literal["zero", "initial"]
OuterGradient = Literal["exact", "first_order"]


class Options(NamedTuple):
    """Options of the memory: each is defined here, with its default.

    `titans_memory` and `titans_seq.nn.NeuralMemory` take them as keyword arguments; the backends read them from here.
    """

    # Tokens whose gradients are taken at the same weights; with online gradients it only affects speed.
    chunk_size: int = 16
    gradient: Gradient = "chunk"  # gradients at the chunk's start (eq 16), or at each token's own weights (eq 14)
    activation: Activation = "silu"  # between the layers of the memory's MLP
    forget_to: ForgetTo = "zero"  # what forgetting decays the weights to: zero (the paper) or the initial weights
    residual: bool = False  # M(x) = x + LayerNorm(MLP(x)) instead of MLP(x)
    # Differentiate through the weights at which inner gradients are taken, or treat those weights as constants.
    outer_gradient: OuterGradient = "exact"
    # Chunks between the states kept for the backward pass; None: chosen by the size of the states.
    checkpoint_every: int | None = None
    return_stats: bool = False  # also return `MemoryStats`

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Options":
        """Take the options found in `fields` by name; other keys are ignored, missing options keep their defaults."""
        return cls(**{name: fields[name] for name in cls._fields if name in fields})


class Tokens(NamedTuple):
    """Per-token arguments of `titans_memory`, all of one floating type."""

    q: Tensor  # (B, T, H, D_k)
    k: Tensor  # (B, T, H, D_k)
    v: Tensor  # (B, T, H, D_v)
    lr: Tensor  # (B, T, H)
    momentum: Tensor  # (B, T, H)
    forget: Tensor  # (B, T, H), or (B, T, H, I): per input channel, the layers' d_in concatenated


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `accepted`."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {value!r}")


def check_options(options: Options, depth: int) -> None:
    """Raise ValueError for an unknown or out-of-range option, or for options that cannot be combined."""
    check_choice("gradient", options.gradient, get_args(Gradient))
    check_choice("activation", options.activation, tuple(ACTIVATIONS))
    check_choice("forget_to", options.forget_to, get_args(ForgetTo))
    check_choice("outer_gradient", options.outer_gradient, get_args(OuterGradient))
    for name, value in (("chunk_size", options.chunk_size), ("checkpoint_every", options.checkpoint_every)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    if options.gradient == "online" and depth > 1:
        raise ValueError(f'gradient="online" requires a matrix memory (depth 1); got weights of depth {depth}')
    if options.gradient == "online" and options.residual:
        raise ValueError('gradient="online" requires a plain matrix memory; it is not supported with residual=True')


def check_shapes(tokens: Tokens, weights: list[Tensor], residual: bool) -> None:
    """Raise ValueError unless tokens agree in shape and the weights map keys to values, layer by layer."""
    q, k, v, lr, momentum, forget = tokens
    if q.ndim != 4 or k.shape != q.shape or v.shape[:3] != q.shape[:3] or v.ndim != 4:
        raise ValueError(
            "q, k and v must be (B, T, H, D_k), (B, T, H, D_k) and (B, T, H, D_v); "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.is_floating_point():
        raise ValueError(f"q must be of a floating type; got {q.dtype}")
    for name, gate in (("lr", lr), ("momentum", momentum), ("forget", forget)):
        if gate.shape != q.shape[:3] and (name != "forget" or gate.ndim != 4):
            raise ValueError(f"{name} must be (B, T, H) = {tuple(q.shape[:3])}; got {tuple(gate.shape)}")
    if residual and q.shape[-1] != v.shape[-1]:
        raise ValueError(f"residual=True requires D_k = D_v; got {q.shape[-1]} and {v.shape[-1]}")
    width = q.shape[3]
    if not weights:
        raise ValueError("weights must contain at least one layer; got an empty list")
    for layer, weight in enumerate(weights):
        if weight.ndim != 3 or weight.shape[:2] != (q.shape[2], width):
            raise ValueError(
                f"weights[{layer}] must be (H, d_in, d_out) = ({q.shape[2]}, {width}, d_out); got {tuple(weight.shape)}"
            )
        width = weight.shape[2]
    channels = (*q.shape[:3], sum(weight.shape[1] for weight in weights))
    if forget.ndim == 4 and forget.shape != channels:
        raise ValueError(
            "forget must be (B, T, H) or (B, T, H, I) with I the sum of all layers' d_in, "
            f"= {channels}; got {tuple(forget.shape)}"
        )
    if width != v.shape[3]:
        raise ValueError(f"the last layer of weights must have D_v = {v.shape[3]} output features; got {width}")


def check_state(state: MemoryState, initial: list[Tensor], batch: int, chunk_size: int) -> None:
    """Raise ValueError unless the state fits this memory, this batch and this chunk size."""
    expected = [(batch, *w.shape) for w in initial]
    for name in ("weights", "surprise", "chunk_start"):
        shapes = [tuple(w.shape) for w in getattr(state, name)]
        if shapes != expected:
            raise ValueError(f"state.{name} must have shapes {expected}; got {shapes}")
    positions = torch.as_tensor(state.position)
    if isinstance(state.position, Tensor) and positions.shape != (batch,):
        raise ValueError(f"state.position must be an int or ({batch},); got {tuple(positions.shape)}")
    if not ((positions >= 0) & (positions < chunk_size)).all():
        raise ValueError(
            f"state.position must be in [0, {chunk_size}) for chunk_size={chunk_size}; got {state.position}; "
            "use the chunk_size of the call that returned the state"
        )
