"""Entry point to the Triton kernels, by the memory's depth.

Importing this file imports Triton, so the op imports it only when the kernels are first used.
"""

from torch import Tensor

from titans_seq.ops.memory.arguments import Options, Tokens
from titans_seq.ops.memory.state import MemoryState
from titans_seq.ops.memory.triton.matrix.autograd import matrix_memory
from titans_seq.ops.memory.triton.mlp.autograd import mlp_memory


def triton_memory(
    tokens: Tokens, initial: list[Tensor], state: MemoryState, options: Options
) -> tuple[Tensor, MemoryState]:
    """`chunked_memory` for calls that `backends.why_not_triton` supports; tokens may be half precision."""
    memory = matrix_memory if len(initial) == 1 else mlp_memory
    return memory(tokens, initial, state, options)
