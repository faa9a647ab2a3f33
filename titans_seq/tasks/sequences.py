"""Backbone construction shared by the DNA tasks."""

from titans_seq.backbone import Stack, build_backbone
from titans_seq.backbone.bidirectional import Bidirectional
from titans_seq.schema import SequenceModelOptions


def build_sequence_backbone(options: SequenceModelOptions) -> Stack | Bidirectional:
    """Build the backbone for the direction or directions set in `options`, at initialisation."""
    ahead = build_backbone(options)
    if options.direction == "forward":
        return ahead
    return Bidirectional(ahead, build_backbone(options) if options.direction == "both_separate" else None)
