"""Linear forecaster of least absolute error (LAD), computed iteratively from the least-squares solution.

Least absolute errors have no closed form. Huber's loss with a small threshold approximates them, and with the second
derivatives of the squared error, which bound its own, every step of Newton's method lowers it (Huber, Robust
Statistics, 1981, section 7.8: errors are clipped, and the update is solved for as in least squares). With momentum, or
with subsampled windows, nearly every step does. The matrices are those of the moments and are factorised once; a step
costs two products with the windows.

The regularisers of the least-squares map stay quadratic: the ridge, and the shrinkage of a channel's map towards the
average channel's least squares. Both are scaled down by the factor by which clipping reduces the errors at the start.
"""

from collections.abc import Iterator, Sequence
from math import gcd

import torch
from torch import Tensor

from titans_seq.models.linear import LinearForecaster, WindowMoments, normal_equations, to_forecaster

CORNER = 0.1  # Huber threshold in z-scores: the loss is linear beyond it and quadratic within
_BATCH = 1024  # maximum number of windows in one matrix product
_BATCH_VALUES = 2**26  # maximum number of values in those windows
_OPERATIONS = 1e11  # maximum per step; larger series are subsampled at a constant window stride
_PHASES = 24  # minimum number of seasonal phases at which subsampled windows start


def descend(
    start: LinearForecaster,
    moments: WindowMoments,
    series: Sequence[Tensor],
    *,
    penalty: float,
    shrinkage: float | None,
    seasonal_period: int = 1,
) -> Iterator[LinearForecaster]:
    """Yield the forecaster after each step, endlessly; with Nesterov's momentum few steps suffice.

    Args:
        start: the result of `solve_linear` for the same moments, penalty and shrinkage.
        moments: of the training windows.
        series: the training rows (T, C) of each series.
        penalty, shrinkage: see `solve_linear`; the ridge is as strong relative to this loss as to the squared one.
        seasonal_period: steps of a cycle of the series; subsampled windows start at many phases of it.
    """
    length, horizon = start.weight.shape[-2:]
    channels = series[0].shape[1]
    every = max(1, round(4 * moments.windows * channels * length * horizon / _OPERATIONS))
    while seasonal_period // gcd(every, seasonal_period) < min(seasonal_period, _PHASES):
        every += 1
    windows = [x.T.float().contiguous().unfold(1, length + horizon, 1)[:, ::every] for x in series]  # (C, n, L + H)
    scale = moments.windows / sum(part.shape[1] for part in windows)
    factors, ridge = normal_equations(moments, penalty, shrinkage)
    maps = torch.cat([start.weight, start.bias.unsqueeze(-2)], dim=-2).detach().reshape(-1, length + 1, horizon)
    _, strength = _gradient(maps, windows)
    lookahead, momentum = maps, 1.0
    while True:
        by_channel, _ = _gradient(lookahead, windows)
        regulariser = ridge.unsqueeze(1) * lookahead.double()
        if shrinkage is not None:
            regulariser += shrinkage * (moments.xx.mean(0) @ lookahead.double() - moments.xy.mean(0))
        total = by_channel.sum(0, keepdim=True) if shrinkage is None else by_channel
        gradient = scale * total.double() - strength * regulariser
        after = lookahead + torch.cholesky_solve(gradient, factors).float()
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        lookahead = after + (momentum - 1) / next_momentum * (after - maps)
        maps, momentum = after, next_momentum
        yield to_forecaster(maps)


def _gradient(maps: Tensor, windows: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Return the negative gradient of Huber's loss by channel, (C, L + 1, H), and the effect of clipping.

    The second result is sum(clipped error x error) / sum(error^2), 1 if all errors are 0.
    """
    length = maps.shape[1] - 1
    gradient = maps.new_zeros(windows[0].shape[0], *maps.shape[1:])
    clipped_sum = square_sum = 0.0
    for part in windows:
        for batch in part.split(_batch(part.shape[0] * part.shape[2]), dim=1):
            deviation = batch - batch[..., length - 1 : length]
            inputs, targets = deviation[..., :length], deviation[..., length:]
            errors = targets - inputs @ maps[:, :-1] - maps[:, -1:]
            clipped = errors.clamp(-CORNER, CORNER)
            gradient[:, :-1] += inputs.mT @ clipped
            gradient[:, -1] += clipped.sum(1)
            clipped_sum += float((clipped * errors).sum())
            square_sum += float(errors.square().sum())
    return gradient, clipped_sum / square_sum if square_sum else 1.0


def _batch(values: int) -> int:
    """Return the number of windows in one matrix product, for windows of `values` values each."""
    return max(1, min(_BATCH, _BATCH_VALUES // values))


@torch.inference_mode()
def absolute_error(model: LinearForecaster, series: Sequence[Tensor]) -> float:
    """Return the map's mean absolute error over all windows of the rows (T, C) of each series."""
    length, horizon = model.weight.shape[-2:]
    total, count = 0.0, 0
    for x in series:
        for batch in x.float().unfold(0, length + horizon, 1).split(_batch(x.shape[1] * (length + horizon))):
            # (n, C, L + H)
            errors = model(batch[..., :length].transpose(1, 2)).transpose(1, 2) - batch[..., length:]
            total += float(errors.abs().sum())
            count += errors.numel()
    return total / count
