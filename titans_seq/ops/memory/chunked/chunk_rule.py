"""Write rule with gradients at the chunk's start (eq 16): one forward and backward pass of M over the chunk's keys.

Shape suffixes as in `recurrent`.
"""

import torch
from torch import Tensor

from titans_seq.ops.memory.chunked.recurrent import RuleGradient, StackedState, Writes
from titans_seq.ops.memory.chunked.stacking import halves
from titans_seq.ops.memory.network import ActivationFunction, residual_error, residual_error_backward


class ChunkRule:
    """Chunk-parallel write rule of the paper, for a memory of any depth.

    Args:
        k_NGCI: keys.
        v_NGCO: values.
        starts: preallocated buffers for M at each chunk's start, by layer.
        sizes: the layers' output features.
        side_by_side: whether M concatenates W and S along columns, by layer.
        reference: the weights at which the first chunk's gradients are taken, if that chunk continues one of an earlier
            call; None for the first chunk's own start.
        act: activation between the layers.
        residual: whether the memory is x + LayerNorm(MLP(x)).
        second_order: whether the outer gradient passes through the weights at which the inner one is taken.
    """

    def __init__(
        self,
        k_NGCI: Tensor,
        v_NGCO: Tensor,
        starts: list[Tensor],
        sizes: list[int],
        side_by_side: list[bool],
        reference: list[Tensor] | None,
        act: ActivationFunction,
        residual: bool,
        second_order: bool,
    ) -> None:
        self.k_NGCI = k_NGCI
        self.v_NGCO = v_NGCO
        self.out_NGCO = (
            torch.empty_like(v_NGCO) if residual else None
        )  # the MLP's outputs, needed by the residual error
        self.reference = reference
        self.act = act
        self.second_order = second_order
        tokens = k_NGCI.shape[:-1]
        inputs = [k_NGCI, *(k_NGCI.new_empty(*tokens, size) for size in sizes[:-1])]
        self.hidden = [torch.empty_like(x) for x in inputs[1:]]  # before the activation
        errors = [k_NGCI.new_empty(*tokens, size) for size in sizes]
        self.writes = Writes(inputs, errors, starts, side_by_side)
        self.d_reference: list[Tensor] | None = None

    def write(self, n: int, start: StackedState) -> None:
        """Run M forward over the keys, then backward to the errors at every layer's output."""
        inputs, errors, at = self.writes.inputs_NGCI, self.writes.errors_NGCO, self._at(n, start)
        for layer, z in enumerate(self.hidden):
            torch.bmm(inputs[layer][n], at[layer], out=z[n])
            inputs[layer + 1][n] = self.act.value(z[n])
        self._error(n, at[-1])
        for layer in reversed(range(len(self.hidden))):
            back = torch.bmm(errors[layer + 1][n], at[layer + 1].mT)
            errors[layer][n] = self.act.vjp(back, self.hidden[layer][n])

    def _error(self, n: int, last: Tensor) -> None:
        """Compute the gradient of the inner loss at the MLP's output; `last` is the weight of its last layer."""
        x, error = self.writes.inputs_NGCI[-1][n], self.writes.errors_NGCO[-1][n]
        if self.out_NGCO is None:
            torch.baddbmm(self.v_NGCO[n], x, last, beta=-2, alpha=2, out=error)
        else:
            torch.bmm(x, last, out=self.out_NGCO[n])
            error.copy_(residual_error(self.k_NGCI[n], self.out_NGCO[n], self.v_NGCO[n]))

    def _at(self, n: int, start: StackedState) -> list[Tensor]:
        if n == 0 and self.reference is not None:
            return self.reference
        return [halves(m, self.writes.side_by_side[layer])[0] for layer, m in enumerate(start)]

    def write_backward(self, n: int, d_writes: Writes, d_start: StackedState) -> None:
        """Differentiate the inner backward pass, first layer first, and then the forward pass over the keys."""
        inputs, errors = self.writes.inputs_NGCI, self.writes.errors_NGCO
        d_inputs, d_errors = d_writes.inputs_NGCI, d_writes.errors_NGCO
        at = self._at(n, [start[n] for start in self.writes.starts])
        d_at = self._gradient_of_reference(n, d_start)
        d_hidden = []
        for i, z in enumerate(self.hidden):
            above = errors[i + 1][n]
            d_back = self.act.vjp(d_errors[i][n], z[n])
            d_hidden.append(torch.bmm(above, at[i + 1].mT).mul_(d_errors[i][n]).mul_(self.act.second_derivative(z[n])))
            d_errors[i + 1][n].baddbmm_(d_back, at[i + 1])
            if d_at:
                d_at[i + 1].add_(torch.bmm(d_back.mT, above))
        d_out = self._error_backward(n, d_writes)
        for i in reversed(range(len(at))):
            if d_at:
                d_at[i].add_(torch.bmm(inputs[i][n].mT, d_out))
            d_inputs[i][n].baddbmm_(d_out, at[i].mT)
            if i:
                d_out = d_hidden[i - 1].add_(self.act.vjp(d_inputs[i][n], self.hidden[i - 1][n]))

    def _gradient_of_reference(self, n: int, d_start: StackedState) -> list[Tensor]:
        """Return the tensors that accumulate the gradient of the reference weights; empty for first order."""
        if not self.second_order:
            return []
        if n > 0 or self.reference is None:
            return [halves(m, self.writes.side_by_side[layer])[0] for layer, m in enumerate(d_start)]
        self.d_reference = [torch.zeros_like(w) for w in self.reference]
        return self.d_reference

    def _error_backward(self, n: int, d_writes: Writes) -> Tensor:
        """Return the gradient of the MLP's output from that of `_error`, whose buffer then holds the gradient of -v."""
        d_error = d_writes.errors_NGCO[-1][n]
        if self.out_NGCO is None:
            return d_error.mul_(2)  # the error is 2 (output - v)
        d_x, d_out = residual_error_backward(d_error, self.k_NGCI[n], self.out_NGCO[n], self.v_NGCO[n])
        d_writes.inputs_NGCI[0][n].add_(d_x)
        d_error.copy_(d_x)
        return d_out

    def finish_backward(self, d_writes: Writes) -> RuleGradient:
        """Return the gradients; keys are the first layer's inputs, and the last error's buffer holds that of -v."""
        reference = self.d_reference
        if reference is None and self.reference is not None:
            reference = [torch.zeros_like(w) for w in self.reference]
        return RuleGradient(d_writes.inputs_NGCI[0], -d_writes.errors_NGCO[-1], reference)
