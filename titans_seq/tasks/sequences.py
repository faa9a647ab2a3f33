"""What the tasks on DNA build alike."""

from titans_seq.backbone import Stack, build_backbone
from titans_seq.backbone.bidirectional import Bidirectional
from titans_seq.schema import SequenceModelOptions


def build_sequence_backbone(options: SequenceModelOptions) -> Stack | Bidirectional:
    """A backbone in the direction or directions that `options` ask for, freshly initialised."""
    ahead = build_backbone(options)
    if options.direction == "forward":
        return ahead
    return Bidirectional(ahead, build_backbone(options) if options.direction == "both_separate" else None)
