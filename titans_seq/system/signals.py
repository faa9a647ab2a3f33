"""Ctrl-C, SIGTERM and SIGUSR1: a training ends after the step it is in, and leaves a checkpoint; all else at once."""

import signal
import sys
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

from titans_seq.errors import Interrupted

# What sends them: a user, a machine that shuts down, a scheduler that takes the machine back (SLURM's --signal).
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals(AbstractContextManager["StopSignals"]):
    """Answers the signals for as long as it is entered.

    While `deferring`, the first signal is only noted, in `received`: whoever trains looks there between two steps.
    Otherwise, and at a second Ctrl-C, `Interrupted` is raised at once. Its exit status is 128 and the signal's number,
    as shells have it: 130, 143, 138. (Left to itself, Lightning swallows SIGTERM wherever it does not train, and turns
    Ctrl-C into status 1.)
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferring = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {each: signal.getsignal(each) for each in _SIGNALS}
        self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if threading.current_thread() is threading.main_thread():
            for each, handler in self._before.items():
                signal.signal(each, handler)

    def install(self) -> None:
        """Put the handlers in place, over those that Lightning has set in the meantime; only a main thread may."""
        if threading.current_thread() is threading.main_thread():
            for each in _SIGNALS:
                signal.signal(each, self._handle)

    def status(self) -> int:
        """The exit status that says which signal it was."""
        return 128 + (self.received or signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number)
        if self.deferring and not (again and number == signal.SIGINT):
            if not again:
                more = "; again to stop at once" if number == signal.SIGINT else ""
                print(f"note: {self.received.name}: stopping after this step{more}", file=sys.stderr)
            return
        raise Interrupted("interrupted", status=self.status())
