"""Unlabelled DNA: a corpus read as streams of segments, and the data module."""
