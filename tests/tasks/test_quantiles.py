"""Pinball loss, CRPS and coverage, against numpy and closed forms."""

import numpy as np
import pytest
import torch

from titans_seq.tasks.quantiles import CRPS, Coverage, central_pairs, pinball

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]


def random(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    quantiles = torch.randn(count, 3, 2, len(LEVELS), generator=generator).sort(dim=-1).values
    return quantiles, torch.randn(count, 3, 2, generator=generator)


def test_pinball_loss_by_hand() -> None:
    loss = pinball(torch.tensor([[1.0, 3.0]]), torch.tensor([2.0]), torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(loss, torch.tensor([[0.1, 0.1]]))
    loss = pinball(torch.tensor([[3.0, 1.0]]), torch.tensor([2.0]), torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(loss, torch.tensor([[0.9, 0.9]]))


def test_the_quantile_minimises_the_pinball_loss() -> None:
    sample = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    guesses = torch.linspace(-3, 3, 601)
    for level in LEVELS:
        losses = pinball(guesses.unsqueeze(-1), sample[:, None], torch.tensor([level])).mean(dim=(0, 2))
        assert guesses[losses.argmin()] == pytest.approx(np.quantile(sample.numpy(), level), abs=0.02)


def test_metrics_over_uneven_batches_equal_numpy_over_all() -> None:
    quantiles, target = random()
    crps, coverage = CRPS(LEVELS), Coverage(0, 4)
    for part in (slice(0, 3), slice(3, 150), slice(150, 200)):
        crps.update(quantiles[part], target[part])
        coverage.update(quantiles[part], target[part])
    q, y = quantiles.double().numpy(), target.double().numpy()[..., None]
    loss = np.where(y >= q, np.array(LEVELS) * (y - q), (1 - np.array(LEVELS)) * (q - y))
    assert float(crps.compute()) == pytest.approx(2 * loss.mean(), rel=1e-5)
    inside = (q[..., 0] <= y[..., 0]) & (y[..., 0] <= q[..., 4])
    assert float(coverage.compute()) == pytest.approx(inside.mean(), rel=1e-6)


def test_crps_of_many_levels_approximates_the_closed_form_for_a_normal() -> None:
    levels = (torch.arange(500) + 0.5) / 500
    normal = torch.distributions.Normal(0.0, 1.0)
    y = torch.tensor([0.7])
    metric = CRPS(levels.tolist())
    metric.update(normal.icdf(levels).unsqueeze(0), y)
    closed = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - torch.pi**-0.5  # Gneiting and Raftery, 2007
    assert float(metric.compute()) == pytest.approx(float(closed), abs=2e-3)


def test_central_pairs_by_their_coverage() -> None:
    assert central_pairs(LEVELS) == {0.5: (1, 3), 0.8: (0, 4)}
    assert central_pairs([0.05, 0.5, 0.9]) == {}
    assert central_pairs([]) == {}
