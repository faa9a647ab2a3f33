"""The choices that every backend has to honour."""

from typing import Literal, NamedTuple

from titans_seq.ops.memory.mlp import Activation

Gradient = Literal["chunk", "online"]
ForgetTo = Literal["zero", "initial"]
OuterGradient = Literal["exact", "first_order"]


class Options(NamedTuple):
    """The keyword arguments of `titans_memory`, explained there."""

    chunk_size: int
    gradient: Gradient
    activation: Activation
    forget_to: ForgetTo
    residual: bool
    outer_gradient: OuterGradient
    checkpoint_every: int | None
    return_stats: bool
