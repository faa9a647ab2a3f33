"""Model keys that all tasks on DNA share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from titans_seq.schema.common import BackboneOptions, Conflict, at_least, between


@dataclass
class SequenceModelOptions(BackboneOptions):
    """A stem from bases to tokens, and a backbone over them in one direction or both."""

    stem_width: int = at_least(1, 1)  # kernel size of the stem's convolution, in bases
    stride: int = at_least(1, 1)  # bases between tokens
    stem_pool: Literal["none", "max"] = "none"  # max: convolve at every base, then max-pool over `stride` bases
    # both: one set of weights reads the sequence and its reverse; both_separate: one set for each direction.
    direction: Literal["both", "both_separate", "forward"] = "both"
    head_dropout: float = between(0.1, 0, 1)  # probability of dropout, on the head's input

    def conflicts(self) -> Iterator[Conflict]:
        """Conflicts between keys of the section `model`."""
        yield from super().conflicts()
        if self.stem_pool == "none" and self.stride > self.stem_width:
            rule = f"{self.stride} exceeds model.stem_width={self.stem_width}, which would skip bases; "
            yield Conflict("model.stride", "model.stem_width", f"{rule}model.stem_pool=max covers all of them")
