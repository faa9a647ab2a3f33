"""Dominant seasonal periods of a series, from the peaks of its autocorrelation.

Shapes: B series, L steps, K lags.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_CLIP = 4.0  # standard deviations: outliers beyond it would hide the periods of all other values
_CLIPPINGS = 3  # outliers raise the standard deviation, so that clipping once leaves too much of them
_ROUNDING = 1e-6  # what is left of a line, relative to its size, is float32 rounding, which may be periodic
_MIN_RISE = 0.1  # of a peak over the lowest point before it
# The shortest lag whose rise is at least this share of the largest is the first period: multiples of a period have
# peaks of nearly the same height.
_NEARLY_BEST = 0.85
_BEST, _BETTER = 0.97, 1.05  # the same of a longer period that is better than the first, and how much better it must be
_WIDTH = 1.25  # of a peak: noise has small peaks on its slope, up to this factor before its top
_SAME_PHASE = 0.06  # lags closer than this share of the first period to one of its multiples are not a second period


def dominant_periods(values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return up to two seasonal periods of each series, at most a third of its length, and their strengths.

    A period is a lag at which the autocorrelation, after a linear trend is removed, has a peak. Its strength is the
    peak's rise over the lowest autocorrelation at shorter lags, from 0 to 2. Few series of independent values have a
    period, and few random walks.

    The length counts from the first observed step: more unobserved steps before it change nothing.

    Args:
        values: (B, L), of any finite value where missing.
        observed: (B, L) bool, False at missing values.

    Returns:
        Periods (B, 2) in steps, int64, 0 where there is none, and strengths (B, 2). The first period is the shortest
        lag with nearly the highest peak. The second is a longer one with a higher peak, or else the shortest lag with
        nearly the highest peak of those that are no multiples of the first.
    """
    rise = _peak_rises(values, observed)
    first, first_rise = _first_of_highest(rise, _NEARLY_BEST)
    longer, longer_rise = _first_of_highest(rise, _BEST)
    remainder = torch.arange(rise.shape[1], device=rise.device) % first.clamp_min(1).unsqueeze(1)
    distance = torch.minimum(remainder, first.unsqueeze(1) - remainder)
    same_phase = distance <= (_SAME_PHASE * first).long().clamp_min(1).unsqueeze(1)
    elsewhere, elsewhere_rise = _first_of_highest(rise.masked_fill(same_phase, 0.0), _NEARLY_BEST)
    is_better = longer_rise > _BETTER * first_rise  # such as a week whose days are alike
    second = torch.where(is_better, longer, elsewhere)
    second_rise = torch.where(is_better, longer_rise, elsewhere_rise)
    return torch.stack([first, second], dim=1), torch.stack([first_rise, second_rise], dim=1)


def _first_of_highest(rise: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the shortest lag (B,) whose peak has at least this share of the highest rise, and its rise; 0 if none."""
    lags = torch.arange(rise.shape[1], device=rise.device)
    highest = rise.amax(dim=1, keepdim=True)
    first = (rise >= share * highest).to(torch.int8).argmax(dim=1, keepdim=True)
    top = rise.masked_fill((lags < first) | (lags > _WIDTH * first), 0.0).argmax(dim=1)
    height = _at(rise, top)
    found = height > _MIN_RISE
    return top * found, height * found


def _at(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(1)).squeeze(1)


def _peak_rises(values: Tensor, observed: Tensor) -> Tensor:
    """Rise of the autocorrelation's peak at every lag up to a third of the length, (B, K); 0 where there is no peak."""
    values, mask = values.double(), observed.double()  # no ties that rounding decides
    count = mask.sum(dim=1, keepdim=True).clamp_min(1)
    time = torch.arange(values.shape[1], dtype=values.dtype, device=values.device)
    time = (time - (time * mask).sum(dim=1, keepdim=True) / count) * mask
    centred = (values - (values * mask).sum(dim=1, keepdim=True) / count) * mask
    slope = (time * centred).sum(dim=1, keepdim=True) / time.square().sum(dim=1, keepdim=True).clamp_min(1e-9)
    rest = centred - slope * time
    size, deviation = ((x.square().sum(dim=1, keepdim=True) / count).sqrt() for x in (centred, rest))
    rest = torch.where(deviation > _ROUNDING * size, rest / deviation, 0.0)
    for _ in range(_CLIPPINGS):
        limit = _CLIP * (rest.square().sum(dim=1, keepdim=True) / count).sqrt()
        rest = torch.clamp(rest, -limit, limit)
    lags = values.shape[1] // 3 + 2
    pairs = _pairs(observed, lags)
    correlation = _lagged_products(rest, lags) / pairs
    correlation = correlation / correlation[:, :1].clamp_min(1e-9)
    inner = correlation[:, 1:-1]
    length = values.shape[1] - observed.to(torch.int8).argmax(dim=1, keepdim=True)
    lag = torch.arange(1, lags - 1, device=values.device)
    # Of noise, the largest of as many correlations is about this high.
    threshold = (2 * torch.log(length / 3 + 1) / pairs[:, 1:-1]).sqrt()
    peak = (inner >= correlation[:, :-2]) & (inner >= correlation[:, 2:]) & (inner > threshold)
    peak &= (lag > 1) & (lag <= length // 3)
    rise = correlation - correlation.cummin(dim=1).values
    return F.pad(torch.where(peak, rise[:, 1:-1], 0.0), (1, 1)).float()


def _pairs(observed: Tensor, lags: int) -> Tensor:
    """Return the number of pairs of observed steps at every lag, (B, K) or (1, K), at least 1."""
    length = observed.shape[1] - observed.to(torch.int8).argmax(dim=1, keepdim=True)
    if torch.equal(observed.sum(dim=1, keepdim=True), length):  # no gaps
        return (length - torch.arange(lags, device=observed.device)).clamp_min(1).double()
    return _lagged_products(observed.double(), lags).round().clamp_min(1)


def _lagged_products(x: Tensor, lags: int) -> Tensor:
    """Return the sums of x[t] x[t + k] over t for the lags k below `lags`, (B, K)."""
    size = _fast_size(x.shape[1] + lags)  # no wrapping round at the lags that are kept
    spectrum = torch.fft.rfft(x, size)
    products: Tensor = torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), size)
    return products[:, :lags]


def _fast_size(least: int) -> int:
    """Return the smallest 2^n or 3 * 2^n that is at least `least`: sizes whose Fourier transforms are fast."""
    power = 1 << (least - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= least else power
