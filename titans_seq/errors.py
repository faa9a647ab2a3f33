"""The one exception for what the user can mend."""


class InputError(ValueError):
    """The input is at fault: the message is one line that says where, what was found and what mends it.

    The command line prints it without a traceback and exits with status 2.
    """
