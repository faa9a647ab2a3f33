"""The DNA classification task: experiment, baselines, transfer, variant effects, audit."""
