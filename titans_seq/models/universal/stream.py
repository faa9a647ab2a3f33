"""Reading series piece by piece: a state of constant size that continues exactly where the last call ended.

Shapes: B series, T tokens, D features of a token, P steps of a patch.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from titans_seq.backbone import Stack, state_named_tensors
from titans_seq.backbone.states import BlockState, split_prefixes
from titans_seq.models.universal.context import HISTORY, Context
from titans_seq.models.universal.forecaster import UniversalForecaster
from titans_seq.schema import PATCH

_OWN = ("recent", "patches", "nominal", "periods", "strength", "shift", "unit")


class SeriesState(NamedTuple):
    """State of series of which some patches were read; its size does not depend on their number."""

    recent: Tensor  # (B, HISTORY) float64, the last steps, NaN where missing
    patches: int  # number of patches read
    nominal: Tensor  # (B,), the period known beforehand
    periods: Tensor  # (B, 2), detected
    strength: Tensor  # (B, 2)
    shift: Tensor  # (B,)
    unit: Tensor  # (B,)
    backbone: Sequence[BlockState]

    def named_tensors(self) -> dict[str, Tensor]:
        """Return contiguous tensors under flat names, ready for `safetensors.torch.save_file`."""
        own = {name: torch.as_tensor(getattr(self, name)).detach().clone().contiguous() for name in _OWN}
        return {**own, **{f"backbone.{name}": x for name, x in state_named_tensors(self.backbone).items()}}

    @classmethod
    def from_named_tensors(cls, named: Mapping[str, Tensor], backbone: Stack) -> "SeriesState":
        """Rebuild the state from `named_tensors`; raises ValueError when a name is missing or unknown."""
        if missing := [name for name in _OWN if name not in named]:
            raise ValueError(f"the state has no tensor {missing[0]}")
        parts = split_prefixes({name: x for name, x in named.items() if name not in _OWN}, ("backbone",))
        own = {name: named[name] for name in _OWN}
        own["patches"] = int(own["patches"])  # type: ignore[assignment]
        return cls(**own, backbone=backbone.state_from_named_tensors(parts["backbone"]))  # type: ignore[arg-type]


def read_series(
    model: UniversalForecaster, values: Tensor, nominal: Tensor, state: SeriesState | None = None
) -> tuple[Context, Tensor, SeriesState]:
    """Read the next steps of series; equal to reading all their steps at once, wherever they were split.

    Args:
        model: the forecaster.
        values: (B, T P) float64, whole patches, NaN where missing.
        nominal: (B,) int64, a period known beforehand; of a continued series that of the first call is used.
        state: after the steps before; None: the series begin here.

    Returns:
        The context and its tokens (B, T, D) for `UniversalForecaster.forecast`, and the state.
    """
    if values.shape[1] % PATCH or not values.shape[1]:
        raise ValueError(f"values must have a multiple of {PATCH} steps, at least {PATCH}; got {values.shape[1]}")
    if state is None:
        context = Context(values, nominal)
        recent = F.pad(values, (max(0, HISTORY - values.shape[1]), 0), value=torch.nan)
    else:
        nominal = state.nominal
        recent = torch.cat([state.recent, values], dim=1)
        context = Context(
            recent,
            nominal,
            history=HISTORY,
            before=state.patches,
            periods=(state.periods, state.strength),
            shift=state.shift,
            unit=state.unit,
        )
    encoded, backbone = model.encode(context, None if state is None else state.backbone)
    after = SeriesState(
        recent[:, -HISTORY:],
        (state.patches if state else 0) + values.shape[1] // PATCH,
        nominal,
        context.periods.steps[:, -1, 1:],
        context.periods.strength[:, -1],
        context.shift,
        context.unit,
        cast(Sequence[BlockState], backbone),
    )
    return context, encoded, after
