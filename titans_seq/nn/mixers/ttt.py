"""TTT-Linear and TTT-MLP (Sun et al., ICML 2025, arXiv 2407.04620): the layer of its Transformer backbone."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from titans_seq.nn.mixers.parts import split_heads
from titans_seq.nn.rotary import apply_rotary, rotary_angles
from titans_seq.ops.recurrences import TTTState, ttt

_BASE_LR = {1: 1.0, 2: 0.1}  # of TTT-Linear and TTT-MLP
_EXPANSION = 4  # hidden width of TTT-MLP, as a multiple of the head's
_STD = 0.02  # of the initial weights


class TTTLayerState(NamedTuple):
    """State of a `TTTLayer`, see `titans_seq.ops.recurrences.TTTState`."""

    weights: list[Tensor]
    sums: list[Tensor]
    position: Tensor

    def detach(self) -> "TTTLayerState":
        """Return the state detached from the autograd graph."""
        return TTTLayerState([w.detach() for w in self.weights], [s.detach() for s in self.sums], self.position)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous copies under flat names, ready for `safetensors.torch.save_file`."""
        lists = {"weights": self.weights, "sums": self.sums}
        named = {f"{name}.{i}": x for name, tensors in lists.items() for i, x in enumerate(tensors)}
        named["position"] = self.position
        return {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in named.items()}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor]) -> "TTTLayerState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        count = sum(name.startswith("weights.") for name in named)
        expected = {"position", *(f"{name}.{i}" for name in ("weights", "sums") for i in range(count))}
        if set(named) != expected or count not in (2, 4):
            raise ValueError(f"these are not a TTTLayerState's tensors: {', '.join(sorted(named)) or 'none'}")
        weights, sums = ([named[f"{name}.{i}"] for i in range(count)] for name in ("weights", "sums"))
        return cls(weights, sums, named["position"])


class TTTLayer(nn.Module):
    """Test-time training layer with a linear map (depth 1) or an MLP (depth 2) per head as its state.

    Plain projections; queries and keys are rotated by their position in the mini-batch. The output is q + LN(z), then
    LayerNorm over all heads, then a projection.

    Args:
        dim: features of a token.
        num_heads: heads; must divide dim into an even number of features.
        depth: 1 is TTT-Linear, 2 is TTT-MLP, with GELU and 4 times the head's width.
        chunk_size: tokens of a mini-batch, whose gradients are taken at the same weights (the paper: 16).

    Raises ValueError when the width of a head is odd, or a state is of another number of sequences.
    """

    State = TTTLayerState

    def __init__(self, dim: int, num_heads: int, *, depth: int = 1, chunk_size: int = 16) -> None:
        super().__init__()
        width = dim // num_heads
        if width % 2:
            raise ValueError(f"the width of a head must be even; got {width}")
        self.num_heads = num_heads
        self.base_lr = _BASE_LR[depth] / width
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.lr = nn.Linear(dim, num_heads)
        nn.init.normal_(self.lr.weight, std=_STD)
        nn.init.zeros_(self.lr.bias)
        self.scale_offset = nn.Parameter(torch.zeros(chunk_size))  # learned, added to 1 / position
        widths = [width, *[_EXPANSION * width] * (depth - 1), width]
        shapes = [shape for i, o in pairwise(widths) for shape in ((num_heads, i, o), (num_heads, 1, o))]
        self.initial = nn.ParameterList(
            nn.Parameter(torch.zeros(shape) if shape[1] == 1 else _STD * torch.randn(shape)) for shape in shapes
        )
        self.inner_weight = nn.Parameter(torch.ones(num_heads, 1, width))
        self.inner_bias = nn.Parameter(torch.zeros(num_heads, 1, width))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Tensor, state: TTTLayerState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, TTTLayerState]:
        """Map x (B, T, dim) to (B, T, dim) and the state; masked tokens leave the state as it is."""
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1))
        cos, sin = self._angles(q, state, mask)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        position = torch.arange(1, len(self.scale_offset) + 1, device=x.device)
        z, after = ttt(
            q,
            k,
            v,
            self.base_lr * self.lr(x).sigmoid(),
            (1 / position + self.scale_offset).clamp_min(0),
            (self.inner_weight, self.inner_bias),
            list(self.initial),
            None if state is None else TTTState(*state),
            mask=mask,
        )
        normed = F.layer_norm(z, z.shape[-1:], eps=1e-6) * self.inner_weight.squeeze(1) + self.inner_bias.squeeze(1)
        y = (q + normed).flatten(2)
        return self.out(self.norm(y)), TTTLayerState(*after)

    def _angles(self, q: Tensor, state: TTTLayerState | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the angles of every token's position in its mini-batch, (B, T, 1, D / 2)."""
        batch, length = q.shape[:2]
        size = len(self.scale_offset)
        cos, sin = rotary_angles(q.shape[-1], size, q)
        seen = q.new_ones(batch, length, dtype=torch.bool) if mask is None else mask
        if state is not None and state.position.shape != (batch,):
            raise ValueError(f"the state must be of {batch} sequences; got {len(state.position)}")
        first = 0 if state is None else state.position.unsqueeze(1)
        position = (first + seen.cumsum(1) - 1) % size
        return cos[position], sin[position]
