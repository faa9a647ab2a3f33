"""Output on the console and in notebooks: whether it can be redrawn, and suppression of library messages."""

import logging
import os
import sys
import warnings


def can_redraw() -> bool:
    """Whether the output is a terminal or a notebook, where a progress bar can be redrawn, and not a file or pipe."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


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
