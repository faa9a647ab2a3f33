"""Exceptions that the command line reports in one line: invalid input and interruption."""


class InputError(ValueError):
    """Invalid input: the message is one line that states where, what was found and how to fix it.

    The command line prints it without a traceback and exits with status 2.
    """


class Interrupted(BaseException):  # like KeyboardInterrupt, so that `except Exception` does not catch it
    """Request to stop the process; the message states where its work stopped.

    The command line prints it and exits with `status`: 130 after Ctrl-C, 143 after SIGTERM, 138
    after SIGUSR1.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
