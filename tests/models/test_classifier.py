"""Invariance of classifier scores to padding, batch and strand; receptive fields of stem and backbone."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.dna import tokenizer
from tests.helpers import VARIANTS, for_variant
from titans_seq.backbone.bidirectional import Bidirectional
from titans_seq.batch import MASK_TOKEN, PAD_TOKEN
from titans_seq.config import load_config
from titans_seq.models.classifier import SequenceClassifier
from titans_seq.nn.stem import BaseStem, Pool
from titans_seq.tasks.classification import build_classifier

SMALL = ["task.name=classification", "model.dim=8", "model.memory.num_heads=2", "model.attention.num_heads=2"]
SMALL += ["model.attention.window=4", "model.segment_length=4", "model.memory.chunk_size=4", "model.num_persistent=1"]
STEMS = [(1, 1, "none"), (4, 3, "none"), (4, 3, "max")]
MORE_STEMS = [*STEMS, (5, 1, "none"), (1, 2, "max"), (7, 4, "max")]
STRANDS = ("one", "both_averaged", "invariant")


def classifier(*overrides: str) -> SequenceClassifier:
    torch.manual_seed(0)
    words = for_variant([*SMALL, *(f"model.{override}" for override in overrides)])
    model = build_classifier(load_config([], words), num_classes=3)
    # Small initial gates would hide dependencies; in float64 rounding is far below the tolerances.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.double().eval()


def sequences(*lengths: int) -> list[Tensor]:
    rng = np.random.default_rng(1)
    return [torch.from_numpy(rng.integers(5, size=length)) for length in lengths]


def padded(rows: list[Tensor], side: str = "right", junk: int = PAD_TOKEN, extra: int = 0) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows)) + extra
    tokens, mask = torch.full((len(rows), width), junk), torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[index, place], mask[index, place] = row, True
    return tokens, mask


def reverse_complement(row: Tensor) -> Tensor:
    return torch.from_numpy(tokenizer.reverse_complement(row.numpy().astype(np.uint8)).astype(np.int64))


def stem_overrides(width: int, stride: int, pool: str) -> list[str]:
    return [f"stem_width={width}", f"stride={stride}", f"stem_pool={pool}"]


class Identity(nn.Module):
    def forward(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x, []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strand", STRANDS)
def test_scores_do_not_depend_on_padding_or_batch(variant: str, strand: str) -> None:
    rows = sequences(11, 3, 17, 1, 8)
    for stem in STEMS:
        model = classifier(f"variant={variant}", f"strand={strand}", *stem_overrides(*stem))
        alone = torch.cat([model(*padded([row])) for row in rows])
        for side, junk, extra in (("right", PAD_TOKEN, 0), ("left", MASK_TOKEN, 5), ("right", 2, 9), ("left", 0, 0)):
            together = model(*padded(rows, side, junk, extra))
            torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_do_not_depend_on_the_strand(variant: str) -> None:
    rows = sequences(11, 3, 17, 1, 8)
    swapped = [reverse_complement(row) for row in rows]
    for stem in STEMS:
        overrides = [f"variant={variant}", *stem_overrides(*stem)]
        for strand, training in (("both_averaged", False), ("invariant", False), ("invariant", True)):
            model = classifier(*overrides, f"strand={strand}", "dropout=0", "head_dropout=0").float().train(training)
            difference = (model(*padded(rows)) - model(*padded(swapped, "left"))).abs().max()
            assert difference <= 1e-6, (strand, training, float(difference))
        model = classifier(*overrides, "strand=one")
        assert (model(*padded(rows)) - model(*padded(swapped))).abs().max() > 1e-3


def test_both_strands_are_averaged_in_evaluation_only() -> None:
    tokens, mask = padded(sequences(9, 6))
    both = classifier("strand=both_averaged", "dropout=0", "head_dropout=0")
    one = classifier("strand=one", "dropout=0", "head_dropout=0")
    opposite = padded([reverse_complement(row) for row in sequences(9, 6)])
    mean = (one(tokens, mask) + one(*opposite)) / 2
    torch.testing.assert_close(both(tokens, mask), mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(both.train()(tokens, mask), one(tokens, mask), rtol=0, atol=1e-12)


def test_gradients_are_strand_invariant() -> None:
    rows = sequences(9, 6)
    gradients = []
    for given in (rows, [reverse_complement(row) for row in rows]):
        model = classifier("strand=invariant", "dropout=0", "head_dropout=0").train()
        model(*padded(given)).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("width", "stride", "pool"), [*MORE_STEMS, (7, 7, "none"), (2, 2, "none")])
def test_the_stem_and_the_mean_equal_a_token_loop(width: int, stride: int, pool: Pool) -> None:
    torch.manual_seed(0)
    model = SequenceClassifier(Identity(), dim=6, num_classes=2, stem_width=width, stride=stride, stem_pool=pool)
    model = model.double().eval()
    (row,) = sequences(10)
    embedded = model.stem.embed.weight[row]
    features = []
    for centre in range(len(row)):
        if model.stem.conv is None:
            features.append(embedded[centre])
            continue
        total = model.stem.conv.bias.clone()
        for tap in range(width):
            base = centre + tap - (width - 1) // 2
            if 0 <= base < len(row):
                total = total + model.stem.conv.weight[:, :, tap] @ embedded[base]
        features.append(total)
    if pool == "max":
        starts = range(0, len(row), stride)
        places = [nn.functional.gelu(torch.stack(features[i : i + stride]).amax(dim=0)) for i in starts]
    else:
        places = features[::stride]
    expected = model.head(model.norm(torch.stack(places).mean(dim=0)))
    torch.testing.assert_close(model(*padded([row, *sequences(14)]))[0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("width", "stride", "pool"), [*MORE_STEMS, (6, 3, "none")])
def test_receptive_field_of_a_token(width: int, stride: int, pool: Pool) -> None:
    torch.manual_seed(0)
    stem = BaseStem(7, 6, width, stride, pool).double()
    bases, mask = torch.zeros(1, 24, dtype=torch.long), torch.ones(1, 24, dtype=torch.bool)
    seen = torch.zeros(24, 24 // stride, dtype=torch.bool)
    for other in range(1, 4):  # with max pooling, at least one of the three changes the maximum
        for base in range(24):
            changed = bases.clone()
            changed[0, base] = other
            seen[base] |= (stem(changed, mask)[0] != stem(bases, mask)[0])[0].any(dim=1)
    for token in range(24 // stride):
        first, last = token * stride - stem.before, token * stride + stem.after
        assert torch.where(seen[:, token])[0].tolist() == list(range(max(0, first), min(24, last + 1)))


def test_receptive_fields_of_the_directions() -> None:
    tokens = padded([torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])])[0]
    changed = tokens.clone()
    changed[0, -1] = 0
    for direction, sees_the_end in (("forward", False), ("both", True), ("both_separate", True)):
        model = classifier(f"direction={direction}", "strand=one")
        outputs = [model.backbone(model.stem.embed(x))[0] for x in (tokens, changed)]
        assert ((outputs[0][:, 0] - outputs[1][:, 0]).abs().max() > 1e-6) == sees_the_end, direction
    shared, separate = (classifier(f"direction={d}").backbone for d in ("both", "both_separate"))
    assert isinstance(shared, Bidirectional)
    assert isinstance(separate, Bidirectional)
    assert shared.back is None
    assert separate.back is not None
    assert separate.back.blocks[0] is not separate.ahead.blocks[0]
