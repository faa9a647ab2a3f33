"""Launches of the kernels for depth 2, a segment at a time."""

from typing import Any, NamedTuple

from torch import Tensor

from titans_seq.ops.memory.arguments import Tokens
from titans_seq.ops.memory.triton.configs import CHUNK, MlpTiles
from titans_seq.ops.memory.triton.gates import GateGradients, GateKernels, Scratch
from titans_seq.ops.memory.triton.mlp.kernels import (
    QUANTITIES,
    mlp_finish_backward,
    mlp_read,
    mlp_reads_backward,
    mlp_walk,
    mlp_walk_backward,
)
from titans_seq.ops.memory.triton.plan import LaunchPlan, TokenRange


class MlpTrace(NamedTuple):
    """Outputs of `mlp_walk` for the backward pass of a segment."""

    states: Tensor  # at every tile's start, and at the end, (N + 1, G, 2 M)
    errors: Tensor  # (N, G, C, V)


class PartialGradients(NamedTuple):
    """Gradients that `mlp_reads_backward` starts and later kernels complete."""

    gradients: GateGradients
    units: Tensor  # (N, G, QUANTITIES, C, E)
    d_keys: Tensor  # (N, G, C, D)
    d_errors: Tensor  # (N, G, C, V)


class MlpLaunches:
    """Kernel launches on one call's tokens, a segment at a time; `like` is a W (G, M)."""

    def __init__(self, plan: LaunchPlan, tokens: Tokens, like: Tensor, decay_target: Tensor | None) -> None:
        self.plan = plan
        self.tokens = tokens
        self.like = like
        self.decay_target = decay_target
        self.size = like.shape[-1]
        self.segments = plan.segments(like)
        assert isinstance(plan.tiles, MlpTiles)
        self.tiles = plan.tiles
        self.tables = GateKernels(plan, tokens, len(like), self.tiles)

    def scan(self, segment: TokenRange, start: Tensor, reference: Tensor, scratch: Scratch) -> MlpTrace:
        """Compute the states of a segment and its errors."""
        _, k, v, *_ = self.tokens
        count, states = scratch.writes.shape[:2]
        trace = MlpTrace(start.new_empty(count + 1, *start.shape), start.new_empty(count, states, CHUNK, v.shape[-1]))
        trace.states[0] = start
        mlp_walk[(states,)](
            k,
            v,
            scratch.coefficients,
            trace.states,
            reference,
            self.like if self.decay_target is None else self.decay_target,
            trace.errors,
            *self._kernel_arguments(segment),
            **self._settings("mlp_walk", segment),
        )
        return trace

    def read(self, segment: TokenRange, trace: MlpTrace, reference: Tensor, scratch: Scratch, y: Tensor) -> None:
        """Write the outputs to `y`."""
        q, k, *_ = self.tokens
        mlp_read[scratch.writes.shape[:2]](
            q,
            k,
            scratch.coefficients,
            scratch.scores,
            scratch.writes,
            trace.states,
            reference,
            self.like if self.decay_target is None else self.decay_target,
            trace.errors,
            self.like.new_empty(*scratch.writes.shape[:2], CHUNK, self.tiles.hidden),
            y,
            *self.tables.kernel_arguments(segment),
            self.tiles.blocks("mlp_read"),
            **self._settings("mlp_read", segment),
        )

    def reads_backward(
        self, segment: TokenRange, trace: MlpTrace, reference: Tensor, scratch: Scratch, d_y: Tensor, d_q: Tensor
    ) -> PartialGradients:
        """Write the queries' gradients to `d_q`; return the reads' contributions to the other gradients."""
        q, k, v, *_ = self.tokens
        gradients = self.tables.gradients(segment)
        tiles = gradients.writes.shape[:2]
        widths = (q.shape[-1], v.shape[-1])
        d_keys, d_errors = (self.like.new_empty(*tiles, CHUNK, width) for width in widths)
        units = self.like.new_empty(*tiles, QUANTITIES.value, CHUNK, self.tiles.hidden)
        mlp_reads_backward[tiles](
            q,
            k,
            scratch.coefficients,
            scratch.scores,
            scratch.writes,
            trace.states,
            reference,
            self.like if self.decay_target is None else self.decay_target,
            trace.errors,
            d_y,
            units,
            d_q,
            d_keys,
            d_errors,
            gradients.coefficients,
            gradients.writes,
            *self.tables.kernel_arguments(segment),
            self.tiles.blocks("mlp_reads_backward"),
            **self._settings("mlp_reads_backward", segment),
        )
        return PartialGradients(gradients, units, d_keys, d_errors)

    def scan_backward(
        self,
        segment: TokenRange,
        trace: MlpTrace,
        reference: Tensor,
        scratch: Scratch,
        d_y: Tensor,
        partial: PartialGradients,
        d_states: Tensor,
        d_reference: Tensor,
        d_decay_target: Tensor | None,
        d_v: Tensor,
    ) -> None:
        """Write the values' gradients to `d_v`; those of reference and decay target are updated in place."""
        q, k, *_ = self.tokens
        mlp_walk_backward[(len(self.like),)](
            q,
            k,
            scratch.coefficients,
            trace.states,
            reference,
            self.like if self.decay_target is None else self.decay_target,
            trace.errors,
            d_y,
            partial.units,
            partial.d_errors,
            d_states,
            d_reference,
            d_reference if d_decay_target is None else d_decay_target,
            d_v,
            *self._kernel_arguments(segment),
            **self._settings("mlp_walk_backward", segment),
            FIRST_ORDER=self.plan.options.outer_gradient == "first_order",
        )

    def finish_backward(
        self,
        segment: TokenRange,
        trace: MlpTrace,
        reference: Tensor,
        scratch: Scratch,
        partial: PartialGradients,
        d_states: Tensor,
        d_tokens: Tokens,
    ) -> None:
        """Write the gradients of keys and gates to `d_tokens`."""
        mlp_finish_backward[scratch.writes.shape[:2]](
            self.tokens.k,
            scratch.coefficients,
            trace.states,
            reference,
            self.like if self.decay_target is None else self.decay_target,
            trace.errors,
            partial.units,
            partial.d_keys,
            d_states,
            d_tokens.k,
            partial.gradients.coefficients,
            *self.tables.kernel_arguments(segment),
            self.tiles.blocks("mlp_finish_backward"),
            **self._settings("mlp_finish_backward", segment),
        )
        self.tables.gates_backward(segment, scratch, partial.gradients, d_tokens[3:])

    def _kernel_arguments(self, segment: TokenRange) -> tuple[int, ...]:
        """Return the kernel arguments heads, sequence, first, stop, size, parts, count, blocks."""
        return *self.tables.kernel_arguments(segment), self.plan.count(segment), self.tiles.blocks("mlp_walk")

    def _settings(self, kernel: str, segment: TokenRange) -> dict[str, Any]:
        return {
            **self.tiles.settings(kernel),
            "ACT": self.plan.options.activation,
            "AT": self.plan.at(segment),
            "ANCHOR": self.decay_target is not None,
        }
