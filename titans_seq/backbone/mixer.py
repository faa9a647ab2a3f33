"""Baselines of other papers: their sequence mixers in the place of the memory, in the same blocks."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from titans_seq.backbone.parts import build_ffn
from titans_seq.backbone.states import BlockState
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.mixers.delta_product import DeltaProduct
from titans_seq.nn.mixers.gated_delta_net import GatedDeltaNet
from titans_seq.nn.mixers.gla import GatedLinearAttention
from titans_seq.nn.mixers.mamba2 import Mamba2
from titans_seq.nn.mixers.mlstm import MLSTM
from titans_seq.nn.mixers.retnet import MultiScaleRetention
from titans_seq.nn.mixers.ttt import TTTLayer
from titans_seq.nn.norm import RMSNorm
from titans_seq.schema import MIXER_KEYS, BackboneOptions

_MIXERS: dict[str, Callable[..., nn.Module]] = {
    "gated_delta_net": GatedDeltaNet,
    "delta_product": DeltaProduct,
    "mamba2": Mamba2,
    "gla": GatedLinearAttention,
    "retnet": MultiScaleRetention,
    "mlstm": MLSTM,
    "ttt_linear": partial(TTTLayer, depth=1),
    "ttt_mlp": partial(TTTLayer, depth=2),
}


class MixerBlock(nn.Module):
    """Mixer block: x + Mixer(x), then x + FFN(x), which is the LMM's block without the memory."""

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(options.dim)
        self.mixer = _build_mixer(options)
        self.ffn_norm = RMSNorm(options.dim)
        self.ffn = build_ffn(options)
        self.dropout = Dropout(options.dropout)

    @property
    def State(self) -> type[BlockState]:  # noqa: N802 (the interface's name)
        """The class of the mixer's state."""
        kind: type[BlockState] = self.mixer.State  # type: ignore[assignment]
        return kind

    def forward(self, x: Tensor, state: BlockState | None, mask: Tensor | None) -> tuple[Tensor, BlockState]:
        """Map x (B, T, dim) to (B, T, dim) and the state."""
        y, after = self.mixer(self.mixer_norm(x), state, mask=mask)
        x = x + self.dropout(y)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), after


def _build_mixer(options: BackboneOptions) -> nn.Module:
    """Build the variant's mixer from the keys that it reads; those that are null are as in its paper."""
    used = MIXER_KEYS[options.variant]
    keys = [key for key in used if key not in ("num_heads", "key_ratio", "value_ratio")]
    given = {key: value for key in keys if (value := getattr(options.mixer, key)) is not None}
    for name, ratio in zip(("key", "value"), options.mixer_ratios(), strict=True):
        if f"{name}_ratio" in used:
            given[f"{name}_width"] = round(ratio * options.dim)
    return _MIXERS[options.variant](options.dim, options.mixer.num_heads, **given)
