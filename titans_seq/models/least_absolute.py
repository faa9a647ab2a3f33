"""The linear forecast of least absolute error, approached from the least-squares one.

Least absolute errors have no closed form. Huber's loss with a small corner is near them, and with the second
derivatives of the squared error, which bound its own, every step of Newton's method lowers it (Huber, Robust
Statistics, 1981, section 7.8: errors are clipped, and the change is solved for as in least squares). With momentum, and
where windows are left out, nearly every step. The matrices are those of the moments and are factorised once; a step
costs two products with the windows.

What regularises the least-squares map stays quadratic: the ridge, and the shrinkage of a channel's map towards the
average channel's least squares. Both are weakened as much as clipping weakens the errors at the start.
"""

from collections.abc import Iterator, Sequence
from math import gcd

import torch
from torch import Tensor

from titans_seq.models.linear import LinearForecaster, WindowMoments, normal_equations, to_forecaster

CORNER = 0.1  # of z-scores: errors beyond it count by their size, within it by their square
_BATCH = 1024  # windows that are multiplied at once, at most
_BATCH_VALUES = 2**26  # values in them, at most
_OPERATIONS = 1e11  # of a step, at most: windows are left out evenly
_PHASES = 24  # of a season, which leaving out windows must not hide


def descend(
    start: LinearForecaster,
    moments: WindowMoments,
    series: Sequence[Tensor],
    *,
    penalty: float,
    shrinkage: float | None,
    season: int = 1,
) -> Iterator[LinearForecaster]:
    """The maps after each step, without end; Nesterov's momentum makes few of them enough.

    Args:
        start: what `solve_linear` gave for the same moments, penalty and shrinkage.
        moments: of the training windows.
        series: the training rows (T, C) of each series.
        penalty, shrinkage: see `solve_linear`; the ridge is as strong against this loss as it is against squares.
        season: steps of a cycle of the series; the windows that are kept begin at many places in it.
    """
    length, horizon = start.weight.shape[-2:]
    channels = series[0].shape[1]
    every = max(1, round(4 * moments.windows * channels * length * horizon / _OPERATIONS))
    while season // gcd(every, season) < min(season, _PHASES):
        every += 1
    windows = [x.T.float().contiguous().unfold(1, length + horizon, 1)[:, ::every] for x in series]  # (C, n, L + H)
    scale = moments.windows / sum(part.shape[1] for part in windows)
    factors, ridge = normal_equations(moments, penalty, shrinkage)
    maps = torch.cat([start.weight, start.bias.unsqueeze(-2)], dim=-2).detach().reshape(-1, length + 1, horizon)
    _, strength = _gradient(maps, windows)
    ahead, pace = maps, 1.0
    while True:
        own, _ = _gradient(ahead, windows)
        held = ridge.unsqueeze(1) * ahead.double()
        if shrinkage is not None:
            held += shrinkage * (moments.xx.mean(0) @ ahead.double() - moments.xy.mean(0))
        gradient = scale * (own.sum(0, keepdim=True) if shrinkage is None else own).double() - strength * held
        after = ahead + torch.cholesky_solve(gradient, factors).float()
        next_pace = (1 + (1 + 4 * pace**2) ** 0.5) / 2
        ahead = after + (pace - 1) / next_pace * (after - maps)
        maps, pace = after, next_pace
        yield to_forecaster(maps)


def _gradient(maps: Tensor, windows: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Downhill of Huber's loss by channel, (C, L + 1, H), and how much of the squared error is left of it."""
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
    """Windows of so many values that are multiplied at once."""
    return max(1, min(_BATCH, _BATCH_VALUES // values))


@torch.inference_mode()
def absolute_error(model: LinearForecaster, series: Sequence[Tensor]) -> float:
    """The map's mean absolute error over all windows of the rows (T, C) of each series."""
    length, horizon = model.weight.shape[-2:]
    total, count = 0.0, 0
    for x in series:
        for batch in x.float().unfold(0, length + horizon, 1).split(_batch(x.shape[1] * (length + horizon))):
            # (n, C, L + H)
            errors = model(batch[..., :length].transpose(1, 2)).transpose(1, 2) - batch[..., length:]
            total += float(errors.abs().sum())
            count += errors.numel()
    return total / count
