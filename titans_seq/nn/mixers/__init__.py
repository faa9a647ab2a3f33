"""Sequence mixers of other papers, the memory's baselines: (B, T, dim) and a state to (B, T, dim) and a state."""
