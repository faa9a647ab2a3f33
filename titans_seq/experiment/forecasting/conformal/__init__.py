"""Conformal intervals: margins in units of the model's own spread, by series; their coverage; adaptation in time."""
