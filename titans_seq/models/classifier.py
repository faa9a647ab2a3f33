"""A DNA classifier: embed bases, run a backbone over them, average over the sequence, map to class scores.

Shapes: B sequences, T bases of the longest, U tokens of it (T / stride, rounded up), D features, K classes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from titans_seq.batch import COMPLEMENT, NUM_TOKENS, PAD_TOKEN
from titans_seq.nn.dropout import Dropout
from titans_seq.nn.norm import RMSNorm
from titans_seq.nn.stem import BaseStem, Pool, mask_or_none

Strand = Literal["one", "both_averaged", "invariant"]


class SequenceClassifier(nn.Module):
    """Class scores of DNA sequences. Padding, wherever it stands and whatever it holds, changes none of them.

    Args:
        backbone: from (B, U, dim) and a mask to (B, U, dim) and a state; see `titans_seq.backbone.Bidirectional`.
        dim: features of its tokens.
        num_classes: K.
        stem_width: bases that a token is made from, by a convolution; 1 is a plain embedding.
        stride: bases between tokens.
        stem_pool: see `titans_seq.nn.stem.BaseStem`.
        dropout: on the head's input.
        strand: "one" classifies the strand that is given. "both_averaged" trains so, and in evaluation averages the
            scores of both strands (post-hoc conjoining; Zhou et al., MLCB 2021). "invariant" averages the features of
            both strands before the head, always: the scores of a sequence and of its reverse complement are the same.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        num_classes: int,
        stem_width: int = 1,
        stride: int = 1,
        stem_pool: Pool = "none",
        dropout: float = 0.0,
        strand: Strand = "one",
    ) -> None:
        super().__init__()
        self.stem = BaseStem(NUM_TOKENS, dim, stem_width, stride, stem_pool)
        self.backbone = backbone
        self.norm = RMSNorm(dim)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        self.strand: Strand = strand
        self.register_buffer("_complement", torch.tensor(COMPLEMENT), persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scores (B, K) of tokens (B, T), int, with mask (B, T), bool, False at padding. A row needs a base.

        Without a mask there is no padding, and nothing that depends on the data: so `torch.export` can follow.
        """
        if mask is not None:
            tokens, mask = _to_the_left(tokens, mask)
            mask = mask_or_none(mask)
        if self.strand == "one" or (self.strand == "both_averaged" and self.training):
            return self._scores(self.features(tokens, mask))
        # One call for both strands: their features are computed alike, so that swapping them changes nothing.
        other_tokens, other_mask = self.reverse_complement(tokens, mask)
        masks = None if mask is None or other_mask is None else torch.cat([mask, other_mask])
        given, other = self.features(torch.cat([tokens, other_tokens]), masks).chunk(2)
        if self.strand == "invariant":
            return self._scores((given + other) / 2)
        return (self._scores(given) + self._scores(other)) / 2

    def reverse_complement(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The reverse complements of tokens (B, T), with their mask, both padded on the right."""
        complement = self.get_buffer("_complement")
        if mask is None:
            return complement[tokens.flip(1)], None
        return _to_the_left(complement[tokens.flip(1)], mask.flip(1))

    def features(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean (B, D) of the backbone's outputs over each sequence, padded on the right."""
        x, mask = self.stem(tokens, mask)
        y, _ = self.backbone(x, mask=mask)
        if mask is None:
            whole: Tensor = y.sum(dim=1) / y.shape[1]
            return whole
        total = y.masked_fill(~mask.unsqueeze(-1), 0).sum(dim=1)
        mean: Tensor = total / mask.sum(dim=1, keepdim=True)
        return mean

    def _scores(self, features: Tensor) -> Tensor:
        scores: Tensor = self.head(self.dropout(self.norm(features)))
        return scores


def _to_the_left(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and mask with each row's padding moved to its end, and no more columns than the longest row needs."""
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    tokens, mask = tokens.gather(1, order), mask.gather(1, order)
    width = int(mask.sum(dim=1).max())
    return tokens[:, :width].masked_fill(~mask[:, :width], PAD_TOKEN), mask[:, :width]
