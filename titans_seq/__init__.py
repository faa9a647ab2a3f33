"""Titans, the neural memory that learns at test time, for time series and DNA (arXiv 2501.00663)."""

__version__ = "0.2.0"
