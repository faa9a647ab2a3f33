"""The task of the universal forecaster: pairs, loss and metrics against slow loops."""

from math import asinh

import numpy as np
import pytest
import torch

from datamodules.time_series.simulated.mixture import FAMILIES, MIXTURE
from tests.models.universal.series import batch, nasty, seasonal, with_gaps
from titans_seq.batch import SeriesBatch
from titans_seq.config import load_config, to_container
from titans_seq.models.universal.context import Context
from titans_seq.models.universal.forecaster import LEVELS, Quantiles
from titans_seq.schema import PATCH
from titans_seq.tasks.universal import Pairs, UniversalTask, compress, forecast_pairs

SMALL = ["task.name=universal", "model.dim=8", "model.num_layers=1", "model.hidden=12", "model.memory.num_heads=2"]
SMALL += ["model.dropout=0", "trainer.epoch_batches=2"]
TOKENS = 9
LENGTH = TOKENS * PATCH


def make(*overrides: str) -> UniversalTask:
    torch.manual_seed(0)
    task = UniversalTask(to_container(load_config([], [*SMALL, *overrides])))
    task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    return task


def some_batch() -> SeriesBatch:
    late = np.where(np.arange(LENGTH) < 24, np.nan, seasonal(LENGTH, 7))  # 8 steps of two patches
    values = batch(seasonal(LENGTH, 24), with_gaps(seasonal(LENGTH, 12), 0.4), late, np.full(LENGTH, np.nan))
    return SeriesBatch(values.float(), torch.tensor([24, 0, 7, 0]))


def pairs_of(context: Context, random_leads: int = 2, max_lead: int = 45, seed: int | None = 0) -> Pairs:
    return forecast_pairs(context, random_leads, max_lead, seed)


def test_every_token_but_the_last_is_trained_on_the_next_patch_and_random_leads() -> None:
    data = some_batch()
    pairs = pairs_of(Context(data.values.double(), data.period), random_leads=3)
    assert torch.equal(pairs.token, torch.arange(TOKENS - 1).repeat(4).expand(4, -1))
    assert (pairs.lead[:, : TOKENS - 1] == 0).all()
    assert (pairs.lead >= 0).all()
    assert (pairs.token + 1 + pairs.lead < TOKENS).all(), "a target beyond the series"


def test_targets_are_the_observed_values_after_enough_others() -> None:
    data = some_batch()
    context = Context(data.values.double(), data.period)
    pairs = pairs_of(context)
    values = data.values.numpy()
    number = 0
    for row in range(len(values)):
        for pair in range(pairs.token.shape[1]):
            end = (int(pairs.token[row, pair]) + 1) * PATCH
            seen = int(np.isfinite(values[row, :end]).sum())
            for step in range(PATCH):
                target = values[row, end + int(pairs.lead[row, pair]) * PATCH + step]
                scored = bool(np.isfinite(target)) and seen >= 8
                assert bool(pairs.scored[row, pair, step]) == scored
                number += scored
                if scored:
                    restored = context.restore(pairs.target)[row, pair, step]
                    assert float(restored) == pytest.approx(float(target), rel=1e-5, abs=1e-6)
    assert 0 < number < pairs.scored.numel()


def test_random_leads_are_log_uniform() -> None:
    context = Context(torch.zeros(400, 64 * PATCH, dtype=torch.float64), torch.zeros(400, dtype=torch.int64))
    pairs = pairs_of(context, random_leads=8, max_lead=40)
    first = pairs.lead[:, 63:][pairs.token[:, 63:] == 0]
    assert int(first.max()) == 39
    counts = torch.bincount(first, minlength=40).double() / len(first)
    expected = np.log((np.arange(40) + 2) / (np.arange(40) + 1)) / np.log(41)
    np.testing.assert_allclose(counts, expected, atol=0.03)
    last = pairs.lead[:, 63:][pairs.token[:, 63:] == 60]
    assert torch.bincount(last, minlength=3).min() > 0
    assert int(last.max()) == 2


def test_leads_follow_their_seed_or_the_global_generator() -> None:
    data = some_batch()
    context = Context(data.values.double(), data.period)
    assert torch.equal(pairs_of(context, seed=3).lead, pairs_of(context, seed=3).lead)
    assert not torch.equal(pairs_of(context, seed=3).lead, pairs_of(context, seed=4).lead)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append([pairs_of(context, seed=None).lead for _ in range(2)])
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_the_longest_lead_is_limited() -> None:
    data = some_batch()
    context = Context(data.values.double(), data.period)
    assert (pairs_of(context, random_leads=9, max_lead=1).lead == 0).all()
    assert int(pairs_of(context, random_leads=9, max_lead=3).lead.max()) == 2
    assert pairs_of(context, random_leads=0).lead.shape == (4, TOKENS - 1)


def slow_scores(pairs: Pairs, forecast: Quantiles) -> tuple[float, float, float]:
    """Loss, absolute error and coverage over all scored steps, by a loop."""
    losses, errors, inside = [], [], []
    for row, pair, step in torch.nonzero(pairs.scored).tolist():
        centre, scale = float(forecast.centre[row, pair]), float(forecast.scale[row, pair])
        target = (float(pairs.target[row, pair, step]) - centre) / scale
        quantiles = forecast.quantiles[row, pair, step].tolist()
        y = 4 * asinh(target / 4)
        loss = 0.0
        for level, quantile in zip(LEVELS, quantiles, strict=True):
            error = y - 4 * asinh(quantile / 4)
            loss += max(level * error, (level - 1) * error)
        losses.append(2 * loss / len(LEVELS))
        errors.append(abs(y - 4 * asinh(quantiles[4] / 4)))
        inside.append(quantiles[0] <= target <= quantiles[8])
    return float(np.mean(losses)), float(np.mean(errors)), float(np.mean(inside))


def test_loss_and_metrics_equal_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = make().eval(), some_batch()
    other = SeriesBatch(data.values[:2].flip(0) * 3 - 1, data.period[:2])
    with torch.no_grad():
        scores = [slow_scores(*task(data, 0)), slow_scores(*task(other, 1))]
        counts = [int(task(data, 0)[0].scored.sum()), int(task(other, 1)[0].scored.sum())]
        torch.manual_seed(7)
        loss = task.training_step(data, 0)
        torch.manual_seed(7)
        assert float(loss) == pytest.approx(slow_scores(*task(data))[0], rel=1e-5)
    logged: dict[str, float] = {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: float(value)}))
    for split in ("val", "test"):
        with torch.no_grad():
            getattr(task, f"{'validation' if split == 'val' else split}_step")(data, 0)
            getattr(task, f"{'validation' if split == 'val' else split}_step")(other, 1)
        getattr(task, f"on_{'validation' if split == 'val' else split}_epoch_end")()
        mean = np.average(np.array(scores), axis=0, weights=counts)
        for name, expected in zip(("loss", "mae", "coverage"), mean, strict=True):
            assert logged[f"{split}/{name}"] == pytest.approx(expected, rel=1e-4), (split, name)


def test_compress_is_monotone_linear_in_the_middle_and_logarithmic_outside() -> None:
    x = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    y = compress(x)
    assert (y.diff() > 0).all()
    torch.testing.assert_close(compress(-x), -y)
    small = x[x.abs() < 0.5]
    torch.testing.assert_close(compress(small), small, rtol=0.01, atol=0)
    ratio = compress(torch.tensor([2e3, 2e6], dtype=torch.float64)).diff()
    assert float(ratio) == pytest.approx(4 * np.log(1000), rel=1e-4)
    extreme = torch.tensor([-3e38, 3e38, 0.0], requires_grad=True)
    compress(extreme).sum().backward()
    assert compress(extreme).isfinite().all()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_every_family_is_finite(family: str) -> None:
    values, period = MIXTURE[family][1](np.random.default_rng(0), 6, 6 * PATCH)
    task = make()
    loss = task.training_step(SeriesBatch(torch.from_numpy(values).float(), torch.from_numpy(period)), 0)
    loss.backward()
    assert 0 < float(loss.detach()) < 10
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters())


def test_the_loss_of_nasty_series_is_finite() -> None:
    series = nasty(LENGTH)
    task = make()
    for name, values in {"together": batch(*series.values()), **{name: batch(x) for name, x in series.items()}}.items():
        loss = task.training_step(SeriesBatch(values, torch.zeros(len(values), dtype=torch.int64)), 0)
        loss.backward()
        assert loss.isfinite(), name
        assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters()), name
        assert (float(loss.detach()) == 0) == (name in ("all missing", "one value")), name


def test_a_split_without_anything_to_score_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make()
    empty = SeriesBatch(torch.full((2, LENGTH), torch.nan), torch.zeros(2, dtype=torch.int64))
    task.validation_step(empty, 0)
    task.validation_step(some_batch(), 1)
    logged: dict[str, float] = {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: float(value)}))
    task.on_validation_epoch_end()
    assert np.isfinite(list(logged.values())).all()


def test_series_at_any_level_and_scale_have_the_same_loss() -> None:
    task, data = make().eval(), some_batch()
    values = data.values.double()[:3]
    losses = []
    for scale, level in ((1.0, 0.0), (2.0**30, 0.0), (1e-9, 0.0), (3.0, 100.0)):
        with torch.no_grad():
            torch.manual_seed(0)
            losses.append(float(task.training_step(SeriesBatch(scale * values + level, data.period[:3]), 0)))
    assert losses[1] == losses[0]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
