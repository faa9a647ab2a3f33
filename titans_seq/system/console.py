"""Suppression of library messages on the console and in notebooks."""

import logging
import os
import warnings


def quiet() -> None:
    """Suppress Lightning's hints about hardware, workers and products.

    Call it before torch is first imported: then idle OpenMP threads sleep, too.
    """
    # Spinning idle OpenMP threads slow down other processes; the variable is read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightning.pytorch  # noqa: F401, PLC0415 - sets its own log level when first imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
