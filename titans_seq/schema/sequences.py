"""What models of DNA have in common, whatever they are trained to do."""

from dataclasses import dataclass
from typing import Literal

from titans_seq.schema.common import BackboneOptions, at_least, between


@dataclass
class SequenceModelOptions(BackboneOptions):
    """Bases to tokens, and a backbone over them in one direction or both."""

    stem_width: int = at_least(1, 1)  # bases that a token is made from, by a convolution
    stride: int = at_least(1, 1)  # bases between tokens
    # max: the convolution at every base, of whose features a token keeps the largest among `stride` bases
    stem_pool: Literal["none", "max"] = "none"
    # both: one set of weights reads the sequence and its reverse; both_separate: a set for each.
    direction: Literal["both", "both_separate", "forward"] = "both"
    head_dropout: float = between(0.1, 0, 1)
