"""Labelled DNA sequences: splits, bucketing by length, the data module."""
