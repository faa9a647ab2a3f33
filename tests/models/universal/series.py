"""Series for the tests of the universal forecaster, and a small model."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from titans_seq.models.universal.forecaster import UniversalForecaster
from titans_seq.schema import AttentionOptions, MemoryOptions, MixerOptions, UniversalModelOptions
from titans_seq.tasks.universal import build_universal_forecaster


def seasonal(length: int, *periods: int, noise: float = 0.3, seed: int = 0) -> NDArray[np.float64]:
    """A sum of sines with random phases, and white noise."""
    rng = np.random.default_rng((seed, length, *periods))
    time = np.arange(length)
    waves = [np.sin(2 * np.pi * (time / period + rng.random())) for period in periods]
    return np.sum(waves, axis=0) + noise * rng.normal(size=length)


def with_gaps(values: NDArray[np.float64], share: float = 0.2, seed: int = 0) -> NDArray[np.float64]:
    """A copy with NaN at a random share of the steps."""
    return np.where(np.random.default_rng(seed).random(values.shape) < share, np.nan, values)


def nasty(length: int) -> dict[str, NDArray[np.float64]]:
    """Series that break arithmetic which is not careful, by name."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=length)
    gaps = np.full(length, np.nan)
    gaps[::7] = noise[::7]
    late = np.where(np.arange(length) < length // 2, np.nan, noise)
    one = np.full(length, np.nan)
    one[length // 3] = 4.2
    return {
        "noise": noise,
        "all missing": np.full(length, np.nan),
        "one value": one,
        "starts late": late,
        "every seventh step": gaps,
        "zeros": np.zeros(length),
        "constant": np.full(length, 0.3),
        "constant, then noise": np.where(np.arange(length) < length // 2, -7.0, noise),
        "one spike": np.where(np.arange(length) == length // 2, 1e12, noise),
        "huge offset": 1e9 + noise,
        "tiny": 1e-12 * noise,
        "huge": 1e12 * noise,
        "many orders of magnitude": 10.0 ** np.linspace(-200, 100, length),
        "line": np.arange(length) * 0.1,
        "two values": np.where(np.arange(length) % 2 > 0, 5.0, 4.0),
        "rounding of a constant": 0.3 + 5e-17 * rng.integers(0, 2, size=length),
    }


def batch(*series: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.stack(series))


def small_model(variant: str = "lmm", *, perturb: float = 0.3) -> UniversalForecaster:
    """A small float64 model with random weights, far enough from the initial ones that every input matters."""
    torch.manual_seed(0)
    options = UniversalModelOptions(
        variant=variant,  # type: ignore[arg-type]
        dim=8,
        num_layers=2,
        hidden=12,
        dropout=0.0,
        segment_length=3,
        memory=MemoryOptions(num_heads=2, chunk_size=4),
        attention=AttentionOptions(num_heads=2, window=3),
        mixer=MixerOptions(num_heads=2),
    )
    model = build_universal_forecaster(options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=perturb * float(parameter.std(correction=0)) + 0.02)
    return model
