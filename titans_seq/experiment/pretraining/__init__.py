"""The DNA pre-training task: experiment and baselines."""
