"""What watches a training: exact checkpoints, the guard against NaN, and what is logged."""

from titans_seq.callbacks.checkpoints import Schedule, TrainingCheckpoints, VerifiedCheckpointIO
from titans_seq.callbacks.nan_guard import NaNGuard
from titans_seq.callbacks.step_log import MACHINE, MemoryLog, StepLog, ValidateLastStep

__all__ = [
    "MACHINE",
    "MemoryLog",
    "NaNGuard",
    "Schedule",
    "StepLog",
    "TrainingCheckpoints",
    "ValidateLastStep",
    "VerifiedCheckpointIO",
]
