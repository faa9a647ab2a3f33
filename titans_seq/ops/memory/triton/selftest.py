"""Self-test of the kernels on a device: a small case is compared with the chunked path.

`backend="auto"` uses the kernels for a kind of memory on a device only after they passed, once per process.
"""

import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.chunked.op import chunked_memory
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.configs import CHUNK

# Largest relative error allowed in any result. Correct kernels are far below, wrong ones above.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 1e-1}
_LENGTH, _CUT = 45, 20


class KernelCase(NamedTuple):
    """Kind of memory: the parameters that determine which kernels run."""

    dtype: torch.dtype  # of the tokens
    sizes: tuple[int, ...]  # of keys, hidden layers and values
    options: Options

    @classmethod
    def of(cls, dtype: torch.dtype, sizes: Sequence[int], options: Options) -> "KernelCase":
        """Normalise the options: only whether a chunk is one tile or several matters, and checkpoints do not."""
        chunk_size = CHUNK if options.chunk_size <= CHUNK or options.gradient == "online" else CHUNK + CHUNK // 2
        return cls(dtype, tuple(sizes), options._replace(chunk_size=chunk_size, checkpoint_every=None))


@functools.cache
def why_not_trusted(device: torch.device, case: KernelCase) -> str | None:
    """Run the self-test of a kind of memory on a device; return (and warn of) the failure, None if it passed."""
    try:
        error = worst_error(device, case)
        reason = f"failed its self-test: relative error {error:.0e}" if not error <= _TOLERANCES[case.dtype] else None
    except Exception as found:  # noqa: BLE001 - after any compiler or kernel error another backend is used
        reason = f"failed its self-test: {type(found).__name__}: {(str(found).splitlines() or [''])[0][:200]}"
    if reason is not None:
        warnings.warn(f'titans_memory: "triton" {reason} on {device}; "auto" uses "chunked"', stacklevel=2)
    return reason


def worst_error(device: torch.device, case: KernelCase) -> float:
    """Return the largest relative error of outputs, state and gradients over two calls that split a chunk."""
    from titans_seq.ops.memory.triton.op import triton_memory

    with torch.inference_mode(mode=False), torch.enable_grad():
        leaves = _leaves(device, case)
        found = _results(leaves, case.options, triton_memory)
        expected = _results([x.double() for x in leaves], case.options, chunked_memory)
    errors = [(a - b).abs().max() / b.abs().max().clamp_min(1e-30) for a, b in zip(found, expected, strict=True)]
    return float(torch.stack(errors).nan_to_num(torch.inf).max())


def _leaves(device: torch.device, case: KernelCase) -> list[Tensor]:
    """Random q, k, v, lr, momentum, forget, and initial weights in float32, for two heads."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    q, k = (F.normalize(randn(1, _LENGTH, 2, case.sizes[0]), dim=-1) for _ in range(2))
    lr, momentum, forget = (torch.sigmoid(randn(1, _LENGTH, 2) - shift) for shift in (2, 0, 2))
    tokens = [q, k, randn(1, _LENGTH, 2, case.sizes[-1]), lr, momentum, forget]
    layers = itertools.pairwise(case.sizes)
    return [*(x.to(case.dtype) for x in tokens), *(randn(2, *layer) / layer[0] ** 0.5 for layer in layers)]


def _results(leaves: list[Tensor], options: Options, memory: object) -> list[Tensor]:
    """Run a backend and return outputs, state and gradients, in float64."""
    assert callable(memory)
    leaves = [x.detach().requires_grad_() for x in leaves]
    initial = leaves[6:]
    weights = [w.unsqueeze(0) for w in initial]
    state = MemoryState(weights, [torch.zeros_like(w) for w in weights], weights, position=0)
    results = []
    for first, stop in ((0, _CUT), (_CUT, _LENGTH)):
        y, state, *_ = memory(Tokens(*(x[:, first:stop] for x in leaves[:6])), initial, state, options)
        results.append(y)
    results += [*state.weights, *state.surprise]
    slopes = (torch.linspace(-1, 1, x.numel(), dtype=torch.float64, device=x.device).view_as(x) for x in results)
    loss = torch.stack([(x.double() * slope).sum() for x, slope in zip(results, slopes, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return [x.detach().double() for x in (*results, *gradients)]
