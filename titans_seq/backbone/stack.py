"""Stack of blocks, shared by all variants."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from titans_seq.backbone.states import BlockState, add_prefixes, split_prefixes
from titans_seq.ops.masking import check_flags


class Stack(nn.Module):
    """Sequence of blocks, each with its own state.

    The output is the residual stream itself. A final norm would remove the size of a token, which a forecast needs and
    a classifier does not: heads that need a norm include it.

    Args:
        blocks: modules `block(x, state, mask) -> (x, state)` with a class attribute `State`.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, state: Sequence[BlockState] | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """Run all blocks over x (B, T, dim).

        Args:
            x: tokens.
            state: returned by an earlier call; continues its sequence exactly, in pieces of any size.
            mask: (B, T) bool, False at padding, which may be anywhere and contain anything: it affects neither the
                other tokens nor the state.

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
        """Rebuild the state from `state_named_tensors`; raises ValueError when a name is missing or unknown."""
        names = [str(index) for index in range(len(self.blocks))]
        parts = split_prefixes(named, names)
        kinds = (cast(type[BlockState], block.State) for block in self.blocks)
        return [kind.from_named_tensors(parts[name]) for kind, name in zip(kinds, names, strict=True)]


def state_named_tensors(state: Sequence[BlockState]) -> dict[str, Tensor]:
    """Return a stack's state as contiguous tensors under flat names, ready for `safetensors.torch.save_file`."""
    return add_prefixes({str(index): block.named_tensors() for index, block in enumerate(state)})
