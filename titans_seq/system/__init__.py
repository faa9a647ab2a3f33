"""Files, checkpoints, signals, console and environment of the machine."""
