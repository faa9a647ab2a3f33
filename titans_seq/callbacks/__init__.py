"""Trainer callbacks: exact checkpoints, detection of NaN losses, and logging."""

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
