"""The run engine: trains, tests and writes one run of any task. It depends on `experiment.base` and on no task."""
