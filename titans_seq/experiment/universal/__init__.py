"""The universal forecaster's experiment: training on simulated series."""
