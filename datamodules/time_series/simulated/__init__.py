"""Simulated series for pre-training a forecaster: generators of many families, mixed and augmented."""
