"""The one exception for what the user can mend."""


class InputError(ValueError):
    """The input is at fault: the message is one line that says where, what was found and what mends it.

    The command line prints it without a traceback and exits with status 2.
    """


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Training was asked to stop; the message says what is left of it.

    The command line prints it and exits with `status`: 130 after Ctrl-C, 143 after SIGTERM, 138
    after SIGUSR1.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
