"""Forecasts per second on one CPU core, compared with the architecture of Chronos-Bolt-tiny.

The peer has random weights, since only its speed is measured; its configuration is that of the published checkpoint
(8.65 million parameters). Both sides forecast the same series in one process with one thread, in alternating rounds,
each with the batch size at which it was fastest before. The horizon is the peer's native 64 steps.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forecaster import LEVELS, Forecaster

HORIZON, CONTEXTS, BATCHES = 64, (512, 2048), (1, 8, 32, 128)
SERIES = 256
PERIOD = 24
Side = Callable[[NDArray[np.float32]], object]  # forecasts a batch (B, context)


def bolt_tiny() -> tuple[Side, int]:
    """Return the peer and its number of parameters."""
    import torch
    from chronos.chronos_bolt import ChronosBoltModelForForecasting, ChronosBoltPipeline
    from transformers.models.t5.configuration_t5 import T5Config

    config = T5Config(
        d_model=256, d_kv=64, d_ff=1024, num_layers=4, num_decoder_layers=4, num_heads=4, vocab_size=2,
        dropout_rate=0.1, feed_forward_proj="relu", initializer_factor=0.05, decoder_start_token_id=0,
    )  # fmt: skip
    config.reg_token_id = 1
    config.chronos_config = {
        "context_length": 2048, "prediction_length": HORIZON, "input_patch_size": 16, "input_patch_stride": 16,
        "quantiles": list(LEVELS), "use_reg_token": True,
    }  # fmt: skip
    model = ChronosBoltModelForForecasting(config).eval()
    pipeline = ChronosBoltPipeline(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return lambda batch: pipeline.predict(torch.from_numpy(batch), prediction_length=HORIZON), parameters


def compare(forecaster: Forecaster, rounds: int = 5) -> dict[str, Any]:
    """Return the series per second of both sides, per context length."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    peer, parameters = bolt_tiny()
    sides: dict[str, Side] = {
        "ours": lambda batch: forecaster.predict_arrays(list(batch), HORIZON, [PERIOD] * len(batch)),
        "Chronos-Bolt-tiny": peer,
    }
    figures: dict[str, Any] = {"horizon": HORIZON, "series": SERIES, "peer_parameters": parameters}
    for context in CONTEXTS:
        series = _series(context)
        batch = {name: max(BATCHES, key=lambda size: _rate(side, series, size)) for name, side in sides.items()}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                rates[name].append(_rate(side, series, batch[name]))
        ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
        figures[str(context)] = {
            name: {"batch": batch[name], "series_a_second": statistics.median(rates[name])} for name in sides
        }
        figures[str(context)] |= {"times_as_fast": statistics.median(ratios), "times_as_fast_by_round": ratios}
    return figures


def _series(context: int) -> NDArray[np.float32]:
    """Return daily cycles with noise (SERIES, context)."""
    noise = np.random.default_rng(0).normal(size=(SERIES, context))
    return (np.sin(2 * np.pi * np.arange(context) / PERIOD) + 0.3 * noise).astype(np.float32)


def _rate(side: Side, series: NDArray[np.float32], size: int) -> float:
    """Return series per second of CPU time, which other programs on the machine hardly change."""
    side(series[:size])
    started = time.process_time()
    for first in range(0, len(series), size):
        side(series[first : first + size])
    return len(series) / (time.process_time() - started)
