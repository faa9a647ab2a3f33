"""Whole models, from a batch's tensors to predictions: plain torch modules that a task trains."""
