"""Backbones, sequence models from (B, T, dim) to (B, T, dim): Titans' variants and their baselines."""

from collections.abc import Callable

from torch import nn

from titans_seq.backbone.cnn import CNNBlock
from titans_seq.backbone.delta import delta_block
from titans_seq.backbone.lmm import LMMBlock
from titans_seq.backbone.mac import MACBlock
from titans_seq.backbone.mag import MAGBlock
from titans_seq.backbone.mal import MALBlock
from titans_seq.backbone.mixer import MixerBlock
from titans_seq.backbone.stack import Stack, state_named_tensors
from titans_seq.backbone.transformer import TransformerBlock
from titans_seq.schema import BackboneOptions

BLOCKS: dict[str, Callable[[BackboneOptions], nn.Module]] = {  # keys are the values of model.variant in a configuration
    "lmm": LMMBlock,
    "mal": MALBlock,
    "mag": MAGBlock,
    "mac": MACBlock,
    "transformer": TransformerBlock,
    "delta": delta_block,
    "cnn": CNNBlock,
    "gated_delta_net": MixerBlock,
    "delta_product": MixerBlock,
    "mamba2": MixerBlock,
    "gla": MixerBlock,
    "retnet": MixerBlock,
    "mlstm": MixerBlock,
    "ttt_linear": MixerBlock,
    "ttt_mlp": MixerBlock,
}


def build_backbone(options: BackboneOptions) -> Stack:
    """Build the stack of blocks described by `options`, with new weights."""
    return Stack([BLOCKS[options.variant](options) for _ in range(options.num_layers)])


__all__ = ["BLOCKS", "Stack", "build_backbone", "state_named_tensors"]
