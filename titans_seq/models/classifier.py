"""DNA classifier: embed bases, apply a backbone, average over the sequence, map to class scores.

Shapes: B sequences, T bases of the longest one, U tokens (T / stride, rounded up), D features, K classes.
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
    """Class scores of DNA sequences. They do not depend on the position or the content of padding.

    Args:
        backbone: from (B, U, dim) and a mask to (B, U, dim) and a state; see `titans_seq.backbone.Bidirectional`.
        dim: D, features of a token.
        num_classes: K.
        stem_width: kernel width of the stem's convolution, in bases; 1 is a plain embedding.
        stride: bases between tokens.
        stem_pool: see `titans_seq.nn.stem.BaseStem`.
        dropout: on the head's input.
        strand: "one" classifies the given strand. "both_averaged" trains on the given strand and in evaluation averages
            the scores of both strands (post-hoc conjoining; Zhou et al., MLCB 2021). "invariant" always averages the
            features of both strands before the head: a sequence and its reverse complement get the same scores.
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
        """Return scores (B, K) of tokens (B, T), int, with mask (B, T), bool, False at padding.

        Every row needs at least one base. Without a mask there is no padding and no data-dependent shape, which
        `torch.export` requires.
        """
        if mask is not None:
            tokens, mask = _pad_right(tokens, mask)
            mask = mask_or_none(mask)
        if self.strand == "one" or (self.strand == "both_averaged" and self.training):
            return self._scores(self.features(tokens, mask))
        # One call for both strands, so that both are computed identically and swapping them changes nothing.
        other_tokens, other_mask = self.reverse_complement(tokens, mask)
        masks = None if mask is None or other_mask is None else torch.cat([mask, other_mask])
        given, other = self.features(torch.cat([tokens, other_tokens]), masks).chunk(2)
        if self.strand == "invariant":
            return self._scores((given + other) / 2)
        return (self._scores(given) + self._scores(other)) / 2

    def reverse_complement(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the reverse complements of tokens (B, T) and their mask, both padded on the right."""
        complement = self.get_buffer("_complement")
        if mask is None:
            return complement[tokens.flip(1)], None
        return _pad_right(complement[tokens.flip(1)], mask.flip(1))

    def features(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean (B, D) of the backbone's outputs over each sequence; padding must be on the right."""
        x, mask = self.stem(tokens, mask)
        y, _ = self.backbone(x, mask=mask)
        if mask is None:
            unpadded_mean: Tensor = y.sum(dim=1) / y.shape[1]
            return unpadded_mean
        total = y.masked_fill(~mask.unsqueeze(-1), 0).sum(dim=1)
        mean: Tensor = total / mask.sum(dim=1, keepdim=True)
        return mean

    def _scores(self, features: Tensor) -> Tensor:
        scores: Tensor = self.head(self.dropout(self.norm(features)))
        return scores


def _pad_right(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens and mask with each row's padding moved to its end, cut to the length of the longest row."""
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    tokens, mask = tokens.gather(1, order), mask.gather(1, order)
    width = int(mask.sum(dim=1).max())
    return tokens[:, :width].masked_fill(~mask[:, :width], PAD_TOKEN), mask[:, :width]
