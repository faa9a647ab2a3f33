"""Arguments of the memory op: options, tokens, and the checks that raise ValueError for invalid ones."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, get_args

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


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def check_options(options: Options, depth: int) -> None:
    """Raise ValueError for an unknown or out-of-range option, or for options that cannot be combined."""
    check_choice("gradient", options.gradient, get_args(Gradient))
    check_choice("activation", options.activation, tuple(ACTIVATIONS))
    check_choice("forget_to", options.forget_to, get_args(ForgetTo))
    check_choice("outer_gradient", options.outer_gradient, get_args(OuterGradient))
    check_integer("chunk_size", options.chunk_size, least=1)
    if options.checkpoint_every is not None:
        check_integer("checkpoint_every", options.checkpoint_every, least=1)
    if options.gradient == "online" and depth > 1:
        raise ValueError(f'gradient="online" requires a matrix memory (depth 1); got weights of depth {depth}')
    if options.gradient == "online" and options.residual:
        raise ValueError('gradient="online" requires a plain matrix memory; it is not supported with residual=True')


def check_tensors(tokens: Tokens, weights: Sequence[Tensor]) -> None:
    """Raise ValueError unless all tokens are tensors, and the weights a list of tensors."""
    for name, x in tokens._asdict().items():
        if not isinstance(x, Tensor):
            shape = "(B, T, H)" if name in ("lr", "momentum", "forget") else "(B, T, H, D)"
            raise ValueError(f"{name} must be a tensor {shape}; got {x!r}")
    if isinstance(weights, Tensor) or not all(isinstance(w, Tensor) for w in weights):
        found = f"a tensor {tuple(weights.shape)}" if isinstance(weights, Tensor) else f"{weights!r}"
        raise ValueError(f"weights must be a list of tensors (H, d_in, d_out), one per layer; got {found}")


def check_shapes(tokens: Tokens, weights: list[Tensor], residual: bool) -> None:
    """Raise ValueError unless tokens agree in shape and the weights map keys to values, layer by layer."""
    q, k, v, lr, momentum, forget = tokens
    if q.ndim != 4 or k.shape != q.shape or v.shape[:3] != q.shape[:3] or v.ndim != 4:
        raise ValueError(
            "q, k and v must be (B, T, H, D_k), (B, T, H, D_k) and (B, T, H, D_v); "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if q.shape[2] == 0:
        raise ValueError(f"q, k and v must have at least one head; got (B, T, H, D_k) = {tuple(q.shape)}")
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


def check_state(state: MemoryState, initial: list[Tensor], batch: int, options: Options) -> None:
    """Raise ValueError unless the state is one of this memory, this batch and this chunk size."""
    expected = [(batch, *w.shape) for w in initial]
    for name in ("weights", "surprise", "chunk_start"):
        shapes = [tuple(w.shape) for w in getattr(state, name)]
        if shapes != expected:
            raise ValueError(f"state.{name} must have shapes {expected}; got {shapes}")
    position = state.position
    if isinstance(position, Tensor) and position.shape not in ((), (batch,)):
        raise ValueError(f"state.position must be an int or of shape () or ({batch},); got {tuple(position.shape)}")
    if state.chunk_size is not None and state.chunk_size != state_chunk_size(options):
        raise ValueError(
            f'the state is of chunk_size={state.chunk_size} (1 with gradient="online"); '
            f"got {state_chunk_size(options)}: use the chunk_size and the gradient of the call that returned the state"
        )


def check_position(position: Tensor, chunk_size: int) -> None:
    """Raise ValueError unless all positions are in a chunk."""
    if not ((position >= 0) & (position < chunk_size)).all():
        raise ValueError(
            f"state.position must be in [0, {chunk_size}) for chunk_size={chunk_size}; got {position.tolist()}; "
            "use the chunk_size of the call that returned the state"
        )


def state_chunk_size(options: Options) -> int:
    """Return the chunk size that a state depends on: with online gradients every token is a chunk of its own."""
    return 1 if options.gradient == "online" else options.chunk_size
