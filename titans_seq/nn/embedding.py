"""Patch embedding: time series to tokens."""

from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbedding(nn.Module):
    """Linear embedding of patches of `patch_length` steps, one every `stride` steps (PatchTST).

    The last patch ends at the last step. A first patch that begins before the series is padded with the first value.
    """

    def __init__(self, num_features: int, dim: int, patch_length: int, stride: int) -> None:
        super().__init__()
        if not 1 <= stride <= patch_length:
            raise ValueError(f"stride must lie between 1 and patch_length = {patch_length}; got {stride}")
        self.patch_length = patch_length
        self.stride = stride
        self.project = nn.Linear(patch_length * num_features, dim)

    def num_patches(self, context_length: int) -> int:
        """Return the number of patches of a series of `context_length` steps."""
        return max(0, -(-(context_length - self.patch_length) // self.stride)) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, features, L) to tokens (B, patches, dim)."""
        missing = (self.num_patches(x.shape[2]) - 1) * self.stride + self.patch_length - x.shape[2]
        patches = F.pad(x, (missing, 0), mode="replicate").unfold(2, self.patch_length, self.stride)
        tokens: Tensor = self.project(patches.transpose(1, 2).flatten(2))
        return tokens
