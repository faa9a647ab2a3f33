"""The run engine: trains, tests and writes one run of any task. It knows `experiment.base` and no task."""
