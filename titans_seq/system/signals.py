"""Handling of stop signals (Ctrl-C, SIGTERM, SIGUSR1): training stops after its step, all else at once."""

import signal
import sys
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

from titans_seq.errors import Interrupted
from titans_seq.system.platform_features import stop_signals


class StopSignals(AbstractContextManager["StopSignals"]):
    """Context manager that handles stop signals.

    While `deferring`, the first signal is only stored in `received`, which the training loop checks between two steps.
    Otherwise, and at a second Ctrl-C, `Interrupted` is raised at once. Its exit status is 128 plus the signal's number,
    as in shells: 130, 143, 138. (Lightning alone ignores SIGTERM when it is not training, and turns Ctrl-C into exit
    status 1.)
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferring = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {each: signal.getsignal(each) for each in stop_signals()}
        self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if threading.current_thread() is threading.main_thread():
            for each, handler in self._before.items():
                signal.signal(each, handler)

    def install(self) -> None:
        """Install the handlers, replacing those that Lightning has set since; does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            for each in stop_signals():
                signal.signal(each, self._handle)

    def status(self) -> int:
        """Return the exit status of the received signal, 128 plus its number."""
        return 128 + (self.received or signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number)
        if self.deferring and not (again and number == signal.SIGINT):
            if not again:
                more = "; press Ctrl-C again to stop immediately" if number == signal.SIGINT else ""
                print(f"note: {self.received.name}: stopping after this step{more}", file=sys.stderr)
            return
        raise Interrupted("interrupted", status=self.status())
