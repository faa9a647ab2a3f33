"""What the console and notebooks are spared."""

import logging
import os
import warnings


def quiet() -> None:
    """Keep the console for what the user asked: Lightning's hints about hardware, workers and products are not.

    To be called before torch is first imported, for then idle threads sleep too.
    """
    # Idle OpenMP threads that spin slow down everybody on a shared machine; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightning.pytorch  # noqa: F401, PLC0415 - sets its own log level when first imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
