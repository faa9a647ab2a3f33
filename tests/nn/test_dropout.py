import pytest
import torch

from titans_seq.nn.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.97])
def test_a_fraction_p_is_dropped_and_the_rest_is_rescaled(p):
    torch.manual_seed(0)
    x = torch.full((1001, 999), 2.0, requires_grad=True)
    y = Dropout(p)(x)
    dropped = y == 0
    n = x.numel()
    assert abs(dropped.double().mean() - p) < 5 * (p * (1 - p) / n) ** 0.5 + 1 / 2**17
    torch.testing.assert_close(y[~dropped], torch.full_like(y[~dropped], 2 / (1 - p)), rtol=1e-3, atol=0)
    assert abs(y.double().mean() / 2 - 1) < 5 * (p / (1 - p) / n) ** 0.5
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / 2, rtol=1e-6, atol=0)


def test_features_are_dropped_independently_of_their_neighbours():
    """Four features share one word of the generator."""
    torch.manual_seed(0)
    dropped = (Dropout(0.3)(torch.ones(400_000)) == 0).double()
    for lag in (1, 2, 3, 4, 8):
        both = (dropped[lag:] * dropped[:-lag]).mean()
        assert abs(both - 0.09) < 5 * (0.09 * 0.91 / len(dropped)) ** 0.5 + 1e-4


def test_masks_are_reproducible_from_a_seed_and_from_a_random_state():
    layer, x = Dropout(0.5), torch.ones(3, 5, dtype=torch.float64)
    torch.manual_seed(1)
    first = layer(x)
    state = torch.get_rng_state()
    second = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert first.dtype == torch.float64
    torch.set_rng_state(state)
    assert torch.equal(layer(x), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped_at_p_0_or_in_evaluation(p, training):
    x = torch.randn(1000)
    assert torch.equal(Dropout(p).train(training)(x), x)


def test_everything_is_dropped_at_p_1():
    assert not Dropout(1.0)(torch.ones(100)).any()
