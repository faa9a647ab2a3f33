"""What the command line answers in one line: what the user can mend, and being asked to stop."""


class InputError(ValueError):
    """The input is at fault: the message is one line that says where, what was found and what mends it.

    The command line prints it without a traceback and exits with status 2.
    """


class Interrupted(BaseException):  # as KeyboardInterrupt: nothing went wrong, and no `except Exception` may keep it
    """The process was asked to stop; the message says what is left of its work.

    The command line prints it and exits with `status`: 130 after Ctrl-C, 143 after SIGTERM, 138
    after SIGUSR1.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
