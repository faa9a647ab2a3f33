"""Write rule with gradients at each token's own weights (eq 14 as written), for the matrix memory, chunk by chunk.

With W_{t-1} as the reference, token t's error depends on all writes before it, linearly. With half errors E, and
coefficients a', b', C' of W_{t-1} (those of W_t, shifted down one row):

    (I + 2 * C' * lr * (K K^T)) E = a' (K W_0) + b' (K S_0) - V        C' is strictly lower triangular

One unit-triangular solve per chunk; its inverse does not depend on the state, so that the inverses of all chunks are
computed at once, and the recurrence over chunks is two products and the update. Without momentum and forgetting this is
the delta rule; with forgetting it is not the gated delta rule, which takes the error after the decay. Shape suffixes as
in `recurrent`.
"""

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.parallel import read_start_backward
from titans_seq.ops.memory.chunked.recurrent import ReadCoefficients, RuleGradient, StackedState, Writes
from titans_seq.ops.memory.chunked.stacking import spread


class OnlineRule:
    """Exact token-level write rule for a memory of depth 1.

    Args:
        k_NGCI: keys.
        v_NGCO: values.
        starts: preallocated buffer for M at each chunk's start, W and S concatenated along rows, for the only layer.
        past: the coefficients of the weights before each token.
        decay_target: what forgetting decays the weights to, None for zero.
        second_order: whether the outer gradient passes through the weights at which the inner one is taken.
    """

    def __init__(
        self,
        k_NGCI: Tensor,
        v_NGCO: Tensor,
        starts: list[Tensor],
        past: ReadCoefficients,
        decay_target: list[Tensor] | None,
        second_order: bool,
    ) -> None:
        self.past = past
        self.decay_target = None if decay_target is None else decay_target[0]
        self.second_order = second_order
        self.similarity_NGCC = k_NGCI @ k_NGCI.mT
        size = k_NGCI.shape[-2]
        unit = torch.eye(size, dtype=k_NGCI.dtype, device=k_NGCI.device)
        system = torch.addcmul(unit, self.similarity_NGCC, past.writes_NGCC, value=2)
        # Twice the inverse, since errors are twice E.
        self.solve_NGCC = torch.linalg.solve_triangular(system, 2 * unit, upper=False, unitriangular=True)
        # The error is gain @ [W_0; S_0] + offset.
        self.gain_NGCI2 = self.solve_NGCC @ spread(k_NGCI, past.start_NGC2)
        target = v_NGCO
        if self.decay_target is not None:
            target = target - (1 - past.start_NGC2[..., :1]) * (k_NGCI @ self.decay_target)
        self.offset_NGCO = (self.solve_NGCC @ target).neg_()
        self.writes = Writes([k_NGCI], [torch.empty_like(v_NGCO)], starts, [False])

    def write(self, n: int, start: StackedState) -> None:
        """Compute the errors of a chunk from its start."""
        torch.baddbmm(self.offset_NGCO[n], self.gain_NGCI2[n], start[0], out=self.writes.errors_NGCO[0][n])

    def write_backward(self, n: int, d_writes: Writes, d_start: StackedState) -> None:
        """Propagate the errors' gradient to the chunk's start; the rest is left to `finish_backward`."""
        if self.second_order:
            d_start[0].baddbmm_(self.gain_NGCI2[n].mT, d_writes.errors_NGCO[0][n])

    def finish_backward(self, d_writes: Writes) -> RuleGradient:
        """Propagate the errors' gradients to keys, values and coefficients, all chunks at once."""
        (k,), (error,), (start,), _ = self.writes
        d_k, d_error = d_writes.inputs_NGCI[0], d_writes.errors_NGCO[0]
        if not self.second_order:
            return self._finish_first_order(d_k, d_error)
        d_right = self.solve_NGCC.mT @ d_error
        of_start = read_start_backward(d_right, k, start, False, self.past.start_NGC2, self.decay_target)
        # The gradient of the system is -(d_right / 2) error^T, and it contains the product times 2.
        d_product = (d_right @ error.mT).neg_()
        d_past = ReadCoefficients(of_start.coefficients, d_product * self.similarity_NGCC)
        d_similarity = d_product * self.past.writes_NGCC
        d_k = d_k + of_start.h + d_similarity @ k + d_similarity.mT @ k
        return RuleGradient(
            d_k, -d_right, past=d_past, decay_target=None if of_start.decay_target is None else [of_start.decay_target]
        )

    def _finish_first_order(self, d_k: Tensor, d_error: Tensor) -> RuleGradient:
        """Gradients with W_{t-1} as a constant: d k_t = 2 W_{t-1} d error_t, a read of the transposed memory."""
        (k,), (error,), (start,), _ = self.writes
        no_past = ReadCoefficients(torch.zeros_like(self.past.start_NGC2), torch.zeros_like(self.past.writes_NGCC))
        back = read_start_backward(2 * d_error, k, start, False, self.past.start_NGC2, self.decay_target).h
        back -= ((2 * d_error @ error.mT) * self.past.writes_NGCC) @ k
        decay_target = None if self.decay_target is None else [torch.zeros_like(self.decay_target)]
        return RuleGradient(d_k + back, -2 * d_error, past=no_past, decay_target=decay_target)
