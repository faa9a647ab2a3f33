"""A stack of blocks: what all variants have in common."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from titans_seq.backbone.states import BlockState, join, part
from titans_seq.ops.masking import check_flags


class Stack(nn.Module):
    """Blocks, one after another, each with a state of its own.

    The output is the residual stream itself. A norm after it would take away how large a token is, which a forecast
    needs and a classifier does not: heads that want one bring it.

    Args:
        blocks: modules `block(x, state, mask) -> (x, state)` with a class attribute `State`.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, state: Sequence[BlockState] | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """Run over x (B, T, dim).

        Args:
            x: tokens.
            state: what an earlier call returned; the sequence goes on exactly, in pieces of any size.
            mask: (B, T) bool, False where a token is padding, which may stand anywhere and hold anything: it changes
                nothing for the others, nor the state.

        Returns:
            (B, T, dim), zero at padding, and one state per block.

        Raises ValueError when mask or state do not fit.
        """
        check_flags(mask, None, x.shape[:2])
        if state is not None and len(state) != len(self.blocks):
            raise ValueError(f"state must hold one entry for each of {len(self.blocks)} blocks; got {len(state)}")
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        states = []
        for index, block in enumerate(self.blocks):
            x, block_state = block(x, None if state is None else state[index], mask)
            states.append(block_state)
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0), states

    def state_from_named_tensors(self, named: Mapping[str, Tensor]) -> list[BlockState]:
        """The state that `state_named_tensors` wrote down; raises ValueError when a name is missing or unknown."""
        names = [str(index) for index in range(len(self.blocks))]
        parts = part(named, names)
        kinds = (cast(type[BlockState], block.State) for block in self.blocks)
        return [kind.from_named_tensors(parts[name]) for kind, name in zip(kinds, names, strict=True)]


def state_named_tensors(state: Sequence[BlockState]) -> dict[str, Tensor]:
    """A stack's state as contiguous tensors under flat names, as `safetensors.torch.save_file` takes them."""
    return join({str(index): block.named_tensors() for index, block in enumerate(state)})
