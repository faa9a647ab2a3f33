"""Untrained models on a long stream: the memory must not grow without bound."""

import pytest
import torch

from titans_seq.backbone import build_backbone
from titans_seq.schema import AttentionOptions, BackboneOptions, MemoryOptions

PIECE, PIECES = 1024, 16


@pytest.mark.parametrize("segment_length", [64, 512])
@pytest.mark.parametrize("identical", [False, True])
def test_an_untrained_mac_stays_bounded_over_16k_tokens(segment_length: int, identical: bool) -> None:
    # MAC writes averages over a segment (the attention's outputs): keys are similar even for different tokens, and on
    # similar keys the joint gradient step of a chunk overshoots.
    torch.manual_seed(0)
    options = BackboneOptions(
        variant="mac",
        dim=32,
        num_layers=2,
        segment_length=segment_length,
        memory=MemoryOptions(num_heads=2),
        attention=AttentionOptions(num_heads=2),
    )
    model, state, norms = build_backbone(options).eval(), None, []
    vocabulary = torch.randn(256, options.dim)
    for _ in range(PIECES):
        tokens = torch.zeros(1, PIECE, dtype=torch.long) if identical else torch.randint(0, 256, (1, PIECE))
        with torch.inference_mode():
            y, state = model(vocabulary[tokens], state)
        assert y.isfinite().all()
        norms.append(max(float(w.norm()) for block in state for w in block.memory.memory.weights))
    assert max(norms[1:]) < 2 * norms[0]
