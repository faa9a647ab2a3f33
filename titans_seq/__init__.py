"""Titans, the neural memory that learns at test time, for time series and DNA (arXiv 2501.00663)."""

from typing import Any

__version__ = "0.2.0"


def load_forecaster(*args: Any, **options: Any) -> Any:
    """Load the pre-trained forecaster; see `titans_seq.experiment.load_forecaster`."""
    from titans_seq.experiment import load_forecaster as load  # noqa: PLC0415 - torch is loaded only where it is used

    return load(*args, **options)
